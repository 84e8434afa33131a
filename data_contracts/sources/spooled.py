"""Sources that are read once as a whole: rows of a query, of a hub's data set, or of files that a column divides.

Such a source has no files that are partitions. Its records are read once into a folder that goes with the process, a
file or more a partition, and a partition is named by the hash of its content: rows that are added to another partition,
or stand at another place of the file, leave it as it is.
"""

from __future__ import annotations

import hashlib
import tempfile
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.canonical import document_sha
from data_contracts.contract import Contract
from data_contracts.errors import DataRefused
from data_contracts.sources.records import SOURCE_FILE, SOURCE_LINE, Source, SourceFile, SourcePartition

UNKNOWN = "unknown"
_MOST_PARTITIONS = 10_000
_HELD_BYTES = 128 << 20


@dataclass(frozen=True)
class Extract(SourceFile):
    """What was read of a source that has no files, under the hash of its content."""

    content: str = ""

    @cached_property
    def sha(self) -> str:
        """The SHA-256 of the content."""
        return self.content

    def check_unchanged(self) -> None:
        """Do nothing: what was read is a copy of its own."""


@dataclass(frozen=True)
class SpooledPartition(SourcePartition):
    """One partition in the folder: its parts in the order of the records, and the hash of their content."""

    content: str = ""
    parts: tuple[Path, ...] = ()
    held: int = 0

    @cached_property
    def source_sha(self) -> str:
        """SHA-256 over the columns of its records, but for where in the source they stood."""
        return self.content

    @property
    def size(self) -> int:
        """Bytes of its records in memory."""
        return self.held


class Spooled:
    """A source that `read_all` gives as batches of `source_schema`, divided by the partition column where it should be.

    Records whose partition is null or unreadable are the partition 'unknown': none is lost. While `state` returns what
    it returned before, what was read still stands; without it the source is read whenever its partitions are listed.
    """

    def __init__(
        self,
        contract: Contract,
        read_all: Callable[[], Iterator[pa.RecordBatch]],
        name: str,
        state: Callable[[], object] = object,
    ) -> None:
        self.contract, self.name = contract, name
        self._read_all, self._state = read_all, state
        self._files: tuple[SourceFile, ...] | None = None
        self._known: tuple[object, list[SpooledPartition]] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._lock = threading.Lock()

    @classmethod
    def of(cls, contract: Contract, source: Source) -> Spooled:
        """Divide the one partition of a source of files by the values of the partition column."""

        def files() -> tuple[SourceFile, ...]:
            return tuple(file for part in source.partitions() for file in part.files)

        def read_all() -> Iterator[pa.RecordBatch]:
            for part in source.partitions():
                yield from source.read(part)

        def state() -> object:
            return [(file.name, file.size, _written(file)) for file in files()]

        found = cls(contract, read_all, "", state)
        found._listed = files
        return found

    _listed: Callable[[], tuple[SourceFile, ...]] | None = None

    def partitions(self) -> list[SourcePartition]:
        """Read the source if that was not done yet, and return its partitions, sorted by value.

        Raises:
            DataRefused: it cannot be read, has no record, or has more than 10,000 partitions.
        """
        with self._lock:
            state = self._state()
            if self._known is None or self._known[0] != state:
                self._known = (state, self._spool())
            return list(self._known[1])

    def read(self, partition: SourcePartition) -> Iterator[pa.RecordBatch]:
        """Yield the records of a partition as they were read.

        Raises:
            DataRefused: the partition is not one of this source.
        """
        if not isinstance(partition, SpooledPartition):
            raise DataRefused(f"{self.name or self.contract.id}: {partition.value} is no partition of this source")
        for part in partition.parts:
            try:
                with pa.memory_map(str(part)) as stored, pa.ipc.open_file(stored) as opened:
                    for index in range(opened.num_record_batches):
                        yield opened.get_batch(index)
            except OSError as error:
                raise DataRefused(
                    f"{partition.value}: its copy is gone ({error}); list the partitions again"
                ) from error

    def _constants(self) -> dict[str, str]:
        entry = self.contract.reader.get("partition") or {}
        if entry.get("from") == "column":
            return {}
        return {self.contract.partition_column: str(entry.get("constant", "all"))}

    def _spool(self) -> list[SpooledPartition]:
        self._folder = tempfile.TemporaryDirectory(prefix="causeway-source-")
        into = _Spool(Path(self._folder.name))
        entry = self.contract.reader.get("partition") or {}
        column = self.contract.partition_column
        for batch in self._read_all():
            # Without 'from: column' all records are one partition, whatever they say.
            one = pa.repeat(pa.scalar(str(entry.get("constant", "all"))), len(batch))
            into.add(batch, batch.column(column) if entry.get("from") == "column" else one)
        into.flush()
        if not into.content:
            raise DataRefused(
                f"{self.name or self.contract.id}: the source has no record; check the place, or the query"
            )
        listed = self._listed() if self._listed else None
        found = []
        for value in sorted(into.content):
            content, parts, held = into.content[value].sha(), tuple(into.parts[value]), into.held[value]
            files = listed or (Extract(self.name, parts[0], held, content),)
            found.append(SpooledPartition(value, files, content, parts, held))
        return found


