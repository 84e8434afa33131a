"""JSON Lines files as a source: one object a line. Source: RFC 8259, one value per line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from data_contracts.contract import Contract
from data_contracts.errors import DataRefused
from data_contracts.sources.files import FileLayout, column_names
from data_contracts.sources.records import RawRecord, SourceFile, SourcePartition


class JsonLines:
    """UTF-8 files (default `**/*.jsonl`), read a line at a time: pyarrow's reader gives up at the first bad line."""

    def __init__(self, contract: Contract, location: str) -> None:
        self.names = column_names(contract)
        self.layout = FileLayout.of(contract, location, "**/*.jsonl")

    def partitions(self) -> list[SourcePartition]:
        """Return the partitions, sorted by value."""
        return self.layout.partitions()

    def read(self, partition: SourcePartition) -> Iterator[pa.RecordBatch]:
        """Yield one record per line that is not blank; `_source_line` is the line's number."""
        return self.layout.batches(
            record for file in partition.files for record in self._records(file, partition.value)
        )

    def _records(self, file: SourceFile, partition: str) -> Iterator[RawRecord]:
        columns = self.layout.columns(file.name, partition)
        file.check_unchanged()
        try:
            with file.path.open("rb") as stream:
                for number, line in enumerate(stream, start=1):
                    if line.strip():
                        yield self._record(file.name, number, line.rstrip(b"\r\n"), columns)
        except OSError as error:
            raise DataRefused(f"{file.path}: cannot be read: {error.strerror}; restore it") from error
        file.check_unchanged()

    def _record(self, file: str, number: int, line: bytes, columns: dict[str, Any]) -> RawRecord:
        try:
            value = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"), parse_constant=_refuse)
        except (ValueError, RecursionError) as error:
            return RawRecord(file, number, columns, f"not JSON: {error}", line)
        if not isinstance(value, dict):
            return RawRecord(file, number, columns, f"not a JSON object but {type(value).__name__}", line)
        found = {name: value[physical] for name, physical in self.names.items() if physical in value}
        return RawRecord(file, number, {**columns, **found})


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")
