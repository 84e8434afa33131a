"""Columns and rules from a Great Expectations suite, as GX 0.x and 1.x write it.

What ODCS has a clause for becomes one; every other expectation stays what it is, as a rule of engine greatExpectations.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from data_contracts.contracting.described import Described
from data_contracts.odcs import nearest
from data_contracts.ruling.expecting import EXPECTATIONS


def from_gx_suite(given: Any) -> Described:
    """Describe what a suite expects."""
    found = Described(
        {}, {"format": "csv"}, title=str(given.get("name", "") or given.get("expectation_suite_name", ""))
    )
    for entry in given["expectations"]:
        kind = str(entry.get("type") or entry.get("expectation_type"))
        kwargs = {key: value for key, value in (entry.get("kwargs") or {}).items() if value is not None}
        if kind == "expect_column_to_exist":
            found.column(str(kwargs["column"]))
        elif kind == "expect_table_columns_to_match_ordered_list":
            for name in kwargs.get("column_list", ()):
                found.column(str(name))
        elif kind == "expect_column_values_to_be_of_type":
            _of_type(found, str(kwargs.get("column")), str(kwargs.get("type_")))
        elif kind not in EXPECTATIONS:
            found.notes.append(f"{kind}: there is no such expectation here{nearest(kind, EXPECTATIONS)}")
        elif not _as_clause(found, kind, kwargs, entry):
            _as_rule(found, kind, kwargs, entry)
    _typed(found)
    return found


def _of_type(found: Described, name: str, kind: str) -> None:
    known = {"int": "integer", "float": "number", "double": "number", "decimal": "number", "bool": "boolean"}
    known |= {"str": "string", "object": "string", "text": "string", "varchar": "string", "datetime": "timestamp"}
    known |= {"timestamp": "timestamp", "date": "date"}
    folded = re.sub(r"[^a-z].*", "", kind.lower())
    logical = known.get(folded) or known.get(folded.removesuffix("eger"))
    if logical is None:
        found.notes.append(f"column {name} of type {kind}")
    else:
        found.column(name).clauses["logicalType"] = logical


def _as_clause(found: Described, kind: str, kwargs: Mapping[str, Any], entry: Mapping[str, Any]) -> bool:
    """Say as a clause of the property what ODCS has one for: only what every row must keep and no warning."""
    plain = set(kwargs) - {"column", "strict_min", "strict_max", "min_value", "max_value", "value_set", "regex"}
    if plain or entry.get("severity", "critical") != "critical":
        return False
    if kind == "expect_table_row_count_to_be_between":
        low, high = kwargs.get("min_value"), kwargs.get("max_value")
        compared: dict[str, Any]
        if low == high:
            compared = {"mustBe": low}
        elif low is not None and high is not None:
            compared = {"mustBeBetween": [low, high]}
        else:
            compared = {"mustBeGreaterOrEqualTo": low} if high is None else {"mustBeLessOrEqualTo": high}
        found.quality.append({"metric": "rowCount", **compared})
        return True
    if "column" not in kwargs:
        return False
    column = found.column(str(kwargs["column"]))
    low, high = kwargs.get("min_value"), kwargs.get("max_value")
    strict = bool(kwargs.get("strict_min") or kwargs.get("strict_max"))
    match kind:
        case "expect_column_values_to_not_be_null":
            column.clauses["required"] = True
        case "expect_column_values_to_be_unique":
            column.clauses["unique"] = True
        case "expect_column_values_to_be_in_set" if "enum" not in column.clauses:
            column.clauses["enum"] = [{"value": value} for value in kwargs["value_set"]]
        case "expect_column_values_to_match_regex" if "pattern" not in column.options:
            column.options["pattern"] = kwargs["regex"]
        case "expect_column_value_lengths_to_be_between" if not strict:
            column.options |= {k: v for k, v in (("minLength", low), ("maxLength", high)) if v is not None}
        case "expect_column_values_to_be_between" if (_numeric(low) and _numeric(high)) or _moment(low, high):
            if _moment(low, high):
                column.clauses.setdefault("logicalType", _moment(low, high))
            lower = "exclusiveMinimum" if kwargs.get("strict_min") else "minimum"
            upper = "exclusiveMaximum" if kwargs.get("strict_max") else "maximum"
            column.options |= {k: v for k, v in ((lower, low), (upper, high)) if v is not None}
        case _:
            return False
    return True


def _numeric(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _moment(*bounds: Any) -> str | None:
    """Say whether the bounds are days or moments in ISO 8601."""
    given = [bound for bound in bounds if bound is not None]
    if not given or not all(isinstance(bound, str) and re.match(r"\d{4}-\d{2}-\d{2}", bound) for bound in given):
        return None
    return "date" if all(len(bound) == 10 for bound in given) else "timestamp"


def _as_rule(found: Described, kind: str, kwargs: Mapping[str, Any], entry: Mapping[str, Any]) -> None:
    """Keep the expectation as it is: a contract may name any."""
    rule: dict[str, Any] = {"type": "custom", "engine": "greatExpectations"}
    if entry.get("severity") in ("warning", "info"):
        rule["severity"] = entry["severity"]
    rule["implementation"] = {"type": kind, "kwargs": dict(kwargs)}
    names = [kwargs.get("column"), kwargs.get("column_A"), kwargs.get("column_B"), *(kwargs.get("column_list") or ())]
    for name in names:
        if isinstance(name, str):
            found.column(name)
    found.quality.append(rule)


def _typed(found: Described) -> None:
    """A suite seldom says types; bounds and figures of a column say that it holds numbers."""
    numeric = {name for name, known in EXPECTATIONS.items() if known.types == ("integer", "number")}
    asked = {r["implementation"]["kwargs"].get("column") for r in found.quality if "implementation" in r
             and r["implementation"]["type"] in numeric}  # fmt: skip
    for name, column in found.columns.items():
        bounded = column.options.keys() & {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"}
        if (bounded or name in asked) and "logicalType" not in column.clauses:
            column.clauses["logicalType"] = "number"
        values = [entry["value"] for entry in column.clauses.get("enum", ())]
        if values and "logicalType" not in column.clauses and all(_numeric(value) for value in values):
            column.clauses["logicalType"] = "integer" if all(isinstance(v, int) for v in values) else "number"
