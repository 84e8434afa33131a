"""Text files as a source: a file, a line, a paragraph, or what a pattern separates is one record."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from pathlib import PurePosixPath
from typing import Any

import pyarrow as pa

from data_contracts.contract import Contract
from data_contracts.errors import ContractError, DataRefused
from data_contracts.sources import decoding, opening
from data_contracts.sources.decoding import Encoding
from data_contracts.sources.files import FileLayout
from data_contracts.sources.records import RawRecord, SourceFile, SourcePartition


class TextFiles:
    """Files (default `**/*.txt`); a record's text is the column that the terms name.

    `reader.split` says what a record is: `line`, `paragraph` (lines between blank ones), `{pattern: regex}` (the text
    between two matches), or without it the whole file. `reader.front` takes a head off the file, `reader.fields` finds
    columns in a record, `reader.beside` joins other files by line number; named groups of `reader.partition.pattern`
    and of the front give columns too.
    """

    def __init__(self, contract: Contract, location: str) -> None:
        reader = contract.reader
        self.contract = contract
        self.layout = FileLayout.of(contract, location, "**/*.txt", packed=True)
        self.split = reader.get("split")
        self.trim = bool(reader.get("trim", False))
        self.nulls = frozenset(reader.get("nulls", ()))
        self.beside: Mapping[str, str] = reader.get("beside") or {}
        self.fields = {n: _regex(contract, f"fields.{n}", p) for n, p in (reader.get("fields") or {}).items()}
        front = reader.get("front")
        self.front = _regex(contract, "front.pattern", front["pattern"]) if front else None
        self.between = None
        if isinstance(self.split, Mapping):
            self.between = _regex(contract, "split.pattern", self.split["pattern"])
        columns = {prop.name for prop in contract.properties}
        for name in [*self.fields, *self.beside]:
            if name not in columns:
                raise ContractError(f"{contract.path}: reader: the schema has no column {name}; correct the name")
        for name, pattern in self.fields.items():
            if pattern.groups != 1:
                raise ContractError(f"{contract.path}: reader.fields.{name}: needs one group ( ), has {pattern.groups}")

    def partitions(self) -> list[SourcePartition]:
        """Return the partitions, sorted by value; files that stand beside others belong to them.

        Raises:
            DataRefused: a file lacks one that should stand beside it.
        """
        found = self.layout.partitions()
        if not self.beside:
            return found
        every = {file.name: file for file in self.layout.all_files()}
        parts = []
        for part in found:
            mains = [file for file in part.files if not self._is_beside(file.name)]
            names = dict.fromkeys(name for file in mains for name in self._names(file).values())
            lacking = [name for name in names if name not in every]
            if lacking:
                raise DataRefused(f"{lacking[0]}: not there, and reader.beside joins it by line number; restore it")
            if mains:
                parts.append(SourcePartition(part.value, (*mains, *(every[name] for name in names))))
        return parts

    def read(self, partition: SourcePartition) -> Iterator[pa.RecordBatch]:
        """Yield the records; `_source_line` is the line on which one begins, 1 for a whole file.

        Raises:
            DataRefused: a file cannot be read, or is larger than 256 MiB and no `split: line`.
        """
        return self.layout.batches(self._records(partition))

    def _is_beside(self, name: str) -> bool:
        return PurePosixPath(name).name in self.beside.values()

    def _names(self, file: SourceFile) -> dict[str, str]:
        return {column: str(PurePosixPath(file.name).with_name(name)) for column, name in self.beside.items()}

    def _records(self, partition: SourcePartition) -> Iterator[RawRecord]:
        files = {file.name: file for file in partition.files}
        for file in partition.files:
            constants = self.layout.columns(file.name, partition.value)
            if self.beside:
                if not self._is_beside(file.name):
                    yield from self._joined(file, {c: files[n] for c, n in self._names(file).items()}, constants)
            elif self.split == "line" and self.front is None:
                yield from self._lines(file, constants)
            else:
                yield from self._whole(file, constants)

    def _lines(self, file: SourceFile, constants: Mapping[str, Any]) -> Iterator[RawRecord]:
        file.check_unchanged()
        encoding = self.layout.encoding(file)
        with opening.opened(file, self.layout.limit) as stream:
            blocks = decoding.utf8_blocks(stream, encoding)
            for number, (line, _) in enumerate(decoding.lines(blocks, self.layout.line_end), start=1):
                if line.strip():
                    yield self._record(file.name, number, line, encoding, constants)
        file.check_unchanged()

    def _joined(
        self, file: SourceFile, others: Mapping[str, SourceFile], constants: Mapping[str, Any]
    ) -> Iterator[RawRecord]:
        """Yield the lines of a file with those of others that have the same number."""
        for each in (file, *others.values()):
            each.check_unchanged()
        opened = [(each, self.layout.encoding(each)) for each in (file, *others.values())]
        streams = [self._read_lines(each, encoding) for each, encoding in opened]
        for number, row in enumerate(zip_longest(*streams), start=1):
            short = [each.name for (each, _), line in zip(opened, row, strict=True) if line is None]
            if short:
                raw = b"\t".join(
                    decoding.original(line, encoding)
                    for (_, encoding), line in zip(opened, row, strict=True)
                    if line is not None
                )
                fault = f"{', '.join(short)} has no line {number}: the files are not joined line by line"
                yield RawRecord(file.name, number, dict(constants), fault, raw)
                continue
            values, faults = dict(constants), []
            for column, (each, encoding), line in zip(others, opened[1:], row[1:], strict=True):
                try:
                    values[column] = self._text(decoding.decoded(line, encoding))
                except ValueError as error:
                    faults.append(f"{each.name}: {error}")
            found = self._record(file.name, number, row[0], opened[0][1], values)
            if faults:
                faults = [found.fault, *faults] if found.fault else faults
                raw = decoding.original(row[0], opened[0][1])
                yield RawRecord(file.name, number, found.values, "; ".join(faults), raw)
            else:
                yield found
        for each in (file, *others.values()):
            each.check_unchanged()

    def _read_lines(self, file: SourceFile, encoding: Encoding) -> Iterator[bytes]:
        with opening.opened(file, self.layout.limit) as stream:
            blocks = decoding.utf8_blocks(stream, encoding)
            yield from (line for line, _ in decoding.lines(blocks, self.layout.line_end))

    def _whole(self, file: SourceFile, constants: Mapping[str, Any]) -> Iterator[RawRecord]:
        data = opening.whole(file, self.layout.limit)
        encoding = self.layout.encoding(file)
        data = data[encoding.mark :]
        if not encoding.is_utf8:
            data = b"".join(decoding.utf8_blocks(io.BytesIO(data), Encoding(encoding.codec)))
        values, start = dict(constants), 0
        if self.front is not None:
            # What is not UTF-8 stays one character a byte here, so that places in text and bytes agree below.
            text = data.decode("utf-8", "surrogateescape")
            if (head := self.front.match(text)) is not None:
                values |= {name: group for name, group in head.groupdict().items() if group is not None}
                start = len(text[: head.end()].encode("utf-8", "surrogateescape"))
        if self.split is None:
            yield self._record(file.name, 1, data[start:], encoding, values)
            return
        line = 1 + _count(data[:start])
        for part, separated in self._parts(data[start:]):
            if part.strip():
                lead = len(part) - len(part.lstrip(b"\r\n"))
                yield self._record(file.name, line + _count(part[:lead]), part, encoding, values)
            line += _count(part) + _count(separated)

    def _parts(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Yield (a part, what separates it from the next)."""
        if self.split == "line":
            yield from decoding.lines(iter([data]), self.layout.line_end)
            return
        text = data.decode("utf-8", "surrogateescape")
        at = 0
        for match in (self.between or _BLANK).finditer(text):
            yield _bytes(text[at : match.start()]), _bytes(match[0])
            at = match.end()
        yield _bytes(text[at:]), b""

    def _record(
        self, file: str, number: int, data: bytes, encoding: Encoding, constants: Mapping[str, Any]
    ) -> RawRecord:
        values = dict(constants)
        try:
            text = decoding.decoded(data, encoding)
        except ValueError as error:
            return RawRecord(file, number, values, str(error), decoding.original(data, encoding))
        for name, pattern in self.fields.items():
            match = pattern.search(text)
            if match is not None and match[1] is not None:
                values[name] = self._text(match[1])
        if self.contract.terms.text not in self.fields:
            values[self.contract.terms.text] = self._text(text)
        return RawRecord(file, number, values)

    def _text(self, text: str) -> str | None:
        text = text.strip() if self.trim else text
        return None if text in self.nulls else text


_BLANK = re.compile(r"(?:(?:\r\n|\r|\n)[ \t\f\v]*){2,}")
_LINE_END = re.compile(rb"\r\n|\r|\n")


def _count(data: bytes) -> int:
    return sum(1 for _ in _LINE_END.finditer(data))


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _regex(contract: Contract, where: str, pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(pattern, re.MULTILINE)
    except re.error as error:
        raise ContractError(f"{contract.path}: reader.{where}: {pattern!r}: {error}; mend the expression") from error
