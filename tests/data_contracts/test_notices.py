"""Notices: what needs a person stays until it is cleared."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from data_contracts.canonical import canonical_json
from data_contracts.catalog.store import Store
from data_contracts.errors import StoreError
from data_contracts.notices import Notice, clear_notice, notices, put_notice

MORNING, NOON = (datetime(2024, 1, 1, hour, tzinfo=UTC) for hour in (8, 12))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "home")


def test_notices_are_read_oldest_first(store: Store) -> None:
    put_notice(store, "partition-late", "demo/b", "late", NOON)
    put_notice(store, "run-failed", "demo/a", "died", MORNING)
    assert notices(store) == [
        Notice("run-failed", "demo/a", "died", "2024-01-01T08:00:00+00:00"),
        Notice("partition-late", "demo/b", "late", "2024-01-01T12:00:00+00:00"),
    ]


def test_the_same_notice_again_has_the_new_message_and_the_old_time(store: Store) -> None:
    put_notice(store, "partition-late", "demo/a", "late by 1 day", MORNING)
    put_notice(store, "partition-late", "demo/a", "late by 2 days", NOON)
    assert [(n.message, n.since) for n in notices(store)] == [("late by 2 days", "2024-01-01T08:00:00+00:00")]


def test_a_cleared_notice_is_gone_and_its_neighbour_stays(store: Store) -> None:
    for subject in ("demo/a", "demo/b"):
        put_notice(store, "partition-late", subject, "late", MORNING)
    clear_notice(store, "partition-late", "demo/a")
    clear_notice(store, "partition-late", "never put")
    assert [n.subject for n in notices(store)] == ["demo/b"]


def test_a_kind_that_is_no_word_is_refused(store: Store) -> None:
    with pytest.raises(StoreError, match=r"'\.\./keys' cannot be the kind"):
        put_notice(store, "../keys", "x", "y", NOON)


def test_a_notice_of_a_later_format_is_refused_by_name(store: Store) -> None:
    store.put("notices/late/0123456789ab.json", canonical_json({"format": 2}))
    with pytest.raises(StoreError, match="format 2"):
        notices(store)
