"""The first records of a file or folder as columns of plain values, and the reader settings that gave them."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

from data_contracts.contracting.binary_samples import arrow_sample, parquet_sample, xml_sample
from data_contracts.contracting.sample import Sample
from data_contracts.contracting.text_samples import csv_sample, json_lines_sample, json_sample, text_sample
from data_contracts.errors import DataRefused

_SUFFIXES = {
    ".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".parquet": "parquet",
    ".arrow": "arrow", ".feather": "arrow", ".ipc": "arrow", ".xml": "xml", ".txt": "text", ".md": "text",
}  # fmt: skip
_PACKED = (".gz", ".zst", ".zstd")
_MOST_FILES = 50
_DATE = re.compile(r"(19|20)\d\d[-_]?(0[1-9]|1[0-2])[-_]?(0[1-9]|[12]\d|3[01])")


def take_sample(location: Path, most_rows: int) -> Sample:
    """Read at most so many records from a file, or from the files of the commonest format in a folder.

    Raises:
        DataRefused: nothing is there, or its format is not known.
    """
    files = _files(location)
    form, pattern = _form(files[0]), f"**/*{_suffix(files[0])}"
    samples, rows = [], 0
    # Files spread over all of them: those of one folder are often of one kind.
    for path in files[:: max(1, len(files) // _MOST_FILES)][:_MOST_FILES]:
        one = _READERS[form](path, most_rows - rows)
        samples.append(one)
        rows += one.rows
        if rows >= most_rows:
            break
    columns: dict[str, list[Any]] = {}
    before = 0
    for one in samples:
        for name, values in one.columns.items():
            columns.setdefault(name, [None] * before).extend(values)
        before += one.rows
        for values in columns.values():
            values.extend([None] * (before - len(values)))
    first = samples[0]
    whole = len(samples) == len(files) and all(one.whole for one in samples)
    reader, guesses = dict(first.reader), dict(first.guesses)
    if pattern != _DEFAULTS.get(form):
        reader["files"] = pattern
    if len(files) > 1:
        expression, guesses["partition"] = _partition_pattern(files, location)
        reader["partition"] = {"from": "path", "pattern": expression}
    return Sample(reader, columns, before, whole, guesses, first.paths, len(files) > 1)


_DEFAULTS = {"csv": "**/*.csv", "jsonl": "**/*.jsonl", "json": "**/*.json", "parquet": "**/*.parquet",
             "arrow": "**/*.arrow", "xml": "**/*.xml", "text": "**/*.txt"}  # fmt: skip


def _files(location: Path) -> list[Path]:
    if location.is_file():
        return [location]
    if not location.is_dir():
        raise DataRefused(f"{location}: no such file or folder; give data to infer a contract from")
    found = sorted(p for p in location.rglob("*") if p.is_file() and not any(s.startswith(".") for s in p.parts))
    known = [path for path in found if _bare_suffix(path) in _SUFFIXES]
    if not known:
        raise DataRefused(f"{location}: no file of a known format; there are {', '.join(_SUFFIXES)} (.gz and .zst too)")
    (suffix, _), *_ = Counter(_suffix(path) for path in known).most_common(1)
    return [path for path in known if _suffix(path) == suffix]


def _suffix(path: Path) -> str:
    parts = [suffix.lower() for suffix in path.suffixes[-2:]]
    return "".join(parts) if len(parts) == 2 and parts[1] in _PACKED else "".join(parts[-1:])


def _bare_suffix(path: Path) -> str:
    return _suffix(path).split(".", 2)[1] and "." + _suffix(path).split(".", 2)[1] if _suffix(path) else ""


def _form(path: Path) -> str:
    known = _SUFFIXES.get(_bare_suffix(path))
    if known is None:
        raise DataRefused(
            f"{path}: the suffix {path.suffix or 'that is missing'} names no known format; "
            f"there are {', '.join(_SUFFIXES)} (.gz and .zst too)"
        )
    return known


def _partition_pattern(files: list[Path], root: Path) -> tuple[str, str]:
    """Name partitions by their folder where many files lie in few, by the date in each file's name, or by its name."""
    folders = {path.relative_to(root).parts[0] for path in files if len(path.relative_to(root).parts) > 1}
    if 1 < len(folders) <= len(files) // 5 and all(len(path.relative_to(root).parts) > 1 for path in files):
        return "^([^/]+)/", f"each of the {len(folders)} folders is a partition, named by it"
    why = f"each of the {len(files)} files is a partition, named by its "
    dates = [_DATE.search(path.name) for path in files]
    if all(dates) and len({d.group() for d in dates if d}) == len(files):
        return r"(\d{4}[-_]?\d{2}[-_]?\d{2})[^/]*$", why + "date"
    suffix = re.escape(_suffix(files[0]))
    short = len({path.name for path in files}) == len(files)
    return (rf"([^/]+){suffix}$", why + "name") if short else (rf"(.+){suffix}$", why + "path")


_READERS = {
    "csv": csv_sample,
    "jsonl": json_lines_sample,
    "json": json_sample,
    "parquet": parquet_sample,
    "arrow": arrow_sample,
    "xml": xml_sample,
    "text": text_sample,
}
