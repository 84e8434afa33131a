"""Delimited text files as a source, read with pyarrow in blocks. Source: RFC 4180."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa
from pyarrow import csv

from data_contracts.contract import Contract
from data_contracts.errors import DataRefused
from data_contracts.sources.files import FileLayout, columns_in
from data_contracts.sources.records import RawRecord, SourceFile, SourcePartition

_BLOCK_BYTES = 64 << 20


class CsvFiles:
    """Files (default `**/*.csv`) with a header, or `reader.columns`; `reader.delimiter` is a comma by default.

    A column may have had other names: `reader.aliases`. A byte order mark is no part of the header.

    Every field is read as bytes and typed by the contract, so one bad field costs its own record only. An empty field
    is null, an empty quoted one is empty text.
    """

    def __init__(self, contract: Contract, location: str) -> None:
        self.contract = contract
        self.header: list[str] | None = contract.reader.get("columns")
        self.delimiter = str(contract.reader.get("delimiter", ","))
        self.layout = FileLayout.of(contract, location, "**/*.csv")

    def partitions(self) -> list[SourcePartition]:
        """Return the partitions, sorted by value."""
        return self.layout.partitions()

    def read(self, partition: SourcePartition) -> Iterator[pa.RecordBatch]:
        """Yield one record per row; a header is record 1; a row with too few or too many fields has that fault."""
        return self.layout.batches(
            record for file in partition.files for record in self._records(file, partition.value)
        )

    def _records(self, file: SourceFile, partition: str) -> Iterator[RawRecord]:
        columns = self.layout.columns(file.name, partition)
        file.check_unchanged()
        yield from self._rows(file, columns)
        file.check_unchanged()

    def _rows(self, file: SourceFile, columns: dict[str, Any]) -> Iterator[RawRecord]:
        bad: list[RawRecord] = []
        number = 1 if self.header is None else 0

        def keep(row: csv.InvalidRow) -> str:
            fault = f"{row.actual_columns} fields, the header has {row.expected_columns}"
            bad.append(
                RawRecord(file.name, row.number or 0, columns, fault, row.text.encode("utf-8", "surrogateescape"))
            )
            return "skip"

        try:
            names = self.header or self._header(file)
            if not names:
                return
            present = columns_in(self.contract, names)
            with csv.open_csv(
                file.path,
                # Rows are numbered only when one thread reads.
                csv.ReadOptions(
                    use_threads=False,
                    block_size=min(max(file.size, 1 << 16), _BLOCK_BYTES),
                    column_names=names,
                    skip_rows_after_names=0 if self.header else 1,
                ),
                csv.ParseOptions(delimiter=self.delimiter, newlines_in_values=True, invalid_row_handler=keep),
                csv.ConvertOptions(
                    column_types={name: pa.binary() for name in names},
                    null_values=[""],
                    strings_can_be_null=True,
                    quoted_strings_can_be_null=False,
                ),
            ) as stream:
                for batch in stream:
                    data = {
                        name: [_decoded(value) for value in batch.column(physical).to_pylist()]
                        for name, physical in present.items()
                    }
                    for row in range(batch.num_rows):
                        number += 1
                        while bad and bad[0].line == number:
                            yield bad.pop(0)
                            number += 1
                        yield RawRecord(file.name, number, {**columns, **{name: data[name][row] for name in data}})
        except (pa.ArrowInvalid, UnicodeDecodeError) as error:
            yield from bad
            yield RawRecord(file.name, number + 1, columns, f"the rest of the file cannot be parsed: {error}", b"")
            return
        except OSError as error:
            raise DataRefused(f"{file.path}: cannot be read: {error}; restore it") from error
        yield from bad

    def _header(self, file: SourceFile) -> list[str]:
        with file.path.open("rb") as stream:
            if not stream.read(1):
                return []
        options = csv.ReadOptions(use_threads=False, block_size=min(max(file.size, 1 << 16), _BLOCK_BYTES))
        parse = csv.ParseOptions(
            delimiter=self.delimiter, newlines_in_values=True, invalid_row_handler=lambda row: "skip"
        )
        with csv.open_csv(file.path, options, parse, csv.ConvertOptions(check_utf8=False)) as stream:
            return list(stream.schema.names)


def _decoded(value: bytes | None) -> str | bytes | None:
    try:
        return None if value is None else value.decode("utf-8")
    except UnicodeDecodeError:
        return value
