"""Samples of CSV, JSON Lines, JSON documents and plain text."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from data_contracts.contracting.sample import MOST_TEXT, Sample, columns_of, first_text
from data_contracts.errors import DataRefused
from data_contracts.sources.opening import MOST_WHOLE_BYTES

_DELIMITERS = (",", "\t", ";", "|")


def csv_sample(path: Path, most: int) -> Sample:
    """Sample a delimited file: delimiter, header and encoding are guessed.

    Raises:
        DataRefused: it is empty, or no delimited text.
    """
    try:
        return _csv(path, most)
    except csv.Error as error:
        raise DataRefused(f"{path}: no delimited text: {error}; write the contract by hand") from error


def _csv(path: Path, most: int) -> Sample:
    text, reader, guesses, whole = first_text(path)
    lines = text[: 1 << 16].splitlines()[:50]
    delimiter = _delimiter([line for line in lines if line])
    reader = {"format": "csv", **reader}
    if delimiter != ",":
        reader["delimiter"] = delimiter
        guesses["delimiter"] = "it divides the first lines most evenly"
    csv.field_size_limit(MOST_WHOLE_BYTES)
    rows: Iterator[list[str]] = (row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if row)
    head = next(rows, None)
    if head is None:
        raise DataRefused(f"{path}: an empty file; give one with records")
    if not _is_header(head):
        rows = itertools.chain([head], rows)
        head = [f"column_{number}" for number in range(1, len(head) + 1)]
        reader["columns"] = head
        guesses["columns"] = "the first line looks like data; give the columns their names"
    kept = (row for row in rows if len(row) == len(head))
    columns, count, complete = columns_of(
        ({name: value if value else None for name, value in zip(head, row, strict=True)} for row in kept), most
    )
    return Sample(reader, columns, count, whole and complete, guesses)


def _delimiter(lines: list[str]) -> str:
    def evenness(mark: str) -> tuple[float, int]:
        counts = [len(row) for row in csv.reader(lines, delimiter=mark)]
        common, times = Counter(counts).most_common(1)[0] if counts else (1, 0)
        return (times / len(counts) if common > 1 and counts else 0.0, common)

    return max(_DELIMITERS, key=evenness) if lines else ","


def _is_header(row: list[str]) -> bool:
    filled = [cell.strip() for cell in row]
    numeric = any(re.fullmatch(r"[-+]?[\d.,]+([eE][-+]?\d+)?", cell) for cell in filled if cell)
    return not numeric and len(set(filled)) == len(filled) and all(len(cell) < 128 for cell in filled)


def json_lines_sample(path: Path, most: int) -> Sample:
    """Sample a file of one object a line; lines that are none are passed over."""
    text, reader, guesses, whole = first_text(path)

    def records() -> Iterator[Mapping[str, Any]]:
        for line in text.splitlines():
            try:
                value = json.loads(line) if line.strip() else None
            except (ValueError, RecursionError):
                continue
            if isinstance(value, dict):
                yield value

    columns, count, complete = columns_of(map(_flat, records()), most)
    return Sample({"format": "jsonl", **reader}, columns, count, whole and complete, guesses, _paths(columns))


def _flat(record: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """A record's values by their paths; plain lists are joined as the readers do, lists of objects left out."""
    values: dict[str, Any] = {}
    for name, value in record.items():
        if not re.fullmatch(r"[^.\[\]@^/$*]+", name):
            continue
        if isinstance(value, dict):
            values |= _flat(value, f"{above}{name}.")
        elif not isinstance(value, list):
            values[f"{above}{name}"] = value
        elif value and not any(isinstance(entry, dict | list) for entry in value):
            values[f"{above}{name}[*]"] = "\n".join(map(str, value))
    return values


def _paths(columns: Mapping[str, Any]) -> dict[str, str]:
    """What goes into reader.fields: all paths, once one is more than a name."""
    nested = any(re.search(r"[.\[@]", name) for name in columns)
    return {name: name for name in columns} if nested else {}


def json_sample(path: Path, most: int) -> Sample:
    """Sample a JSON document: its records are the largest list or mapping of objects.

    Raises:
        DataRefused: it is no JSON, or too large to be looked at.
    """
    text, reader, guesses, whole = first_text(path)
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        large = "" if whole else f"more than {MOST_TEXT >> 20} MiB, too large to infer from; "
        raise DataRefused(f"{path}: {large}no JSON document: {error}; give a smaller or a whole one") from error
    reader = {"format": "json", **reader}
    where, records = _record_path(document)
    if where != "$[*]":
        reader["record"] = where
        guesses["record"] = "the largest list or mapping of objects"
    kept = [_flat(r) if where[-2:] != ".*" else {"@key": r[0], **_flat(r[1])} for r in records]
    columns, count, complete = columns_of(kept, most)
    return Sample(reader, columns, count, complete, guesses, _paths(columns))


def _record_path(document: Any, where: str = "$") -> tuple[str, list[Any]]:
    """Find the largest list or mapping of objects: the document itself, or what stands under its members."""
    if isinstance(document, list):
        return f"{where}[*]", [entry for entry in document if isinstance(entry, dict)]
    if not isinstance(document, dict):
        return where, []
    if len(document) > 20 and all(isinstance(value, dict) for value in document.values()):
        return f"{where}.*", list(document.items())
    best: tuple[str, list[Any]] = (where, [document])
    for name, value in document.items():
        if isinstance(value, list | dict) and re.fullmatch(r"[A-Za-z_]\w*", name) and where.count(".") < 3:
            found = _record_path(value, f"{where}.{name}")
            if found[0].endswith(("*", "[*]")) and len(found[1]) > len(best[1]):
                best = found
    return best


def text_sample(path: Path, most: int) -> Sample:
    """Sample a text that is one record."""
    text, reader, guesses, whole = first_text(path)
    return Sample({"format": "text", **reader}, {"text": [text]}, 1, whole, guesses)
