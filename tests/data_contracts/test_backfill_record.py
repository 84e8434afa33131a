"""A backfill as one stored object: created once, its state derived, every order kept."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data_contracts.backfill.plan import BackfillPlan, Item, name_of
from data_contracts.backfill.record import Ended, Outcome, Record, create, names, read
from data_contracts.backfill.state import MAX_FAILED, MAX_LOST, State, again, state_of
from data_contracts.catalog.store import Store
from data_contracts.errors import DataRefused, ObjectMissing, StoreError


def item(number: int, value: str = "", sha: str = "s1") -> Item:
    return Item(number, value or f"2020-03-{number:02d}", "", "c", "1.0.0", "/data", sha, 100, "missing", 2.0)


def plan(count: int = 3, **more: Any) -> BackfillPlan:
    items = tuple(item(n) for n in range(1, count + 1))
    facts: dict[str, Any] = {
        "id": name_of("test/days", "ingest", items, {}),
        "dataset": "test/days",
        "only": "missing",
        "start": "",
        "end": "",
        "partitions": (),
        "order": "oldest",
        "through": "ingest",
        "max_active": 2,
        "breaker": 5,
        "reason": "",
        "asked_by": "me",
        "asked_at": "2026-01-01T00:00:00+00:00",
        "items": items,
        "skipped": (),
    }
    return BackfillPlan(**(facts | more))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path)


@pytest.fixture
def record(store: Store) -> Record:
    return create(store, plan())[0]


def end(record: Record, number: int, ended: Ended = "published", attempt: int = 1, **more: Any) -> None:
    record.begin(record.plan.item(number), attempt, "test")
    record.end(Outcome(number, attempt, ended, "2026-01-01T00:00:00+00:00", seconds=1.0, **more))


def now(record: Record) -> State:
    """What somebody else sees, who reads it all from the store."""
    other = read(record.store, record.plan.slug, record.plan.id)
    return state_of(other.plan, other.progress())


def test_a_stored_plan_is_read_back_whole(record: Record, store: Store) -> None:
    assert names(store) == [("test--days", record.plan.id)]
    assert read(store, "test--days", record.plan.id).plan == record.plan


def test_two_who_ask_for_the_same_work_get_one_backfill(store: Store) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda n: create(store, plan(asked_by=f"person {n}", max_active=n + 1)), range(8)))
    assert len({record.plan.id for record, _ in made}) == 1
    assert [new for _, new in made].count(True) == 1
    assert len({record.plan.asked_by for record, _ in made}) == 1


def test_the_same_work_after_the_end_is_another_backfill(record: Record, store: Store) -> None:
    for number in (1, 2, 3):
        end(record, number)
    second, new = create(store, plan())
    assert new
    assert second.plan.id == f"{record.plan.id}-2"


def test_other_bytes_are_other_work() -> None:
    assert name_of("d", "ingest", (item(1, sha="a"),), {}) != name_of("d", "ingest", (item(1, sha="b"),), {})


def test_nothing_to_do_is_no_backfill(store: Store) -> None:
    with pytest.raises(DataRefused, match="nothing to backfill"):
        create(store, plan(0))


def test_what_is_left_is_a_set_difference(record: Record) -> None:
    assert [one.item.number for one in now(record).due()] == [1, 2, 3]
    end(record, 2)
    record.begin(record.plan.item(1), 1, "test")
    state = now(record)
    assert [one.status for one in state.items] == ["running", "done", "waiting"]
    assert state.word == "running"
    end(record, 1, "unchanged")
    end(record, 3, "refused", message="refused: rowCount")
    state = now(record)
    assert state.word == "done"
    assert state.counts == {"waiting": 0, "running": 0, "done": 2, "refused": 1, "failed": 0}


def test_the_first_to_record_an_outcome_is_believed(record: Record) -> None:
    end(record, 1)
    second = record.end(Outcome(1, 1, "failed", "2026-01-02T00:00:00+00:00"))
    assert second.ended == "published"
    assert now(record).items[0].status == "done"


def test_a_transient_failure_is_tried_again_and_then_given_up(record: Record) -> None:
    for attempt in range(1, MAX_FAILED + 1):
        assert now(record).items[0].status == "waiting"
        assert now(record).items[0].attempt == attempt
        end(record, 1, "failed", attempt, message="the store is away", cause="StoreError")
    assert now(record).items[0].status == "failed"


def test_a_lost_attempt_is_given_more_patience_than_a_failed_one(record: Record) -> None:
    for attempt in range(1, MAX_LOST + 1):
        assert now(record).items[0].status == "waiting"
        end(record, 1, "lost", attempt)
    assert now(record).items[0].status == "failed"


def test_a_final_failure_is_not_tried_again(record: Record) -> None:
    end(record, 1, "failed", final=True, message="gone", cause="DataRefused: gone")
    assert now(record).items[0].status == "failed"


def test_a_retry_is_a_new_attempt_with_a_new_key(record: Record) -> None:
    end(record, 1, "failed", final=True, message="gone")
    end(record, 2)
    end(record, 3)
    state = now(record)
    assert state.word == "failed"
    assert again(state) == {"1": 1}
    record.order("retry", "me", again=again(state))
    one = now(record).items[0]
    assert (one.status, one.attempt) == ("waiting", 2)
    first, second = (one.item.key(record.plan.id, attempt) for attempt in (1, 2))
    assert first != second
    end(record, 1, "published", 2)
    assert now(record).word == "done"


def test_refusals_are_retried_only_when_asked(record: Record) -> None:
    end(record, 1, "refused")
    state = now(record)
    assert again(state) == {}
    assert again(state, refused=True) == {"1": 1}


def test_pause_resume_and_cancel_are_orders_that_stay(record: Record) -> None:
    record.order("pause", "anna", "the source is being moved")
    assert now(record).word == "paused"
    assert now(record).said == "pause by anna: the source is being moved"
    record.order("resume", "ben")
    assert now(record).word == "running"
    record.order("break", "circuit breaker", "5 attempts in a row failed")
    assert now(record).word == "stopped"
    record.order("cancel", "anna")
    record.order("resume", "ben")
    assert now(record).word == "cancelled"
    assert [c.verb for c in read(record.store, "test--days", record.plan.id).progress().commands] == [
        "pause", "resume", "break", "cancel", "resume",
    ]  # fmt: skip


def test_orders_given_at_once_are_all_kept(record: Record) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: record.order("pause", f"person {n}"), range(8)))
    assert len(read(record.store, "test--days", record.plan.id).progress().commands) == 8


def test_stages_are_left_until_each_is_finished(store: Store) -> None:
    record, _ = create(store, plan(1, through="shard"))
    end(record, 1)
    assert now(record).stages_left == ("curate", "shard")
    assert now(record).word == "running"
    record.finish_stage("curate")
    record.finish_stage("curate")
    assert now(record).stages_left == ("shard",)
    record.finish_stage("shard")
    assert now(record).word == "done"


def test_failures_are_grouped_by_cause(record: Record) -> None:
    for number in (1, 2):
        end(record, number, "failed", message=f"/data/{number}: no such file", cause="DataRefused: ...: no such file")
    end(record, 3, "refused", message="refused: rowCount", cause="refused: rowCount")
    causes = now(record).causes
    assert [(c.count, c.cause) for c in causes] == [(2, "DataRefused: ...: no such file"), (1, "refused: rowCount")]
    assert causes[0].partitions == ("2020-03-01", "2020-03-02")


def test_the_time_left_is_by_what_items_took_here_else_by_the_plan(record: Record) -> None:
    assert now(record).left_s == 3.0  # three items of 2 s, two at once
    end(record, 1)
    assert now(record).left_s == 1.0  # two items of 1 s, two at once


def test_a_damaged_outcome_is_named(record: Record) -> None:
    end(record, 1)
    record.store.put(f"{record.folder}/outcomes/000001-01.json", b'{"item": 1}')
    with pytest.raises(StoreError, match="outcomes/000001-01.json: damaged"):
        now(record)


def test_a_name_that_is_not_ours_becomes_no_path(store: Store) -> None:
    with pytest.raises(ObjectMissing, match="not the id of a backfill"):
        read(store, "test--days", "bf-../../keys")


def test_a_plan_of_another_format_is_refused(record: Record) -> None:
    key = f"{record.folder}/plan.json"
    record.store.put(key, b'{"format": 9}')
    with pytest.raises(StoreError, match="format 9"):
        read(record.store, "test--days", record.plan.id)


def test_items_are_found_by_their_number() -> None:
    made = plan()
    assert made.item(2).partition == "2020-03-02"
    assert replace(made, max_active=100).estimate_s == 2.0
