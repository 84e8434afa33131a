"""Histories of a run beside a plain simulation: weights change, versions and sites come and go, work is late."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.canonical import sha256
from tests.training.making import Run, contribute, key_of, make_run, write_commit
from training.rounds import ledger
from training.rounds.amendment import Amendment, write_amendment, write_data_amendment
from training.rounds.commit import ChainState, lanes_of
from training.rounds.plan import CurriculumStep, Membership, PlanDataset
from training.rounds.run import newest_state, replay
from training.rounds.segments import named_versions, region_orders
from training.shards.manifest import DatasetVersion, ShardRef
from training.shards.region import RegionOrder
from training.shards.schedule import LANES, Schedule, Segment, Segments, next_claims

WINDOW = 8
SITES = {"a": "asia", "b": "asia", "c": "europe"}
REGIONS = ("asia", "europe")


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[list[float], list[int]]]:
    """Weights of a segment, and how far each lane goes under them; streams are added, rest and return."""
    weights = draw(st.lists(st.floats(0.01, 100), min_size=1, max_size=4))
    history = []
    for _ in range(draw(st.integers(1, 5))):
        if max(weights) == 0:
            weights[0] = 1.0
        far = draw(st.sampled_from([0, 3, 70, 600]))
        rest = draw(st.integers(0, 2**32))
        history.append((list(weights), np.random.default_rng(rest).integers(0, far + 1, LANES).tolist()))
        weights = [draw(st.sampled_from([w, 0.0, 1.0, 5.0])) for w in weights]
        weights += draw(st.lists(st.sampled_from([0.0, 0.5, 20.0]), max_size=2))
    return history


@settings(deadline=None, max_examples=40)
@given(histories(), st.integers(0, 2**32))
def test_segments_hand_out_what_a_walk_through_each_lane_hands_out(
    history: list[tuple[list[float], list[int]]], seed: int
) -> None:
    order: Segments | None = None
    index = [0] * LANES
    walked: dict[tuple[int, int], tuple[int, int]] = {}
    counts: dict[tuple[int, int], int] = {}
    for weights, far in history:
        order = Segments((Segment(Schedule.of(weights)),)) if order is None else order.then(weights, index)
        slots = Schedule.of(weights).slots
        for lane in range(LANES):
            for k in range(far[lane]):
                stream = slots[k % len(slots)]
                nth = counts.get((lane, stream), 0)
                walked[lane, index[lane]] = (stream, nth * LANES + lane)
                counts[lane, stream] = nth + 1
                index[lane] += 1
    assert order is not None
    places = np.array(list(walked), dtype=np.int64).reshape(-1, 2)
    streams, positions = order.locate_many(places[:, 0], places[:, 1])
    assert list(zip(streams.tolist(), positions.tolist(), strict=True)) == list(walked.values())
    for lane, at in np.random.default_rng(seed).permutation(places)[:200].tolist():
        assert order.locate(lane, at) == walked[lane, at]
        assert order.find(*walked[lane, at]) == (lane, at)
    handed = order.handed(index)
    assert {(lane, s): n for s, row in enumerate(handed) for lane, n in enumerate(row) if n} == counts
    for stream, row in enumerate(handed):
        # What was not handed out yet comes in the last segment, or in none: the stream rests.
        found = order.find(stream, row[7] * LANES + 7)
        assert (found is None) == (not order.schedule.where[stream])
        assert found is None or (found[0] == 7 and found[1] >= index[7])


def test_an_index_below_0_and_one_where_every_stream_rests_are_refused() -> None:
    order = Segments((Segment(Schedule.of([1.0])),)).then([0.0], [3] * LANES)
    assert order.locate(5, 2) == (0, 2 * LANES + 5)
    with pytest.raises(IndexError, match="before this segment's start 0"):
        order.locate(5, -1)
    with pytest.raises(IndexError, match="lane 5: index 3: no stream has a weight above 0"):
        order.locate(5, 3)
    with pytest.raises(IndexError, match="lane 5: index 3: no stream"):
        order.locate_many(np.array([5]), np.array([3]))
    with pytest.raises(IndexError, match="before this segment's start 0"):
        order.locate_many(np.array([1, 5]), np.array([0, -2]))


def shard_of(dataset: str, number: int, region: str, windows: int) -> ShardRef:
    name = sha256(f"{dataset}/{number}/{region}".encode())
    return ShardRef(
        region=region,
        split="train",
        key=f"shards/{dataset.replace('/', '--')}/{name}.json",
        manifest_sha256=name,
        arrow_sha256=name,
        arrow_bytes=0,
        tokens=windows * WINDOW + 1,
        records=1,
        text_bytes=1,
        partition=f"p{number}",
        ingest_id=f"i{number}",
    )


def version_with(dataset: str, shards: Sequence[ShardRef]) -> DatasetVersion:
    return DatasetVersion(
        dataset=dataset,
        contract_sha="3" * 64,
        contract_version="1.0.0",
        terms={},
        terms_sha="1" * 64,
        curation_id="c" * 64,
        tokenizer="2" * 64,
        partitions=(),
        shards=tuple(shards),
    )


@dataclass
class Plain:
    """One region as dictionaries and loops: what it handed out to whom, and what it will hand out next."""

    region: str
    temperature: float
    streams: list[tuple[str, str, tuple[str, ...], int]] = field(default_factory=list)
    slots: list[int] = field(default_factory=list)
    shares: tuple[float, ...] = ()
    counts: dict[tuple[int, int], int] = field(default_factory=dict)
    since: dict[int, int] = field(default_factory=dict)
    index: list[int] = field(default_factory=lambda: [0] * LANES)
    done: dict[tuple[int, int], tuple[int, int, int]] = field(default_factory=dict)

    def mix(self, versions: Mapping[str, DatasetVersion], weights: Mapping[str, float]) -> None:
        taken: set[str] = set()
        live = []
        for number, (_, sha, shards, _) in enumerate(self.streams):
            if sha in versions and taken.isdisjoint(shards):
                live.append(number)
                taken.update(shards)
        for sha, version in sorted(versions.items(), key=lambda item: (item[1].dataset, item[0])):
            new = [s for s in sorted(version.shards, key=lambda s: s.key) if s.region == self.region]
            new = [s for s in new if s.arrow_sha256 not in taken]
            if new:
                live.append(len(self.streams))
                windows = sum((s.tokens - 1) // WINDOW for s in new)
                self.streams.append((version.dataset, sha, tuple(s.arrow_sha256 for s in new), windows))
                taken.update(s.arrow_sha256 for s in new)
        sizes: dict[str, int] = {}
        for number in live:
            sizes[self.streams[number][0]] = sizes.get(self.streams[number][0], 0) + self.streams[number][3]
        shares = [0.0] * len(self.streams)
        for number in live:
            dataset, _, _, windows = self.streams[number]
            weight = weights.get(dataset, float(sizes[dataset]) ** (1 / self.temperature))
            shares[number] = weight * (windows / sizes[dataset])
        if tuple(shares) != self.shares:
            self.shares, self.since = tuple(shares), {}
            self.slots = list(Schedule.of(shares).slots) if max(shares) > 0 else []

    def hand_out(self, number: int, lane: int) -> tuple[int, int]:
        k = self.since.get(lane, 0)
        stream = self.slots[k % len(self.slots)]
        nth = self.counts.get((lane, stream), 0)
        self.since[lane], self.counts[lane, stream] = k + 1, nth + 1
        place = (stream, nth * LANES + lane)
        assert place not in self.done, "a position is handed out twice"
        self.done[place] = (number, lane, self.index[lane])
        self.index[lane] += 1
        return place


class History:
    """A run under construction beside its plain simulation."""

    def __init__(self, folder: Path, data: st.DataObject) -> None:
        self.draw = data.draw
        self.pool = {
            dataset: [
                shard_of(dataset, n, region, 1 + (7 * n + len(region)) % 40) for n in range(4) for region in REGIONS
            ]
            for dataset in ("test/a", "test/b", "test/new")
        }
        self.versions: dict[str, DatasetVersion] = {}
        first = {d: self.some_version(d, whole=True) for d in ("test/a", "test/b")}
        temperature = self.draw(st.sampled_from([1.0, 2.5]))
        curriculum = [CurriculumStep(from_round=r, weights={"test/a": w}) for r, w in ((1, 2.0), (3, 0.0), (4, 9.0))]
        self.run: Run = make_run(
            folder,
            SITES,
            window=WINDOW,
            steps=50,
            batch_windows=4,
            rounds=9,
            datasets=[PlanDataset(dataset=d, version=v, terms_sha="1" * 64) for d, v in first.items()],
            membership=Membership(lost_region="reweight"),
            temperature=temperature,
            curriculum=curriculum[: self.draw(st.integers(0, 3))],
            unreadable="skip",
        )
        self.live = {sha: self.versions[sha] for sha in first.values()}
        self.weights: dict[str, float] = dict(self.run.plan.weights_from(1))
        self.plain = {region: Plain(region, temperature) for region in REGIONS}
        for one in self.plain.values():
            one.mix(self.live, self.weights)
        self.state: ChainState = self.run.start
        self.states = [self.state]
        self.skipped: set[tuple[str, int, int]] = set()

    def some_version(self, dataset: str, whole: bool = False) -> str:
        pool = self.pool[dataset]
        chosen = pool if whole else self.draw(st.lists(st.sampled_from(pool), min_size=1, unique=True))
        version = version_with(dataset, chosen)
        self.versions[version.sha] = version
        return version.sha

    def amendments(self) -> list[Amendment]:
        """Draw the owner's changes, and book them in the simulation."""
        made = []
        home, plan, owner = self.run.home, self.run.plan, key_of("owner")
        for kind in self.draw(st.lists(st.sampled_from(["weights", "add", "withdraw", "site"]), max_size=2)):
            if kind == "weights":
                weights = {self.draw(st.sampled_from(sorted(self.pool))): self.draw(st.sampled_from([0.0, 0.5, 30.0]))}
                facts: dict[str, Any] = {"weights": weights}
                made.append(write_data_amendment(home, plan, "change-weights", facts, "", owner))
                self.weights |= weights
            elif kind == "add":
                sha = self.some_version(self.draw(st.sampled_from(sorted(self.pool))))
                facts = {"dataset": self.versions[sha].dataset, "version": sha, "weights": {}}
                made.append(write_data_amendment(home, plan, "add-version", facts, "", owner))
                self.live[sha] = self.versions[sha]
            elif kind == "withdraw":
                sha = self.draw(st.sampled_from(sorted(self.versions)))
                facts = {"dataset": self.versions[sha].dataset, "version": sha}
                made.append(write_data_amendment(home, plan, "withdraw-version", facts, "", owner))
                self.live.pop(sha, None)
            elif "b" in self.state.members and not any(a.site for a in made):
                made.append(write_amendment(home, plan, "remove-site", "b", "", owner))
            elif not any(a.site for a in made):
                made.append(write_amendment(home, plan, "add-site", "b", "", owner))
        return made

    def orders(self, state: ChainState) -> dict[str, RegionOrder]:
        named = named_versions(self.run.plan, state.openings)
        return region_orders(self.run.plan, {sha: self.versions[sha] for sha in named}, state.openings)

    def round(self) -> bool:
        """Commit a round of the sites that are in time; False when no region has anything to train on."""
        plan, number = self.run.plan, self.state.round + 1
        orders = self.orders(self.state)
        able = [m for m in self.state.members if self.plain[SITES[m]].slots]
        if not able:
            return False
        late = self.draw(st.sets(st.sampled_from(able), max_size=len(able) - 1))
        given_in = []
        for site in able:
            region = SITES[site]
            if site in late:
                continue  # its ranges are issued again
            lanes = lanes_of(plan, self.state.members, region)[site]
            claims = next_claims(self.state.index[region], lanes, plan.steps * plan.batch_windows)
            skipped = self.skips(region, claims)
            handed = set()
            for lane, start, end in claims:
                for index in range(start, end):
                    place = self.plain[region].hand_out(number, lane)
                    assert orders[region].locate(lane, index) == place
                    handed.add(orders[region].streams[place[0]].dataset)
            owners = dict.fromkeys(handed, 0)
            owners[min(handed)] = 100
            facts: dict[str, Any] = {"tokens": 100, "tokens_by_dataset": owners}
            facts |= {"claims": tuple(claims), "skipped": skipped}
            given_in.append(contribute(self.run, self.state, site, **facts))
        amendments = self.amendments()
        _, self.state = write_commit(self.run, self.state, given_in, amendments=amendments)
        step = plan.weights_from(number + 1)
        amended = {d: w for a in amendments for d, w in a.weights.items()}
        self.weights |= {d: w for d, w in step.items() if d not in amended}
        if step or any(not a.site for a in amendments):
            for one in self.plain.values():
                one.mix(self.live, self.weights)
        self.states.append(self.state)
        return True

    def skips(self, region: str, claims: Sequence[tuple[int, int, int]]) -> tuple[tuple[int, int, int], ...]:
        if not self.draw(st.booleans()):
            return ()
        lane, start, end = claims[0]
        self.skipped |= {(region, lane, index) for index in range(start + 1, min(start + 3, end))}
        return tuple((lane, k, k + 1) for k in range(start + 1, min(start + 3, end)))

    def check(self) -> None:
        plan = self.run.plan
        known = newest_state(self.run.home, plan)
        assert (known.head, known.openings) == (self.state.head, self.state.openings)
        committed = [(s.round, inputs) for s, _, inputs in replay(self.run.home, plan, self.run.start)]
        entries = ledger.entries(plan, committed)
        booked = {(e.region, e.lane, i): e.round for e in entries for i in range(e.start, e.end)}
        skipped = {(e.region, e.lane, i) for e in entries if e.skipped for i in range(e.start, e.end)}
        assert skipped == self.skipped
        orders = self.orders(self.state)
        assert booked == {
            (region, lane, index): number
            for region, one in self.plain.items()
            for number, lane, index in one.done.values()
        }
        for region, one in self.plain.items():
            order = orders[region]
            assert [(s.dataset, s.version, s.windows) for s in order.streams] == [
                (dataset, version, windows) for dataset, version, _, windows in one.streams
            ]
            for (stream, position), (_, lane, index) in one.done.items():
                assert order.locate(lane, index) == (stream, position)
                assert order.find(stream, position) == (lane, index)
            for (lane, stream), count in one.counts.items():
                # None is skipped: what a lane gave of a stream are its first positions there.
                mine = sorted(p for s, p in one.done if s == stream and p % LANES == lane)
                assert mine == [n * LANES + lane for n in range(count)]
            for before, after in itertools.pairwise(self.states):
                # Who resumed at any commit had the same order up to there.
                earlier = self.orders(before)[region]
                for lane in range(0, LANES, 9):
                    for index in range(before.index[region][lane]):
                        assert earlier.locate(lane, index) == order.locate(lane, index)
                assert after.index[region] >= before.index[region]


@settings(deadline=None, max_examples=20)
@given(st.data())
def test_a_history_of_amendments_trains_each_position_once_as_a_plain_simulation_says(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    history = History(tmp_path_factory.mktemp("history"), data)
    for _ in range(data.draw(st.integers(2, 7))):
        if not history.round():
            break
    history.check()


@pytest.mark.long
@settings(deadline=None, max_examples=150)
@given(st.data())
def test_many_more_histories_train_each_position_once(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    history = History(tmp_path_factory.mktemp("history"), data)
    for _ in range(9):
        if not history.round():
            break
    history.check()
