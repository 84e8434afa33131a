"""The loop of a backfill: limits, order, retries, the circuit breaker. Knows nothing of how an item is run.

It keeps no state of its own: killed at any point and started again, it goes on from what was recorded.
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from data_contracts.backfill.plan import Item
from data_contracts.backfill.record import Outcome, Record
from data_contracts.backfill.state import State, item_state, state_of
from data_contracts.catalog.leases import hold

LOOK_S = 1.0
PAUSES_S = (2.0, 10.0, 30.0)
LOST_COUNTS = 3


class Launcher(Protocol):
    """One way to run items."""

    survives: bool  # whether an attempt may go on when its executor dies

    async def run(self, item: Item, attempt: int) -> Outcome:
        """Run one attempt, or go on waiting for it, and return its recorded outcome."""

    async def cancel(self) -> None:
        """End what still runs."""


@dataclass
class Executor:
    """One execution of a backfill. `report` is called with the state when it changed, at most every half second."""

    record: Record
    launcher: Launcher
    report: Callable[[State], None] = lambda state: None
    name: str = field(default_factory=lambda: f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:6]}")
    _running: dict[int, asyncio.Task[Outcome]] = field(default_factory=dict)
    _in_a_row: list[Outcome] = field(default_factory=list)
    _said: float = 0.0
    _looked: float = 0.0

    async def run(self) -> State:
        """Run the items that are left, until all are settled or somebody orders otherwise; return where it stands.

        Raises:
            Busy: another process executes this backfill.
        """
        with hold(self.record.store, self.record.lease, f"executor {self.name}"):
            try:
                return await self._run()
            finally:
                for task in self._running.values():
                    task.cancel()
                await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def _run(self) -> State:
        record, plan = self.record, self.record.plan
        state = state_of(plan, record.progress())
        due = []
        for one in state.items:
            if one.status == "running" and not self.launcher.survives:
                # Its process was the last executor, whose lease is free: it is gone.
                self._lost(one.item, one.attempt)
            if one.status in ("running", "waiting"):
                due.append(one.item)
        waiting: list[tuple[float, Item]] = [(0.0, item) for item in due]
        self._report(state, force=True)
        while waiting or self._running:
            word = self._word()
            if word == "cancelled":
                await self.launcher.cancel()
                break
            if word == "running":
                self._launch(waiting)
            elif not self._running:
                break
            await self._wait(waiting)
        state = state_of(plan, record.progress())
        self._report(state, force=True)
        return state

    def _launch(self, waiting: list[tuple[float, Item]]) -> None:
        """Start what is due, in order, as many as are allowed, never two of one partition."""
        now = time.monotonic()
        busy = {self.record.plan.item(number).partition for number in self._running}
        for entry in list(waiting):
            if len(self._running) >= self.record.plan.max_active:
                return
            not_before, item = entry
            if not_before > now or item.partition in busy:
                continue
            waiting.remove(entry)
            busy.add(item.partition)
            attempt = item_state(item, self.record.progress(())).attempt
            self._running[item.number] = asyncio.create_task(self.launcher.run(item, attempt))

    async def _wait(self, waiting: list[tuple[float, Item]]) -> None:
        if not self._running:
            await asyncio.sleep(0.1)
            return
        done, _ = await asyncio.wait(self._running.values(), timeout=LOOK_S, return_when=asyncio.FIRST_COMPLETED)
        for number, task in list(self._running.items()):
            if task not in done:
                continue
            del self._running[number]
            outcome = task.result()
            item = self.record.plan.item(number)
            self.record.note(outcome)
            self._count(outcome)
            one = item_state(item, self.record.progress(()))
            if one.status == "waiting":
                # Tried again soon, and before what was never tried: the order of the plan holds.
                first = outcome.ended == "lost" and outcome.attempt == 1
                pause = 0.0 if first else PAUSES_S[min(outcome.attempt, len(PAUSES_S)) - 1]
                waiting.insert(0, (time.monotonic() + pause, item))
        if done or time.monotonic() - self._said > 2.0:
            self._report(state_of(self.record.plan, self.record.progress(())))

    def _count(self, outcome: Outcome) -> None:
        """The circuit breaker: so many failures in a row, with no success between, stop the backfill."""
        if outcome.ended == "lost" and outcome.attempt < LOST_COUNTS:
            return  # a killed worker takes many with it, and says nothing of them
        if outcome.ended not in ("failed", "lost"):
            self._in_a_row.clear()
            return
        self._in_a_row.append(outcome)
        if len(self._in_a_row) >= self.record.plan.breaker:
            causes = {one.cause for one in self._in_a_row}
            shared = f"all with: {self._in_a_row[-1].message}" if len(causes) == 1 else f"of {len(causes)} causes"
            self.record.order("break", "circuit breaker", f"{len(self._in_a_row)} attempts in a row failed, {shared}")
            self._in_a_row.clear()
            self._looked = 0.0

    def _word(self) -> str:
        """Return what is wanted of the backfill, asking the store at most once a second."""
        now = time.monotonic()
        if now - self._looked > LOOK_S:
            self._looked = now
            self.record.progress(("orders",))
        commands = self.record.progress(()).commands
        if any(c.verb == "cancel" for c in commands):
            return "cancelled"
        return "paused" if commands and commands[-1].verb in ("pause", "break") else "running"

    def _lost(self, item: Item, attempt: int) -> None:
        self.record.lose(item, attempt, "its process ended without a word")

    def _report(self, state: State, force: bool = False) -> None:
        now = time.monotonic()
        if force or now - self._said > 0.5:
            self._said = now
            self.report(state)
