"""JSON Lines files as a source: one object a line. Source: RFC 8259, one value per line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from data_contracts.contract import Contract
from data_contracts.sources import decoding, opening
from data_contracts.sources.files import FileLayout
from data_contracts.sources.members import Members, fields_of, loads
from data_contracts.sources.paths import Node
from data_contracts.sources.records import RawRecord, SourceFile, SourcePartition


class JsonLines:
    """Files (default `**/*.jsonl`), read a line at a time: pyarrow's reader gives up at the first bad line.

    Columns are found by physical name or alias, or by the paths of `reader.fields`.
    """

    def __init__(self, contract: Contract, location: str) -> None:
        self.contract = contract
        fields_of(contract)
        self.layout = FileLayout.of(contract, location, "**/*.jsonl", packed=True)

    def partitions(self) -> list[SourcePartition]:
        """Return the partitions, sorted by value."""
        return self.layout.partitions()

    def read(self, partition: SourcePartition) -> Iterator[pa.RecordBatch]:
        """Yield one record per line that is not blank; `_source_line` is the line's number."""
        return self.layout.batches(
            record for file in partition.files for record in self._records(file, partition.value)
        )

    def _records(self, file: SourceFile, partition: str) -> Iterator[RawRecord]:
        constants = self.layout.columns(file.name, partition)
        members = Members(self.contract, file.name)
        file.check_unchanged()
        encoding = self.layout.encoding(file)
        number = 0
        with opening.opened(file, self.layout.limit) as stream:
            blocks = decoding.utf8_blocks(stream, encoding)
            for number, (line, _) in enumerate(decoding.lines(blocks, self.layout.line_end), start=1):
                if not line.strip():
                    continue
                try:
                    values = _values(members, decoding.decoded(line, encoding))
                except ValueError as error:
                    raw = decoding.original(line, encoding)
                    yield RawRecord(file.name, number, constants, str(error), raw)
                else:
                    yield RawRecord(file.name, number, {**constants, **values})
        members.finish(number)
        file.check_unchanged()


def _values(members: Members, text: str) -> dict[str, Any]:
    try:
        value = loads(text)
    except ValueError as error:
        raise ValueError(f"not JSON: {error}") from error
    if not isinstance(value, dict) and not (members.fields and isinstance(value, list)):
        raise ValueError(f"not a JSON object but {type(value).__name__}")
    return members.values(Node(value))
