"""The eight operators of ODCS, and what a quality entry compares its figure with."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from data_contracts.errors import ContractError
from data_contracts.odcs import Fault, FieldPath
from data_contracts.ruling.kinds import SEVERITIES, BatchRule, Finding, RowRule, Severity

OPERATORS = (
    "mustBe", "mustNotBe", "mustBeGreaterThan", "mustBeGreaterOrEqualTo", "mustBeLessThan", "mustBeLessOrEqualTo",
    "mustBeBetween", "mustNotBeBetween",
)  # fmt: skip
_BETWEEN = ("mustBeBetween", "mustNotBeBetween")


@dataclass(frozen=True)
class Comparison:
    """What a figure is compared with, in which unit, and what a failure means."""

    operator: str
    value: Any
    unit: str
    severity: Severity

    @property
    def is_none_allowed(self) -> bool:
        """Whether it says that no row may fail, as an error: then each row can be judged alone."""
        return self.operator == "mustBe" and self.value == 0 and self.severity == "error"

    def arguments(self, columns: Sequence[str], **own: Any) -> dict[str, Any]:
        """Return a batch rule's arguments."""
        compared = {"operator": self.operator, "value": self.value, "unit": self.unit}
        return {"columns": list(columns), **compared, **own}


def counted(label: str, rules: list[RowRule], found: Comparison, column: str, words: str) -> Iterator[Finding]:
    """Yield the row rules themselves where no row may fail, else the batch rule that counts the rows that do."""
    if found.is_none_allowed:
        yield from rules
    else:
        columns = list(dict.fromkeys([column, *(rule.column for rule in rules)]))
        arguments = found.arguments(columns, rules=tuple(rules))
        yield BatchRule(label, "failingRows", arguments, words, found.severity, rules[0].runs)


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


def has_operator(check: Mapping[str, Any]) -> bool:
    """Say whether a quality entry compares with anything."""
    return any(name in check for name in OPERATORS)


def comparison(
    check: Mapping[str, Any], metric: str, path: FieldPath, units: Collection[str] = ("rows", "percent")
) -> Comparison | list[Fault]:
    """Read operator, value, unit (the first of `units` by default) and severity of a quality entry, or its faults."""
    faults = list(_faults(check, metric, path, units))
    if faults:
        return faults
    operator = next(name for name in OPERATORS if name in check)
    unit = check.get("unit", next(iter(units)))
    return Comparison(operator, check[operator], unit, SEVERITIES[check.get("severity", "error")])


def severity_fault(check: Mapping[str, Any], path: FieldPath) -> Iterator[Fault]:
    """Yield the fault of a severity that is none."""
    given = check.get("severity", "error")
    if given not in SEVERITIES:
        yield Fault((*path, "severity"), f"{given!r} is not allowed; use one of {', '.join(SEVERITIES)}")


def _faults(check: Mapping[str, Any], metric: str, path: FieldPath, units: Collection[str]) -> Iterator[Fault]:
    given = [name for name in OPERATORS if name in check]
    value = check[given[0]] if given else None
    numbers: list[Any] = value if given and given[0] in _BETWEEN and isinstance(value, list) else [value]
    if len(given) > 1:
        yield Fault(path, f"{' and '.join(given)} stand side by side; a rule compares once, so keep one of them")
    elif not given or not all(isinstance(n, (int, float)) and not isinstance(n, bool) for n in numbers):
        yield Fault(path, f"metric {metric} is compared with {value!r}; give one of {', '.join(OPERATORS)} a number")
    elif given[0] in _BETWEEN and (len(numbers) != 2 or numbers[0] > numbers[1]):
        yield Fault((*path, given[0]), f"{value!r} is no range; give two numbers, the smaller first")
    yield from severity_fault(check, path)
    unit = check.get("unit", next(iter(units)))
    if unit not in units:
        yield Fault((*path, "unit"), f"{unit!r} is not allowed for {metric}; use {' or '.join(units)}")
