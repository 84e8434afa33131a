"""Delimited text files as a source: parsed by pyarrow where a block is sound, record by record where it is not.

A block is sound when it is UTF-8 and every quote opens at the start of a field and closes at its end; then the parity
of quotes says where records end, and pyarrow reads the block as RFC 4180 does. Any other block is cut into small ones,
and those that are still not sound go through `csv_records.parse`.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from data_contracts.contract import Contract
from data_contracts.errors import DataRefused
from data_contracts.sources import opening
from data_contracts.sources.columns import in_order
from data_contracts.sources.csv_records import Dialect, Parsed, parse
from data_contracts.sources.drift import columns_in
from data_contracts.sources.files import FileLayout
from data_contracts.sources.opening import Encoding
from data_contracts.sources.records import RawRecord, SourceFile, SourcePartition, batches, typed_batches

_BLOCK_BYTES = opening.BLOCK_BYTES
_SMALL_BYTES = 64 << 10
_ENDS = {"auto": b"\r\n", "lf": b"\n", "cr": b"\r"}


class CsvFiles:
    """Files (default `**/*.csv`) with a header, or `reader.columns`; other settings are those of docs/sources.md.

    Every field is typed by the contract, so one bad field costs its own record only. A field that is one of
    `reader.nulls` (default: an empty one) and stands without quotes is null.
    """

    def __init__(self, contract: Contract, location: str) -> None:
        reader = contract.reader
        self.contract = contract
        self.header: list[str] | None = reader.get("columns")
        self.skip = int(reader.get("skipRows", 0))
        self.trim = bool(reader.get("trim", False))
        self.nulls = [str(word) for word in reader.get("nulls", [""])]
        self.layout = FileLayout.of(contract, location, "**/*.csv", packed=True)
        quote, escape = reader.get("quote", '"'), reader.get("escape")
        self.dialect = Dialect(
            str(reader.get("delimiter", ",")).encode(),
            str(quote).encode() if quote is not None else None,
            str(escape).encode() if escape is not None else None,
            self.layout.line_end,
        )

    def partitions(self) -> list[SourcePartition]:
        """Return the partitions, sorted by value."""
        return self.layout.partitions()

    def read(self, partition: SourcePartition) -> Iterator[pa.RecordBatch]:
        """Yield one record per row; a header is record 1, blank lines are none.

        A row of too few or too many fields, or with a quote that breaks it, is a record with that fault and its bytes.

        Raises:
            DataRefused: a file cannot be read, its header cannot be parsed, or `reader.drift` refuses its columns.
        """
        for file in partition.files:
            file.check_unchanged()
            yield from self._batches(file, self.layout.columns(file.name, partition.value))
            file.check_unchanged()

    def _batches(self, file: SourceFile, constants: dict[str, Any]) -> Iterator[pa.RecordBatch]:
        encoding = self.layout.encoding(file)
        with opening.opened(file, self.layout.limit) as stream:
            blocks = opening.utf8_blocks(stream, encoding, _BLOCK_BYTES)
            yield from _File(self, file, encoding, constants).batches(blocks)


@dataclass
class _File:
    """One file under way: `number` is that of the last record."""

    reader: CsvFiles
    file: SourceFile
    encoding: Encoding
    constants: Mapping[str, Any]
    number: int = 0

    def batches(self, blocks: Iterator[bytes]) -> Iterator[pa.RecordBatch]:
        names, rest = self._header(blocks)
        if names is None:
            return
        self.width = len(names)
        found = columns_in(self.reader.contract, names, self.file.name)
        # Of two columns with one name the first counts.
        self.places = {name: names.index(physical) for name, physical in found.items()}
        data = rest
        for block in blocks:
            done = yield from self._consume(data + block if data else block, final=False)
            data = (data + block)[done:]
        yield from self._consume(data, final=True)

    def _header(self, blocks: Iterator[bytes]) -> tuple[list[str] | None, bytes]:
        """Return the names of the columns, or None for an empty file, and what was read beyond the header."""
        dialect, data, at, skipped = self.reader.dialect, b"", 0, 0
        for block, final in chain(((block, False) for block in blocks), [(b"", True)]):
            data += block
            while skipped < self.reader.skip:
                mark = dialect.line_end.search(data, at)
                if mark is None or (mark.end() == len(data) and not final):
                    break
                at, skipped = mark.end(), skipped + 1
            if skipped < self.reader.skip:
                if final:
                    return None, b""
                continue
            if self.reader.header is not None:
                return list(self.reader.header), data[at:]
            while (record := parse(data, at, dialect, final)) is not None and at < len(data):
                at = record.end
                if record.fields or record.fault:
                    self.number = 1
                    return self._names(record), data[at:]
        return None, b""

    def _names(self, record: Parsed) -> list[str]:
        try:
            if record.fault:
                raise ValueError(record.fault)
            names = [opening.decoded(value, self.encoding) for value, _ in record.fields]
        except ValueError as error:
            raise DataRefused(
                f"{self.file.path}: {self.file.name}: the header cannot be read: {error}; "
                "check reader.encoding and reader.quote, or name the columns in reader.columns"
            ) from error
        return [name.strip() for name in names] if self.reader.trim else names

    def _consume(self, data: bytes, final: bool) -> Generator[pa.RecordBatch, None, int]:
        """Yield the records of a text that starts with one; return how much of it they are."""
        at, step = 0, len(data)
        while at < len(data):
            piece = data[at : at + step] if at or step < len(data) else data
            ends = final and at + len(piece) == len(data)
            cut = self._sound(piece, ends)
            if cut:
                yield from self._fast(piece[:cut])
                at += cut
            elif step > _SMALL_BYTES:
                if cut == 0 and not final:
                    return at
                step = _SMALL_BYTES
            else:
                done = yield from self._careful(data, at, min(at + step, len(data)), final)
                if done == at:
                    return at
                at = done
        return at

    def _sound(self, data: bytes, final: bool) -> int | None:
        """Return how much of the text is whole records that pyarrow reads as `parse` does; None when not sound."""
        dialect = self.reader.dialect
        plain = len(dialect.delimiter) == 1 and (dialect.quote is None or len(dialect.quote) == 1)
        if not plain or dialect.end == "crlf" or (dialect.escape and dialect.escape in data):
            return None
        if dialect.end != "auto" and bytes({"lf": b"\r", "cr": b"\n"}[dialect.end]) in data:
            return None
        try:
            # Most text is ASCII, which needs no decoder.
            if not data.isascii():
                data.decode("utf-8")
        except UnicodeDecodeError as error:
            # A character may be cut by the end of the block.
            if final or error.reason != "unexpected end of data" or len(data) - error.start > 3:
                return None
        if not final and data.endswith(b"\r"):
            data = data[:-1]
        if dialect.quote is None or dialect.quote not in data:
            return len(data) if final else max(data.rfind(mark) for mark in (b"\n", b"\r")) + 1
        return _quotes_sound(np.frombuffer(data, np.uint8), dialect, final)

    def _fast(self, data: bytes) -> Iterator[pa.RecordBatch]:
        reader, bad = self.reader, []

        def keep(row: csv.InvalidRow) -> str:
            bad.append(row)
            return "skip"

        names = [str(place) for place in range(self.width)]
        wanted = [str(place) for place in dict.fromkeys(self.places.values())]
        quote = reader.dialect.quote
        try:
            table = csv.read_csv(
                pa.BufferReader(data),
                # Rows are numbered only when one thread reads; a block is small enough to be one to pyarrow.
                csv.ReadOptions(use_threads=False, block_size=len(data) + 1, column_names=names),
                csv.ParseOptions(
                    delimiter=reader.dialect.delimiter.decode(),
                    quote_char=quote.decode() if quote else False,
                    newlines_in_values=quote is not None,
                    invalid_row_handler=keep,
                ),
                csv.ConvertOptions(
                    column_types={name: pa.string() for name in names},
                    include_columns=wanted or names[:1],
                    null_values=[] if reader.trim else reader.nulls,
                    strings_can_be_null=not reader.trim,
                    quoted_strings_can_be_null=False,
                    check_utf8=False,
                ),
            ).combine_chunks()
        except pa.ArrowInvalid:
            # Sound and yet not to pyarrow's liking: its limits are not those of the format.
            yield from self._slow(data)
            return
        rows = table.num_rows + len(bad)
        numbers = np.arange(self.number + 1, self.number + rows + 1)
        if bad:
            numbers = np.delete(numbers, [row.number - 1 for row in bad])
        columns = {
            name: pa.repeat(pa.scalar(value, pa.string()), table.num_rows) for name, value in self.constants.items()
        }
        columns |= {name: self._trimmed(table.column(str(place))) for name, place in self.places.items()}
        found = typed_batches(reader.contract, columns, self.file.name, pa.array(numbers))
        if bad:
            broken = [self._ragged(self.number + row.number, row.actual_columns, row.text.encode()) for row in bad]
            yield from in_order([*found, *batches(reader.contract, broken)])
        else:
            yield from found
        self.number += rows

    def _trimmed(self, column: pa.ChunkedArray) -> pa.Array:
        array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        array = pa.concat_arrays(array.chunks) if isinstance(array, pa.ChunkedArray) else array
        if not self.reader.trim:
            return array
        array = pc.utf8_trim_whitespace(array)
        return pc.if_else(
            pc.is_in(array, pa.array(self.reader.nulls, pa.string())), pa.scalar(None, pa.string()), array
        )

    def _careful(self, data: bytes, at: int, until: int, final: bool) -> Generator[pa.RecordBatch, None, int]:
        """Yield the records that start before `until`, parsed one by one; return where the next one starts."""
        found = []
        while at < until:
            record = parse(data, at, self.reader.dialect, final)
            if record is None:
                break
            at = record.end
            if record.fields or record.fault:
                self.number += 1
                found.append(self._record(record))
        yield from batches(self.reader.contract, found)
        return at

    def _slow(self, data: bytes) -> Iterator[pa.RecordBatch]:
        yield from self._careful(data, 0, len(data), True)

    def _record(self, record: Parsed) -> RawRecord:
        if record.fault:
            raw = opening.original(record.raw, self.encoding)
            return RawRecord(self.file.name, self.number, self.constants, record.fault, raw)
        if len(record.fields) != self.width:
            return self._ragged(self.number, len(record.fields), record.raw)
        values, faults = dict(self.constants), []
        for name, place in self.places.items():
            try:
                values[name] = self._value(*record.fields[place])
            except ValueError as error:
                values[name] = None
                faults.append(f"{name}: {error}")
        raw = opening.original(record.raw, self.encoding)
        return RawRecord(self.file.name, self.number, values, "; ".join(faults) or None, raw)

    def _value(self, data: bytes, quoted: bool) -> str | None:
        text = opening.decoded(data, self.encoding)
        if self.reader.trim:
            text = text.strip()
        return None if text in self.reader.nulls and (self.reader.trim or not quoted) else text

    def _ragged(self, number: int, fields: int, raw: bytes) -> RawRecord:
        fault = f"{fields} fields, the header has {self.width}"
        return RawRecord(self.file.name, number, self.constants, fault, opening.original(raw, self.encoding))


def _quotes_sound(data: np.ndarray[Any, np.dtype[np.uint8]], dialect: Dialect, final: bool) -> int | None:
    quote, delimiter = (dialect.quote or b"")[0], dialect.delimiter[0]
    ends = data == _ENDS[dialect.end][0]
    for other in _ENDS[dialect.end][1:]:
        ends |= data == other
    edge = ends | (data == delimiter)
    places = np.flatnonzero(data == quote)
    opens, closes = places[0::2], places[1::2]
    # An opening quote stands at the start of a field, or right after a closing one (a doubled quote).
    before = opens[opens > 0] - 1
    if not (edge[before] | (data[before] == quote)).all():
        return None
    after = closes[closes < len(data) - 1] + 1
    if not (edge[after] | (data[after] == quote)).all():
        return None
    whole = len(places) % 2 == 0
    if final and whole:
        return len(data)
    if final:
        return None
    stops = np.flatnonzero(ends)
    outside = stops[np.searchsorted(places, stops) % 2 == 0]
    # What is cut at the end is not known to be sound, but it is not read either.
    return int(outside[-1]) + 1 if len(outside) else 0
