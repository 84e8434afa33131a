"""How many inner steps a round has at each site, and where a step stands in the schedule of the learning rate.

A pure function of plan and chain: every site works out the same numbers, and a contribution with another number of
steps is refused. docs/rounds.md says which length suits what.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from training.rounds.plan import Length, Plan

if TYPE_CHECKING:
    from training.rounds.commit import ChainState


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
    """Return the inner steps of a site in the round after `state`."""
    plan.site(site)
    return planned(plan, state.round + 1)


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
