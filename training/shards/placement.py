"""Which unit in which region: where policy allows, so that the coming run ends soonest, moving the least.

The objectives, each under those before it: the finish time of the run, to within `solving.TOLERANCE`; the bytes that
cross a link; what the links cost; the seconds that they are busy. docs/placement.md has the model.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import numpy as np

from data_contracts.policy import Decision, Purpose, decide
from data_contracts.terms import TrainingTerms
from training.shards.solving import Floats, Problem, Solution, solve
from training.sites import Link, Region, Site, Sites

How = Literal["stays", "moves", "is written", "may go nowhere", "has no room"]


@dataclass(frozen=True)
class Unit:
    """What is placed as a whole: one split of one partition version.

    `tokens` stand for the work it is, `arrow_bytes` for its size; both are estimates until it has been written.
    """

    dataset: str
    partition: str
    ingest_id: str
    split: str
    tokens: int
    arrow_bytes: int

    @property
    def name(self) -> str:
        """Data set, partition, version and split: what one unit is known by."""
        return f"{self.dataset}/{self.partition}@{self.ingest_id[:12]}/{self.split}"


@dataclass(frozen=True)
class Standing:
    """What is there before anything is placed.

    `lying`: unit names to the regions where their tokens lie. `near`: unit names to the regions where those of an
    earlier version lie. `tables`: data sets to where their tables lie. `taken`: regions to the bytes of what else
    lies there. `kept`: unit names to the regions where their bytes stay, for a run names them; `taken` counts them.
    """

    tables: Mapping[str, Site]
    lying: Mapping[str, Collection[str]] = field(default_factory=dict)
    near: Mapping[str, Collection[str]] = field(default_factory=dict)
    taken: Mapping[str, int] = field(default_factory=dict)
    kept: Mapping[str, Collection[str]] = field(default_factory=dict)


@dataclass(frozen=True)
class Assignment:
    """A unit and where it goes: `region` None with the reasons where none may or can hold it.

    `source` is the region or the tables' place that its bytes come from, None where it stays. `bytes_moved` cross the
    link between them, which takes `seconds` and costs `cost`.
    """

    unit: Unit
    region: Region | None
    reasons: tuple[str, ...]
    how: How
    source: str | None = None
    bytes_moved: int = 0
    seconds: float = 0.0
    cost: float = 0.0


@dataclass(frozen=True)
class Answer:
    """What the policy says of one split of a data set in one region."""

    dataset: str
    split: str
    region: str
    decision: Decision


@dataclass(frozen=True)
class Placement:
    """Where everything goes and why. `assignments` by unit name, `answers` by data set, split and region.

    `finish_s` is when each region has trained on its tokens once. `finish_bound_s` and `bytes_bound` are proven: no
    placement that policy and room allow ends earlier, and none that ends within the tolerance moves fewer bytes.
    `rounded`: there are so many units that a relaxation was rounded, and the bounds may not be reached.
    """

    assignments: tuple[Assignment, ...]
    answers: tuple[Answer, ...]
    finish_s: Mapping[str, float]
    finish_bound_s: float
    bytes_bound: float
    rounded: bool

    @property
    def homeless(self) -> tuple[Assignment, ...]:
        """The units that no region may or can hold."""
        return tuple(a for a in self.assignments if a.region is None)

    @property
    def end_s(self) -> float:
        """When the last region is done."""
        return max(self.finish_s.values(), default=0.0)


def purposes(purpose: Purpose) -> dict[str, Purpose]:
    """Return what each split is used for: training for the purpose of the run, held-out rows to evaluate it."""
    return {"train": purpose, "held-out": Purpose("evaluation", purpose.use)}


def may_hold(terms: TrainingTerms, purpose: Purpose, where: Site | Region, on_date: dt.date) -> Decision:
    """Ask the policy whether a site or region may store the data and process it for this purpose."""
    store = decide(terms, purpose, where.place, on_date, action="store")
    process = decide(terms, purpose, where.place, on_date, action="process")
    asked = (store, process)
    allowed = store.allowed and process.allowed
    # A refusal lists what refuses, not the clauses that would have permitted the other half.
    reasons = [r for d in asked if allowed or not d.allowed for r in d.reasons]
    return Decision(allowed, tuple(dict.fromkeys(reasons)))


def place(
    units: Sequence[Unit],
    sites: Sites,
    terms: Mapping[str, TrainingTerms],
    purposes: Mapping[str, Purpose],
    on_date: dt.date,
    standing: Standing,
) -> Placement:
    """Assign every unit to one of the regions of `sites`; `terms` by data set, `purposes` by split.

    What no region may hold has no place; where the regions have too little room, as few bytes as possible have none.
    The result does not depend on the order of the units.
    """
    units, regions = sorted(units, key=lambda u: u.name), sites.regions
    asked = tuple(
        Answer(dataset, split, region.name, may_hold(terms[dataset], purposes[split], region, on_date))
        for dataset, split in sorted({(u.dataset, u.split) for u in units})
        for region in regions
    )
    answers: dict[tuple[str, str], list[Decision]] = {}
    for answer in asked:
        answers.setdefault((answer.dataset, answer.split), []).append(answer.decision)
    somewhere = {key for key, decisions in answers.items() if any(d.allowed for d in decisions)}
    lawful = [u for u in units if (u.dataset, u.split) in somewhere]
    ways = _Ways(sites, standing)
    solution, fitting = _solve(lawful, regions, answers, ways)
    chosen = {unit.name: int(region) for unit, region in zip(fitting, solution.choice, strict=True)}
    made = []
    for unit in units:
        decisions = answers[unit.dataset, unit.split]
        if unit.name in chosen:
            where = chosen[unit.name]
            made.append(ways.assignment(unit, where, decisions[where].reasons))
        elif (unit.dataset, unit.split) in somewhere:
            made.append(Assignment(unit, None, ways.no_room(unit, decisions), "has no room"))
        else:
            why = tuple(f"{r.name}: {s}" for r, d in zip(regions, decisions, strict=True) for s in d.reasons)
            made.append(Assignment(unit, None, why, "may go nowhere"))
    busy = {
        r.name: sum(a.unit.tokens for a in made if a.region == r and a.unit.split == "train") / r.tokens_per_s
        for r in regions
    }
    return Placement(tuple(made), asked, busy, solution.finish_bound_s, solution.cost_bounds[0], solution.rounded)


def _solve(
    units: Sequence[Unit],
    regions: Sequence[Region],
    answers: Mapping[tuple[str, str], Sequence[Decision]],
    ways: _Ways,
) -> tuple[Solution, list[Unit]]:
    """Return the solution and the units it is of: all of them, or where room lacks as many bytes as it takes."""
    if not units:
        return Solution(np.empty(0, np.int64), 0.0, (0.0,), False), []
    n, r = len(units), len(regions)
    tokens = np.array([u.tokens for u in units], np.float64)
    train = np.array([u.split == "train" for u in units])
    problem = Problem(
        allowed=np.array([[d.allowed for d in answers[u.dataset, u.split]] for u in units], np.bool_),
        work=np.stack([np.where(train, tokens, 0.0), np.where(train, 0.0, tokens)]),
        size=np.array([[ways.bytes_taken(u, region) for region in regions] for u in units], np.float64),
        speed=np.array([region.tokens_per_s for region in regions], np.float64),
        room=np.array(ways.room, np.float64),
        costs=ways.costs(units),
        busy=np.zeros((2, r)),
    )
    found = solve(problem)
    if found is not None:
        return found, list(units)
    # One region more, where everything may go and nothing may lie: what must go there is what has no room.
    nowhere = np.zeros((n, r + 1))
    nowhere[:, r] = [u.arrow_bytes for u in units]
    wider = Problem(
        allowed=np.column_stack([problem.allowed, np.ones(n, np.bool_)]),
        work=np.zeros((2, n)),
        size=np.column_stack([problem.size, np.zeros(n)]),
        speed=np.append(problem.speed, 1.0),
        room=np.append(problem.room, np.inf),
        costs=(nowhere,),
        busy=np.zeros((2, r + 1)),
    )
    left = solve(wider)
    fits = left.choice < r if left is not None else np.zeros(n, np.bool_)
    return _solve([u for u, fit in zip(units, fits, strict=True) if fit], regions, answers, ways)


class _Ways:
    """What it takes to bring units to regions, from where they lie or from their tables."""

    def __init__(self, sites: Sites, standing: Standing) -> None:
        self.sites, self.regions, self.standing = sites, sites.regions, standing
        self.known: dict[tuple[str, str, bool], Link | None] = {}
        self.room = [
            np.inf if r.capacity_bytes is None else max(0, r.capacity_bytes - standing.taken.get(r.name, 0))
            for r in self.regions
        ]

    def bytes_taken(self, unit: Unit, region: Region) -> int:
        """Return the bytes that a region has to find for a unit."""
        return 0 if region.name in self.standing.kept.get(unit.name, ()) else unit.arrow_bytes

    def costs(self, units: Sequence[Unit]) -> tuple[Floats, ...]:
        """Return bytes, cost and seconds of bringing each unit to each region; each float64 [n, r]."""
        found = [[self.assignment(u, k, ()) for k in range(len(self.regions))] for u in units]
        return tuple(
            np.array([[getattr(a, name) for a in row] for row in found], np.float64)
            for name in ("bytes_moved", "cost", "seconds")
        )

    def assignment(self, unit: Unit, where: int, reasons: tuple[str, ...]) -> Assignment:
        """Return what going there means for a unit: it stays, or comes by the cheapest way from where it is."""
        region = self.regions[where]
        lying = self.standing.lying.get(unit.name, ())
        if region.name in lying:
            return Assignment(unit, region, reasons, "stays")
        how: How = "moves" if lying else "is written"
        if not lying and region.name in self.standing.near.get(unit.name, ()):
            # What an earlier version left there is most of it.
            return Assignment(unit, region, reasons, how, self.standing.tables[unit.dataset].name)
        sources = sorted(lying) or [self.standing.tables[unit.dataset].name]
        made = [Assignment(unit, region, reasons, how, source) for source in sources]
        ways = [self._over(self._way(str(one.source), region, bool(lying)), one) for one in made]
        return min(ways, key=lambda a: (a.bytes_moved, a.cost, a.seconds, a.source))

    def no_room(self, unit: Unit, decisions: Sequence[Decision]) -> tuple[str, ...]:
        """Return why a unit that may be held has no place: a sentence for each region that may hold it."""
        return tuple(
            f"{r.name}: capacity_gb: {room / 1e9:,.3f} of {(r.capacity_bytes or 0) / 1e9:,.3f} GB are free for these"
            f" data sets, and {unit.arrow_bytes / 1e9:,.3f} GB more do not fit; raise it, or add a region."
            for r, room, decision in zip(self.regions, self.room, decisions, strict=True)
            if decision.allowed
        )

    def _way(self, source: str, target: Region, from_region: bool) -> Link | None:
        """Return the best link from a region or the place of tables to a region; None: nothing has to travel."""
        key = (source, target.name, from_region)
        if key not in self.known:
            self.known[key] = self._best(source, target, from_region)
        return self.known[key]

    def _best(self, source: str, target: Region, from_region: bool) -> Link | None:
        if from_region:
            starts = [s.name for s in self.sites.region(source).sites]
        else:
            place = self.sites.home if source == "home" else self.sites.site(source)
            if place.region == target.name or place.store_url == target.store_url:
                return None
            starts = [source]
        links = [self.sites.link(start, end.name) for start in starts for end in target.sites]
        return min(links, key=lambda k: (k.cost_per_gb, -k.bytes_per_s, k.rtt_s, k.source, k.target))

    def _over(self, way: Link | None, made: Assignment) -> Assignment:
        if way is None:
            return made
        size = made.unit.arrow_bytes
        seconds = way.rtt_s + size / way.bytes_per_s
        return replace(made, bytes_moved=size, seconds=seconds, cost=size / 1e9 * way.cost_per_gb)
