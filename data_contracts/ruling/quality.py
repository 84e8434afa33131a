"""What an entry of `quality` becomes: library metrics here, other types in the module of their engine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from data_contracts.odcs import Fault, FieldPath, nearest
from data_contracts.ruling.causeway import causeway_findings
from data_contracts.ruling.columns import pattern_rule, values_rule
from data_contracts.ruling.comparison import comparison, counted
from data_contracts.ruling.expecting import expectation_findings
from data_contracts.ruling.kinds import BatchRule, Finding, RowRule
from data_contracts.ruling.sqls import sql_findings

_OBJECT_METRICS = ("rowCount", "duplicateValues")
_COLUMN_METRICS = ("nullValues", "missingValues", "invalidValues", "duplicateValues")
_ARGUMENTS = {
    "duplicateValues": {"properties"},
    "missingValues": {"missingValues"},
    "invalidValues": {"validValues", "pattern"},
}
# The names that `rule` had in ODCS 3.0, before `metric`.
_OLDER = {
    "nullCheck": "nullValues",
    "duplicateCount": "duplicateValues",
    "uniqueCheck": "duplicateValues",
    "countCheck": "rowCount",
    "validValues": "invalidValues",
}


def quality_findings(
    check: Mapping[str, Any],
    column: Mapping[str, Any] | None,
    types: Mapping[str, str],
    path: FieldPath,
    table: str,
) -> Iterator[Finding]:
    """Translate one entry of `quality`; `column` is None for the object's own, `types` maps column to logicalType."""
    kind = check.get("type", "library")
    engine = str(check.get("engine", "")).replace("-", "").replace("_", "").lower()
    if kind == "text":
        return  # written for people
    if kind == "library":
        yield from _library_findings(check, column, types, path)
    elif kind == "sql":
        yield from sql_findings(check, column, types, path, table)
    elif kind == "custom" and engine == "causeway":
        yield from causeway_findings(check, column, types, path)
    elif kind == "custom" and engine == "greatexpectations":
        yield from expectation_findings(check, column, types, path)
    else:
        what = f"quality type {kind}" + (f" with engine {check['engine']}" if engine else "")
        yield Fault(
            path,
            f"{what} cannot be run; use engine causeway or greatExpectations, a library metric, type sql, "
            "or type text for people to read",
        )


def _library_findings(
    check: Mapping[str, Any], column: Mapping[str, Any] | None, types: Mapping[str, str], path: FieldPath
) -> Iterator[Finding]:
    named = str(check.get("metric", check.get("rule")))
    metric = _OLDER.get(named, named) if "metric" not in check else named
    supported = _OBJECT_METRICS if column is None else _COLUMN_METRICS
    if metric not in supported:
        where = "an object" if column is None else "a column"
        yield Fault(
            path,
            f"metric {metric} of {where} cannot be run{nearest(metric, supported)}; use one of {', '.join(supported)}",
        )
        return
    found = comparison(check, metric, path, ("rows",) if metric == "rowCount" else ("rows", "percent"))
    faults = found if isinstance(found, list) else []
    given = check.get("arguments") or {}
    faults += list(_argument_faults(given, metric, column, list(types), path))
    if faults or isinstance(found, list):
        yield from faults
        return
    name = None if column is None else str(column["name"])
    label = metric if name is None else f"{name}.{metric}"
    words = check.get("description") or f"{label} {found.operator} {found.value} {found.unit}"
    if metric == "invalidValues" and name is not None:
        inner = list(_invalid(name, types[name], given, path))
        rules = [finding for finding in inner if isinstance(finding, RowRule)]
        if len(rules) < len(inner):
            yield from (finding for finding in inner if isinstance(finding, Fault))
        else:
            yield from counted(label, rules, found, name, words)
        return
    columns = [name] if name is not None else list(given.get("properties", [] if metric == "rowCount" else types))
    own = {"missingValues": given["missingValues"]} if metric == "missingValues" else {}
    own |= {"logicalType": types[columns[0]]} if own else {}
    yield BatchRule(label, metric, found.arguments(columns, **own), words, found.severity)


def _invalid(name: str, logical: str, given: Mapping[str, Any], path: FieldPath) -> Iterator[Finding]:
    if "validValues" in given:
        yield from values_rule(f"{name}.validValues", name, logical, given["validValues"], (*path, "arguments"))
    if "pattern" in given:
        yield from pattern_rule(name, given["pattern"], (*path, "arguments", "pattern"))


def _argument_faults(
    given: Any, metric: str, column: Mapping[str, Any] | None, columns: list[str], path: FieldPath
) -> Iterator[Fault]:
    allowed = _ARGUMENTS.get(metric, set())
    if not isinstance(given, dict):
        yield Fault((*path, "arguments"), f"{given!r} is no mapping; give {' or '.join(sorted(allowed)) or 'none'}")
        return
    for name in sorted(set(given) - allowed):
        yield Fault((*path, "arguments", name), f"metric {metric} has no such argument; remove it")
    for name in ("properties", "validValues", "missingValues"):
        if name in given and name in allowed and not (isinstance(given[name], list) and given[name]):
            yield Fault((*path, "arguments", name), f"{given[name]!r} is no list of values; give at least one")
            return
    if column is None:
        for name in given.get("properties", ()):
            if name not in columns:
                yield Fault(
                    (*path, "arguments", "properties"),
                    f"there is no column {name!r}{nearest(name, columns)}; correct it",
                )
    elif "properties" in given and metric in _ARGUMENTS:
        yield Fault((*path, "arguments", "properties"), "a column's metric is about that column; move it to the object")
    if metric in ("missingValues", "invalidValues") and not given:
        yield Fault(path, f"metric {metric} has no arguments; add {' or '.join(sorted(allowed))}")
