"""An outlook as a document: what may go where, why not elsewhere, what moves, how long, how much."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from training.shards.outlook import Outlook
from training.shards.placement import Assignment, How


@dataclass(frozen=True)
class Flow:
    """Units of one split of a data set that go the same way; sums over them."""

    dataset: str
    split: str
    how: How
    source: str | None
    region: str
    units: int
    tokens: int
    bytes_moved: int
    seconds: float
    cost: float


def flows_of(outlook: Outlook) -> list[Flow]:
    """Return what goes where, gathered by data set, split, way and end; sorted."""
    groups: dict[tuple[str, ...], list[Assignment]] = {}
    for a in outlook.placement.assignments:
        if a.region is not None:
            key = (a.unit.dataset, a.unit.split, a.region.name, a.how, a.source or "")
            groups.setdefault(key, []).append(a)
    return [
        Flow(
            dataset,
            split,
            found[0].how,
            found[0].source,
            region,
            len(found),
            sum(a.unit.tokens for a in found),
            sum(a.bytes_moved for a in found),
            sum(a.seconds for a in found),
            sum(a.cost for a in found),
        )
        for (dataset, split, region, _, _), found in sorted(groups.items())
    ]


def document_of(outlook: Outlook) -> dict[str, Any]:
    """Return the outlook as a JSON value."""
    placement = outlook.placement
    flows = flows_of(outlook)
    return {
        "may_go": [
            {
                "dataset": a.dataset,
                "split": a.split,
                "region": a.region,
                "allowed": a.decision.allowed,
                "reasons": list(a.decision.reasons),
            }
            for a in placement.answers
        ],
        "goes": [vars(one) for one in flows],
        "no_place": [{"unit": a.unit.name, "why": a.how, "reasons": list(a.reasons)} for a in placement.homeless],
        "leaves": [one.document() for one in outlook.removals],
        "regions": [
            {
                "region": name,
                "finish_s": seconds,
                "tokens": sum(f.tokens for f in flows if f.region == name and f.split == "train"),
            }
            for name, seconds in sorted(placement.finish_s.items())
        ],
        "finish_s": placement.end_s,
        "finish_bound_s": placement.finish_bound_s,
        "bytes_moved": sum(f.bytes_moved for f in flows),
        "bytes_bound": placement.bytes_bound,
        "cost": sum(f.cost for f in flows),
        "tokens_measured": outlook.measured,
    }
