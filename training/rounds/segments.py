"""Where a run's segments begin, and the order of each region that follows: derived from plan and chain, stored nowhere.

A segment opens with the round after the commit that applied an amendment of the data, or where the plan's curriculum
changes weights, at the lane indices that this commit left. What was trained and not committed by then is issued again,
under the new segment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from data_contracts.errors import RoundError
from training.rounds.amendment import DATA_KINDS, Amendment
from training.rounds.plan import Plan
from training.shards.manifest import DatasetVersion
from training.shards.region import Mixture, RegionOrder, next_segment, region_order


@dataclass(frozen=True)
class Opening:
    """A new segment: the first round made under it, and each region's 64 lane indices at its start.

    `amendments` are those that opened it; with none it was the curriculum.
    """

    round: int
    index: Mapping[str, tuple[int, ...]] = field(repr=False)
    amendments: tuple[Amendment, ...] = ()


def opening(
    plan: Plan, number: int, index: Mapping[str, tuple[int, ...]], amendments: Sequence[Amendment]
) -> Opening | None:
    """Return the segment that opens with round `number`, when the commit before it applied these amendments."""
    changes = tuple(a for a in amendments if a.kind in DATA_KINDS)
    return Opening(number, dict(index), changes) if changes or plan.weights_from(number) else None


@dataclass(frozen=True)
class InForce:
    """What a run trains on: version by sha with its data set, in the order in which they came, and mixture weights."""

    versions: Mapping[str, str]
    weights: Mapping[str, float]

    @property
    def datasets(self) -> tuple[str, ...]:
        """The data sets of the versions in force, by name."""
        return tuple(sorted(set(self.versions.values())))

    def after(self, plan: Plan, at: Opening) -> InForce:
        """Return what is in force in the segment that opens; an amendment has the last word over the curriculum."""
        versions, weights = dict(self.versions), {**self.weights, **plan.weights_from(at.round)}
        for amendment in at.amendments:
            weights |= amendment.weights
            if amendment.kind == "add-version":
                versions[amendment.version] = amendment.dataset
            elif amendment.kind == "withdraw-version":
                versions.pop(amendment.version, None)
        return InForce(versions, weights)


def at_start(plan: Plan) -> InForce:
    """Return what is in force in round 1."""
    return InForce({d.version: d.dataset for d in plan.datasets}, {**plan.weights, **plan.weights_from(1)})


def in_force(plan: Plan, openings: Sequence[Opening]) -> InForce:
    """Return what is in force after these openings."""
    found = at_start(plan)
    for at in openings:
        found = found.after(plan, at)
    return found


def named_versions(plan: Plan, openings: Sequence[Opening]) -> dict[str, str]:
    """Return every version that the run ever trained on, withdrawn ones too: sha to data set."""
    found = {d.version: d.dataset for d in plan.datasets}
    for at in openings:
        found |= {a.version: a.dataset for a in at.amendments if a.kind == "add-version"}
    return found


def region_orders(
    plan: Plan, versions: Mapping[str, DatasetVersion], openings: Sequence[Opening]
) -> dict[str, RegionOrder]:
    """Return the order of each region of the plan; `versions` are all that the run ever named, by sha.

    Raises:
        RoundError: a region of the plan holds nothing to train on in round 1.
    """
    begun = at_start(plan)
    orders: dict[str, RegionOrder] = {}
    for region in sorted({s.region for s in plan.sites}):
        live = [versions[sha] for sha in begun.versions]
        order = region_order(live, region, plan.window, plan.seed, begun.weights, plan.temperature, plan.order)
        if order is None:
            names = ", ".join(s.name for s in plan.sites if s.region == region)
            raise RoundError(f"region {region} holds nothing to train on; leave {names} out of the plan")
        now = begun
        for at in openings:
            now = now.after(plan, at)
            live = [versions[sha] for sha in now.versions]
            mixture = Mixture(now.weights, plan.temperature)
            order = next_segment(order, live, plan.window, plan.seed, mixture, at.index[region], plan.order)
        orders[region] = order
    return orders
