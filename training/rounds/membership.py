"""When a round closes. Pure functions of what the closer saw and of its own monotonic clock."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Sequence

from training.rounds.plan import Membership


def grace_s(membership: Membership, past_waits_s: Sequence[float]) -> float:
    """Return how long to wait for the rest after a quorum: median + k x MAD of past waits, with the plan's floor."""
    if not past_waits_s:
        return membership.grace_floor_s
    median = statistics.median(past_waits_s)
    mad = statistics.median(abs(w - median) for w in past_waits_s)
    return max(membership.grace_floor_s, median + membership.grace_mad * mad)


def closed_by(
    membership: Membership,
    members: Collection[str],
    contributed: Collection[str],
    refused: Collection[str],
    waited_s: float,
    past_waits_s: Sequence[float],
) -> str | None:
    """Say why a round may close now: `all` answered, or `grace` is over with a quorum there; None to go on waiting.

    `waited_s` runs from the moment the closer saw the quorum. A site whose contribution was refused has answered.
    """
    quorum = min(membership.quorum, len(members))
    if len(contributed) < quorum:
        return None
    if set(members) <= set(contributed) | set(refused):
        return "all"
    if membership.lost_region == "reweight" and waited_s >= grace_s(membership, past_waits_s):
        return "grace"
    return None
