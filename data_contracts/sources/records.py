"""What every source gives: partitions of files, and records as Arrow batches of one schema."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from data_contracts.canonical import document_sha, sha256
from data_contracts.contract import Contract, Property
from data_contracts.errors import DataRefused
from data_contracts.sources.casts import cast_column, plain, python_values
from data_contracts.sources.values import UNREADABLE, fault_of, value_readers

SOURCE_FILE, SOURCE_LINE, FAULT, RAW = "_source_file", "_source_line", "_fault", "_raw"
_BATCH_ROWS, _BATCH_BYTES = 8192, 16 << 20
_SLICE_ROWS, _SLICE_BYTES = 65536, 64 << 20


@dataclass(frozen=True)
class SourceFile:
    """One file of a partition: `name` is its path relative to the source, with '/'."""

    name: str
    path: Path
    size: int

    @cached_property
    def sha(self) -> str:
        """The hex SHA-256 of the file's bytes, read when first asked for."""
        try:
            with self.path.open("rb") as stream:
                return hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise self._unreadable(error) from error

    @property
    def hashed(self) -> bool:
        """Whether `sha` was asked for, so that somebody relies on the bytes being those."""
        return "sha" in vars(self)

    def read_bytes(self) -> bytes:
        """Return the bytes that `sha` names.

        Raises:
            DataRefused: the file is gone, unreadable, or changed since it was hashed.
        """
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise self._unreadable(error) from error
        if sha256(data) != self.sha:
            raise DataRefused(f"{self.path}: changed while it was read; ingest it again when its writer is done")
        return data

    def check_unchanged(self) -> None:
        """Hash the file again, for readers that stream it.

        Raises:
            DataRefused: the bytes are no longer those that `sha` names.
        """
        if SourceFile(self.name, self.path, self.size).sha != self.sha:
            raise DataRefused(f"{self.path}: changed while it was read; ingest it again when its writer is done")

    def _unreadable(self, error: OSError) -> DataRefused:
        return DataRefused(f"{self.path}: cannot be read: {error.strerror}; restore it, or list the partitions again")


@dataclass(frozen=True)
class SourcePartition:
    """The files that arrive, are validated and are restated together."""

    value: str
    files: tuple[SourceFile, ...]

    @cached_property
    def source_sha(self) -> str:
        """SHA-256 of the canonical JSON [[name, sha], ...] of its files, sorted by name."""
        return document_sha(sorted([file.name, file.sha] for file in self.files))

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


class Source(Protocol):
    """Files of one format at one location, read under one contract."""

    def partitions(self) -> list[SourcePartition]:
        """Return the partitions, sorted by value."""

    def read(self, partition: SourcePartition) -> Iterator[pa.RecordBatch]:
        """Yield batches of `source_schema(contract)`."""


@dataclass(frozen=True)
class RawRecord:
    """One record before typing: values by property name; `fault` says why it cannot be decoded, `raw` what it was."""

    file: str
    line: int
    values: Mapping[str, Any]
    fault: str | None = None
    raw: bytes | None = None


def arrow_type(prop: Property) -> pa.DataType:
    """Return the Arrow type of a property (timestamps: microseconds, UTC)."""
    return {
        "integer": pa.int64(),
        "number": pa.float64(),
        "boolean": pa.bool_(),
        "date": pa.date32(),
        "timestamp": pa.timestamp("us", tz="UTC"),
    }.get(prop.logical_type, pa.string())


def source_schema(contract: Contract) -> pa.Schema:
    """Return the schema of a source's batches: the contract's properties, then where each record came from.

    `_source_line` counts records of the file from 1; `_fault` is null for a record that could be decoded; `_raw` holds
    the bytes of one that could not.
    """
    fields = [pa.field(prop.name, arrow_type(prop)) for prop in contract.properties]
    origin = [(SOURCE_FILE, pa.string()), (SOURCE_LINE, pa.int64()), (FAULT, pa.string()), (RAW, pa.binary())]
    return pa.schema([*fields, *(pa.field(name, kind) for name, kind in origin)])


