"""Where a backfill stands: derived from its plan and what was recorded, the same for whoever looks. Pure."""

from __future__ import annotations

import statistics
from collections import Counter
from dataclasses import dataclass
from typing import Literal

from data_contracts.backfill.plan import BackfillPlan, Item
from data_contracts.backfill.record import Attempt, Outcome, Progress

# A transient fault is tried this often; an attempt whose process died is another matter, and costs more patience.
MAX_FAILED = 3
MAX_LOST = 10

Status = Literal["waiting", "running", "done", "refused", "failed"]
Word = Literal["running", "paused", "stopped", "cancelled", "done", "failed"]


@dataclass(frozen=True)
class ItemState:
    """Where one item stands. `attempt` is the one that runs, or the one to start next; `outcome` is the last."""

    item: Item
    status: Status
    attempt: int
    outcome: Outcome | None
    open: Attempt | None


@dataclass(frozen=True)
class Cause:
    """Failures that share a cause: how many, one message as an example, the partitions."""

    cause: str
    count: int
    example: str
    partitions: tuple[str, ...]


@dataclass(frozen=True)
class State:
    """Where a backfill stands.

    `word`: running also before it is started and after its executor died; stopped is the circuit breaker's; failed is
    ended with failures that only `retry` would try again. `left_s` is None when nothing can be known yet.
    """

    plan: BackfillPlan
    word: Word
    items: tuple[ItemState, ...]
    stages_left: tuple[str, ...]
    causes: tuple[Cause, ...]
    left_s: float | None
    said: str

    @property
    def counts(self) -> dict[str, int]:
        """Items by status, every status named."""
        found = Counter(one.status for one in self.items)
        return {status: found[status] for status in ("waiting", "running", "done", "refused", "failed")}

    @property
    def ended(self) -> bool:
        """Whether nothing more will happen unless somebody orders it."""
        return self.word in ("cancelled", "done", "failed")

    @property
    def settled(self) -> bool:
        """Whether no item is waiting or running."""
        return all(one.status not in ("waiting", "running") for one in self.items)

    def due(self) -> list[ItemState]:
        """Return the items to start next, in the plan's order."""
        return [one for one in self.items if one.status == "waiting"]


def stages_of(through: str) -> tuple[str, ...]:
    """Return the stages that follow the items."""
    return {"ingest": (), "curate": ("curate",), "shard": ("curate", "shard")}[through]


def state_of(plan: BackfillPlan, progress: Progress) -> State:
    """Derive where a backfill stands."""
    items = tuple(item_state(plan.item(n), progress) for n in range(1, len(plan.items) + 1))
    stages = tuple(s for s in stages_of(plan.through) if s not in progress.stages)
    settled = all(one.status not in ("waiting", "running") for one in items)
    failed = any(one.status == "failed" for one in items)
    last = next((c for c in reversed(progress.commands)), None)
    word: Word
    if any(c.verb == "cancel" for c in progress.commands):
        word = "cancelled"
    elif settled and failed:
        word = "failed"
    elif settled and not stages:
        word = "done"
    elif last is not None and last.verb in ("pause", "break"):
        word = "paused" if last.verb == "pause" else "stopped"
    else:
        word = "running"
    said = f"{last.verb} by {last.by}{': ' + last.reason if last.reason else ''}" if last else ""
    return State(plan, word, items, stages, _causes(items), _left(plan, items), said)


def again(state: State, refused: bool = False) -> dict[str, int]:
    """Return what a `retry` would try again: the failed items (and the refused, when asked), and their attempts."""
    wanted = ("failed", "refused") if refused else ("failed",)
    return {str(one.item.number): one.attempt for one in state.items if one.status in wanted}


def item_state(item: Item, progress: Progress) -> ItemState:
    """Derive where one item stands."""
    number = item.number
    forgiven = max((c.again[str(number)] for c in progress.commands if str(number) in c.again), default=0)
    started = progress.started.get(number, {})
    outcomes = progress.outcomes.get(number, {})
    newest = max([*started, *outcomes], default=0)
    outcome = outcomes[max(outcomes)] if outcomes else None
    if newest and newest not in outcomes:
        return ItemState(item, "running", newest, outcome, started[newest])
    if outcome is None or outcome.attempt <= forgiven:
        return ItemState(item, "waiting", newest + 1, outcome, None)
    if outcome.done:
        return ItemState(item, "refused" if outcome.ended == "refused" else "done", newest, outcome, None)
    counted = Counter(o.ended for a, o in outcomes.items() if a > forgiven)
    if outcome.final or counted["failed"] >= MAX_FAILED or counted["lost"] >= MAX_LOST:
        return ItemState(item, "failed", newest, outcome, None)
    return ItemState(item, "waiting", newest + 1, outcome, None)


def _causes(items: tuple[ItemState, ...]) -> tuple[Cause, ...]:
    groups: dict[str, list[ItemState]] = {}
    for one in items:
        bad = one.outcome is not None and one.outcome.ended in ("failed", "lost", "refused")
        if bad and one.outcome is not None:
            groups.setdefault(one.outcome.cause or one.outcome.message, []).append(one)
    found = [
        Cause(cause, len(ones), ones[0].outcome.message if ones[0].outcome else "", tuple(o.item.name for o in ones))
        for cause, ones in groups.items()
    ]
    return tuple(sorted(found, key=lambda c: (-c.count, c.cause)))


def _left(plan: BackfillPlan, items: tuple[ItemState, ...]) -> float | None:
    """Return the seconds that are left, by what items took here, else by what the plan knew of past runs."""
    left = [one for one in items if one.status in ("waiting", "running")]
    if not left:
        return 0.0
    took = [one.outcome.seconds for one in items if one.outcome is not None and one.outcome.seconds > 0]
    each = statistics.median(took) if took else sum(one.item.estimate_s for one in left) / len(left)
    return each * len(left) / max(1, min(plan.max_active, len(left))) if each else None
