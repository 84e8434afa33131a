"""Quality entries of `engine: causeway`: what the standard has no metric for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from data_contracts.odcs import Fault, FieldPath, nearest
from data_contracts.ruling import sampling, texts
from data_contracts.ruling.comparison import OPERATORS, Comparison, comparison, counted, has_operator, severity_fault
from data_contracts.ruling.kinds import SEVERITIES, BatchRule, Finding, RowRule

_OBJECT = ("quarantineShare", "rowCountChange", sampling.METRIC)
# The units of a metric of drift, the first by default.
DRIFT = {
    "psi": ("index",),
    "newCategories": ("values",),
    "nullShareChange": ("points",),
    "rowCountChange": ("percent",),
}
_OF_COLUMN = (*texts.ARGUMENTS, *(metric for metric in DRIFT if metric not in _OBJECT))
_COMMON = ("metric", "unit", "severity", *OPERATORS)


def causeway_findings(
    check: Mapping[str, Any], column: Mapping[str, Any] | None, types: Mapping[str, str], path: FieldPath
) -> Iterator[Finding]:
    """Translate an entry; operator and unit stand beside `metric`, the severity there or in the entry itself."""
    inner = check.get("implementation")
    path = (*path, "implementation")
    known = _OBJECT if column is None else _OF_COLUMN
    metric = inner.get("metric") if isinstance(inner, dict) else None
    if not isinstance(inner, dict) or metric not in known:
        where = "an object" if column is None else "a column"
        named = "no metric" if metric is None else f"metric {metric!r}"
        example = "{metric: quarantineShare, mustBeLessOrEqualTo: 5}" if column is None else "{metric: mojibake}"
        yield Fault(
            path,
            f"{named} of {where} cannot be run{nearest(metric, known)}; engine causeway has {', '.join(known)}: "
            f"write {example}",
        )
        return
    whole = {name: check[name] for name in ("unit", "severity") if name in check} | dict(inner)
    own = {name: value for name, value in inner.items() if name not in _COMMON}
    words = check.get("description")
    if metric == "quarantineShare":
        found = comparison(whole, metric, path, ("percent", "rows"))
        if isinstance(found, list):
            yield from found
            return
        said = words or f"{metric} {found.operator} {found.value} {found.unit}"
        yield BatchRule(metric, metric, found.arguments([]), said, found.severity)
    elif metric == sampling.METRIC:
        yield from sampling.sampling_findings(whole, own, types, words, path)
    elif metric in DRIFT:
        yield from _drift_findings(metric, whole, own, None if column is None else str(column["name"]), words, path)
    elif column is not None:
        yield from _text_findings(metric, whole, own, str(column["name"]), types, words, path)


def _drift_findings(
    metric: str, whole: Mapping[str, Any], own: Mapping[str, Any], name: str | None, words: str | None, path: FieldPath
) -> Iterator[Finding]:
    """Drift is told and does not refuse, unless the contract says that it is an error."""
    allowed = ("bins",) if metric == "psi" else ()
    faults = [
        Fault((*path, key), f"metric {metric} has no such argument; it has {', '.join(allowed) or 'none'}")
        for key in own
        if key not in allowed
    ]
    bins = own.get("bins", 10)
    if isinstance(bins, bool) or not isinstance(bins, int) or not 2 <= bins <= 100:
        faults.append(Fault((*path, "bins"), f"{bins!r} is not allowed; give a whole number from 2 to 100"))
    found = comparison({"severity": "warning", **whole}, metric, path, DRIFT[metric])
    if isinstance(found, list) or faults:
        yield from [*faults, *(found if isinstance(found, list) else [])]
        return
    label = metric if name is None else f"{name}.{metric}"
    said = words or f"{label} against the partition before {found.operator} {found.value} {found.unit}"
    columns = [] if name is None else [name]
    yield BatchRule(label, metric, found.arguments(columns, **own), said, found.severity, "python")


def _text_findings(
    metric: str,
    whole: Mapping[str, Any],
    own: Mapping[str, Any],
    name: str,
    types: Mapping[str, str],
    words: str | None,
    path: FieldPath,
) -> Iterator[Finding]:
    """A metric of text judges each row; with a threshold, or as a warning, it counts the rows that fail."""
    faults = list(texts.argument_faults(metric, own, path))
    if types[name] != "string":
        faults.append(
            Fault(path, f"metric {metric} is of text, and {name} is {types[name]}; use it on a string column")
        )
    severity = list(severity_fault(whole, path))
    found: Comparison | list[Fault] = severity
    if not severity:
        found = Comparison("mustBe", 0, "rows", SEVERITIES[whole.get("severity", "error")])
        if has_operator(whole):
            found = comparison(whole, metric, path)
    if isinstance(found, list) or faults:
        yield from [*faults, *(found if isinstance(found, list) else [])]
        return
    label = f"{name}.{metric}"
    said = words or texts.words(metric, name, own)
    yield from counted(label, [RowRule(label, name, metric, dict(own), said, texts.RUNS[metric])], found, name, said)
