"""The Parquet files of a Delta table, read through their store: its retries, its limits, no threads.

deltalake would read them through a file system in Python that Arrow's I/O threads call; they may still do so while the
interpreter ends, which aborts the process. Arrow's scanner reads whole row groups ahead: of a table of 400 MB it held
345 MB, where a stream of pages holds 10.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable

from data_contracts.catalog.store import Store


class TableFile(NamedTuple):
    """One file of a table: its key in the store, and the values of the partition columns, which it does not hold."""

    key: str
    values: dict[str, str | None]


def table_files(target: DeltaTable, folder: str) -> list[TableFile]:
    """Return the files of a table under `folder` of its store, by key."""
    actions = pa.table(target.get_add_actions(flatten=True))
    names = [name for name in actions.column_names if name.startswith("partition.")]
    found = []
    for row in actions.select(["path", *names]).to_pylist():
        values = {name.removeprefix("partition."): row[name] for name in names}
        found.append(TableFile(f"{folder}/{unquote(row['path'])}", values))
    return sorted(found, key=lambda file: file.key)


def scan_files(
    store: Store, files: Sequence[TableFile], schema: pa.Schema, columns: Sequence[str], batch_rows: int
) -> Iterator[pa.RecordBatch]:
    """Yield columns of files in batches of at most `batch_rows` and about `_BATCH_BYTES`; what a file lacks is null.

    Memory holds a few pages of each column of a local file, one column chunk of each of a remote one.

    Raises:
        StoreError: a file cannot be read from the store.
        pyarrow.ArrowInvalid: a file is no Parquet, or does not fit the schema.
    """
    wanted = pa.schema([schema.field(name) for name in columns])
    for file in files:
        # Remote: a request costs as much as a chunk of some MB takes, so each chunk is fetched whole.
        near = store.root is not None
        source = pa.OSFile(str(store.path(file.key))) if near else pa.PythonFile(_Object(store, file.key), mode="r")
        with pq.ParquetFile(source, buffer_size=_PAGES_BYTES if near else 0, pre_buffer=False) as opened:
            held = [name for name in columns if name in opened.schema_arrow.names]
            rows = _rows_of(opened.metadata, held, batch_rows)
            for batch in opened.iter_batches(rows, columns=held, use_threads=False):
                yield _conform(batch, file, wanted)


def _rows_of(metadata: pq.FileMetaData, columns: Sequence[str], most: int) -> int:
    """Return how many rows of these columns make `_BATCH_BYTES`, at least 1 and at most `most`."""
    size = rows = 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        rows += group.num_rows
        chunks = (group.column(k) for k in range(group.num_columns))
        size += sum(c.total_uncompressed_size for c in chunks if c.path_in_schema.split(".", 1)[0] in columns)
    return max(1, min(most, _BATCH_BYTES * rows // max(size, 1)))


def read_files(store: Store, files: Sequence[TableFile], schema: pa.Schema, columns: Sequence[str]) -> pa.Table:
    """Return columns of files as one table; raises as `scan_files` does."""
    wanted = pa.schema([schema.field(name) for name in columns])
    parts = []
    for file in files:
        # Whole: a request of some 100 KB costs as much as one of 100 bytes, and reading starts with three.
        source = pa.BufferReader(store.get(file.key)) if store.size(file.key) <= _WHOLE_BYTES else None
        with pq.ParquetFile(source or pa.PythonFile(_Object(store, file.key), mode="r")) as opened:
            held = opened.read([n for n in columns if n in opened.schema_arrow.names], use_threads=False)
            parts += [pa.Table.from_batches([_conform(b, file, wanted)]) for b in held.to_batches()]
    return pa.concat_tables(parts) if parts else wanted.empty_table()


_WHOLE_BYTES = 4 << 20
_BATCH_BYTES = 2 << 20
_PAGES_BYTES = 1 << 20


def _conform(batch: pa.RecordBatch, file: TableFile, wanted: pa.Schema) -> pa.RecordBatch:
    columns: list[Any] = []
    for field in wanted:
        if field.name in batch.schema.names:
            columns.append(batch.column(field.name).cast(field.type))
        else:
            columns.append(pa.repeat(pa.scalar(file.values.get(field.name), field.type), batch.num_rows))
    return pa.RecordBatch.from_arrays(columns, schema=wanted)


class _Object(io.RawIOBase):
    """A stored object as a file that can be read anywhere."""

    def __init__(self, store: Store, key: str) -> None:
        self._store, self._key = store, key
        self._size, self._at = store.size(key), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def read(self, size: int | None = -1) -> bytes:
        left = max(0, self._size - self._at)
        length = left if size is None or size < 0 else min(size, left)
        data = self._store.get_range(self._key, self._at, length)
        self._at += length
        return data
