"""What the first records of a source look like: columns of plain values, and the reader settings that gave them."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from data_contracts.sources.decoding import encoding_of, utf8_blocks
from data_contracts.sources.opening import DEFAULT_LIMIT, opened
from data_contracts.sources.records import SourceFile

# Text that is looked at: enough for rows that are long, and read within a second.
MOST_TEXT = 32 << 20


@dataclass(frozen=True)
class Sample:
    """Records as columns: `columns` maps a name in the source to values (text, or what JSON or Parquet holds).

    `reader` are the settings that read them, each with a reason in `guesses` where it was guessed. `whole` says whether
    the records are all there are; `per_file` that the source is a folder whose files are its partitions.
    """

    reader: dict[str, Any]
    columns: dict[str, list[Any]]
    rows: int
    whole: bool
    guesses: Mapping[str, str] = field(default_factory=dict)
    paths: Mapping[str, str] = field(default_factory=dict)
    per_file: bool = False


def source_file(path: Path) -> SourceFile:
    """Return a path as the readers take it."""
    return SourceFile(path.name, path, path.stat().st_size)


def first_text(path: Path) -> tuple[str, dict[str, Any], dict[str, str], bool]:
    """Return the beginning of a file's text, the encoding as a setting where it is not UTF-8, and whether it is all."""
    file = source_file(path)
    encoding = encoding_of(file, "detect", DEFAULT_LIMIT)
    reader, guesses = {}, {}
    if encoding.codec != "utf-8" and not encoding.mark:
        reader["encoding"] = encoding.codec
        guesses["encoding"] = "detected from the bytes of the first file"
    data, whole = bytearray(), True
    with opened(file, DEFAULT_LIMIT) as stream:
        for block in utf8_blocks(stream, encoding):
            data += block
            if len(data) > MOST_TEXT:
                whole = False
                break
    return data.decode("utf-8", "replace"), reader, guesses, whole


def columns_of(records: Iterable[Mapping[str, Any]], most: int) -> tuple[dict[str, list[Any]], int, bool]:
    """Turn at most so many records into columns; return them, their number, and whether there were no more."""
    columns: dict[str, list[Any]] = {}
    rows, source = 0, iter(records)
    for record in itertools.islice(source, most):
        for name, value in record.items():
            columns.setdefault(str(name), [None] * rows).append(value)
        rows += 1
        for values in columns.values():
            if len(values) < rows:
                values.append(None)
    return columns, rows, next(source, None) is None
