"""The rules of a contract: row rules send a row to quarantine, batch rules judge a whole partition.

Row rules come from `required`, the logical type, `logicalTypeOptions`, `enum`, and library metric `invalidValues` with
`mustBe: 0`. A threshold, a share or uniqueness is a batch rule, never a row's verdict. A rule that cannot be run is a
fault of the contract. NULL passes every row rule but `required` and the licence rule.

Source: ODCS v3.2, "Data quality" and "Schema".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from data_contracts.errors import ContractError
from data_contracts.odcs import Fault, FieldPath, nearest
from data_contracts.rowchecks import FAULT_COLUMN, bound_scalar, constants, failing, pattern_fault

if TYPE_CHECKING:
    from data_contracts.contract import Contract

__all__ = ["BatchRule", "RowRule", "batch_rules", "failing", "holds", "row_rules", "rule_faults"]

OPERATORS = (
    "mustBe", "mustNotBe", "mustBeGreaterThan", "mustBeGreaterOrEqualTo", "mustBeLessThan", "mustBeLessOrEqualTo",
    "mustBeBetween", "mustNotBeBetween",
)  # fmt: skip
_LENGTHS = {"minLength": "at least {} characters", "maxLength": "at most {} characters"}
_BOUNDS = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "exclusiveMinimum": "greater than {}",
    "exclusiveMaximum": "less than {}",
}
_OPTIONS: dict[str, tuple[str, ...]] = {
    "string": (*_LENGTHS, "pattern"),
    "integer": (*_BOUNDS, "multipleOf", "format"),
    "number": (*_BOUNDS, "multipleOf"),
    "date": tuple(_BOUNDS),
    "timestamp": tuple(_BOUNDS),
    "boolean": (),
}
_INTEGER_FORMATS = {f"{sign}{bits}" for sign in "iu" for bits in (8, 16, 32, 64)} - {"u64"}
_OBJECT_METRICS = ("rowCount", "duplicateValues")
_COLUMN_METRICS = ("nullValues", "missingValues", "invalidValues", "duplicateValues")
_SEVERITIES: dict[str, Literal["error", "warning"]] = {"error": "error", "warning": "warning", "info": "warning"}


@dataclass(frozen=True)
class RowRule:
    """One rule about one value. `name` is stable (`content.minLength`): quarantine and reports speak of it."""

    name: str
    column: str
    kind: str
    arguments: Mapping[str, Any]
    description: str


@dataclass(frozen=True)
class BatchRule:
    """One rule about a partition as a whole.

    `kind` is rowCount, duplicateValues, uniqueness, nullValues, missingValues or invalidValues, counted over the
    accepted rows, or quarantineShare: quarantined rows of all rows. `arguments` hold `columns`, `operator` (of ODCS),
    `value`, `unit` (rows or percent), and the metric's own. A failed warning does not refuse the partition.
    """

    name: str
    kind: str
    arguments: Mapping[str, Any]
    description: str
    severity: Literal["error", "warning"]


Finding = RowRule | BatchRule | Fault


def row_rules(contract: Contract) -> tuple[RowRule, ...]:
    """Return the row rules in the order of the columns; the first is that the record can be decoded.

    Raises:
        ContractError: a rule cannot be run.
    """
    rules = [RowRule("record.decodes", FAULT_COLUMN, "decodes", {}, "the record can be decoded")]
    rules += [rule for rule in _checked(contract) if isinstance(rule, RowRule)]
    terms = contract.terms
    if terms.licence_column is not None:
        allowed = list(terms.licences_allowed)
        what = f"the licence is one of {', '.join(allowed)}"
        arguments = {"allowed": allowed}
        rules.append(RowRule(f"{terms.licence_column}.allowed", terms.licence_column, "licence", arguments, what))
    return tuple(rules)


def batch_rules(contract: Contract) -> tuple[BatchRule, ...]:
    """Return the batch rules: those of the columns, then those of the object.

    Raises:
        ContractError: a rule cannot be run.
    """
    return tuple(rule for rule in _checked(contract) if isinstance(rule, BatchRule))


def rule_faults(table: Mapping[str, Any], base: FieldPath) -> Iterator[Fault]:
    """Yield the rules of an ODCS schema object that cannot be run; its shape is that of the ODCS schema."""
    for finding in _findings(table, base):
        if isinstance(finding, Fault):
            yield finding


def holds(rule: BatchRule, observed: float) -> bool:
    """Say whether an observed count (unit rows) or percentage (unit percent, 0 to 100) satisfies a batch rule."""
    value = rule.arguments["value"]
    match rule.arguments["operator"]:
        case "mustBe":
            return bool(observed == value)
        case "mustNotBe":
            return bool(observed != value)
        case "mustBeGreaterThan":
            return bool(observed > value)
        case "mustBeGreaterOrEqualTo":
            return bool(observed >= value)
        case "mustBeLessThan":
            return bool(observed < value)
        case "mustBeLessOrEqualTo":
            return bool(observed <= value)
        case "mustBeBetween":
            return bool(value[0] <= observed <= value[1])
        case "mustNotBeBetween":
            return not value[0] <= observed <= value[1]
        case other:
            raise ContractError(f"rule {rule.name}: {other!r} is no operator; use one of {', '.join(OPERATORS)}")


def _checked(contract: Contract) -> list[RowRule | BatchRule]:
    findings = list(_findings(contract.document["schema"][0], ("schema", 0)))
    faults = [f"{'.'.join(map(str, f.path))}: {f.sentence}" for f in findings if isinstance(f, Fault)]
    if faults:
        raise ContractError("\n".join(f"{contract.path}: {line}" for line in faults))
    rules: list[RowRule | BatchRule] = []
    seen: Counter[str] = Counter()
    for rule in findings:
        if isinstance(rule, (RowRule, BatchRule)):
            seen[rule.name] += 1
            rules.append(rule if seen[rule.name] == 1 else replace(rule, name=f"{rule.name}#{seen[rule.name]}"))
    return rules


def _findings(table: Mapping[str, Any], base: FieldPath) -> Iterator[Finding]:
    columns = table.get("properties") or []
    for index, column in enumerate(columns):
        yield from _column_findings(column, (*base, "properties", index))
    names = [column["name"] for column in columns]
    for index, check in enumerate(table.get("quality") or []):
        yield from _quality_findings(check, None, names, (*base, "quality", index))


def _column_findings(column: Mapping[str, Any], path: FieldPath) -> Iterator[Finding]:
    name, logical = column["name"], column.get("logicalType", "string")
    if logical not in _OPTIONS:
        return  # the contract's own check names the unsupported type
    if column.get("required") or column.get("primaryKey"):
        yield RowRule(f"{name}.required", name, "required", {}, f"{name} is given")
    options = column.get("logicalTypeOptions", {})
    if logical != "string":
        arguments = {"logicalType": logical, "format": options.get("format", "i64" if logical == "integer" else None)}
        yield RowRule(f"{name}.type", name, "type", arguments, f"{name} is of type {logical}")
    for option, value in options.items():
        yield from _option_findings(name, logical, option, value, (*path, "logicalTypeOptions", option))
    if options.get("minLength", 0) > options.get("maxLength", options.get("minLength", 0)):
        yield Fault((*path, "logicalTypeOptions", "minLength"), "more than maxLength, so nothing passes; correct one")
    if column.get("enum"):
        values = [entry["value"] for entry in column["enum"]]
        yield from _values_rule(f"{name}.enum", name, logical, values, (*path, "enum"))
    if column.get("unique"):
        arguments = {"columns": [name], "operator": "mustBe", "value": 0, "unit": "rows"}
        yield BatchRule(f"{name}.unique", "uniqueness", arguments, f"no two accepted rows share a {name}", "error")
    for index, check in enumerate(column.get("quality") or []):
        yield from _quality_findings(check, column, [name], (*path, "quality", index))


def _option_findings(name: str, logical: str, option: str, value: Any, path: FieldPath) -> Iterator[Finding]:
    supported = _OPTIONS[logical]
    if option not in supported:
        listed = ", ".join(supported) or "none"
        yield Fault(path, f"option {option} of a {logical} is not checked; remove it, or use one of: {listed}")
    elif option == "pattern":
        yield from _pattern_rule(name, value, path)
    elif option == "format":
        if value not in _INTEGER_FORMATS:
            listed = ", ".join(sorted(_INTEGER_FORMATS))
            yield Fault(path, f"integers of format {value!r} are not checked; use one of {listed}")
    elif option == "multipleOf":
        yield RowRule(
            f"{name}.multipleOf",
            name,
            option,
            {"value": value, "logicalType": logical},
            f"{name} is a multiple of {value}",
        )
    elif option in _LENGTHS:
        yield RowRule(
            f"{name}.{option}", name, option, {"value": value}, f"{name} has {_LENGTHS[option].format(value)}"
        )
    else:
        try:
            bound_scalar(option, value, logical)
        except ValueError as error:
            yield Fault(path, f"{value!r} is no {logical}: {error}; correct it")
            return
        arguments = {"value": value, "logicalType": logical}
        yield RowRule(f"{name}.{option}", name, option, arguments, f"{name} is {_BOUNDS[option].format(value)}")


def _pattern_rule(name: str, pattern: Any, path: FieldPath) -> Iterator[Finding]:
    problem = pattern_fault(pattern)
    if problem:
        yield Fault(path, f"{pattern!r} is no RE2 expression: {problem}; RE2 has no look-around and no back-references")
    else:
        # JSON Schema and ECMA-262 search; an anchor is the pattern's own business.
        yield RowRule(f"{name}.pattern", name, "pattern", {"pattern": pattern}, f"{name} matches {pattern}")


def _values_rule(rule: str, name: str, logical: str, values: Sequence[Any], path: FieldPath) -> Iterator[Finding]:
    try:
        constants(values, logical)
    except ValueError as error:
        yield Fault(path, f"a value is no {logical}: {error}; correct it")
        return
    kind = rule.rsplit(".", 1)[1]
    listed = ", ".join(map(str, values[:10])) + (" ..." if len(values) > 10 else "")
    yield RowRule(rule, name, kind, {"values": list(values), "logicalType": logical}, f"{name} is one of {listed}")


def _quality_findings(
    check: Mapping[str, Any], column: Mapping[str, Any] | None, columns: list[str], path: FieldPath
) -> Iterator[Finding]:
    """Translate one entry of `quality`; `column` is None for the object's own."""
    kind = check.get("type", "library")
    if kind == "text":
        return  # written for people
    engine = check.get("engine")
    if kind == "custom" and engine == "causeway" and column is None:
        inner = check.get("implementation")
        if not isinstance(inner, dict) or inner.get("metric") != "quarantineShare":
            yield Fault(
                (*path, "implementation"),
                "engine causeway has one metric; write {metric: quarantineShare, mustBeLessOrEqualTo: 5}",
            )
            return
        yield from _metric_findings({"unit": "percent", **check, **inner}, "quarantineShare", None, columns, path)
        return
    if kind != "library":
        what = f"quality type {kind}" + (f" with engine {engine}" if engine else "")
        yield Fault(path, f"{what} cannot be run; write it with a library metric, or as type text for people to read")
        return
    metric = str(check.get("metric", check.get("rule")))
    supported = _OBJECT_METRICS if column is None else _COLUMN_METRICS
    if metric not in supported:
        where = "an object" if column is None else "a column"
        yield Fault(path, f"metric {metric} of {where} cannot be run; use one of {', '.join(supported)}")
        return
    yield from _metric_findings(check, metric, column, columns, path)


