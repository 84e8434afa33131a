"""JSON documents as a source: `reader.record` says which values of a document are records. Source: RFC 8259."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import ijson
import pyarrow as pa

from data_contracts.contract import Contract
from data_contracts.errors import ContractError, DataRefused
from data_contracts.sources import decoding, opening
from data_contracts.sources.decoding import Encoding
from data_contracts.sources.files import FileLayout
from data_contracts.sources.members import Members, fields_of, loads
from data_contracts.sources.paths import ALL, Node, Step, record_path, records
from data_contracts.sources.records import RawRecord, SourceFile, SourcePartition

# A document up to this size is parsed at once; a larger one is streamed to the records, where its paths allow.
_WHOLE_BYTES = 64 << 20
_SPACE = re.compile(r"[ \t\r\n]*")


class JsonFiles:
    """Files (default `**/*.json`); without `reader.record` a list gives its entries, anything else is one record.

    Columns are found by physical name or alias, or by the paths of `reader.fields` (see `paths`).
    """

    def __init__(self, contract: Contract, location: str) -> None:
        self.contract = contract
        self.layout = FileLayout.of(contract, location, "**/*.json", packed=True)
        stated = contract.reader.get("record")
        try:
            self.steps = record_path(str(stated)) if stated is not None else None
        except ValueError as error:
            raise ContractError(f"{contract.path}: reader.record: {error}") from error
        self.fields = fields_of(contract)

    def partitions(self) -> list[SourcePartition]:
        """Return the partitions, sorted by value."""
        return self.layout.partitions()

    def read(self, partition: SourcePartition) -> Iterator[pa.RecordBatch]:
        """Yield the records, numbered from 1 in each file.

        A document that is no JSON gives the records before the damage where it is one list or mapping of records; the
        rest of it is one record with that fault and its bytes.

        Raises:
            DataRefused: a file cannot be read, or is larger than 64 MiB and its records cannot be streamed.
        """
        return self.layout.batches(
            record for file in partition.files for record in self._records(file, partition.value)
        )

    def _records(self, file: SourceFile, partition: str) -> Iterator[RawRecord]:
        constants = self.layout.columns(file.name, partition)
        members = Members(self.contract, file.name)
        number = 0
        for found in self._found(file):
            number += 1
            if isinstance(found, Node):
                yield _record(members, file.name, number, found, constants)
            else:
                fault, raw = found
                yield RawRecord(file.name, number, constants, fault, raw)
        members.finish(number)

    def _found(self, file: SourceFile) -> Iterator[Node | tuple[str, bytes]]:
        """Yield the records of a file, and (fault, bytes) for what of it is no JSON."""
        encoding = self.layout.encoding(file)
        file.check_unchanged()
        with opening.opened(file, self.layout.limit) as stream:
            data = stream.read(_WHOLE_BYTES + 1)
        if len(data) > _WHOLE_BYTES:
            yield from self._streamed(file, encoding)
        else:
            yield from self._parsed(data, encoding)
        file.check_unchanged()

    def _parsed(self, data: bytes, encoding: Encoding) -> Iterator[Node | tuple[str, bytes]]:
        blocks = b"".join(decoding.utf8_blocks(io.BytesIO(data), encoding))
        try:
            text = decoding.decoded(blocks, encoding)
        except ValueError as error:
            yield str(error), data
            return
        try:
            document = loads(text)
        except ValueError as error:
            yield from self._before(text, encoding, str(error))
            return
        yield from records(document, self._steps(document))

    def _steps(self, document: Any) -> tuple[Step, ...]:
        if self.steps is not None:
            return self.steps
        return (ALL,) if isinstance(document, list) else ()

    def _before(self, text: str, encoding: Encoding, fault: str) -> Iterator[Node | tuple[str, bytes]]:
        """Yield the entries of a broken list or mapping that stand before the damage, then the rest of its bytes."""
        at = _space(text, 0)
        kind = text[at : at + 1]
        if self.steps not in ((ALL,), None) or kind not in ("[", "{") or (self.steps is None and kind == "{"):
            yield f"not JSON: {fault}", decoding.original(text.encode(), encoding)
            return
        root = Node([] if kind == "[" else {})
        decoder, index = json.JSONDecoder(parse_constant=_refuse), 0
        at += 1
        while True:
            try:
                start = at = _space(text, at)
                key: str | int = index
                if kind == "{":
                    key, at = decoder.raw_decode(text, at)
                    at = _space(text, at)
                    if not isinstance(key, str) or text[at : at + 1] != ":":
                        break
                    at = _space(text, at + 1)
                value, at = decoder.raw_decode(text, at)
                at = _space(text, at)
            except (ValueError, RecursionError):
                break
            if text[at : at + 1] != ",":
                # Whole or not, nothing that should follow does: this entry is part of the damage.
                break
            yield Node(value, root, key)
            at, index = at + 1, index + 1
        yield f"not JSON from here on: {fault}", decoding.original(text[start:].encode(), encoding)

    def _streamed(self, file: SourceFile, encoding: Encoding) -> Iterator[Node | tuple[str, bytes]]:
        steps = self.steps if self.steps is not None else (ALL,)
        upward = any(path.levels is None or path.levels >= _depth(steps) for path in self.fields.values())
        if ALL not in steps or upward or not all(isinstance(step, str) for step in steps[: steps.index(ALL)]):
            raise DataRefused(
                f"{file.name}: more than {_WHOLE_BYTES >> 20} MiB in one document, whose records need all of it; split"
                " it, or write it as JSON Lines"
            )
        first = steps.index(ALL)
        prefix = ".".join(str(step) for step in steps[:first])
        with opening.opened(file, self.layout.limit) as stream:
            text = _Blocks(decoding.utf8_blocks(stream, encoding))
            start = text.peek()
            root = Node([])
            try:
                if not prefix and start == b"{":
                    for key, value in ijson.kvitems(text, "", use_float=True):
                        yield from records(value, steps[first + 1 :], root, key)
                else:
                    listed = ijson.items(text, f"{prefix}.item" if prefix else "item", use_float=True)
                    for index, value in enumerate(listed):
                        yield from records(value, steps[first + 1 :], root, index)
            except (ijson.JSONError, ValueError, RecursionError) as error:
                yield f"not JSON from here on: {error}", text.last


def _depth(steps: tuple[Step, ...]) -> int:
    return sum(step is ALL for step in steps)


class _Blocks:
    """Blocks of bytes as the file that ijson reads; `last` is the block under way."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self._blocks, self._rest, self.last = blocks, b"", b""

    def peek(self) -> bytes:
        self._rest = self._rest or next(self._blocks, b"")
        return self._rest.lstrip()[:1]

    def read(self, size: int = -1) -> bytes:
        if size == 0:
            return b""
        block = self._rest or next(self._blocks, b"")
        size = len(block) if size < 0 else size
        block, self._rest = block[:size], block[size:]
        self.last = block or self.last
        return block


def _record(members: Members, file: str, number: int, node: Node, constants: Mapping[str, Any]) -> RawRecord:
    if not isinstance(node.value, dict) and not members.fields:
        raw = json.dumps(node.value, ensure_ascii=False, default=str).encode("utf-8", "backslashreplace")
        return RawRecord(file, number, constants, f"not a JSON object but {type(node.value).__name__}", raw)
    return RawRecord(file, number, {**constants, **members.values(node)})


def _space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return match.end() if match else at


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")
