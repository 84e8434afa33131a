"""Columns from the schema of a Parquet file, and from a JSON schema of one record."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from data_contracts.contracting.described import Described, listed
from data_contracts.errors import ContractError

_JSON_OPTIONS = (
    "minLength",
    "maxLength",
    "pattern",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "multipleOf",
)
_JSON_FORMATS = {"date": "date", "date-time": "timestamp"}
# What a schema of one record may say and a list of columns cannot.
_LOST = ("$ref", "allOf", "anyOf", "dependentRequired", "if", "oneOf", "patternProperties")


def from_parquet(path: Path) -> Described:
    """Describe the columns of a Parquet file by its schema; no value is read.

    Raises:
        ContractError: it is no Parquet file.
    """
    try:
        schema = pq.read_schema(path)
    except (OSError, pa.ArrowInvalid) as error:
        raise ContractError(f"{path}: no Parquet file: {error}; give a whole one") from error
    found = Described({}, {"format": "parquet"})
    for entry in schema:
        logical = _arrow_logical(entry.type)
        if logical is None:
            found.notes.append(f"column {entry.name} of type {entry.type}: a contract has plain columns")
            continue
        column = found.column(entry.name)
        column.clauses["logicalType"] = logical
        if not entry.nullable:
            column.clauses["required"] = True
        described = (entry.metadata or {}).get(b"description") or (entry.metadata or {}).get(b"comment")
        if described:
            column.clauses["description"] = described.decode("utf-8", "replace")
        if pa.types.is_integer(entry.type) and entry.type not in (pa.int64(), pa.uint64()):
            column.options["format"] = str(entry.type).replace("uint", "u").replace("int", "i")
    return found


def _arrow_logical(kind: pa.DataType) -> str | None:
    tests: tuple[tuple[Callable[[pa.DataType], bool], str], ...] = (
        (pa.types.is_integer, "integer"),
        (pa.types.is_floating, "number"),
        (pa.types.is_decimal, "number"),
        (pa.types.is_boolean, "boolean"),
        (pa.types.is_date, "date"),
        (pa.types.is_timestamp, "timestamp"),
    )
    if pa.types.is_dictionary(kind):
        return _arrow_logical(kind.value_type)
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    return "string" if any(is_text(kind) for is_text in texts) else next((n for test, n in tests if test(kind)), None)


def from_json_schema(given: Any) -> Described:
    """Describe the properties of a JSON schema; nested ones are noted."""
    found = Described({}, {"format": "jsonl"}, title=str(given.get("title", "")))
    required = given.get("required") or []
    properties = given.get("properties")
    for name, entry in properties.items() if isinstance(properties, dict) else ():
        kinds = [k for k in listed(entry.get("type", "string")) if k != "null"] if isinstance(entry, dict) else []
        logical = kinds[0] if len(kinds) == 1 else None
        if logical not in ("string", "integer", "number", "boolean"):
            found.notes.append(f"property {name} of type {' or '.join(map(str, kinds)) or 'unknown'}")
            continue
        column = found.column(str(name))
        column.clauses["logicalType"] = _JSON_FORMATS.get(str(entry.get("format")), logical)
        nullable = "null" in listed(entry.get("type", "string"))
        if name in required and not nullable:
            column.clauses["required"] = True
        if isinstance(entry.get("description"), str):
            column.clauses["description"] = entry["description"]
        values = [value for value in entry.get("enum", ()) if value is not None]
        if values:
            column.clauses["enum"] = [{"value": value} for value in values]
        if column.clauses["logicalType"] == logical:
            column.options.update({key: entry[key] for key in _JSON_OPTIONS if key in entry})
    for name in sorted(
        set(given) & {"allOf", "anyOf", "oneOf", "if", "dependentRequired", "$ref", "patternProperties"}
    ):
        found.notes.append(f"{name} of the schema")
    return found
