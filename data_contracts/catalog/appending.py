"""Rows of one attempt into Parquet files, as they come, and into their Delta table by one commit at the end.

deltalake's own writer holds a table and its encoded file at once and commits piece by piece; this one holds a row
group and writes in a thread, and what failed half-way was never in the table.
Source: Delta Transaction Log Protocol, "Add File".
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
import time
import uuid
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from deltalake.transaction import AddAction

from data_contracts.catalog.store import Store
from data_contracts.errors import StoreError

# A row group is written when it has this many rows or bytes; a file is closed at this size.
_GROUP_ROWS, _GROUP_BYTES = 50_000, 64 << 20
_FILE_BYTES = 256 << 20
# A column gets a dictionary when at most half of its first values differ: for texts and keys it would only cost.
_SAMPLE = 4096
_STATISTICS = ("record_id", "partition")


class Commit(Protocol):
    """Makes written files part of their table."""

    def __call__(self, schema: pa.Schema, files: list[AddAction]) -> None:
        """Commit the files, whose rows have the schema (with `attempt_id`), or raise."""


class Appender:
    """Writes the rows of one attempt under `folder` of a store; leaving it as a context commits, an error removes.

    One row group is written while the next is gathered, so a slow disk slows the caller and memory stays bounded.
    """

    def __init__(self, store: Store, folder: str, attempt_id: str, commit: Commit) -> None:
        self._store, self._folder, self._attempt, self._commit = store, folder, attempt_id, commit
        self._schema: pa.Schema | None = None
        self._held: list[pa.Table] = []
        self._rows = self._bytes = 0
        self._pending: deque[Future[None]] = deque()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="append")
        self._file: _File | None = None
        self._written: list[AddAction] = []

    def add(self, rows: pa.Table) -> None:
        """Take rows, all of one schema, whose `attempt_id` is the attempt's.

        Raises:
            StoreError: rows that were added before cannot be written.
        """
        if not rows.num_rows:
            return
        self._schema = self._schema or rows.schema
        self._held.append(rows)
        self._rows += rows.num_rows
        self._bytes += rows.nbytes
        if self._rows >= _GROUP_ROWS or self._bytes >= _GROUP_BYTES:
            self._hand_over()

    def __enter__(self) -> Appender:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is None:
                self._finish()
        except BaseException:
            self._abandon()
            raise
        else:
            if error is not None:
                self._abandon()
        finally:
            self._thread.shutdown()

    def _finish(self) -> None:
        self._hand_over()
        while self._pending:
            self._pending.popleft().result()
        if self._file is not None:
            self._close()
        if self._schema is not None:
            self._commit(self._schema, self._written)

    def _abandon(self) -> None:
        for future in self._pending:
            future.cancel()
        self._thread.shutdown()
        if self._file is not None:
            self._file.discard()
        for action in self._written:
            self._store.delete(f"{self._folder}/{action.path}")
        self._written, self._file = [], None

    def _hand_over(self) -> None:
        if not self._held:
            return
        group = pa.concat_tables(self._held)
        self._held, self._rows, self._bytes = [], 0, 0
        while self._pending:
            self._pending.popleft().result()
        self._pending.append(self._thread.submit(self._write, group))

    def _write(self, group: pa.Table) -> None:
        if self._file is None:
            name = f"attempt_id={self._attempt}/part-{len(self._written):05d}-{uuid.uuid4()}.parquet"
            self._file = _File(self._store, self._folder, name, group.drop_columns("attempt_id"))
        self._file.write(group.drop_columns("attempt_id"))
        if self._file.size >= _FILE_BYTES:
            self._close()

    def _close(self) -> None:
        assert self._file is not None
        self._written.append(self._file.close(self._attempt))
        self._file = None


class _File:
    """One Parquet file: in its place when the store is a directory, else in a temporary file until it is closed."""

    def __init__(self, store: Store, folder: str, name: str, first: pa.Table) -> None:
        self._store, self._key, self._name = store, f"{folder}/{name}", name
        self._local = store.root is not None
        self._path = store.path(self._key) if self._local else _temporary()
        self._rows, self._nulls = 0, dict.fromkeys(_STATISTICS, 0)
        self._least: dict[str, Any] = {}
        self._most: dict[str, Any] = {}
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._sink = pa.OSFile(str(self._path), "wb")
            sample = first.slice(0, _SAMPLE)
            self._writer = pq.ParquetWriter(
                self._sink,
                first.schema,
                compression="snappy",
                use_dictionary=[name for name in first.column_names if _repeats(sample.column(name))],
                write_statistics=[f.name for f in first.schema if f.name in _STATISTICS or not _is_text(f.type)],
            )
        except (OSError, pa.ArrowException) as error:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)
            raise StoreError(f"{self._path}: cannot be written: {error}") from error

    @property
    def size(self) -> int:
        """Bytes written so far."""
        return int(self._sink.tell())

    def write(self, group: pa.Table) -> None:
        """Write one row group."""
        try:
            self._writer.write_table(group, row_group_size=max(group.num_rows, 1))
        except (OSError, pa.ArrowException) as error:
            raise StoreError(f"{self._path}: cannot be written: {error}") from error
        self._rows += group.num_rows
        for name in _STATISTICS:
            column = group.column(name)
            self._nulls[name] += column.null_count
            found = pc.min_max(column).as_py()
            if found["min"] is not None:
                self._least[name] = min(found["min"], self._least.get(name, found["min"]))
                self._most[name] = max(found["max"], self._most.get(name, found["max"]))

    def close(self, attempt_id: str) -> AddAction:
        """Finish the file, put it into the store, and return what the log says of it."""
        try:
            self._writer.close()
            self._sink.close()
        except (OSError, pa.ArrowException) as error:
            raise StoreError(f"{self._path}: cannot be written: {error}") from error
        size = self._path.stat().st_size
        if not self._local:
            self._store.put_file(self._key, self._path)
            self._path.unlink()
        statistics = {
            "numRecords": self._rows,
            "minValues": self._least,
            "maxValues": self._most,
            "nullCount": self._nulls,
        }
        values = {"attempt_id": attempt_id}
        return AddAction(self._name, size, values, int(time.time() * 1000), True, json.dumps(statistics))

    def discard(self) -> None:
        """Remove what was written."""
        with contextlib.suppress(OSError, pa.ArrowException):  # closing writes, and the disk may be full
            self._writer.close()
        with contextlib.suppress(OSError, pa.ArrowException):
            self._sink.close()
        self._path.unlink(missing_ok=True)


def _temporary() -> Path:
    number, name = tempfile.mkstemp(prefix="causeway-", suffix=".parquet")
    os.close(number)
    return Path(name)


def _repeats(sample: pa.ChunkedArray) -> bool:
    kind = sample.type
    if pa.types.is_nested(kind) or pa.types.is_boolean(kind):
        return not pa.types.is_boolean(kind)
    return bool(pc.count_distinct(sample).as_py() * 2 <= len(sample))


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_binary(kind) or pa.types.is_nested(kind))
