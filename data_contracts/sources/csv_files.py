"""Delimited text files as a source: parsed by pyarrow where a block is sound, record by record where it is not.

`csv_sound.sound` says how far a block is sound. Where it is not, `csv_records.parse` takes the next record, and pyarrow
goes on after it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from data_contracts.contract import Contract
from data_contracts.errors import DataRefused
from data_contracts.sources import decoding, opening
from data_contracts.sources.columns import in_order
from data_contracts.sources.csv_records import Dialect, Parsed, parse
from data_contracts.sources.csv_sound import sound
from data_contracts.sources.decoding import Encoding
from data_contracts.sources.drift import columns_in
from data_contracts.sources.files import FileLayout
from data_contracts.sources.records import RawRecord, SourceFile, SourcePartition, batches, typed_batches

_BLOCK_BYTES = opening.BLOCK_BYTES
_SMALL_BYTES = 64 << 10


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
            blocks = decoding.utf8_blocks(stream, encoding, _BLOCK_BYTES)
            yield from _File(self, file, encoding, constants).batches(blocks)


@dataclass
class _File:
    """One file under way: `number` is that of the last record."""

    reader: CsvFiles
    file: SourceFile
    encoding: Encoding
    constants: Mapping[str, Any]
    number: int = 0
    tables: list[tuple[pa.Table, np.ndarray[Any, np.dtype[np.int64]]]] = field(default_factory=list)
    loose: list[RawRecord] = field(default_factory=list)

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
            names = [decoding.decoded(value, self.encoding) for value, _ in record.fields]
        except ValueError as error:
            raise DataRefused(
                f"{self.file.path}: {self.file.name}: the header cannot be read: {error}; "
                "check reader.encoding and reader.quote, or name the columns in reader.columns"
            ) from error
        return [name.strip() for name in names] if self.reader.trim else names

    def _consume(self, data: bytes, final: bool) -> Generator[pa.RecordBatch, None, int]:
        """Yield the records of a text that starts with one; return how much of it they are."""
        at, window = 0, len(data)
        while at < len(data):
            piece = data[at : at + window] if at or window < len(data) else data
            whole = at + len(piece) == len(data)
            cut, dirty = sound(piece, self.reader.dialect, final and whole)
            if cut:
                self._fast(piece[:cut])
                at += cut
            if dirty or (cut == 0 and whole and len(piece) > opening.MOST_RECORD_BYTES):
                # Where damage is dense, looking for the next sound record costs more than parsing what lies between.
                done = self._careful(data, at, at + (_SMALL_BYTES // 4 if cut < _SMALL_BYTES // 16 else 1), final)
                if done == at:
                    break
                at, window = done, _SMALL_BYTES
            elif cut == 0 and whole:
                break
            else:
                window *= 2
        yield from self._flush()
        return at

    def _fast(self, data: bytes) -> None:
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
            )
        except pa.ArrowInvalid:
            # Sound and yet not to pyarrow's liking: its limits are not those of the format.
            self._careful(data, 0, len(data), True)
            return
        rows = table.num_rows + len(bad)
        numbers = np.arange(self.number + 1, self.number + rows + 1)
        if bad:
            numbers = np.delete(numbers, [row.number - 1 for row in bad])
        self.tables.append((table, numbers))
        self.loose += [self._ragged(self.number + row.number, row.actual_columns, row.text.encode()) for row in bad]
        self.number += rows

    def _flush(self) -> Iterator[pa.RecordBatch]:
        """Yield what was read, in the order of the records."""
        found: list[pa.RecordBatch] = []
        if self.tables:
            table = pa.concat_tables([table for table, _ in self.tables]).combine_chunks()
            numbers = np.concatenate([numbers for _, numbers in self.tables])
            columns = {n: pa.repeat(pa.scalar(v, pa.string()), table.num_rows) for n, v in self.constants.items()}
            columns |= {name: self._trimmed(table.column(str(place))) for name, place in self.places.items()}
            found += typed_batches(self.reader.contract, columns, self.file.name, pa.array(numbers))
        if self.loose:
            yield from in_order([*found, *batches(self.reader.contract, self.loose)])
        else:
            yield from found
        self.tables, self.loose = [], []

    def _trimmed(self, column: pa.ChunkedArray) -> pa.Array:
        array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
        array = pa.concat_arrays(array.chunks) if isinstance(array, pa.ChunkedArray) else array
        if not self.reader.trim:
            return array
        array = pc.utf8_trim_whitespace(array)
        return pc.if_else(
            pc.is_in(array, pa.array(self.reader.nulls, pa.string())), pa.scalar(None, pa.string()), array
        )

    def _careful(self, data: bytes, at: int, until: int, final: bool) -> int:
        """Keep the records that start before `until`, parsed one by one; return where the next one starts."""
        while at < min(until, len(data)):
            record = parse(data, at, self.reader.dialect, final)
            if record is None:
                break
            at = record.end
            if record.fields or record.fault:
                self.number += 1
                self.loose.append(self._record(record))
        return at

    def _record(self, record: Parsed) -> RawRecord:
        if record.fault:
            raw = decoding.original(record.raw, self.encoding)
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
        raw = decoding.original(record.raw, self.encoding)
        return RawRecord(self.file.name, self.number, values, "; ".join(faults) or None, raw)

    def _value(self, data: bytes, quoted: bool) -> str | None:
        text = decoding.decoded(data, self.encoding)
        if self.reader.trim:
            text = text.strip()
        return None if text in self.reader.nulls and (self.reader.trim or not quoted) else text

    def _ragged(self, number: int, fields: int, raw: bytes) -> RawRecord:
        fault = f"{fields} fields, the header has {self.width}"
        return RawRecord(self.file.name, number, self.constants, fault, decoding.original(raw, self.encoding))