def _written(file: SourceFile) -> object:
    from data_contracts.sources.remote import RemoteObject

    if isinstance(file, RemoteObject):
        return file.tag
    return file.path.stat().st_mtime_ns


@dataclass
class _Spool:
    """The parts under way: at most 128 MiB of records are held before they are written."""

    folder: Path
    content: dict[str, _Content] = field(default_factory=dict)
    parts: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))
    held: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    waiting: dict[str, list[pa.RecordBatch]] = field(default_factory=lambda: defaultdict(list))
    bytes: int = 0

    def add(self, batch: pa.RecordBatch, column: pa.Array) -> None:
        """Divide a batch by the values of a column."""
        names = pc.fill_null(column.cast(pa.string()), UNKNOWN)
        names = pc.if_else(pc.equal(names, ""), UNKNOWN, names)
        coded = names.dictionary_encode()
        codes = coded.indices.to_numpy(zero_copy_only=False)
        order = np.argsort(codes, kind="stable")
        bounds = np.searchsorted(codes[order], np.arange(len(coded.dictionary) + 1))
        sorted_batch = batch.take(pa.array(order)) if len(coded.dictionary) > 1 else batch
        for code, value in enumerate(coded.dictionary.to_pylist()):
            rows = sorted_batch.slice(bounds[code], bounds[code + 1] - bounds[code])
            if value not in self.content:
                if len(self.content) == _MOST_PARTITIONS:
                    raise DataRefused(
                        f"more than {_MOST_PARTITIONS:,} values of the partition column; partition by a coarser one"
                    )
                self.content[value] = _Content(rows.schema)
            self.content[value].add(rows)
            self.waiting[value].append(rows)
            self.held[value] += rows.nbytes
        self.bytes += batch.nbytes
        if self.bytes >= _HELD_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write what is held, a file a partition."""
        for value, batches in self.waiting.items():
            path = self.folder / f"{len(self.parts)}-{sum(map(len, self.parts.values()))}.arrow"
            table = pa.Table.from_batches(batches).combine_chunks()
            with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
                writer.write_table(table, max_chunksize=65_536)
            self.parts[value].append(path)
        self.waiting.clear()
        self.bytes = 0


class _Content:
    """The hash of rows in their order, column by column, however they come in batches."""

    def __init__(self, schema: pa.Schema) -> None:
        self.names = [name for name in schema.names if name not in (SOURCE_FILE, SOURCE_LINE)]
        self.digests = {name: hashlib.sha256() for name in self.names}

    def add(self, rows: pa.RecordBatch) -> None:
        for name in self.names:
            column = rows.column(name)
            digest = self.digests[name]
            binary = pa.types.is_string(column.type) or pa.types.is_binary(column.type)
            valid = column.is_valid().to_numpy(zero_copy_only=False).astype(np.uint8)
            sizes = pc.fill_null(pc.binary_length(column), 0).to_numpy(zero_copy_only=False) if binary else None
            # Each row is hashed whole, so that the bounds of batches leave no trace.
            kept = column.drop_null()
            if binary:
                digest.update(b"".join(_rows(valid, np.asarray(sizes), kept)))
            else:
                numbers = _numbers(kept)
                both = np.zeros(len(rows), dtype=[("valid", "u1"), ("value", "<u8")])
                both["valid"] = valid
                both["value"][valid == 1] = numbers
                digest.update(both.tobytes())

    def sha(self) -> str:
        return document_sha([[name, self.digests[name].hexdigest()] for name in self.names])


def _rows(valid: np.ndarray, sizes: np.ndarray, kept: pa.Array) -> Iterator[bytes]:
    heads = np.zeros(len(valid), dtype=[("valid", "u1"), ("size", "<u4")])
    heads["valid"], heads["size"] = valid, sizes
    head, values = heads.tobytes(), iter(kept.cast(pa.binary()).to_pylist())
    for row, there in enumerate(valid):
        yield head[5 * row : 5 * row + 5]
        if there:
            yield next(values)


def _numbers(kept: pa.Array) -> np.ndarray:
    kind = kept.type
    if pa.types.is_floating(kind):
        return np.asarray(kept.to_numpy(zero_copy_only=False)).astype("<f8").view("<u8")
    if pa.types.is_boolean(kind):
        return np.asarray(kept.to_numpy(zero_copy_only=False)).astype("<u8")
    whole = kept.cast(pa.int32() if pa.types.is_date32(kind) else pa.int64())
    return np.asarray(whole.to_numpy(zero_copy_only=False)).astype("<i8").view("<u8")
