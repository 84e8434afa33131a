"""How many inner steps a round has at each site, and where a step stands in the schedule of the learning rate.

A pure function of plan and chain: every site works out the same numbers, and a contribution with another number of
steps is refused. docs/rounds.md says which length suits what.
"""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from training.rounds.plan import Length, Plan

if TYPE_CHECKING:
    from training.rounds.commit import ChainState
    from training.rounds.contribution import Header

SPREAD = 16  # the fastest site counts as at most so many times as fast as the median one
LONGEST = 16  # a round by time has at most so many times the planned steps
_MOST_MISSED = 30


@dataclass(frozen=True)
class Measured:
    """What the chain knows of a site's speed.

    `rate` is in steps per second, of its newest contribution that counted (0: none did); `missed` are the rounds since
    then that counted none of its work, in a row.
    """

    rate: float
    missed: int = 0


_UNKNOWN = Measured(0.0)


def growing(steps: int, growth: float, longest: int, rounds: int) -> list[Length]:
    """Return the lengths of rounds that begin with `steps` and grow by the factor `growth` up to `longest` steps.

    Round r has floor(steps x growth^(r-1)) steps; a length stands once, at the first round that has it.
    """
    lengths: list[Length] = []
    wanted = float(steps)
    for number in range(1, rounds + 1):
        now = min(int(wanted), longest)
        if not lengths or lengths[-1].steps != now:
            lengths.append(Length(from_round=number, steps=now))
        if now == longest:
            break
        wanted *= growth
    return lengths


def planned(plan: Plan, number: int) -> int:
    """Return the inner steps that the plan gives a site in round `number`, which counts from 1."""
    steps = plan.steps
    for length in plan.lengths:
        if length.from_round > number:
            break
        steps = length.steps
    return steps


def steps_before(plan: Plan, number: int) -> int:
    """Return the planned steps of a site in the rounds before `number`: the clock of the inner schedule."""
    return sum(steps * (min(end, number) - start) for start, end, steps in _spans(plan) if start < number)


def total_steps(plan: Plan) -> int:
    """Return the planned steps of a site in the whole run."""
    return steps_before(plan, plan.rounds + 1)


def steps_of(plan: Plan, state: ChainState, site: str) -> int:
    """Return the inner steps of a site in the round after `state`, 1 or more.

    Pace `speed`: the planned steps x its rate / the fastest member's, at most the planned ones. Pace `time`: what its
    rate gives in `round_s` seconds, at most `LONGEST` x the planned ones. Either is halved for each round in a row that
    went on without the site: one that became slow comes back, and is measured again.

    Raises:
        RoundError: the plan has no such site.
    """
    plan.site(site)
    steps = planned(plan, state.round + 1)
    if plan.pace == "speed":
        rates = _rates(plan, state.measured, {*state.members, site})
        # What one site says of itself cannot take the others below 1/SPREAD of the work.
        fastest = min(max(rates.values()), SPREAD * statistics.median_low(rates.values()))
        steps = int(steps * min(1.0, rates[site] / fastest))
    known = state.measured.get(site, _UNKNOWN)
    if plan.pace == "time" and known.rate:
        steps = int(min(known.rate * plan.round_s, LONGEST * steps))
    return max(1, steps >> known.missed)


def measured_after(plan: Plan, state: ChainState, counted: Sequence[Header]) -> dict[str, Measured]:
    """Return what the chain knows of the sites' speed once it has counted these contributions in its next round."""
    if plan.pace == "fixed":
        return {}
    by_site = {header.site: header for header in counted}
    found = dict(state.measured)
    for site in state.members:
        if site in by_site:
            found[site] = Measured(by_site[site].steps / by_site[site].seconds)
        else:
            before = found.get(site, _UNKNOWN)
            found[site] = Measured(before.rate, min(before.missed + 1, _MOST_MISSED))
    return found


def _rates(plan: Plan, measured: Mapping[str, Measured], sites: Collection[str]) -> dict[str, float]:
    """Return how fast sites are in comparison: measured, else by what the plan says of them, else as the fastest."""
    rates = {site: measured[site].rate for site in sites if site in measured and measured[site].rate}
    said = {site: plan.site(site).speed for site in sites if plan.site(site).speed}
    both = [rates[site] / said[site] for site in sorted(rates.keys() & said.keys())]
    if both or not rates:
        scale = statistics.median_low(both) if both else 1.0
        rates = {**{site: speed * scale for site, speed in said.items()}, **rates}
    fastest = max(rates.values(), default=1.0)
    return {site: rates.get(site, fastest) for site in sites}


def schedule_step(plan: Plan, number: int, step: int, steps: int) -> int:
    """Return where a site's step stands in the inner schedule: `step`, from 0, of its `steps` in round `number`.

    A site with fewer or more steps than planned spreads them over the planned ones: all sites' rates fall alike.
    """
    return steps_before(plan, number) + step * planned(plan, number) // steps


def _spans(plan: Plan) -> Iterator[tuple[int, int, int]]:
    """Yield (first round, round after the last, steps) of rounds of one length; the last ends with the run."""
    starts = [(1, plan.steps), *((length.from_round, length.steps) for length in plan.lengths)]
    for k, (start, steps) in enumerate(starts):
        end = starts[k + 1][0] if k + 1 < len(starts) else plan.rounds + 1
        yield start, end, steps
