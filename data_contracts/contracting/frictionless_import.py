"""Columns from a table of a Frictionless Data Package. Source: Data Package and Table Schema, v1 and v2."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from data_contracts.contracting.described import Column, Described, listed
from data_contracts.errors import ContractError
from data_contracts.odcs import nearest

_FRICTIONLESS = {"string": "string", "integer": "integer", "year": "integer", "number": "number", "boolean": "boolean",
                 "date": "date", "datetime": "timestamp", "any": "string"}  # fmt: skip


def from_frictionless(path: Path, given: Any, resource: str) -> Described:
    """Describe one table of a package: the named resource, by default the first with a schema.

    Raises:
        ContractError: there is no such table.
    """
    tables = [
        entry for entry in given["resources"] if isinstance(entry, dict) and isinstance(entry.get("schema"), dict)
    ]
    names = [str(entry.get("name", "")) for entry in tables]
    if resource and resource not in names:
        raise ContractError(f"{path}: no table {resource!r}{nearest(resource, names)}; it has {', '.join(names)}")
    if not tables:
        raise ContractError(f"{path}: no resource has a schema with fields; name another file")
    table = tables[names.index(resource)] if resource else tables[0]
    found = Described({}, _frictionless_reader(table), title=str(table.get("title") or given.get("title") or ""))
    schema = table["schema"]
    keys = listed(schema["primaryKey"]) if schema.get("primaryKey") else []
    for entry in schema.get("fields") or ():
        name, kind = str(entry.get("name")), str(entry.get("type", "string"))
        if kind not in _FRICTIONLESS:
            found.notes.append(f"field {name} of type {kind}: taken as text")
        column = found.column(name)
        column.clauses["logicalType"] = _FRICTIONLESS.get(kind, "string")
        if isinstance(entry.get("description"), str) and entry["description"]:
            column.clauses["description"] = entry["description"]
        _constraints(column, entry.get("constraints") or {})
        if name in keys:
            column.clauses["primaryKey"] = True
            if len(keys) > 1:
                column.clauses["primaryKeyPosition"] = keys.index(name) + 1
    if schema.get("foreignKeys"):
        found.notes.append("foreignKeys: write them as relationships once the other data set has a contract")
    for licence in [*(table.get("licenses") or ()), *(given.get("licenses") or ())][:1]:
        said = licence.get("name") or licence.get("title") if isinstance(licence, dict) else licence
        found.notes.append(f"licence {said!r}: confirm it before you state it in the terms")
    if len(tables) > 1:
        found.notes.append(
            f"other tables: {', '.join(n for n in names if n != str(table.get('name', '')))} (--resource)"
        )
    return found


def _constraints(column: Column, given: Mapping[str, Any]) -> None:
    for flag in ("required", "unique"):
        if given.get(flag):
            column.clauses[flag] = True
    if given.get("enum"):
        column.clauses["enum"] = [{"value": value} for value in given["enum"]]
    textual = column.clauses["logicalType"] == "string"
    wanted: Sequence[str] = ("minLength", "maxLength", "pattern") if textual else ("minimum", "maximum")
    column.options.update({name: given[name] for name in wanted if name in given})
    if "pattern" in column.options:
        # A Frictionless pattern is of the whole value.
        column.options["pattern"] = f"^(?:{column.options['pattern']})$"


def _frictionless_reader(table: Mapping[str, Any]) -> dict[str, Any]:
    paths = [str(path) for path in listed(table.get("path") or [])]
    suffix = Path(paths[0]).suffix.lower() if paths else ".csv"
    form = {".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}.get(suffix, "csv")
    reader: dict[str, Any] = {"format": form}
    local = [path for path in paths if "://" not in path]
    if local:
        reader["files"] = local[0] if len(local) == 1 else local
    encoding = str(table.get("encoding") or "utf-8").lower()
    if encoding not in ("utf-8", "utf8") and form != "parquet":
        reader["encoding"] = encoding
    dialect = table.get("dialect") or {}
    if form == "csv" and dialect.get("delimiter", "," if suffix != ".tsv" else "\t") != ",":
        reader["delimiter"] = dialect.get("delimiter", "\t")
    missing = table["schema"].get("missingValues")
    if form == "csv" and missing and missing != [""]:
        reader["nulls"] = [str(word) for word in missing]
    return reader
