"""Which partitions a backfill takes in, and the reason for each that it takes or leaves."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from data_contracts.backfill.plan import Item
from data_contracts.backfill.selection import Known, Offer, Request, select
from data_contracts.catalog.registry import SourceEntry
from data_contracts.catalog.tables import PartitionVersion
from data_contracts.errors import DataRefused
from data_contracts.sources import SourceFile, SourcePartition

MARCH, JULY = "2020-03-25T00:00:00+00:00", "2020-07-01T00:00:00+00:00"


def entry(published: str = "", version: str = "1.0.0") -> SourceEntry:
    return SourceEntry(f"contract-{version}", version, "/data", published)


def offer(folder: Path, value: str, text: str, published: str = "", version: str = "1.0.0") -> Offer:
    path = folder / f"{value}-{published[:10]}.csv"
    path.write_text(text)
    return Offer(entry(published, version), SourcePartition(value, (SourceFile(path.name, path, len(text)),)))


def taken(one: Offer, verdict: str = "accepted", version: str = "1.0.0", **more: Any) -> PartitionVersion:
    moment = one.entry.moment
    facts: dict[str, Any] = {
        "dataset": "test/days",
        "partition": one.partition.value,
        "ingest_id": f"i-{one.partition.source_sha[:8]}",
        "attempt_id": "a",
        "sequence": int(moment.timestamp() * 1_000_000) if moment else 1,
        "verdict": verdict,
        "rows_in": 10,
        "rows_accepted": 10,
        "rows_quarantined": 0,
        "source_sha": one.partition.source_sha,
        "contract_sha": f"contract-{version}",
        "contract_version": version,
        "terms_sha": "t",
        "published_at": "2026-01-01T00:00:00+00:00",
        "bytes_in": one.partition.size,
        "seconds": 2.0,
    }
    return PartitionVersion(**(facts | more))


def known(versions: Sequence[PartitionVersion] = (), **more: Any) -> Known:
    return Known(**({"versions": versions, "failed": {}, "in_flight": {}, "expected": ()} | more))


def names(items: Sequence[Item]) -> list[str]:
    return [item.partition for item in items]


@pytest.fixture
def days(tmp_path: Path) -> list[Offer]:
    return [offer(tmp_path, f"2020-03-0{n}", f"day {n}") for n in range(1, 6)]


def test_missing_is_what_was_never_taken_in(days: list[Offer]) -> None:
    items, skipped = select("test/days", days, Request(), known([taken(days[1]), taken(days[3])]))
    assert names(items) == ["2020-03-01", "2020-03-03", "2020-03-05"]
    assert {i.reason for i in items} == {"it was never taken in"}
    assert [(s.partition, s.reason) for s in skipped] == [
        ("2020-03-02", "it is there: the same bytes under the same contract"),
        ("2020-03-04", "it is there: the same bytes under the same contract"),
    ]


def test_newest_first_numbers_the_items_from_the_end(days: list[Offer]) -> None:
    items, _ = select("test/days", days, Request(order="newest"), known())
    assert [(i.number, i.partition[-1]) for i in items] == [(1, "5"), (2, "4"), (3, "3"), (4, "2"), (5, "1")]


def test_bounds_are_included(days: list[Offer]) -> None:
    items, skipped = select("test/days", days, Request(start="2020-03-02", end="2020-03-04"), known())
    assert names(items) == ["2020-03-02", "2020-03-03", "2020-03-04"]
    assert skipped == ()


def test_numbers_are_ordered_by_their_size(tmp_path: Path) -> None:
    offers = [offer(tmp_path, v, v) for v in ("2", "10", "1")]
    items, _ = select("test/days", offers, Request(start="2"), known())
    assert names(items) == ["2", "10"]


def test_restated_is_known_by_the_digest_alone(days: list[Offer], tmp_path: Path) -> None:
    versions = [taken(one) for one in days]
    changed = offer(tmp_path, "2020-03-02", "day !")
    assert changed.partition.size == days[1].partition.size
    items, _ = select("test/days", [days[0], changed, *days[2:]], Request("restated"), known(versions))
    assert names(items) == ["2020-03-02"]
    assert items[0].reason.startswith("the source has other bytes: ")


def test_failed_is_what_was_refused_or_failed_in_an_earlier_backfill(days: list[Offer]) -> None:
    versions = [taken(days[0], "refused", reasons={"content.minLength": 4}), taken(days[1])]
    failed = {("2020-03-03", ""): "the disk was full"}
    items, _ = select("test/days", days, Request("failed"), known(versions, failed=failed))
    assert [(i.partition, i.reason) for i in items] == [
        ("2020-03-01", "refused on 2026-01-01: content.minLength 4"),
        ("2020-03-03", "failed before: the disk was full"),
    ]


def test_stale_is_what_an_older_contract_accepted(tmp_path: Path) -> None:
    newer = [offer(tmp_path, f"2020-03-0{n}", f"day {n}", version="2.0.0") for n in (1, 2)]
    versions = [taken(newer[0], version="1.0.0"), taken(newer[1], version="2.0.0")]
    items, skipped = select("test/days", newer, Request("stale-contract"), known(versions))
    assert names(items) == ["2020-03-01"]
    assert "under contract 1.0.0" in items[0].reason
    assert "now 2.0.0" in items[0].reason
    assert [s.partition for s in skipped] == ["2020-03-02"]


def test_each_publication_of_a_partition_is_an_item(tmp_path: Path) -> None:
    first = offer(tmp_path, "2020-03-22", "then", MARCH)
    final = offer(tmp_path, "2020-03-22", "now", JULY, "2.0.0")
    items, _ = select("test/days", [first, final], Request(), known())
    assert [(i.partition, i.published, i.contract_version) for i in items] == [
        ("2020-03-22", MARCH, "1.0.0"),
        ("2020-03-22", JULY, "2.0.0"),
    ]
    late, _ = select("test/days", [first, final], Request(), known([taken(final, version="2.0.0")]))
    assert [i.published for i in late] == [MARCH]
    restated, _ = select("test/days", [first, final], Request("restated"), known([taken(final, version="2.0.0")]))
    assert restated == ()


def test_what_is_in_flight_is_left_alone_with_the_reason(days: list[Offer]) -> None:
    items, skipped = select("test/days", days, Request(), known(in_flight={"2020-03-03": "in flight: item 7 of bf-1"}))
    assert "2020-03-03" not in names(items)
    assert [(s.partition, s.reason) for s in skipped] == [("2020-03-03", "in flight: item 7 of bf-1")]


def test_what_should_exist_and_no_source_has_is_said(days: list[Offer]) -> None:
    expected = [f"2020-03-0{n}" for n in range(1, 8)]
    _, skipped = select("test/days", days, Request(end="2020-03-06"), known(expected=expected))
    assert [(s.partition, s.reason) for s in skipped] == [
        ("2020-03-06", "the contract's frequency expects it, and no source has it")
    ]


def test_a_partition_that_no_source_has_is_refused_by_name(days: list[Offer]) -> None:
    with pytest.raises(DataRefused, match="no source has partition 2020-04-01; they have 2020-03-01"):
        select("test/days", days, Request(partitions=("2020-04-01",)), known())


def test_estimates_grow_with_bytes_by_what_past_runs_took(tmp_path: Path) -> None:
    small, large = offer(tmp_path, "1", "x" * 10), offer(tmp_path, "2", "x" * 1000)
    past = [
        taken(small, partition="8", bytes_in=10, seconds=0.5),
        taken(small, partition="9", bytes_in=1010, seconds=2.5),
    ]
    items, _ = select("test/days", [small, large], Request(), known(past))
    assert 0.4 < items[0].estimate_s < items[1].estimate_s < 3
