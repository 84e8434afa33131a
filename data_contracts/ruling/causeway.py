"""Quality entries of `engine: causeway`: what the standard has no metric for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from data_contracts.odcs import Fault, FieldPath, nearest
from data_contracts.ruling.comparison import OPERATORS, comparison
from data_contracts.ruling.kinds import BatchRule, Finding

_OBJECT = ("quarantineShare",)
_COMMON = {"metric", "unit", "severity", *OPERATORS}


def causeway_findings(
    check: Mapping[str, Any], column: Mapping[str, Any] | None, types: Mapping[str, str], path: FieldPath
) -> Iterator[Finding]:
    """Translate an entry; the operator, unit and severity may stand beside `metric` or in the entry itself."""
    inner = check.get("implementation")
    path = (*path, "implementation")
    known = _OBJECT if column is None else ()
    metric = inner.get("metric") if isinstance(inner, dict) else None
    if not isinstance(inner, dict) or metric not in known:
        where = "an object" if column is None else "a column"
        named = "no metric" if metric is None else f"metric {metric!r}"
        listed = ", ".join(known)
        yield Fault(
            path,
            f"{named} of {where} cannot be run{nearest(metric, known)}; engine causeway has {listed}: "
            "write {metric: quarantineShare, mustBeLessOrEqualTo: 5}",
        )
        return
    whole = {name: check[name] for name in _COMMON if name in check} | dict(inner)
    if metric == "quarantineShare":
        found = comparison(whole, metric, path, ("percent", "rows"))
        if isinstance(found, list):
            yield from found
            return
        words = check.get("description") or f"{metric} {found.operator} {found.value} {found.unit}"
        yield BatchRule(metric, metric, found.arguments([]), words, found.severity)
