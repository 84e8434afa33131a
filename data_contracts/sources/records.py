"""What every source gives: partitions of files, and records as Arrow batches of one schema."""

from __future__ import annotations

import datetime
import decimal
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from data_contracts.canonical import document_sha, sha256
from data_contracts.contract import Contract, Property
from data_contracts.errors import DataRefused

SOURCE_FILE, SOURCE_LINE, FAULT, RAW = "_source_file", "_source_line", "_fault", "_raw"
_BATCH_ROWS, _BATCH_BYTES = 8192, 16 << 20


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
    forms = tuple(contract.reader.get("timestampFormats") or ())
    readers = {**_READERS, "timestamp": lambda value: _timestamp(value, forms)}
    plan: list[tuple[str, Callable[[Any], Any]]] = [
        (prop.name, readers.get(prop.logical_type, _text)) for prop in contract.properties
    ]
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
                except (ValueError, TypeError, ArithmeticError) as error:
                    faults.append(f"{name}: {_short(value)} cannot be read: {error}")
                    value = None
            held += len(value) if isinstance(value, str) else 8
            values.append(value)
        raw = record.raw
        if faults and raw is None:
            raw = json.dumps(dict(record.values), ensure_ascii=False, default=str, sort_keys=True).encode(
                "utf-8", "backslashreplace"
            )
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


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:79] + "…"


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if isinstance(value, str):
        value.encode("utf-8")  # JSON may hold lone surrogates, which no UTF-8 file can
        return value
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    raise TypeError(f"text is needed, this is {type(value).__name__}")


def _integer(value: Any) -> int:
    if isinstance(value, bool):
        raise TypeError("a whole number is needed, this is a truth value")
    number = decimal.Decimal(value.strip() if isinstance(value, str) else value)
    if number != number.to_integral_value() or abs(number) >= 2**63:
        raise ValueError("not a whole number of 64 bits")
    return int(number)


def _number(value: Any) -> float:
    if isinstance(value, bool):
        raise TypeError("a number is needed, this is a truth value")
    number = float(value)
    if number - number != 0:
        raise ValueError("not a finite number")
    return number


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    known = {"true": True, "1": True, "false": False, "0": False}
    word = str(value).strip().lower()
    if word not in known:
        raise ValueError("neither true nor false")
    return known[word]


def _date(value: Any) -> datetime.date:
    if isinstance(value, datetime.datetime):
        return value.date()
    return value if isinstance(value, datetime.date) else datetime.date.fromisoformat(str(value).strip())


def _timestamp(value: Any, forms: Sequence[str] = ()) -> datetime.datetime:
    moment = value if isinstance(value, datetime.datetime) else _moment(str(value).strip(), forms)
    # ODCS: a timestamp without a zone is UTC unless the contract says otherwise.
    return moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)


def _moment(text: str, forms: Sequence[str]) -> datetime.datetime:
    """Read ISO 8601, else the first of the reader's `timestampFormats` (strptime) that fits."""
    try:
        return datetime.datetime.fromisoformat(text)
    except ValueError:
        for form in forms:
            try:
                return datetime.datetime.strptime(text, form)
            except ValueError:
                continue
        raise


_READERS: dict[str, Callable[[Any], Any]] = {
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "date": _date,
    "timestamp": _timestamp,
}
