"""Samples of Parquet, Arrow and XML."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from lxml import etree

from data_contracts.contracting.sample import Sample, columns_of, source_file
from data_contracts.errors import DataRefused
from data_contracts.sources.opening import DEFAULT_LIMIT, opened


def parquet_sample(path: Path, most: int) -> Sample:
    """Sample a Parquet file, whose values have their types.

    Raises:
        DataRefused: it is none.
    """
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


def arrow_sample(path: Path, most: int) -> Sample:
    """Sample an Arrow IPC file or stream.

    Raises:
        DataRefused: it is neither.
    """
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


def xml_sample(path: Path, most: int) -> Sample:
    """Sample an XML document: its records are the commonest element that holds something.

    Raises:
        DataRefused: it is none, or no element looks like a record.
    """
    file = source_file(path)
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
    columns, count, complete = columns_of(records, most)
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