def batches(contract: Contract, records: Iterable[RawRecord]) -> Iterator[pa.RecordBatch]:
    """Yield typed batches of at most 8,192 records and about 16 MiB of text.

    A value that is not of its property's type becomes null and the record's fault.
    """
    schema = source_schema(contract)
    plan = value_readers(contract)
    rows: list[list[Any]] = []
    held = 0
    for record in records:
        values: list[Any] = []
        faults = [record.fault] if record.fault else []
        for name, read in plan:
            value = record.values.get(name)
            if value is not None:
                try:
                    value = read(value)
                except UNREADABLE as error:
                    faults.append(fault_of(name, value, error))
                    value = None
            held += len(value) if isinstance(value, str) else 8
            values.append(value)
        raw = record.raw
        if faults and raw is None:
            raw = _raw(record.values)
        held += len(raw) if raw else 0
        rows.append([*values, record.file, record.line, "; ".join(faults) or None, raw if faults else None])
        if len(rows) >= _BATCH_ROWS or held >= _BATCH_BYTES:
            yield _batch(rows, schema)
            rows, held = [], 0
    if rows:
        yield _batch(rows, schema)


def _batch(rows: list[list[Any]], schema: pa.Schema) -> pa.RecordBatch:
    columns = zip(*rows, strict=True)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def typed_batches(
    contract: Contract, columns: Mapping[str, pa.Array], file: str, numbers: pa.Array
) -> Iterator[pa.RecordBatch]:
    """Yield typed batches of a block of records that lies in columns already, faults and raw as `batches` gives them.

    `columns` maps names of the contract to arrays of one length, of any type; binary values are text where they are
    UTF-8. A column that is missing is null; one that the contract lacks only stands in the raw form of faulty records.
    `numbers` (int64, no nulls) are the records' numbers in the file. Batches are slices of at most 65,536 records and
    about 64 MiB; only the values that Arrow's casts cannot take are read one by one.
    """
    schema = source_schema(contract)
    plan = value_readers(contract)
    size = sum(array.nbytes for array in columns.values())
    step = max(1, min(_SLICE_ROWS, len(numbers) * _SLICE_BYTES // max(size, 1)))
    for start in range(0, len(numbers), step):
        block = {name: plain(array.slice(start, step)) for name, array in columns.items()}
        count = min(step, len(numbers) - start)
        arrays: list[pa.Array] = []
        faults: dict[int, list[str]] = {}
        for (name, read), prop in zip(plan, contract.properties, strict=True):
            wanted = arrow_type(prop)
            if name not in block:
                arrays.append(pa.nulls(count, wanted))
                continue
            array, bad = cast_column(block[name], prop.logical_type, wanted, read)
            arrays.append(array)
            for row, (value, error) in bad.items():
                faults.setdefault(row, []).append(fault_of(name, value, error))
        rows = sorted(faults)
        arrays += [
            pa.repeat(pa.scalar(file, pa.string()), count),
            numbers.slice(start, step).cast(pa.int64()),
            _scatter(rows, ["; ".join(faults[row]) for row in rows], count, pa.string()),
            _scatter(rows, _raws(block, rows), count, pa.binary()),
        ]
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _raw(values: Mapping[str, Any]) -> bytes:
    text = json.dumps(dict(values), ensure_ascii=False, default=str, sort_keys=True)
    return text.encode("utf-8", "backslashreplace")


def _raws(block: Mapping[str, pa.Array], rows: list[int]) -> list[bytes]:
    if not rows:
        return []
    chosen = pa.array(rows, pa.int64())
    columns = [python_values(array.take(chosen)) for array in block.values()]
    return [_raw(dict(zip(block, values, strict=True))) for values in zip(*columns, strict=True)]


def _scatter(rows: list[int], values: list[Any], count: int, kind: pa.DataType) -> pa.Array:
    """Return an array of `count` that is null but for the given rows."""
    if not rows:
        return pa.nulls(count, kind)
    where = np.zeros(count, dtype=np.int64)
    where[rows] = np.arange(len(rows))
    known = np.zeros(count, dtype=np.bool_)
    known[rows] = True
    return pa.array(values, kind).take(pa.array(where, mask=~known))
