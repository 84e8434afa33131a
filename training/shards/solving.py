"""Units to regions as a mixed-integer programme: the least finish time first, then the least of each cost in turn.

Every unit goes to one of the regions that it may go to; a region has room for so many bytes. A finish time is the time
at which the last region is done, max over regions of work / speed (makespan on uniform machines); costs are sums over
units. HiGHS (Huangfu and Hall 2018) solves it through scipy, one programme an objective, each under the bounds of those
before (lexicographic goal programming). It is imported where it solves: 0.5 s that the processes which only read a
placement need not pay.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Places = NDArray[np.int64]

# A placement whose run ends at most this much later than the earliest end is as good, if it costs less.
TOLERANCE = 0.01
# Up to so many choices (units x regions) branch and bound works on all of them, to GAP; above, on what the relaxation
# leaves open. Up to SMALL_CHOICES it goes on to the proof.
EXACT_CHOICES = 600
SMALL_CHOICES = 100
GAP = 1e-3
# HiGHS's own limits count nodes, not seconds, so that a slow machine decides the same.
_NODES = 200
_SLACK = 1e-6


@dataclass(frozen=True)
class Problem:
    """`n` units and `r` regions.

    `allowed`: bool [n, r]; every unit is allowed somewhere. `work`: float64 [2, n], tokens to train on and tokens to
    evaluate with. `size`: float64 [n, r], bytes that a unit would take there. `speed`: float64 [r], tokens/s. `room`:
    float64 [r], bytes, infinite where nothing bounds them. `costs`: each float64 [n, r], the most important first.
    `busy`: float64 [2, r], seconds of work that a region has in any case.
    """

    allowed: NDArray[np.bool_]
    work: Floats
    size: Floats
    speed: Floats
    room: Floats
    costs: tuple[Floats, ...]
    busy: Floats

    def finish_s(self, shares: Floats, which: int = 0) -> float:
        """Return when the last region is done; `shares`: float64 [n, r], which part of each unit lies where."""
        return float((self.busy[which] + self.work[which] @ shares / self.speed).max(initial=0.0))


@dataclass(frozen=True)
class Solution:
    """`choice`: int64 [n], the region of each unit.

    `finish_bound_s`: no assignment ends its training earlier. `cost_bounds`: none that ends within the tolerance costs
    less, each under the bounds of those before it. `rounded`: the relaxation was rounded.
    """

    choice: Places
    finish_bound_s: float
    cost_bounds: tuple[float, ...]
    rounded: bool


def solve(problem: Problem, tolerance: float = TOLERANCE) -> Solution | None:
    """Return the best assignment, or None where the regions have no room for all units.

    The objectives in order: the training's finish time, to within the fraction `tolerance`; each cost; the training's
    finish time to the end; the evaluation's. The same problem has the same answer.
    """
    if int(problem.allowed.sum()) <= EXACT_CHOICES:
        return _whole(problem, tolerance)
    relaxed = _Programme(problem, integral=False).lexicographic(tolerance)
    if relaxed is None:
        return None
    # A basic solution splits few units, no more than rows couple them. Some of every size join those, to level the end.
    choice = relaxed.shares.argmax(axis=1).astype(np.int64)
    free = relaxed.shares.max(axis=1) < 1 - _SLACK
    spare = max(0, EXACT_CHOICES // len(problem.speed) - int(free.sum()))
    for which in (0, 1):
        whole = np.flatnonzero(~free & (problem.work[which] > 0))
        whole = whole[np.argsort(problem.work[which][whole], kind="stable")]
        free[whole[np.linspace(0, max(len(whole) - 1, 0), min(len(whole), spare // 2)).astype(np.int64)]] = True
    rest = _without(problem, choice, ~free)
    last = _Programme(rest, integral=True).lexicographic(tolerance, relaxed.finish_bound_s)
    if last is None:
        # What is whole leaves no room for what is split: only the whole problem can tell.
        return _whole(problem, tolerance)
    choice[free] = last.shares.argmax(axis=1)
    return Solution(choice, relaxed.finish_bound_s, relaxed.cost_bounds, True)


def _whole(problem: Problem, tolerance: float) -> Solution | None:
    found = _Programme(problem, integral=True).lexicographic(tolerance)
    if found is None:
        return None
    choice = found.shares.argmax(axis=1).astype(np.int64)
    return Solution(choice, found.finish_bound_s, found.cost_bounds, False)


def _without(problem: Problem, choice: Places, fixed: NDArray[np.bool_]) -> Problem:
    """Return the problem of the other units, once the `fixed` ones have gone where `choice` says."""
    regions, free = len(problem.speed), ~fixed
    work = [np.bincount(choice[fixed], load[fixed], regions) for load in problem.work]
    return replace(
        problem,
        allowed=problem.allowed[free],
        work=problem.work[:, free],
        size=problem.size[free],
        room=problem.room - np.bincount(choice[fixed], problem.size[fixed, choice[fixed]], regions),
        costs=tuple(cost[free] for cost in problem.costs),
        busy=problem.busy + np.stack(work) / problem.speed,
    )


@dataclass(frozen=True)
class _Found:
    shares: Floats
    finish_bound_s: float
    cost_bounds: tuple[float, ...]


class _Programme:
    """A problem as rows and columns: one column for each (unit, region) that is allowed, then the two finish times."""

    def __init__(self, problem: Problem, integral: bool) -> None:
        self.problem, self.integral = problem, integral
        self.unit, self.region = np.nonzero(problem.allowed)
        n, r = problem.allowed.shape
        self.choices = len(self.unit)
        # HiGHS knows only absolute tolerances: seconds and bytes are scaled to about 1.
        self.second = np.array([w.sum() / problem.speed.sum() or 1.0 for w in problem.work])
        self.second = np.maximum(self.second, problem.busy.max(axis=1, initial=0.0))
        self.limits: list[tuple[Any, Any, Any]] = [(self._rows(self.unit, np.ones(self.choices), n), 1.0, 1.0)]
        for which in (0, 1):
            seconds = problem.work[which][self.unit] / problem.speed[self.region] / self.second[which]
            rows = self._rows(self.region, seconds, r).tolil()
            rows[:, self.choices + which] = -1.0
            self.limits.append((rows.tocsr(), -np.inf, -problem.busy[which] / self.second[which]))
        self.alone = problem.work[0][self.unit] / problem.speed[self.region]
        soonest = np.full(n, np.inf)
        np.minimum.at(soonest, self.unit, self.alone)
        self.longest = float(soonest.max(initial=0.0))
        bounded = np.flatnonzero(np.isfinite(problem.room))
        if len(bounded):
            byte = problem.size.max(axis=1).sum() or 1.0
            rows = self._rows(self.region, problem.size[self.unit, self.region] / byte, r)[bounded]
            self.limits.append((rows, -np.inf, problem.room[bounded] / byte))

    def _rows(self, row: Places, values: Floats, count: int) -> Any:
        from scipy.sparse import coo_array

        shape = (count, self.choices + 2)
        return coo_array((values, (row, np.arange(self.choices))), shape=shape).tocsr()

    def lexicographic(self, tolerance: float, earliest_s: float = 0.0) -> _Found | None:
        """Solve for one objective after the other; None: there is no room.

        `earliest_s` is what the tolerance is counted from, where that is later than the least finish time.
        """
        first = self._finish(0)
        if first is None:
            return None
        shares, bound = first
        finish_bound, least, settled = bound * self.second[0], self.problem.finish_s(shares), True
        limit = max(least, (1 + tolerance) * (earliest_s or least))
        bounds = []
        for cost in self.problem.costs:
            paid = cost[self.unit, self.region]
            lowest = np.full(len(self.problem.allowed), np.inf)
            np.minimum.at(lowest, self.unit, paid)
            over = paid - lowest[self.unit]
            found = None
            if scale := float(over.sum()):
                objective = np.append(over / scale, [0.0, 0.0])
                found = self._least(objective, limit)
            if found is None:
                # Every choice costs the same, or nothing is left to choose but the solver's own tolerances.
                bounds.append(float(lowest.sum()))
                continue
            shares, settled = found[0], False
            bounds.append(float(lowest.sum() + found[1] * scale))
            reached = float(objective[: self.choices] @ shares[self.unit, self.region])
            self.limits.append((objective[None, :], -np.inf, reached + _SLACK))
        if settled:
            limit = least
        elif again := self._finish(0, limit):
            shares = again[0]
            limit = self.problem.finish_s(shares)
        if last := self._finish(1, limit):
            shares = last[0]
        return _Found(shares, finish_bound, tuple(bounds))

    def _finish(self, which: int, limit_s: float = np.inf) -> tuple[Floats, float] | None:
        if which and not self.problem.work[which].any():
            return None
        objective = np.zeros(self.choices + 2)
        objective[self.choices + which] = 1.0
        return self._least(objective, limit_s)

    def _least(self, objective: Floats, limit_s: float = np.inf) -> tuple[Floats, float] | None:
        """Return the shares [n, r] that make the objective least, and a lower bound of it."""
        from scipy.optimize import LinearConstraint, milp

        upper = np.ones(self.choices + 2)
        upper[self.choices :] = limit_s / self.second[0] + _SLACK, np.inf
        # A unit that alone takes longer can be nowhere near in part either (Lenstra, Shmoys and Tardos 1990).
        upper[: self.choices][self.alone > limit_s * (1 + _SLACK)] = 0.0
        lower = np.zeros(self.choices + 2)
        lower[self.choices] = min(self.longest, limit_s) / self.second[0]
        whole = np.append(np.ones(self.choices), [0, 0]) if self.integral else np.zeros(self.choices + 2)
        small = self.choices <= SMALL_CHOICES
        found = milp(
            objective,
            integrality=whole,
            bounds=(lower, upper),
            constraints=[LinearConstraint(*one) for one in self.limits],
            options={"mip_rel_gap": 0.0 if small else GAP} | ({} if small else {"node_limit": _NODES}),
        )
        if found.x is None:
            return None
        shares = np.zeros(self.problem.allowed.shape)
        shares[self.unit, self.region] = np.clip(found.x[: self.choices], 0.0, 1.0)
        if self.integral:
            shares = np.eye(len(self.problem.speed))[shares.argmax(axis=1)]
        bound = found.mip_dual_bound if self.integral and found.mip_dual_bound is not None else found.fun
        return shares, float(bound)
