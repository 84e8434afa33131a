"""Which updates of a round lie beyond what training does: a robust bound of norms, by those that the chain counted.

A site alone is judged by the chain. Where more than half of the members have contributed, their round speaks too: when
the norms of all rise at once, as with other data or a higher rate, nobody is an outlier. A pure function of plan, chain
and the round's headers.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from training.rounds.plan import Plan

if TYPE_CHECKING:
    from training.rounds.commit import ChainState
    from training.rounds.contribution import Header

KNOWN = 8  # fewer norms bound nothing
KEPT = 32  # of each fragment of the model
MADS = 8.0
LEAST = 4.0  # times the median: below it nothing is an outlier


class Norm(NamedTuple):
    """The norm of an update that counted, the steps it was made with, and which fragment of the model it was."""

    norm: float
    steps: int
    fragment: int = 0

    def at(self, steps: int) -> float:
        """Return what the norm may be with so many steps.

        An update grows between the root of its steps (a random walk) and their number (a straight way): of the two the
        larger.
        """
        ratio = steps / self.steps
        return self.norm * max(ratio, math.sqrt(ratio))


def norms_after(plan: Plan, state: ChainState, counted: Sequence[Header]) -> tuple[Norm, ...]:
    """Return the norms that the chain keeps once it has counted these contributions in its next round."""
    if plan.norm_bound == "model":
        return ()
    fragment = _fragment(plan, state)
    new = [Norm(h.norm, h.steps, fragment) for h in sorted(counted, key=lambda h: h.site)]
    return (*state.norms, *new)[-KEPT * plan.overlap.fragments :]


def outlying(plan: Plan, state: ChainState, headers: Sequence[Header]) -> dict[str, str]:
    """Return the sites whose updates are outliers among these of the next round, each with the reason in words."""
    known = [n for n in state.norms if n.fragment == _fragment(plan, state)]
    if plan.norm_bound == "model" or len(known) < KNOWN:
        return {}
    found: dict[str, str] = {}
    while True:
        # Without an outlier the round's median is lower: what is left has to hold by itself.
        left = [h for h in headers if h.site not in found]
        new = {h.site: why for h in left if (why := _beyond(h, known, left, len(state.members)))}
        if not new:
            return found
        found |= new


def _beyond(header: Header, known: Sequence[Norm], of_round: Sequence[Header], members: int) -> str:
    """Say why an update is an outlier; empty when it is none."""
    scaled = [n.at(header.steps) for n in known]
    median = statistics.median(scaled)
    mad = statistics.median(abs(value - median) for value in scaled)
    bound = max(LEAST * median, median + MADS * mad)
    if 2 * len(of_round) > members:
        bound = max(bound, LEAST * statistics.median_low(Norm(h.norm, h.steps).at(header.steps) for h in of_round))
    if not header.norm > bound > 0:
        return ""
    return (
        f"outlying: norm {header.norm:g} is beyond {bound:g}; the last {len(known)} updates that counted, taken to"
        f" {header.steps} steps, have median {median:g} and MAD {mad:g}"
    )


def _fragment(plan: Plan, state: ChainState) -> int:
    """Return which fragment of the model the round after a state exchanges."""
    return state.round % plan.overlap.fragments
