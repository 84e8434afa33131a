from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.errors import RoundError
from tests.training.making import Run, contribute, make_run, version_of, write_shard_of
from training.rounds import ledger
from training.rounds.commit import ChainState, lanes_of
from training.rounds.contribution import Contribution
from training.rounds.ledger import Entry
from training.shards.cache import ShardCache
from training.shards.loader import RegionOrder, region_order
from training.shards.schedule import next_claims
from training.shards.writer import open_shard

WINDOW = 4


def claim(run: Run, site: str, *claims: tuple[int, int, int]) -> Contribution:
    return contribute(run, run.start, site, claims=claims)


def test_claims_that_join_are_entries_of_their_round(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    rounds = [
        (1, [claim(run, "north", (0, 0, 3)), claim(run, "east", (0, 0, 2))]),
        (2, [claim(run, "north", (0, 3, 4))]),
    ]
    assert ledger.entries(run.plan, rounds) == [
        Entry(1, "asia", "east", 0, 0, 2),
        Entry(1, "europe", "north", 0, 0, 3),
        Entry(2, "europe", "north", 0, 3, 4),
    ]


@pytest.mark.parametrize(("start", "stood"), [(2, 3), (4, 3)])
def test_a_gap_or_an_overlap_is_refused_with_lane_and_round(tmp_path: Path, start: int, stood: int) -> None:
    run = make_run(tmp_path)
    rounds = [(1, [claim(run, "north", (7, 0, 3))]), (2, [claim(run, "north", (7, start, 9))])]
    with pytest.raises(RoundError, match=f"round 2: europe lane 7 is claimed from {start}; it stood at {stood}"):
        ledger.entries(run.plan, rounds)


def test_two_sites_of_one_region_cannot_claim_one_position(tmp_path: Path) -> None:
    run = make_run(tmp_path, {"a": "asia", "b": "asia"})
    with pytest.raises(RoundError, match="round 1: asia lane 5"):
        ledger.entries(run.plan, [(1, [claim(run, "a", (5, 0, 1)), claim(run, "b", (5, 0, 1))])])


def brute(order: RegionOrder, run: Run, entries: list[Entry]) -> dict[str, list[tuple[int, int, int]]]:
    """Record -> (round, lane, index), by walking every position that was trained on and looking into its window."""
    store, found = run.stores["a"], dict[str, list[tuple[int, int, int]]]()
    shards = {r.key: open_shard(store.path(r.arrow_key)) for held in order.shards for r in held}
    for entry in entries:
        for index in range(entry.start, entry.end):
            number, position = order.locate(entry.lane, index)
            _, window = order.streams[number].window(position)
            shard_number, inner = order.streams[number].shard(window)
            shard = shards[order.shards[number][shard_number].key]
            used = range(inner * WINDOW, min(inner * WINDOW + WINDOW + 1, len(shard.tokens)))
            for row, record in enumerate(shard.record_ids):
                if any(shard.offsets[row] <= t < shard.offsets[row + 1] for t in used):
                    found.setdefault(record, []).append((entry.round, entry.lane, index))
    return {record: sorted(places) for record, places in found.items()}


TEXTS = st.lists(st.sampled_from(["one two", "", "x", "three four five six"]), min_size=1, max_size=5)


@settings(deadline=None, max_examples=20)
@given(st.lists(TEXTS, min_size=1, max_size=3), st.integers(1, 4), st.integers(1, 60), st.data())
def test_the_rounds_of_a_record_are_those_that_a_walk_over_every_window_finds(
    tmp_path_factory: pytest.TempPathFactory, texts: list[list[str]], rounds: int, positions: int, data: st.DataObject
) -> None:
    run = make_run(tmp_path_factory.mktemp("ledger"), {"a": "asia", "b": "asia"}, window=WINDOW)
    store = run.stores["a"]
    versions = [
        version_of([write_shard_of(store, part, partition=f"{chr(97 + k)}", region="asia", dataset=f"test/{k % 2}")])
        for k, part in enumerate(texts)
    ]
    order = region_order(versions, "asia", WINDOW, 1, {})
    if order is None:
        return
    index, committed = [0] * 64, []
    for number in range(1, rounds + 1):
        given_in = []
        for site, lanes in lanes_of(run.plan, ("a", "b"), "asia").items():
            if not data.draw(st.booleans()):
                continue  # absent: its lanes stand still, and the lanes come apart
            claims = next_claims(index, lanes, positions)
            given_in.append(claim(run, site, *claims))
            for lane, _, end in claims:
                index[lane] = end
        committed.append((number, given_in))
    entries = ledger.entries(run.plan, committed)
    state: ChainState = replace(run.start, round=rounds, index={"asia": tuple(index)})
    wanted = brute(order, run, entries)
    shards = ShardCache(store)
    for k, part in enumerate(texts):
        for row in range(len(part)):
            record = f"{chr(97 + k)}-{row:03d}"
            found = ledger.rounds_of_record(record, order, shards, WINDOW, entries, state)
            assert sorted((t.round, t.lane, t.index) for t in found) == wanted.get(record, [])
            assert [t.round for t in found] == sorted(t.round for t in found)
            assert all(t.dataset == f"test/{k % 2}" for t in found)
    assert ledger.rounds_of_record("nobody", order, shards, WINDOW, entries, state) == []
