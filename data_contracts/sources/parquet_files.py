"""Parquet files as a source, read a batch of rows at a time."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_contracts.contract import Contract
from data_contracts.errors import DataRefused
from data_contracts.sources.files import FileLayout, columns_in
from data_contracts.sources.records import SourceFile, SourcePartition, typed_batches

_BATCH_ROWS, _BATCH_BYTES = 32768, 32 << 20
# Without it Arrow holds a whole row group, which may be the whole file.
_READ_BYTES = 1 << 20


class ParquetFiles:
    """Files (default `**/*.parquet`); only the contract's columns are read, a column a file lacks is null.

    A column may have had other names: `reader.aliases`.
    """

    def __init__(self, contract: Contract, location: str) -> None:
        self.contract = contract
        self.layout = FileLayout.of(contract, location, "**/*.parquet")

    def partitions(self) -> list[SourcePartition]:
        """Return the partitions, sorted by value."""
        return self.layout.partitions()

    def read(self, partition: SourcePartition) -> Iterator[pa.RecordBatch]:
        """Yield one record per row.

        Raises:
            DataRefused: a file is no Parquet file: none of its rows can be told from another.
        """
        for file in partition.files:
            yield from self._batches(file, partition.value)

    def _batches(self, file: SourceFile, partition: str) -> Iterator[pa.RecordBatch]:
        constants = self.layout.columns(file.name, partition)
        number = 0
        try:
            with pq.ParquetFile(file.path, buffer_size=_READ_BYTES, pre_buffer=False) as parquet:
                present = columns_in(self.contract, parquet.schema_arrow.names, file.name)
                wanted = [*dict.fromkeys(present.values())]
                # One thread: validation reads ahead in a thread of its own, and more of them hold more memory.
                size = _rows_at_once(parquet.metadata)
                for batch in parquet.iter_batches(size, columns=wanted, use_threads=False):
                    rows = batch.num_rows
                    columns = {name: pa.repeat(value, rows) for name, value in constants.items()}
                    columns |= {name: batch.column(physical) for name, physical in present.items()}
                    numbers = pa.array(np.arange(number + 1, number + rows + 1))
                    number += rows
                    yield from typed_batches(self.contract, columns, file.name, numbers)
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise DataRefused(f"{file.path}: cannot be read as Parquet: {error}; restore it") from error
        # Once, at the end: what is ingested counts only then. Whoever only tries a contract has not hashed the file.
        if file.hashed:
            file.check_unchanged()


def _rows_at_once(metadata: pq.FileMetaData) -> int:
    """Return how many rows of the file's widest row group are about 32 MB of memory."""
    groups = [metadata.row_group(index) for index in range(metadata.num_row_groups)]
    width = max((group.total_byte_size / max(group.num_rows, 1) for group in groups), default=1.0)
    return max(1, min(_BATCH_ROWS, int(_BATCH_BYTES / max(width, 1.0))))