def _metric_findings(
    check: Mapping[str, Any], metric: str, column: Mapping[str, Any] | None, columns: list[str], path: FieldPath
) -> Iterator[Finding]:
    operator = next((name for name in OPERATORS if name in check), None)
    value = check.get(operator) if operator else None
    numbers = value if isinstance(value, list) else [value]
    severity = _SEVERITIES.get(check.get("severity", "error"))
    unit = check.get("unit", "rows")
    given = check.get("arguments", {})
    counted = [] if metric in ("rowCount", "quarantineShare") else columns
    own = [name for name in given.get("properties", counted) if isinstance(name, str)]
    faults = []
    if operator is None or not all(isinstance(n, (int, float)) and not isinstance(n, bool) for n in numbers):
        faults.append(
            Fault(path, f"metric {metric} is compared with {value!r}; give one of {', '.join(OPERATORS)} a number")
        )
    if severity is None:
        faults.append(
            Fault((*path, "severity"), f"{check['severity']!r} is not allowed; use one of {', '.join(_SEVERITIES)}")
        )
    if unit not in ("rows", "percent") or (metric == "rowCount" and unit != "rows"):
        faults.append(
            Fault(
                (*path, "unit"),
                f"{unit!r} is not allowed for {metric}; use rows" + ("" if metric == "rowCount" else " or percent"),
            )
        )
    allowed = {
        "duplicateValues": {"properties"},
        "missingValues": {"missingValues"},
        "invalidValues": {"validValues", "pattern"},
    }
    for name in sorted(set(given) - allowed.get(metric, set())):
        faults.append(Fault((*path, "arguments", name), f"metric {metric} has no such argument; remove it"))
    for name in own:
        if name not in columns and column is None:
            faults.append(
                Fault(
                    (*path, "arguments", "properties"),
                    f"there is no column {name!r}{nearest(name, columns)}; correct it",
                )
            )
    if metric in ("missingValues", "invalidValues") and not given:
        faults.append(Fault(path, f"metric {metric} has no arguments; add {' or '.join(sorted(allowed[metric]))}"))
    if faults or operator is None or severity is None:
        yield from faults
        return
    inner: list[Finding] = []
    if metric == "invalidValues" and column is not None:
        name, logical = column["name"], column.get("logicalType", "string")
        if "validValues" in given:
            inner += _values_rule(f"{name}.validValues", name, logical, given["validValues"], (*path, "arguments"))
        if "pattern" in given:
            inner += _pattern_rule(name, given["pattern"], (*path, "arguments", "pattern"))
    broken = [finding for finding in inner if isinstance(finding, Fault)]
    if broken:
        yield from broken
    elif inner and operator == "mustBe" and value == 0 and severity == "error":
        yield from inner
    else:
        label = metric if column is None else f"{column['name']}.{metric}"
        arguments = {"columns": own, "operator": operator, "value": value, "unit": unit, **given}
        words = check.get("description") or f"{label} {operator} {value} {unit}"
        yield BatchRule(label, metric, arguments, words, severity)
