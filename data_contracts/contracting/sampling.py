"""The first records of a file or folder as columns of plain values, and the reader settings that gave them."""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from lxml import etree

from data_contracts.errors import DataRefused
from data_contracts.sources.decoding import encoding_of, utf8_blocks
from data_contracts.sources.opening import DEFAULT_LIMIT, MOST_WHOLE_BYTES, opened
from data_contracts.sources.records import SourceFile

_SUFFIXES = {
    ".csv": "csv", ".tsv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".parquet": "parquet",
    ".arrow": "arrow", ".feather": "arrow", ".ipc": "arrow", ".xml": "xml", ".txt": "text", ".md": "text",
}  # fmt: skip
_PACKED = (".gz", ".zst", ".zstd")
_DELIMITERS = (",", "\t", ";", "|")
# Text that is looked at: enough for rows that are long, and read within a second.
_MOST_TEXT = 32 << 20
_MOST_FILES = 50
_DATE = re.compile(r"(19|20)\d\d[-_]?(0[1-9]|1[0-2])[-_]?(0[1-9]|[12]\d|3[01])")


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


def _source_file(path: Path) -> SourceFile:
    return SourceFile(path.name, path, path.stat().st_size)


def _text(path: Path) -> tuple[str, dict[str, Any], dict[str, str], bool]:
    """Return the beginning of a file's text, the encoding as a setting where it is not UTF-8, and whether it is all."""
    file = _source_file(path)
    encoding = encoding_of(file, "detect", DEFAULT_LIMIT)
    reader, guesses = {}, {}
    if encoding.codec != "utf-8" and not encoding.mark:
        reader["encoding"] = encoding.codec
        guesses["encoding"] = "detected from the bytes of the first file"
    data, whole = bytearray(), True
    with opened(file, DEFAULT_LIMIT) as stream:
        for block in utf8_blocks(stream, encoding):
            data += block
            if len(data) > _MOST_TEXT:
                whole = False
                break
    return data.decode("utf-8", "replace"), reader, guesses, whole


def _columns(records: Iterable[Mapping[str, Any]], most: int) -> tuple[dict[str, list[Any]], int, bool]:
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


def _csv(path: Path, most: int) -> Sample:
    text, reader, guesses, whole = _text(path)
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
    columns, count, complete = _columns(
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


def _jsonl(path: Path, most: int) -> Sample:
    text, reader, guesses, whole = _text(path)

    def records() -> Iterator[Mapping[str, Any]]:
        for line in text.splitlines():
            try:
                value = json.loads(line) if line.strip() else None
            except ValueError:
                continue
            if isinstance(value, dict):
                yield value

    columns, count, complete = _columns(map(_flat, records()), most)
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


def _json(path: Path, most: int) -> Sample:
    text, reader, guesses, whole = _text(path)
    try:
        document = json.loads(text)
    except ValueError as error:
        large = "" if whole else f"more than {_MOST_TEXT >> 20} MiB, too large to infer from; "
        raise DataRefused(f"{path}: {large}no JSON document: {error}; give a smaller or a whole one") from error
    reader = {"format": "json", **reader}
    where, records = _record_path(document)
    if where != "$[*]":
        reader["record"] = where
        guesses["record"] = "the largest list or mapping of objects"
    kept = [_flat(r) if where[-2:] != ".*" else {"@key": r[0], **_flat(r[1])} for r in records]
    columns, count, complete = _columns(kept, most)
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


def _parquet(path: Path, most: int) -> Sample:
    try:
        with pq.ParquetFile(path) as file:
            batches = file.iter_batches(batch_size=min(most, 65_536))
            taken, rows = [], 0
            for batch in batches:
                taken.append(batch.slice(0, most - rows))
                rows += taken[-1].num_rows
                if rows >= most:
                    break
            columns = {n: [v for b in taken for v in b.column(n).to_pylist()] for n in file.schema_arrow.names}
            return Sample({"format": "parquet"}, columns, rows, rows == file.metadata.num_rows)
    except (OSError, ValueError) as error:
        raise DataRefused(f"{path}: no Parquet file: {error}; give a whole one") from error


def _arrow(path: Path, most: int) -> Sample:
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as stream:
            try:
                table = pa.ipc.open_file(stream).read_all()
            except pa.ArrowInvalid:
                stream.seek(0)
                table = pa.ipc.open_stream(stream).read_all()
            columns = {name: table.column(name).slice(0, most).to_pylist() for name in table.column_names}
            return Sample({"format": "arrow"}, columns, min(most, table.num_rows), table.num_rows <= most)
    except (OSError, ValueError) as error:
        raise DataRefused(f"{path}: no Arrow file: {error}; give a whole one") from error


def _xml(path: Path, most: int) -> Sample:
    file = _source_file(path)
    parser = etree.XMLParser(resolve_entities=False, no_network=True, huge_tree=False, load_dtd=False)
    try:
        with opened(file, DEFAULT_LIMIT) as stream:
            root = etree.parse(stream, parser).getroot()
    except etree.XMLSyntaxError as error:
        raise DataRefused(f"{path}: no XML document: {error}; give a whole one") from error
    record = _xml_record(root)
    nodes = root.findall(record) if record else []
    if not record or not nodes:
        raise DataRefused(f"{path}: no element is repeated, so none looks like a record; write the contract by hand")
    fields: dict[str, str] = {}
    for node in nodes[:1000]:
        for child in node:
            if isinstance(child.tag, str) and not len(child):
                fields.setdefault(child.tag, child.tag)
            for name in map(str, child.attrib) if isinstance(child.tag, str) else ():
                fields.setdefault(f"{child.tag}_{name}", f"{child.tag}/@{name}")
        for name in map(str, node.attrib):
            fields.setdefault(name, f"@{name}")
    records = ({name: _at(node, where) for name, where in fields.items()} for node in nodes)
    columns, count, complete = _columns(records, most)
    return Sample(
        {"format": "xml", "record": record}, columns, count, complete, {"record": "the commonest element"}, fields
    )


def _xml_record(root: Any) -> str:
    """The path of the commonest element that has children or attributes of its own."""
    counts: Counter[str] = Counter()

    def walk(node: Any, path: str) -> None:
        for child in node:
            if isinstance(child.tag, str):
                where = f"{path}/{child.tag}" if path else child.tag
                if len(child) or child.attrib:
                    counts[where] += 1
                walk(child, where)

    walk(root, "")
    return max(counts, key=lambda where: (counts[where], -where.count("/"))) if counts else ""


def _at(node: Any, where: str) -> str | None:
    element, _, attribute = where.partition("@")
    found = node if not element else node.find(element.rstrip("/"))
    if found is None:
        return None
    value = found.get(attribute) if attribute else "".join(found.itertext())
    return str(value) if value is not None else None


def _lines(path: Path, most: int) -> Sample:
    text, reader, guesses, whole = _text(path)
    return Sample({"format": "text", **reader}, {"text": [text]}, 1, whole, guesses)


_READERS = {
    "csv": _csv,
    "jsonl": _jsonl,
    "json": _json,
    "parquet": _parquet,
    "arrow": _arrow,
    "xml": _xml,
    "text": _lines,
}
