"""The loop of a backfill: order, limits, retries, the circuit breaker, and that its death costs nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from data_contracts.backfill.plan import BackfillPlan, Item
from data_contracts.backfill.record import Ended, Outcome, Record, create, read
from data_contracts.backfill.state import state_of
from data_contracts.catalog.leases import Busy, hold
from data_contracts.catalog.store import Store
from flows.backfilling import executor
from flows.backfilling.executor import Executor
from tests.data_contracts.test_backfill_record import item, plan


@dataclass
class Scripted:
    """Stands where items are run: says how each attempt ends, and notes what ran beside what."""

    record: Record
    ends: Callable[[Item, int], Ended] = lambda item, attempt: "published"
    survives: bool = False
    started: list[str] = field(default_factory=list)
    inside: dict[int, str] = field(default_factory=dict)
    most: int = 0
    together: list[set[str]] = field(default_factory=list)
    cancelled: bool = False
    seconds: float = 0.01
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def run(self, item: Item, attempt: int) -> Outcome:
        self.record.begin(item, attempt, "scripted")
        async with self.changed:
            self.started.append(f"{item.number}.{attempt}")
            self.changed.notify_all()
        self.inside[item.number] = item.partition
        self.most = max(self.most, len(self.inside))
        assert len(set(self.inside.values())) == len(self.inside), "two of one partition at once"
        await asyncio.sleep(self.seconds)
        del self.inside[item.number]
        ended = self.ends(item, attempt)
        message = f"{item.partition}: the store is away" if ended == "failed" else ""
        cause = "StoreError: ...: the store is away" if ended == "failed" else ""
        at = "2026-01-01T00:00:00+00:00"
        return self.record.end(Outcome(item.number, attempt, ended, at, message=message, cause=cause))

    async def cancel(self) -> None:
        self.cancelled = True

    async def has_started(self, count: int) -> None:
        async with self.changed:
            await self.changed.wait_for(lambda: len(self.started) >= count)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "PAUSES_S", (0.01,))
    monkeypatch.setattr(executor, "LOOK_S", 0.05)


def stored(folder: Path, made: BackfillPlan) -> Record:
    return create(Store.open(folder), made)[0]


def reread(record: Record) -> Record:
    return read(record.store, record.plan.slug, record.plan.id)


async def test_items_are_started_in_the_plans_order_and_never_more_than_are_allowed(tmp_path: Path) -> None:
    record = stored(tmp_path, plan(12, max_active=3))
    launcher = Scripted(record)
    state = await Executor(record, launcher).run()
    assert state.word == "done"
    assert launcher.started == [f"{n}.1" for n in range(1, 13)]
    assert launcher.most == 3


async def test_two_publications_of_one_partition_never_run_at_once(tmp_path: Path) -> None:
    items = (*(item(n, "2020-03-22", f"s{n}") for n in range(1, 4)), item(4))
    record = stored(tmp_path, plan(items=items, max_active=4))
    launcher = Scripted(record)
    assert (await Executor(record, launcher).run()).word == "done"
    assert launcher.started[:2] == ["1.1", "4.1"]


async def test_a_failing_partition_does_not_stop_the_others(tmp_path: Path) -> None:
    record = stored(tmp_path, plan(6))
    launcher = Scripted(record, lambda item, attempt: "failed" if item.number == 2 else "published")
    state = await Executor(record, launcher).run()
    assert state.word == "failed"
    assert state.counts == {"waiting": 0, "running": 0, "done": 5, "refused": 0, "failed": 1}
    assert [s for s in launcher.started if s.startswith("2.")] == ["2.1", "2.2", "2.3"]


async def test_a_transient_fault_passes(tmp_path: Path) -> None:
    record = stored(tmp_path, plan(3))
    launcher = Scripted(record, lambda item, attempt: "failed" if attempt == 1 and item.number == 3 else "published")
    assert (await Executor(record, launcher).run()).word == "done"


async def test_a_refusal_is_final(tmp_path: Path) -> None:
    record = stored(tmp_path, plan(3))
    launcher = Scripted(record, lambda item, attempt: "refused" if item.number == 1 else "published")
    state = await Executor(record, launcher).run()
    assert state.word == "done"
    assert launcher.started.count("1.1") == 1
    assert "1.2" not in launcher.started


async def test_so_many_failures_in_a_row_stop_it_and_name_what_they_share(tmp_path: Path) -> None:
    record = stored(tmp_path, plan(40, breaker=4))
    launcher = Scripted(record, lambda item, attempt: "failed" if item.number > 10 else "published")
    state = await Executor(record, launcher).run()
    assert state.word == "stopped"
    assert "4 attempts in a row failed, all with: " in state.said
    assert "the store is away" in state.said
    assert state.counts["done"] == 10
    assert state.counts["waiting"] > 20
    record.order("resume", "anna")
    mended = Scripted(record)
    assert (await Executor(record, mended).run()).word == "done"
    assert not [s for s in mended.started if int(s.split(".")[0]) <= 10]


async def test_partitions_whose_processes_always_die_stop_it_too(tmp_path: Path) -> None:
    record = stored(tmp_path, plan(6, breaker=4))
    state = await Executor(record, Scripted(record, lambda item, attempt: "lost")).run()
    assert state.word == "stopped"
    assert "4 attempts in a row failed" in state.said


async def test_many_that_are_lost_once_do_not_stop_it(tmp_path: Path) -> None:
    record = stored(tmp_path, plan(12, breaker=3, max_active=6))
    launcher = Scripted(record, lambda item, attempt: "lost" if attempt < 3 else "published")
    assert (await Executor(record, launcher).run()).word == "done"


async def test_failures_with_a_success_between_do_not_stop_it(tmp_path: Path) -> None:
    record = stored(tmp_path, plan(20, breaker=3, max_active=1))
    launcher = Scripted(
        record, lambda item, attempt: "failed" if item.number % 3 == 0 and attempt == 1 else "published"
    )
    assert (await Executor(record, launcher).run()).word == "done"


async def test_paused_it_starts_nothing_more_and_resumed_it_does_the_rest(tmp_path: Path) -> None:
    record = stored(tmp_path, plan(30))
    launcher = Scripted(record, seconds=0.05)

    async def pause() -> None:
        await launcher.has_started(6)
        reread(record).order("pause", "anna")

    state, _ = await asyncio.gather(Executor(record, launcher).run(), pause())
    assert state.word == "paused"
    assert 6 <= state.counts["done"] < 30
    assert state.counts["running"] == 0
    reread(record).order("resume", "anna")
    rest = Scripted(reread(record))
    done = await Executor(rest.record, rest).run()
    assert done.word == "done"
    assert len(launcher.started) + len(rest.started) == 30


async def test_cancelled_it_ends_what_runs(tmp_path: Path) -> None:
    record = stored(tmp_path, plan(30))
    launcher = Scripted(record, seconds=0.2)

    async def cancel() -> None:
        await launcher.has_started(2)
        reread(record).order("cancel", "anna")

    state, _ = await asyncio.gather(Executor(record, launcher).run(), cancel())
    assert state.word == "cancelled"
    assert launcher.cancelled
    assert len(launcher.started) < 10


async def test_an_executor_that_died_left_its_attempts_lost_and_they_are_made_again(tmp_path: Path) -> None:
    record = stored(tmp_path, plan(4))
    for number in (1, 2):
        record.begin(record.plan.item(number), 1, "the one that died")
    record.end(Outcome(1, 1, "published", "2026-01-01T00:00:00+00:00"))
    again = reread(record)
    launcher = Scripted(again)
    assert (await Executor(again, launcher).run()).word == "done"
    assert launcher.started == ["2.2", "3.1", "4.1"]


async def test_attempts_that_outlive_their_executor_are_waited_for_under_the_same_number(tmp_path: Path) -> None:
    record = stored(tmp_path, plan(3))
    record.begin(record.plan.item(1), 1, "the one that died")
    again = reread(record)
    launcher = Scripted(again, survives=True)
    assert (await Executor(again, launcher).run()).word == "done"
    assert launcher.started == ["1.1", "2.1", "3.1"]


async def test_one_process_executes_a_backfill_and_the_other_is_told(tmp_path: Path) -> None:
    record = stored(tmp_path, plan(3))
    with hold(record.store, record.lease, "executor elsewhere"), pytest.raises(Busy, match="executor elsewhere works"):
        await Executor(reread(record), Scripted(record)).run()
    assert state_of(record.plan, record.progress()).counts["waiting"] == 3
