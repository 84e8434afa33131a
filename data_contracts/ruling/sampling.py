"""`metric: acceptanceSampling`: people look at a drawn sample; the partition is accepted at a share of good records.

The presets have the numbers of GB/T 45652 (draft of 2024, as translated): by hand at least 4,000 records with at least
96 % free of risk, by technical means at least 10 % of the records with at least 98 %. They are numbers, not compliance:
what a reviewer looks for, and with which list of words, is not said here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from data_contracts.odcs import Fault, FieldPath, nearest
from data_contracts.ruling.comparison import severity_fault
from data_contracts.ruling.kinds import SEVERITIES, BatchRule, Finding

METRIC = "acceptanceSampling"
PRESETS: dict[str, dict[str, float]] = {
    "gb-t-45652-manual": {"records": 4000, "accept": 96},
    "gb-t-45652-technical": {"share": 10, "accept": 98},
}
_ARGUMENTS = ("preset", "records", "share", "accept", "seed", "show")


def sampling_findings(
    whole: Mapping[str, Any], own: Mapping[str, Any], types: Mapping[str, str], words: str | None, path: FieldPath
) -> Iterator[Finding]:
    """Translate an entry whose metric is `acceptanceSampling`."""
    faults = [
        Fault(
            (*path, key),
            f"metric {METRIC} has no such argument{nearest(key, _ARGUMENTS)}; it has {', '.join(_ARGUMENTS)}",
        )
        for key in own
        if key not in _ARGUMENTS
    ]
    preset = own.get("preset")
    if preset is not None and preset not in PRESETS:
        faults.append(Fault((*path, "preset"), f"{preset!r} is not allowed; use one of {', '.join(PRESETS)}"))
    given = {**PRESETS.get(str(preset), {}), **own}
    if ("records" in given) == ("share" in given):
        faults.append(Fault(path, "how many are drawn is not said once; give records (a number) or share (in percent)"))
    records, share, accept = given.get("records", 1), given.get("share", 1), given.get("accept")
    if isinstance(records, bool) or not isinstance(records, int) or records < 1:
        faults.append(Fault((*path, "records"), f"{records!r} is no number of records; give a whole number from 1"))
    for key, value in (("share", share), ("accept", accept)):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 100:
            faults.append(Fault((*path, key), f"{value!r} is no share; give a percentage above 0, up to 100"))
    show = own.get("show", [name for name, logical in types.items() if logical == "string"])
    if not isinstance(show, list) or not show or not set(show) <= set(types):
        faults.append(Fault((*path, "show"), f"{show!r} are no columns; list some of {', '.join(types)}"))
    seed = own.get("seed", "1")
    faults += severity_fault(whole, path)
    if faults:
        yield from faults
        return
    drawn = f"{records} records" if "records" in given else f"{share} % of the records"
    said = words or f"of {drawn} drawn with seed {seed}, reviewers find at least {accept} % good"
    size: dict[str, Any] = {key: given[key] for key in ("records", "share") if key in given}
    compared: dict[str, Any] = {"operator": "mustBeGreaterOrEqualTo", "value": accept, "unit": "percent"}
    arguments = {"columns": ["record_id", *show], **compared, **size, "seed": str(seed), "show": list(show)}
    yield BatchRule(METRIC, METRIC, arguments, said, SEVERITIES[whole.get("severity", "error")], "python")
