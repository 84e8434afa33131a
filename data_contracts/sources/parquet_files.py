"""Parquet files as a source, read a batch of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from data_contracts.contract import Contract
from data_contracts.errors import DataRefused
from data_contracts.sources.files import FileLayout, column_names
from data_contracts.sources.records import RawRecord, SourceFile, SourcePartition


class ParquetFiles:
    """Files (default `**/*.parquet`); only the contract's columns are read, a column a file lacks is null."""

    def __init__(self, contract: Contract, location: str) -> None:
        self.names = column_names(contract)
        self.layout = FileLayout.of(contract, location, "**/*.parquet")

    def partitions(self) -> list[SourcePartition]:
        """Return the partitions, sorted by value."""
        return self.layout.partitions()

    def read(self, partition: SourcePartition) -> Iterator[pa.RecordBatch]:
        """Yield one record per row.

        Raises:
            DataRefused: a file is no Parquet file: none of its rows can be told from another.
        """
        return self.layout.batches(
            record for file in partition.files for record in self._records(file, partition.value)
        )

    def _records(self, file: SourceFile, partition: str) -> Iterator[RawRecord]:
        columns = self.layout.columns(file.name, partition)
        file.check_unchanged()
        number = 0
        try:
            with pq.ParquetFile(file.path) as parquet:
                present = {n: physical for n, physical in self.names.items() if physical in parquet.schema_arrow.names}
                for batch in parquet.iter_batches(8192, columns=[*dict.fromkeys(present.values())]):
                    data = {name: batch.column(physical).to_pylist() for name, physical in present.items()}
                    for row in range(batch.num_rows):
                        number += 1
                        yield RawRecord(file.name, number, {**columns, **{name: data[name][row] for name in data}})
        except (pa.ArrowInvalid, OSError) as error:
            raise DataRefused(f"{file.path}: cannot be read as Parquet: {error}; restore it") from error
        file.check_unchanged()
