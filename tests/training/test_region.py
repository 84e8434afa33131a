from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.canonical import sha256
from training.shards.manifest import DatasetVersion, ShardRef
from training.shards.region import Mixture, RegionOrder, next_segment, region_order
from training.shards.schedule import LANES

WINDOW = 8
ALL = Mixture({})


def shard_of(number: int, windows: int = 4, dataset: str = "test/a") -> ShardRef:
    name = sha256(f"{dataset}/{number}".encode())
    return ShardRef(
        region="asia",
        split="train",
        key=f"shards/{number}.json",
        manifest_sha256=name,
        arrow_sha256=name,
        arrow_bytes=0,
        tokens=windows * WINDOW + 1,
        records=1,
        text_bytes=1,
        partition=f"p{number}",
        ingest_id=f"i{number}",
    )


def version(*numbers: int, dataset: str = "test/a", windows: int = 4) -> DatasetVersion:
    return DatasetVersion(
        dataset=dataset,
        contract_sha="3" * 64,
        contract_version="1.0.0",
        terms={},
        terms_sha="1" * 64,
        curation_id="c" * 64,
        tokenizer="2" * 64,
        partitions=(),
        shards=tuple(shard_of(n, windows, dataset) for n in numbers),
    )


def started(*versions: DatasetVersion) -> RegionOrder:
    order = region_order(versions, "asia", WINDOW, 1, {})
    assert order is not None
    return order


def then(order: RegionOrder, *versions: DatasetVersion, mixture: Mixture = ALL, at: int = 3) -> RegionOrder:
    return next_segment(order, versions, WINDOW, 1, mixture, [at] * LANES)


def live_shards(order: RegionOrder) -> list[str]:
    return sorted(r.key for held, live in zip(order.shards, order.live, strict=True) if live for r in held)


def test_an_added_version_opens_a_stream_of_only_its_new_shards() -> None:
    order = then(started(version(1, 2)), version(1, 2), version(1, 2, 3))
    assert [[r.partition for r in held] for held in order.shards] == [["p1", "p2"], ["p3"]]
    assert [s.version for s in order.streams] == [version(1, 2).sha, version(1, 2, 3).sha]
    # The data set's weight is shared by windows: each window as often as any other.
    assert [len(where) for where in order.segments.schedule.where] == [170, 85]


def test_a_withdrawn_versions_stream_stops_and_what_another_holds_goes_on_in_a_stream_of_its_own() -> None:
    order = then(started(version(1, 2)), version(2, 3))
    assert order.live == (False, True)
    assert [r.partition for r in order.shards[1]] == ["p2", "p3"]
    assert order.datasets == ("test/a",)


def test_a_version_that_returns_goes_on_where_its_stream_stopped() -> None:
    old, new = version(1, 2), version(2, 3)
    order = then(then(then(started(old), old, new), new, at=5), old, new, at=9)
    # Its stream has shards 1 and 2 again, so that which took shard 2 over rests.
    assert [[r.partition for r in held] for held in order.shards] == [["p1", "p2"], ["p3"], ["p2"]]
    assert order.live == (True, True, False)
    count = order.segments.parts[1].counts[0][0] + sum(
        order.locate(0, i)[0] == 0 for i in range(3, 5)
    )  # what lane 0 had of it before it was withdrawn
    assert next(p for s, p in (order.locate(0, i) for i in range(9, 400)) if s == 0) == count * LANES


def test_a_shard_that_was_moved_is_handed_out_in_one_region_at_a_time() -> None:
    old = version(1, 2)
    moved = replace(old, shards=(shard_of(1), replace(shard_of(2), region="europe"), shard_of(3)))
    begun = started(old)
    order = then(begun, old, moved)
    assert [[r.partition for r in held] for held in order.shards] == [["p1", "p2"], ["p3"]]
    europe = region_order([moved], "europe", WINDOW, 1, {})
    assert europe is not None
    assert next_segment(europe, [old, moved], WINDOW, 1, ALL, [0] * LANES).live == (False,)
    order = then(order, moved)
    assert order.live == (False, True, True)
    assert [r.partition for r in order.shards[2]] == ["p1"]
    # It came back: the region of the version that is in force longest decides.
    assert then(order, moved, old).live == (False, True, True)
    assert then(order, old, moved).live == (True, True, False)


def test_a_region_where_nothing_changes_keeps_its_segment() -> None:
    order = started(version(1, 2))
    assert then(order, version(1, 2)) is order
    assert then(order, version(1, 2), mixture=Mixture({"test/elsewhere": 3.0})) is order


def test_a_region_whose_last_version_is_withdrawn_hands_out_nothing() -> None:
    order = then(started(version(1)))
    assert order.datasets == ()
    with pytest.raises(IndexError, match="no stream has a weight above 0"):
        order.locate(0, 3)
    assert then(order, version(1), at=3).locate(0, 3) == (0, 3 * LANES)


@pytest.mark.parametrize(("temperature", "share"), [(1.0, 0.9), (2.0, 0.75), (1e9, 0.5)])
def test_temperature_evens_out_data_sets_of_different_sizes(temperature: float, share: float) -> None:
    large, small = version(1, windows=900), version(2, dataset="test/b", windows=100)
    order = region_order([large, small], "asia", WINDOW, 1, {}, temperature)
    assert order is not None
    schedule = order.segments.schedule
    assert len(schedule.where[0]) / len(schedule.slots) == pytest.approx(share, abs=0.01)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.sets(st.integers(1, 5), min_size=1), max_size=3), min_size=1, max_size=6))
def test_each_shard_of_a_version_in_force_is_in_exactly_one_live_stream(history: list[list[set[int]]]) -> None:
    order = started(version(1, 2, 3))
    for at, sets in enumerate(history):
        versions = {v.sha: v for v in (version(*sorted(numbers)) for numbers in sets)}
        order = then(order, *versions.values(), at=at)
        assert live_shards(order) == sorted(f"shards/{n}.json" for n in set().union(*sets))
