"""Late work that is carried: which update of an earlier round a later one may apply, a function of plan and chain.

The update is signed again for the round that applies it, and books its ranges there. That the chain has not booked
them yet is the rule of every claim: carried work and work that issues the same ranges again exclude each other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from data_contracts.errors import RoundError
from training.rounds.lengths import LONGEST, planned
from training.rounds.plan import Plan

if TYPE_CHECKING:
    from training.rounds.commit import ChainState
    from training.rounds.contribution import Header


def check_carried(plan: Plan, state: ChainState, header: Header, what: str) -> None:
    """Check that the round after `state` may apply what was made for an earlier one.

    Raises:
        RoundError: the plan discards late work, it is too old, what is trained on has changed since, or its steps are
            not those of the round that it was made for; names `what`.
    """
    number, made_for = state.round + 1, header.made_for
    rule = plan.membership
    if rule.late != "carry":
        raise RoundError(f"{what}: made for round {made_for}; the plan says late = {rule.late!r}: train it again")
    if not number - rule.carry_rounds <= made_for < number:
        raise RoundError(
            f"{what}: made for round {made_for}; round {number} applies work of at most {rule.carry_rounds} rounds"
            " before it"
        )
    if state.openings and state.openings[-1].round > made_for:
        raise RoundError(
            f"{what}: made for round {made_for}; from round {state.openings[-1].round} on other data are trained on"
        )
    steps = planned(plan, made_for)
    # By speed or time: how fast a site was then, the chain no longer says.
    most = steps * LONGEST if plan.pace == "time" else steps
    if header.steps > most or (plan.pace == "fixed" and header.steps != steps):
        raise RoundError(f"{what}: {header.steps} steps where round {made_for} had {most}")
