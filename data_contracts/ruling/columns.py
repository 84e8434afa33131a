"""What a column says of its own values: required, type, logicalTypeOptions, enum, unique."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from data_contracts.odcs import Fault, FieldPath, nearest
from data_contracts.rowchecks import bound_scalar, constants, pattern_fault
from data_contracts.ruling.formats import FREE_FORMATS, NUMBER_FORMATS, TEXT_FORMATS, finest_unit
from data_contracts.ruling.kinds import BatchRule, Finding, RowRule

_LENGTHS = {"minLength": "at least {} characters", "maxLength": "at most {} characters"}
_BOUNDS = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "exclusiveMinimum": "greater than {}",
    "exclusiveMaximum": "less than {}",
}
_OPTIONS: dict[str, tuple[str, ...]] = {
    "string": (*_LENGTHS, "pattern", "format"),
    "integer": (*_BOUNDS, "multipleOf", "format"),
    "number": (*_BOUNDS, "multipleOf", "format"),
    "date": (*_BOUNDS, "format"),
    "timestamp": (*_BOUNDS, "format", "timezone", "defaultTimezone"),
    "boolean": (),
}
TYPED = frozenset(_OPTIONS)
_INTEGER_FORMATS = {f"{sign}{bits}" for sign in "iu" for bits in (8, 16, 32, 64)} - {"u64"}
_UTC = ("UTC", "Etc/UTC", "Z")


def column_findings(column: Mapping[str, Any], path: FieldPath) -> Iterator[Finding]:
    """Yield the rules and faults of one ODCS property, but for its quality entries and relationships."""
    name, logical = column["name"], column.get("logicalType", "string")
    if column.get("required") or column.get("primaryKey"):
        yield RowRule(f"{name}.required", name, "required", {}, f"{name} is given")
    options = column.get("logicalTypeOptions", {})
    if logical != "string":
        width = options.get("format", "i64") if logical == "integer" else None
        arguments = {"logicalType": logical, "format": width}
        yield RowRule(f"{name}.type", name, "type", arguments, f"{name} is of type {logical}")
    for option, value in options.items():
        yield from _option_findings(name, logical, option, value, (*path, "logicalTypeOptions", option))
    if options.get("minLength", 0) > options.get("maxLength", options.get("minLength", 0)):
        yield Fault((*path, "logicalTypeOptions", "minLength"), "more than maxLength, so nothing passes; correct one")
    if column.get("enum"):
        values = [entry["value"] for entry in column["enum"]]
        yield from values_rule(f"{name}.enum", name, logical, values, (*path, "enum"))
    if column.get("unique"):
        arguments = {"columns": [name], "operator": "mustBe", "value": 0, "unit": "rows"}
        yield BatchRule(f"{name}.unique", "uniqueness", arguments, f"no two accepted rows share a {name}", "error")


def pattern_rule(name: str, pattern: Any, path: FieldPath) -> Iterator[Finding]:
    """Yield the row rule `<name>.pattern`, or the fault of an expression that RE2 cannot read."""
    problem = pattern_fault(pattern)
    if problem:
        yield Fault(path, f"{pattern!r} is no RE2 expression: {problem}; RE2 has no look-around and no back-references")
    else:
        # JSON Schema and ECMA-262 search; an anchor is the pattern's own business.
        yield RowRule(f"{name}.pattern", name, "pattern", {"pattern": pattern}, f"{name} matches {pattern}")


def values_rule(rule: str, name: str, logical: str, values: Sequence[Any], path: FieldPath) -> Iterator[Finding]:
    """Yield the row rule that a value is one of those listed, or the fault of one that is not of the column's type."""
    try:
        constants(values, logical)
    except ValueError as error:
        yield Fault(path, f"a value is no {logical}: {error}; correct it")
        return
    kind = rule.rsplit(".", 1)[1]
    listed = ", ".join(map(str, values[:10])) + (" ..." if len(values) > 10 else "")
    yield RowRule(rule, name, kind, {"values": list(values), "logicalType": logical}, f"{name} is one of {listed}")


def _option_findings(name: str, logical: str, option: str, value: Any, path: FieldPath) -> Iterator[Finding]:
    supported = _OPTIONS[logical]
    if option not in supported:
        listed = ", ".join(supported) or "none"
        yield Fault(path, f"option {option} of a {logical} is not checked; remove it, or use one of: {listed}")
    elif option == "pattern":
        yield from pattern_rule(name, value, path)
    elif option == "format":
        yield from _format_rule(name, logical, value, path)
    elif option == "timezone":
        pass  # it tells of the source's text: an instant that was read is kept in UTC either way
    elif option == "defaultTimezone":
        if value not in _UTC:
            yield Fault(path, f"a timestamp without a zone is read as UTC, not as {value!r}; write {_UTC[1]}")
    elif option == "multipleOf":
        arguments = {"value": value, "logicalType": logical}
        yield RowRule(f"{name}.multipleOf", name, option, arguments, f"{name} is a multiple of {value}")
    elif option in _LENGTHS:
        words = f"{name} has {_LENGTHS[option].format(value)}"
        yield RowRule(f"{name}.{option}", name, option, {"value": value}, words)
    else:
        try:
            bound_scalar(option, value, logical)
        except ValueError as error:
            yield Fault(path, f"{value!r} is no {logical}: {error}; correct it")
            return
        arguments = {"value": value, "logicalType": logical}
        yield RowRule(f"{name}.{option}", name, option, arguments, f"{name} is {_BOUNDS[option].format(value)}")


def _format_rule(name: str, logical: str, value: Any, path: FieldPath) -> Iterator[Finding]:
    rule = f"{name}.format"
    if logical == "integer":
        if value not in _INTEGER_FORMATS:
            listed = ", ".join(sorted(_INTEGER_FORMATS))
            yield Fault(path, f"integers of format {value!r} are not checked; use one of {listed}")
    elif logical in ("string", "number"):
        known = TEXT_FORMATS if logical == "string" else NUMBER_FORMATS
        free = FREE_FORMATS[logical]
        if value in known:
            words = f"{name} is of format {value}"
            engine: Any = "python" if value == "ipv6" else "arrow"
            yield RowRule(rule, name, "format", {"format": value}, words, engine)
        elif value not in free:
            every = sorted([*known, *free])
            yield Fault(
                path,
                f"format {value!r} of a {logical} is not checked{nearest(value, every)}; use one of {', '.join(every)}",
            )
    else:
        try:
            unit = finest_unit(str(value), logical)
        except ValueError as error:
            yield Fault(path, f"{value!r}: {error}; write a pattern of java.time.format.DateTimeFormatter")
            return
        if unit is not None:
            words = f"{name} has no part finer than {value} can write"
            yield RowRule(rule, name, "precision", {"format": value, "unit": unit}, words)
