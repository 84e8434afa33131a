"""Tables whose columns are separated by blanks, as programs of science and engineering print them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from data_contracts.contract import Contract
from data_contracts.errors import DataRefused
from data_contracts.sources import decoding, opening
from data_contracts.sources.columns import in_order
from data_contracts.sources.drift import columns_in
from data_contracts.sources.files import FileLayout
from data_contracts.sources.records import RawRecord, SourceFile, SourcePartition, batches, typed_batches

_ROWS = 65_536


class TableFiles:
    """Files (default `**/*.txt`) of lines of words between any number of blanks and tabs.

    `reader.columns` names the words of a line; without it the first line does. `reader.nulls` are words that stand for
    no value.
    """

    def __init__(self, contract: Contract, location: str) -> None:
        reader = contract.reader
        self.contract = contract
        self.layout = FileLayout.of(contract, location, "**/*.txt", packed=True)
        self.header: list[str] | None = reader.get("columns")
        self.skip = int(reader.get("skipRows", 0))
        self.nulls = frozenset(str(word) for word in reader.get("nulls", ()))

    def partitions(self) -> list[SourcePartition]:
        """Return the partitions, sorted by value."""
        return self.layout.partitions()

    def read(self, partition: SourcePartition) -> Iterator[pa.RecordBatch]:
        """Yield one record per line that is not blank; `_source_line` is the line's number.

        A line with more or fewer words than there are columns is a record with that fault and its bytes.

        Raises:
            DataRefused: a file cannot be read, or `reader.drift` refuses its columns.
        """
        for file in partition.files:
            file.check_unchanged()
            yield from self._batches(file, self.layout.columns(file.name, partition.value))
            file.check_unchanged()

    def _batches(self, file: SourceFile, constants: Mapping[str, Any]) -> Iterator[pa.RecordBatch]:
        encoding = self.layout.encoding(file)
        names = self.header
        places = self._places(names, file) if names else {}
        rows: list[list[str]] = []
        numbers: list[int] = []
        bad: list[RawRecord] = []
        with opening.opened(file, self.layout.limit) as stream:
            blocks = decoding.utf8_blocks(stream, encoding)
            for number, (line, _) in enumerate(decoding.lines(blocks, self.layout.line_end), start=1):
                if number <= self.skip or not line.strip():
                    continue
                try:
                    words = decoding.decoded(line, encoding).split()
                except ValueError as error:
                    bad.append(RawRecord(file.name, number, constants, str(error), decoding.original(line, encoding)))
                    continue
                if not words:
                    # Blank by Unicode only: still a line with something in it.
                    words = [""]
                if names is None:
                    names = words
                    places = self._places(names, file)
                elif len(words) != len(names):
                    fault = f"{len(words)} words, there are {len(names)} columns"
                    bad.append(RawRecord(file.name, number, constants, fault, decoding.original(line, encoding)))
                else:
                    rows.append(words)
                    numbers.append(number)
                if len(rows) + len(bad) >= _ROWS:
                    yield from self._typed(file, constants, places, rows, numbers, bad)
                    rows, numbers, bad = [], [], []
        yield from self._typed(file, constants, places, rows, numbers, bad)

    def _typed(
        self,
        file: SourceFile,
        constants: Mapping[str, Any],
        places: Mapping[str, int],
        rows: list[list[str]],
        numbers: list[int],
        bad: list[RawRecord],
    ) -> Iterator[pa.RecordBatch]:
        if not rows:
            yield from batches(self.contract, bad)
            return
        words = [*zip(*rows, strict=True)]
        columns = {name: pa.repeat(pa.scalar(value, pa.string()), len(rows)) for name, value in constants.items()}
        for name, place in places.items():
            found = [None if word in self.nulls else word for word in words[place]] if self.nulls else words[place]
            columns[name] = pa.array(found, pa.string())
        good = typed_batches(self.contract, columns, file.name, pa.array(np.asarray(numbers)))
        yield from in_order([*good, *batches(self.contract, bad)]) if bad else good

    def _places(self, names: list[str], file: SourceFile) -> dict[str, int]:
        if len(set(names)) != len(names):
            raise DataRefused(f"{file.name}: two columns have one name: {' '.join(names)}; name them in reader.columns")
        found = columns_in(self.contract, names, file.name)
        return {name: names.index(physical) for name, physical in found.items()}
