"""Accepted rows as files that leave the tables: Parquet, JSON lines, or a Hugging Face `Dataset` on disk.

One partition at a time is in memory. What is written has a temporary name until it is whole.
"""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from data_contracts.catalog.rows import read_rows, version_contract
from data_contracts.catalog.tables import PartitionVersion, Tables
from data_contracts.errors import DataRefused, StoreError
from data_contracts.identity import json_value
from data_contracts.odcs import nearest
from data_contracts.terms import TrainingTerms
from data_contracts.validation import accepted_schema

Format = Literal["parquet", "jsonl", "dataset"]

# Rows that are Python objects at once while JSON is written.
_BLOCK = 4096


@dataclass(frozen=True)
class Exported:
    """What was written: `bytes` are those of the files under `to`."""

    to: Path
    format: Format
    partitions: int
    rows: int
    bytes: int
    columns: tuple[str, ...]


def versions_to_export(
    tables: Tables, partitions: Sequence[str] = (), names: Sequence[str] = ()
) -> list[PartitionVersion]:
    """Return the current version of every partition, or of those given; one named by its ingest_id takes its place.

    Raises:
        DataRefused: a partition or version does not exist, was refused, or a name fits several; nothing was accepted.
    """
    history = tables.versions()
    known = list(dict.fromkeys(version.partition for version in history))
    for partition in partitions:
        if partition not in known:
            raise DataRefused(
                f"{tables.slug.replace('--', '/')}: no partition {partition!r}{nearest(partition, known)}"
            )
    chosen = {version.partition: version for version in history if version.verdict != "refused"}
    for name in names:
        places = {version.partition for version in history if version.ingest_id.startswith(name)}
        if len(places) != 1:
            raise DataRefused(
                f"{tables.slug.replace('--', '/')}: {len(places)} partitions have a version that begins with {name!r};"
                " see causeway table history"
            )
        version = tables.version(places.pop(), name)
        chosen[version.partition] = version
    found = [version for partition, version in sorted(chosen.items()) if not partitions or partition in partitions]
    if not found:
        raise DataRefused(f"{tables.slug.replace('--', '/')}: no version was accepted, so there is nothing to export")
    return found


def export_rows(tables: Tables, versions: Sequence[PartitionVersion], to: Path, format: Format = "parquet") -> Exported:
    """Write the accepted rows of versions, as they were accepted: curation takes nothing out and redacts nothing here.

    `parquet` is a folder with a file a partition, `jsonl` one file, `dataset` the folder of
    `datasets.Dataset.save_to_disk`. The columns are those of all the versions' contracts, null where one lacks them.

    Raises:
        DataRefused: something lies at `to`, a version was refused, or its contract is not kept.
        StoreError: the files cannot be written.
    """
    _refuse_overwriting(to)
    schema = _common(tables, versions)
    parts = (_widened(read_rows(tables, version), schema) for version in versions)
    partial = to.parent / f".{to.name}.{uuid.uuid4().hex[:12]}.partial"
    try:
        partial.mkdir(parents=True)
        rows = _WRITERS[format](parts, schema, partial)
        whole = partial / "whole"
        size = sum(file.stat().st_size for file in ([whole] if whole.is_file() else whole.iterdir()))
        _refuse_overwriting(to)
        whole.rename(to)
    except OSError as error:
        raise StoreError(f"{to}: cannot be written: {error}; nothing is left of it") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return Exported(to, format, len(versions), rows, size, tuple(schema.names))


def terms_lines(terms: Sequence[tuple[str, TrainingTerms]]) -> list[str]:
    """Say for whom a copy is made under which terms the data stands: licence, attribution, where it may lie, for what.

    Each entry of `terms` is whose terms they are, and the terms.
    """
    lines = []
    for whose, stated in terms:
        licence = stated.licence or f"column {stated.licence_column}, of {', '.join(stated.licences_allowed)}"
        lines.append(f"{whose}: licence {licence}")
        if stated.attribution:
            lines.append(f"  attribution: {stated.attribution}")
        lines.append(f"  residency.storage: {', '.join(stated.storage)}")
        lines.append(f"  residency.processing: {', '.join(stated.processing)}")
        lines.append(f"  purposes.permitted: {', '.join(stated.permitted) or 'none'}")
        if stated.prohibited:
            lines.append(f"  purposes.prohibited: {', '.join(stated.prohibited)}")
        if stated.valid_until:
            lines.append(f"  validUntil: {stated.valid_until}")
    return lines


def _refuse_overwriting(to: Path) -> None:
    if os.path.lexists(to):
        raise DataRefused(f"{to}: is there already and is not overwritten; name another place, or remove it first")


def _common(tables: Tables, versions: Sequence[PartitionVersion]) -> pa.Schema:
    """Return the columns of all the versions' contracts, the last published first, then Causeway's own."""
    ordered = sorted(versions, key=lambda version: version.published_at, reverse=True)
    contracts = [version_contract(tables, version) for version in ordered]
    schemas = [(list(accepted_schema(contract)), len(contract.properties)) for contract in contracts]
    # A table refuses a column of another type, so columns of one name have one.
    content = pa.unify_schemas([pa.schema(fields[:own]) for fields, own in schemas])
    fields, own = schemas[0]
    return pa.schema([*content, *fields[own:]])


def _widened(rows: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = [
        rows[field.name].cast(field.type) if field.name in rows.column_names else pa.nulls(rows.num_rows, field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _write_parquet(parts: Iterable[pa.Table], schema: pa.Schema, folder: Path) -> int:
    rows = 0
    (folder / "whole").mkdir()
    # Values of partitions come from data and never become names of files.
    for number, part in enumerate(parts):
        pq.write_table(part, folder / "whole" / f"part-{number:05d}.parquet", compression="zstd")
        rows += part.num_rows
    return rows


def _write_lines(parts: Iterable[pa.Table], schema: pa.Schema, folder: Path) -> int:
    rows = 0
    with (folder / "whole").open("w", encoding="utf-8", newline="\n") as stream:
        for part in parts:
            for batch in part.to_batches(max_chunksize=_BLOCK):
                for row in batch.to_pylist():
                    line = {name: json_value(value) for name, value in row.items()}
                    stream.write(json.dumps(line, ensure_ascii=False) + "\n")
            rows += part.num_rows
    return rows


def _write_dataset(parts: Iterable[pa.Table], schema: pa.Schema, folder: Path) -> int:
    import datasets

    rows = 0
    with pa.OSFile(str(folder / "rows.arrow"), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for part in parts:
            writer.write_table(part, max_chunksize=_BLOCK)
            rows += part.num_rows
    if not rows:
        raise DataRefused("no row was accepted, and a Dataset of no rows cannot be saved; export as parquet")
    # The file is mapped, so the copy into the library's own layout needs no memory for the rows.
    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        datasets.Dataset.from_file(str(folder / "rows.arrow")).save_to_disk(str(folder / "whole"))
    finally:
        if shown:
            datasets.enable_progress_bars()
    return rows


_WRITERS: dict[Format, Callable[[Iterable[pa.Table], pa.Schema, Path], int]] = {
    "parquet": _write_parquet,
    "jsonl": _write_lines,
    "dataset": _write_dataset,
}
