"""Text files as a source: one file is one record, its text the column that the terms name."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from data_contracts.contract import Contract
from data_contracts.sources.files import FileLayout
from data_contracts.sources.records import RawRecord, SourcePartition


class TextFiles:
    """UTF-8 files (default `**/*.txt`); the other columns are named groups of `reader.partition.pattern`."""

    def __init__(self, contract: Contract, location: str) -> None:
        self.contract = contract
        self.layout = FileLayout.of(contract, location, "**/*.txt")

    def partitions(self) -> list[SourcePartition]:
        """Return the partitions, sorted by value."""
        return self.layout.partitions()

    def read(self, partition: SourcePartition) -> Iterator[pa.RecordBatch]:
        """Yield one record per file; a byte order mark is no part of the text."""
        return self.layout.batches(self._records(partition))

    def _records(self, partition: SourcePartition) -> Iterator[RawRecord]:
        for file in partition.files:
            data = file.read_bytes()
            columns = self.layout.columns(file.name, partition.value)
            try:
                columns[self.contract.terms.text] = data.decode("utf-8-sig")
            except UnicodeDecodeError as error:
                fault = f"not UTF-8: byte {error.start} is 0x{error.object[error.start]:02x}"
                yield RawRecord(file.name, 1, columns, fault, data)
                continue
            yield RawRecord(file.name, 1, columns)
