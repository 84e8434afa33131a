"""The Delta tables of one data set: accepted rows, quarantine, the versions of its partitions, curation logs.

Append-only, no catalog server, no time travel: history is rows. Rows are written under an `attempt_id` and count only
once a row of `versions` names it, so a writer that dies leaves nothing that a reader sees.
Source: Delta Transaction Log Protocol; statistics are kept for keys only, because the log keeps them for ever.
"""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from importlib import resources
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from deltalake import CommitProperties, DeltaTable, Field, PostCommitHookProperties, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from deltalake.transaction import AddAction
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

from data_contracts.canonical import document_sha
from data_contracts.catalog.appending import Appender
from data_contracts.catalog.reading import read_files, scan_files, table_files
from data_contracts.catalog.store import Store
from data_contracts.errors import DataRefused, StoreError
from data_contracts.odcs import nearest

_LOG = logging.getLogger(__name__)
# deltalake commits by conditional put and tries again when another writer took the version number; its 15 tries are
# too few for 32 writers at once.
_COMMIT = CommitProperties(max_commit_retries=200)
_ATTEMPTS = 20
# Each publication is a file of one row, and a millisecond to every reader; 64 of them are read in 60 ms.
_COMPACT_EVERY = 64
# By default deltalake looks for expired logs after every commit: 45 ms of an append's 65 in a log of 3,600 versions.
_NOW_AND_THEN = (PostCommitHookProperties(True, False), PostCommitHookProperties(True, True))
# A reader that opened the table before a compaction still reads the small files.
_KEEP_HOURS = 7 * 24
_SCAN_ROWS = 8192

QUARANTINE_SCHEMA = pa.schema(
    [
        ("record_id", pa.string()),
        ("reasons", pa.list_(pa.string())),
        ("detail", pa.string()),
        ("raw", pa.string()),
        ("partition", pa.string()),
        ("ingest_id", pa.string()),
        ("attempt_id", pa.string()),
        ("source_file", pa.string()),
        ("source_line", pa.int64()),
    ]
)
CURATION_SCHEMA = pa.schema(
    [
        ("curation_id", pa.string()),
        ("record_id", pa.string()),
        ("ingest_id", pa.string()),
        ("partition", pa.string()),
        ("action", pa.string()),
        ("reason", pa.string()),
        ("cluster", pa.string()),
        ("kept_record_id", pa.string()),
        ("count", pa.int64()),
    ]
)
RESOLVED_SCHEMA = pa.schema(
    [
        ("record_id", pa.string()),
        ("partition", pa.string()),
        ("ingest_id", pa.string()),
        ("source_file", pa.string()),
        ("source_line", pa.int64()),
        ("reasons", pa.list_(pa.string())),
        ("outcome", pa.string()),
        ("resolved_by", pa.string()),
        ("resolved_at", pa.string()),
    ]
)


@dataclass(frozen=True)
class PartitionVersion:
    """One version of one partition, a row of `versions`.

    `published_at` is when the row was written, ISO 8601 in UTC; `bytes_in` are the source's, `seconds` what validating
    and writing took. `verdict` is accepted, refused, empty, or overridden: a refused attempt that a person accepted,
    then `approved_by` and `approved_why` say who and why.
    """

    dataset: str
    partition: str
    ingest_id: str
    attempt_id: str
    sequence: int
    verdict: str
    rows_in: int
    rows_accepted: int
    rows_quarantined: int
    source_sha: str
    contract_sha: str
    contract_version: str
    terms_sha: str
    published_at: str
    reasons: Mapping[str, int] = field(default_factory=dict)
    bytes_in: int = 0
    seconds: float = 0.0
    approved_by: str = ""
    approved_why: str = ""
    format: int = 2

    @property
    def rank(self) -> tuple[int, str, str]:
        """What decides which version is current: sequence, then ingest_id (then attempt_id, whose rows are equal)."""
        return (self.sequence, self.ingest_id, self.attempt_id)


