"""A contract in other forms: the JSON Schema of one record, and a Great Expectations suite over its columns.

What the other form cannot say is returned as notes, never left out silently.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from data_contracts.contract import Contract, Property
from data_contracts.rules import BatchRule, RowRule, batch_rules, row_rules

_JSON_TYPES = {"integer": "integer", "number": "number", "boolean": "boolean"}
_JSON_FORMATS = {"date": "date", "timestamp": "date-time"}
_JSON_STRING_FORMATS = ("email", "uri", "uuid", "ipv4", "ipv6", "hostname")
_BOUNDS = ("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")


@dataclass(frozen=True)
class Exported:
    """A document in another form, and what of the contract it does not say."""

    document: Mapping[str, Any]
    notes: tuple[str, ...]


def json_schema(contract: Contract) -> Exported:
    """Return the JSON Schema (draft 2020-12) of one record; keys, batch rules and terms cannot be said in it."""
    notes: list[str] = []
    properties = {prop.name: _json_property(contract, prop, notes) for prop in contract.properties}
    document = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"urn:causeway:contract:{contract.id}:{contract.version}",
        "title": contract.name,
        "type": "object",
        "properties": properties,
        "required": [prop.name for prop in contract.properties if prop.required],
    }
    if contract.primary_key:
        notes.append(f"primary key {', '.join(contract.primary_key)}: a schema of one record cannot compare records")
    said = {"decodes", "required", "type", "minLength", "maxLength", "pattern", "multipleOf", "enum", "validValues"}
    for rule in row_rules(contract):
        numeric = rule.column in properties and contract.property(rule.column).logical_type in ("integer", "number")
        known = rule.kind in said or (rule.kind in _BOUNDS and numeric)
        if not known and not (rule.kind == "format" and rule.arguments.get("format") in _JSON_STRING_FORMATS):
            notes.append(f"{rule.name}: {rule.description}")
    notes += [f"{rule.name}: {rule.description}" for rule in batch_rules(contract)]
    return Exported(document, tuple(notes))


def _json_property(contract: Contract, prop: Property, notes: list[str]) -> dict[str, Any]:
    kind = _JSON_TYPES.get(prop.logical_type, "string")
    found: dict[str, Any] = {"type": kind if prop.required else [kind, "null"]}
    described = next(c for c in contract.document["schema"][0]["properties"] if c["name"] == prop.name)
    if described.get("description"):
        found["description"] = described["description"]
    if prop.logical_type in _JSON_FORMATS:
        found["format"] = _JSON_FORMATS[prop.logical_type]
    patterns: list[str] = []
    for rule in (rule for rule in row_rules(contract) if rule.column == prop.name):
        given = rule.arguments
        numeric = rule.kind in _BOUNDS and prop.logical_type in ("integer", "number")
        if numeric or rule.kind in ("minLength", "maxLength", "multipleOf"):
            found[rule.kind] = given["value"]
        elif rule.kind == "pattern":
            patterns.append(given["pattern"])
        elif rule.kind in ("enum", "validValues"):
            found["enum"] = [*given["values"], *([] if prop.required else [None])]
        elif rule.kind == "format" and given.get("format") in _JSON_STRING_FORMATS:
            found["format"] = given["format"]
    if len(patterns) == 1:
        found["pattern"] = patterns[0]
    elif patterns:
        found["allOf"] = [{"pattern": pattern} for pattern in patterns]
    return found


def gx_suite(contract: Contract) -> Exported:
    """Return the suite as Great Expectations 1.x writes it: a name and expectations of type, kwargs, meta, severity.

    It expects the contract's columns by name, typed. Rules that GX has no expectation for are notes.
    """
    notes: list[str] = []
    expectations: list[dict[str, Any]] = []
    for rule in row_rules(contract):
        if rule.kind in ("decodes", "type"):
            continue  # about reading the source, which a frame has behind it
        made = _row_expectation(rule)
        if made is None:
            notes.append(f"{rule.name}: {rule.description}")
        else:
            expectations.append(_entry(rule.name, rule.description, "critical", *made))
    if len(contract.primary_key) == 1:
        kwargs: dict[str, Any] = {"column": contract.primary_key[0]}
        expectations.append(_entry("primaryKey", "no two rows share the key", "critical", _UNIQUE, kwargs))
    elif contract.primary_key:
        kwargs = {"column_list": list(contract.primary_key)}
        expectations.append(_entry("primaryKey", "no two rows share the key", "critical", _COMPOUND, kwargs))
    for batch in batch_rules(contract):
        made = _batch_expectation(batch)
        severity = "critical" if batch.severity == "error" else "warning"
        if made is None:
            notes.append(f"{batch.name}: {batch.description}")
        else:
            expectations.append(_entry(batch.name, batch.description, severity, *made))
    document = {
        "name": contract.slug,
        "expectations": expectations,
        "meta": {"contract": contract.id, "version": contract.version, "sha": contract.sha},
    }
    return Exported(document, tuple(notes))


_UNIQUE = "expect_column_values_to_be_unique"
_COMPOUND = "expect_compound_columns_to_be_unique"
Made = tuple[str, dict[str, Any]]


def _entry(rule: str, description: str, severity: str, kind: str, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": kind,
        "kwargs": dict(kwargs),
        "meta": {"rule": rule},
        "description": description,
        "severity": severity,
    }


def _row_expectation(rule: RowRule) -> Made | None:
    given, column = rule.arguments, {"column": rule.column}
    match rule.kind:
        case "required":
            return "expect_column_values_to_not_be_null", column
        case "minLength":
            return "expect_column_value_lengths_to_be_between", column | {"min_value": given["value"]}
        case "maxLength":
            return "expect_column_value_lengths_to_be_between", column | {"max_value": given["value"]}
        case "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" if _numeric(given):
            # A bound that is a moment would be text in a suite, which GX on pandas cannot compare with one.
            side = "min" if rule.kind.lower().endswith("minimum") else "max"
            limits = {f"{side}_value": given["value"], f"strict_{side}": rule.kind.startswith("exclusive")}
            return "expect_column_values_to_be_between", column | limits
        case "enum" | "validValues":
            return "expect_column_values_to_be_in_set", column | {"value_set": list(given["values"])}
        case "pattern":
            return "expect_column_values_to_match_regex", column | {"regex": given["pattern"]}
        case "expectation":
            return str(given["expectation"]), dict(given["kwargs"])
    return None


def _numeric(given: Mapping[str, Any]) -> bool:
    return given.get("logicalType") in ("integer", "number")


def _batch_expectation(rule: BatchRule) -> Made | None:
    given = rule.arguments
    columns, operator, value = list(given.get("columns", ())), given.get("operator"), given.get("value")
    match rule.kind:
        case "rowCount":
            limits = _limits(operator, value)
            return None if limits is None else ("expect_table_row_count_to_be_between", limits)
        case "uniqueness":
            return _UNIQUE, {"column": columns[0]}
        case "duplicateValues" if operator == "mustBe" and value == 0:
            return (_UNIQUE, {"column": columns[0]}) if len(columns) == 1 else (_COMPOUND, {"column_list": columns})
        case "nullValues" if operator == "mustBe" and value == 0 and len(columns) == 1:
            return "expect_column_values_to_not_be_null", {"column": columns[0]}
        case "expectation":
            return str(given["expectation"]), dict(given["kwargs"])
        case "mostly":
            inner = given["rules"][0].arguments
            share = {"mostly": given["mostly"]} if given["mostly"] < 1 else {}
            return str(inner["expectation"]), {**inner["kwargs"], **share}
    return None


def _limits(operator: Any, value: Any) -> dict[str, Any] | None:
    """Row counts are whole numbers, so a strict bound is the next number."""
    match operator:
        case "mustBe":
            return {"min_value": value, "max_value": value}
        case "mustBeGreaterThan":
            return {"min_value": int(value) + 1}
        case "mustBeGreaterOrEqualTo":
            return {"min_value": value}
        case "mustBeLessThan":
            return {"max_value": int(value) - 1}
        case "mustBeLessOrEqualTo":
            return {"max_value": value}
        case "mustBeBetween":
            return {"min_value": value[0], "max_value": value[1]}
    return None
