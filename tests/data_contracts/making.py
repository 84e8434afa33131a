"""Contracts, files and batches for the tests of this folder."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_contracts.contract import Contract, load_contract
from data_contracts.sources import source_schema
from data_contracts.sources.records import RawRecord, batches

SECRET = bytes(range(32))


def column(name: str, logical: str = "string", **more: Any) -> dict[str, Any]:
    return {"name": name, "logicalType": logical, **more}


KEYED = (
    column("key", primaryKey=True, primaryKeyPosition=1),
    column("day", partitioned=True),
    column("content", required=True, logicalTypeOptions={"minLength": 3}),
)


def make_contract(
    folder: Path,
    columns: Sequence[Mapping[str, Any]] = KEYED,
    *,
    reader: Mapping[str, Any] | None = None,
    quality: Sequence[Mapping[str, Any]] = (),
    terms: Mapping[str, Any] | None = None,
    sequence: str | None = None,
    version: str = "1.0.0",
    id: str = "test/notes",
) -> Contract:
    """A contract from a real file; JSON is YAML."""
    stated = {
        "format": 1,
        "licence": {"expression": "CC0-1.0"},
        "purposes": {"permitted": ["pre-training"], "prohibited": []},
        "residency": {"storage": ["anywhere"], "processing": ["anywhere"]},
        "derivedUpdates": "may-leave",
        "heldOut": {"share": 0.25, "key": "test/1"},
        "text": "content",
        **(terms or {}),
    }
    stated = {name: value for name, value in stated.items() if value is not None}
    custom = [
        {"property": "trainingTerms", "vendor": "causeway", "value": stated},
        {"property": "reader", "vendor": "causeway", "value": dict(reader or {"format": "jsonl"})},
    ]
    if sequence:
        custom.append({"property": "sequence", "vendor": "causeway", "value": sequence})
    document = {
        "apiVersion": "v3.1.0",
        "kind": "DataContract",
        "id": id,
        "version": version,
        "status": "active",
        "schema": [{"name": "notes", "properties": [dict(entry) for entry in columns], "quality": list(quality)}],
        "customProperties": custom,
    }
    if not quality:
        del document["schema"][0]["quality"]
    path = folder / "contract.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return load_contract(path)


def batch(contract: Contract, rows: Sequence[Mapping[str, Any]], **fault: Any) -> pa.RecordBatch:
    """One batch of records 1, 2, ... of `file`."""
    records = [RawRecord("file", number, row, **fault) for number, row in enumerate(rows, start=1)]
    found = list(batches(contract, records))
    return found[0] if found else pa.RecordBatch.from_pylist([], source_schema(contract))


def write_lines(path: Path, rows: Sequence[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path