_NUMBERS = {"sequence", "rows_in", "rows_accepted", "rows_quarantined", "bytes_in", "format"}
_VERSION_SCHEMA = pa.schema(
    [
        (f.name, pa.int64() if f.name in _NUMBERS else pa.float64() if f.name == "seconds" else pa.string())
        for f in fields(PartitionVersion)
    ]
)
# What rows of older formats lack.
_DEFAULTS = {"reasons": "{}", "bytes_in": 0, "seconds": 0.0, "approved_by": "", "approved_why": "", "format": 1}


def ingest_id(contract_sha: str, partition: str, source_sha: str) -> str:
    """Name one ingest: the same contract over the same bytes of the same partition has the same name."""
    return document_sha([contract_sha, partition, source_sha])


def current_query() -> str:
    """Return the shipped SQL of the accepted rows of every current version, over tables `versions` and `accepted`."""
    return resources.files("data_contracts").joinpath("catalog/current.sql").read_text("utf-8")


class Tables:
    """The tables of a data set in one store, under `tables/<slug>/`; each is made on its first append."""

    def __init__(self, store: Store, dataset_slug: str) -> None:
        self.store = store
        self.slug = dataset_slug

    def uri(self, name: str) -> str:
        """Return the path or URL of a table: 'accepted', 'quarantine', 'versions' or 'curation'."""
        return self.store.uri(self._folder(name))

    def appending(self, name: Literal["accepted", "quarantine"], attempt_id: str) -> Appender:
        """Return what takes the rows of one attempt, accepted or refused, and commits them once."""
        return Appender(self.store, self._folder(name), attempt_id, partial(self._commit, name))

    def append_accepted(self, table: pa.Table) -> None:
        """Append accepted rows of one attempt."""
        self._append_rows("accepted", table)

    def append_quarantine(self, table: pa.Table) -> None:
        """Append refused rows of one attempt (`QUARANTINE_SCHEMA`)."""
        self._append_rows("quarantine", table.cast(QUARANTINE_SCHEMA))

    def publish(self, version: PartitionVersion) -> None:
        """Append the one row that makes an attempt, or its refusal, known."""
        row = {**asdict(version), "reasons": json.dumps(dict(version.reasons), sort_keys=True)}
        written = self._append("versions", pa.Table.from_pylist([row], _VERSION_SCHEMA), None, "partition,ingest_id")
        if written % _COMPACT_EVERY == 0:
            self._compact()

    def versions_table(self, partition: str | None = None) -> pa.Table:
        """Return every version ever published as Arrow, in the order of `versions`.

        It has the columns of today; what rows of an older format lack has its default. `reasons` is JSON.
        """
        table = self._read("versions", None if partition is None else ("partition", partition), None)
        if not table.num_columns:
            return _VERSION_SCHEMA.empty_table()
        columns = []
        for name, kind in zip(_VERSION_SCHEMA.names, _VERSION_SCHEMA.types, strict=True):
            column = table[name].cast(kind) if name in table.column_names else pa.nulls(table.num_rows, kind)
            columns.append(pc.fill_null(column, pa.scalar(_DEFAULTS[name], kind)) if name in _DEFAULTS else column)
        # An override has the rank of the publication that it overrides, and was published later.
        by = ("partition", "sequence", "ingest_id", "attempt_id", "published_at")
        return pa.table(columns, schema=_VERSION_SCHEMA).sort_by([(name, "ascending") for name in by])

    def versions(self, partition: str | None = None) -> list[PartitionVersion]:
        """Return every version ever published, oldest first within each partition."""
        columns = [column.to_pylist() for column in self.versions_table(partition).columns]
        reasons = _VERSION_SCHEMA.names.index("reasons")
        columns[reasons] = [json.loads(text) if text != "{}" else {} for text in columns[reasons]]
        return [PartitionVersion(*row) for row in zip(*columns, strict=True)]

    def current(self) -> dict[str, PartitionVersion]:
        """Return the version in force of each partition: the highest (sequence, ingest_id) that was not refused."""
        return {v.partition: v for v in self.versions() if v.verdict != "refused"}

    def version(self, partition: str, name: str = "") -> PartitionVersion:
        """Return a partition's current version, or the one whose ingest_id begins with `name`.

        Raises:
            DataRefused: there is no such partition or version, `name` fits several, or all versions were refused.
        """
        history = self.versions(partition)
        if not history:
            known = list(dict.fromkeys(self.versions_table()["partition"].to_pylist()))
            raise DataRefused(
                f"{self.slug.replace('--', '/')}: no partition {partition!r}{nearest(partition, known)}; "
                f"it has {len(known)}: see causeway table history"
            )
        where = f"{history[0].dataset}: partition {partition}"
        fitting = [version for version in history if version.ingest_id.startswith(name)]
        ids = list(dict.fromkeys(version.ingest_id for version in fitting))
        if name and len(ids) != 1:
            known = ids or [version.ingest_id for version in history]
            said = f"{len(ids)} versions begin with {name!r}" if ids else f"no version begins with {name!r}"
            raise DataRefused(f"{where}: {said}; it has {', '.join(dict.fromkeys(v[:16] for v in known))}")
        in_force = [version for version in fitting if version.verdict != "refused"]
        if not name and not in_force:
            raise DataRefused(f"{where}: every version was refused: see causeway quarantine {history[0].dataset}")
        return (in_force or fitting)[-1]

    def read_accepted(self, version: PartitionVersion, columns: Sequence[str] | None = None) -> pa.Table:
        """Return a version's accepted rows, sorted by record_id.

        Raises:
            DataRefused: the version was refused, so nothing of it may be used.
        """
        if version.verdict == "refused":
            raise DataRefused(
                f"{version.dataset}: partition {version.partition}, ingest {version.ingest_id[:12]} was refused; "
                "its rows cannot be used: see its quarantine, mend the source and ingest again"
            )
        wanted = None if columns is None else [*dict.fromkeys([*columns, "record_id"])]
        table = self._read("accepted", ("attempt_id", version.attempt_id), None, wanted)
        if table.num_rows != version.rows_accepted:
            raise StoreError(
                f"{self.uri('accepted')}: attempt {version.attempt_id} has {table.num_rows} rows, "
                f"{version.rows_accepted} were published; restore the table"
            )
        table = table.sort_by("record_id") if table.num_rows else table
        return table if columns is None or not table.num_columns else table.select(list(columns))

    def scan_accepted(self, version: PartitionVersion, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield a version's accepted rows in no order, in memory that their number does not change.

        Raises:
            DataRefused: the version was refused, so nothing of it may be used.
            StoreError: the table cannot be read, or has other rows than were published: after the last of them.
        """
        if version.verdict == "refused":
            self.read_accepted(version)
        uri, count = self.uri("accepted"), 0
        try:
            for batch in self._scan(self.open("accepted"), version.attempt_id, columns):
                count += batch.num_rows
                if batch.num_rows:
                    yield batch
        except (DeltaError, OSError, pa.ArrowInvalid) as error:
            raise StoreError(f"{uri}: cannot be read: {error}") from error
        if count != version.rows_accepted:
            raise StoreError(
                f"{uri}: attempt {version.attempt_id} has {count} rows, {version.rows_accepted} were published; "
                "restore the table"
            )

    def read_quarantine(self, version: PartitionVersion) -> pa.Table:
        """Return a version's refused rows in the order of the source."""
        table = self._read("quarantine", ("attempt_id", version.attempt_id), QUARANTINE_SCHEMA)
        return table.sort_by([("source_file", "ascending"), ("source_line", "ascending")])

    def append_curation(self, table: pa.Table) -> None:
        """Append a curation log (`CURATION_SCHEMA`)."""
        self._append("curation", table.cast(CURATION_SCHEMA), "curation_id", "record_id")

    def read_curation(self, curation_id: str) -> pa.Table:
        """Return the log of one curation, sorted by (partition, record_id, action, reason), each entry once."""
        table = self._read("curation", ("curation_id", curation_id), CURATION_SCHEMA)
        # Two runs of one curation write the same entries: its id fixes them.
        table = table.group_by(table.column_names).aggregate([]).select(CURATION_SCHEMA.names)
        return table.sort_by([(name, "ascending") for name in ("partition", "record_id", "action", "reason")])

    def append_resolved(self, table: pa.Table) -> None:
        """Append rows of quarantine that a later version resolved (`RESOLVED_SCHEMA`)."""
        self._append("resolved", table.cast(RESOLVED_SCHEMA), None, "record_id,partition")

    def read_resolved(self) -> pa.Table:
        """Return every row of quarantine that was resolved, by partition, file and record."""
        table = self._read("resolved", None, RESOLVED_SCHEMA)
        return table.sort_by([(name, "ascending") for name in ("partition", "source_file", "source_line")])

    def open(self, name: str) -> DeltaTable:
        """Open one of the tables with what its store needs: keys, endpoint, commits by conditional put.

        Raises:
            deltalake.exceptions.TableNotFoundError: nothing was ever appended to it.
        """
        return DeltaTable(self.uri(name), storage_options=self.store.delta()[1] or None)

    def columns(self, name: str) -> list[str]:
        """Return the names of the columns that a table has by now."""
        return list(pa.schema(self.open(name).schema().to_arrow()).names)

    def _scan(self, target: DeltaTable, attempt: str, columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        files = [f for f in table_files(target, self._folder("accepted")) if f.values["attempt_id"] == attempt]
        schema = pa.schema(target.schema().to_arrow())
        return scan_files(self.store, files, schema, columns, _SCAN_ROWS)

    def _rows(
        self, target: DeltaTable, name: str, where: tuple[str, str] | None = None, columns: list[str] | None = None
    ) -> pa.Table:
        if self.store.root is None:
            schema, files = pa.schema(target.schema().to_arrow()), table_files(target, self._folder(name))
            if where is not None and any(where[0] in file.values for file in files):
                files = [file for file in files if file.values[where[0]] == where[1]]
                where = None
            wanted = schema.names if columns is None else columns
            read = wanted if where is None else [*dict.fromkeys([*wanted, where[0]])]
            rows = read_files(self.store, files, schema, read)
            if where is not None:
                rows = rows.filter(pc.equal(rows[where[0]], where[1]))
            return rows.select(wanted)
        filters: Any = [(where[0], "=", where[1])] if where else None
        return target.to_pyarrow_table(filters=filters, columns=columns, filesystem=_local(self.uri(name)))

    def _folder(self, name: str) -> str:
        return f"tables/{self.slug}/{name}"

    def _compact(self) -> None:
        """Write the small files of `versions` as one, and a checkpoint that names only it.

        The rows stand whatever happens here: a race lost to another writer is no error, and the next turn does it.
        deltalake's own compaction (1.6) does not see that another removed the same files first, and every row is there
        twice; an overwrite of what one version holds is refused then, and keeps what was appended meanwhile.
        """
        uri = self.uri("versions")
        try:
            target = self.open("versions")
            rows = self._rows(target, "versions")
            write_deltalake(
                target,
                rows,
                mode="overwrite",
                writer_properties=WriterProperties(compression="ZSTD"),  # half the size, and each rewrite stays a week
                commit_properties=_COMMIT,
                post_commithook_properties=_NOW_AND_THEN[0],
            )
            target.create_checkpoint()
            target.vacuum(_KEEP_HOURS, dry_run=False, full=True)
        except CommitFailedError as error:
            _LOG.debug("%s: compaction lost to another writer: %s", uri, error)
        except (DeltaError, OSError, pa.ArrowException) as error:
            _LOG.warning("%s: cannot be compacted, reading it becomes slower: %s", uri, error)

    def _append_rows(self, name: Literal["accepted", "quarantine"], table: pa.Table) -> None:
        (attempt,) = table.column("attempt_id").unique().to_pylist() or [""]
        with self.appending(name, attempt) as appender:
            appender.add(table)

    def _commit(self, name: str, schema: pa.Schema, files: list[AddAction]) -> None:
        """Make files of rows that are written already part of a table."""

        def commit(target: DeltaTable, hooks: PostCommitHookProperties) -> None:
            there = pa.schema(target.schema().to_arrow()).names
            added = [Field.from_arrow(column) for column in schema if column.name not in there]
            if added:
                target.alter.add_columns(added, commit_properties=_COMMIT)
            target.create_write_transaction(
                files,
                "append",
                target.schema(),
                "attempt_id",
                commit_properties=_COMMIT,
                post_commithook_properties=hooks,
            )

        self._write(name, schema, "attempt_id", "record_id,partition", commit)

    def _append(self, name: str, table: pa.Table, partition_by: str | None, statistics: str) -> int:
        """Append and return the version that the Delta table then has."""

        def append(target: DeltaTable, hooks: PostCommitHookProperties) -> None:
            there = pa.schema(target.schema().to_arrow())
            merge: Literal["merge"] | None = None if set(there.names) == set(table.column_names) else "merge"
            write_deltalake(
                target,
                table,
                mode="append",
                schema_mode=merge,
                commit_properties=_COMMIT,
                post_commithook_properties=hooks,
            )

        return self._write(name, table.schema, partition_by, statistics, append)

    def _write(
        self,
        name: str,
        schema: pa.Schema,
        partition_by: str | None,
        statistics: str,
        commit: Callable[[DeltaTable, PostCommitHookProperties], None],
    ) -> int:
        uri = self.uri(name)
        last: Exception | None = None
        for attempt in range(_ATTEMPTS):
            try:
                target = self._open_or_create(name, schema, partition_by, statistics)
                # A newer contract may add or drop columns; deltalake itself would cast '7' to 7 without a word.
                self._check_types(uri, schema, pa.schema(target.schema().to_arrow()))
                commit(target, _NOW_AND_THEN[target.version() % _COMPACT_EVERY == 0])
                return int(target.version())
            except (CommitFailedError, TableNotFoundError) as error:
                last = error
                time.sleep(random.uniform(0, min(1.0, 0.02 * 2**attempt)))
            except (DeltaError, OSError) as error:
                raise StoreError(f"{uri}: cannot be written: {error}") from error
        raise StoreError(f"{uri}: {_ATTEMPTS} appends lost to other writers: {last}; run again with fewer at once")

    def _check_types(self, uri: str, rows: pa.Schema, there: pa.Schema) -> None:
        for column in rows:
            if column.name in there.names and _plain(there.field(column.name).type) != _plain(column.type):
                raise DataRefused(
                    f"{uri}: column {column.name} is {there.field(column.name).type}, these rows have {column.type}; "
                    "give the column a new name in the contract"
                )

    def _open_or_create(self, name: str, schema: pa.Schema, partition_by: str | None, statistics: str) -> DeltaTable:
        try:
            return self.open(name)
        except TableNotFoundError:
            DeltaTable.create(
                self.uri(name),
                schema,
                mode="ignore",
                partition_by=partition_by,
                configuration={"delta.dataSkippingStatsColumns": statistics, "delta.appendOnly": "false"},
                storage_options=self.store.delta()[1] or None,
            )
            return self.open(name)

    def _read(
        self, name: str, where: tuple[str, str] | None, schema: pa.Schema | None, columns: list[str] | None = None
    ) -> pa.Table:
        uri = self.uri(name)
        try:
            target = self.open(name)
        except TableNotFoundError:
            return (schema or pa.schema([])).empty_table()
        except (DeltaError, OSError) as error:
            raise StoreError(f"{uri}: cannot be opened: {error}") from error
        try:
            table = self._rows(target, name, where, columns)
        except (DeltaError, OSError, pa.ArrowInvalid) as error:
            raise StoreError(f"{uri}: cannot be read: {error}") from error
        return table.cast(schema) if schema is not None else table


def _local(uri: str) -> SubTreeFileSystem:
    """Return Arrow's own view of a local table.

    deltalake's is a Python object that Arrow's I/O threads may still let go of while the interpreter ends; Python
    3.11 then kills the thread and C++ aborts the process: 8 of 12 short scripts exited with 134.
    """
    return SubTreeFileSystem(uri, LocalFileSystem())


def _plain(kind: pa.DataType) -> pa.DataType:
    """Delta knows one string type and one list type; Arrow's variants of them differ in layout only."""
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_list_view(kind):
        return pa.list_(_plain(kind.value_type))
    return kind
