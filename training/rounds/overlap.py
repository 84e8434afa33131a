"""Overlap: the first steps of a round, taken while the commit that it builds on is still to come (docs/overlap.md).

They assume that all sites' full work of the round before counts and that nothing is amended. Whether the assumption
held is a function of the chain: the site claims what it assumed that it would, or it takes the steps again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from training.rounds import merge
from training.rounds.codec import Tensors
from training.rounds.commit import ChainState, lanes_of
from training.rounds.lengths import schedule_step, steps_of
from training.rounds.plan import Plan
from training.shards.schedule import in_batches, next_claims

Claim = tuple[int, int, int]
Place = tuple[int, int]


@dataclass(frozen=True)
class Clock:
    """Where a site's steps of a round stand in the inner schedule, in steps and in tokens of all sites.

    `steps` are the site's in round `round`; `committed` are windows committed before it, `windows` those of all sites
    in it.
    """

    round: int
    steps: int
    committed: int
    windows: int

    def at(self, plan: Plan, step: int) -> tuple[int, int]:
        """Return the schedule's step, and the tokens that all sites have trained on once this step, from 0, is done.

        Windows are counted as full.
        """
        tokens = (self.committed + (step + 1) * self.windows // self.steps) * plan.window
        return schedule_step(plan, self.round, step, self.steps), tokens


def clock_of(plan: Plan, state: ChainState, site: str) -> Clock:
    """Return the clock of a site in the round after `state`."""
    windows = sum(steps_of(plan, state, member) for member in state.members) * plan.batch_windows
    return Clock(state.round + 1, steps_of(plan, state, site), sum(map(sum, state.index.values())), windows)


def claims_of(plan: Plan, state: ChainState, site: str) -> list[Claim]:
    """Return what a site claims in the round after `state`."""
    region = plan.site(site).region
    lanes = lanes_of(plan, state.members, region)[site]
    return next_claims(state.index[region], lanes, steps_of(plan, state, site) * plan.batch_windows)


@dataclass(frozen=True)
class Early:
    """Steps of a round that are taken before the round before it is committed: their clock and [steps] batches."""

    clock: Clock
    batches: tuple[tuple[Place, ...], ...] = field(repr=False)

    def holds(self, state: ChainState, batches: Sequence[Sequence[Place]]) -> bool:
        """Say whether these are the first steps of the round after `state`, whose batches are these."""
        number = state.round + 1
        opened = bool(state.openings) and state.openings[-1].round == number
        begun = [tuple(batch) for batch in batches[: len(self.batches)]]
        return self.clock.round == number and not opened and begun == list(self.batches)


def early_steps(plan: Plan, state: ChainState, site: str) -> Early | None:
    """Return the steps that a site takes right after it published its work of the round after `state`.

    None where there is no delay, no round after that one, or where the curriculum changes what that one trains on.
    """
    number = state.round + 2
    if plan.overlap.delay_steps == 0 or number > plan.rounds or plan.weights_from(number):
        return None
    after = _assumed(plan, state)
    batches = in_batches(claims_of(plan, after, site), plan.batch_windows)[: plan.overlap.delay_steps]
    return Early(clock_of(plan, after, site), tuple(map(tuple, batches)))


def _assumed(plan: Plan, state: ChainState) -> ChainState:
    """Return the state after the next round as far as the ledger goes, if all members' full work counts."""
    index = {region: list(lanes) for region, lanes in state.index.items()}
    for member in state.members:
        for lane, _, end in claims_of(plan, state, member):
            index[plan.site(member).region][lane] = end
    return replace(state, round=state.round + 1, index={region: tuple(lanes) for region, lanes in index.items()})


def taken(local: Tensors, outer: Tensors, names: tuple[str, ...], alpha: float | None) -> Tensors:
    """Return the parameters a site goes on with when a commit has changed those of `names`; the others stay local.

    `alpha`: how much of its own it keeps of them (`merge.mix`); None: they are taken as they are.
    """
    arrived = {name: outer[name] for name in names}
    return {**local, **(arrived if alpha is None else merge.mix(local, arrived, alpha))}
