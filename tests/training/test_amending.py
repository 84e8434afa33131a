"""Amendments in the middle of a real small run, over two sites that share a region and one that has its own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from data_contracts.catalog.terms_chain import put_terms
from data_contracts.errors import PolicyRefused, RoundError
from tests.training.small_run import Sites, ingest, loader_lines, opened, planned
from training import amending
from training.checker import check_policy
from training.planning import ModelConfig, RunConfig
from training.recipe import InnerRecipe
from training.rounds import ledger
from training.rounds.control import cancel
from training.rounds.plan import CurriculumStep, Plan
from training.rounds.run import newest_state, read_run_data, replay, start_state
from training.shards.writer import open_shard
from training.tracing import trace_record
from training.verify import verify_run
from training.workspace import Workspace

torch.set_num_threads(1)
CONFIG = RunConfig(
    name="amended",
    purpose="research pre-training",
    tokenizer=300,
    datasets=["test/notes", "test/tales"],
    curriculum=[CurriculumStep(from_round=2, weights={"test/notes": 3.0, "test/tales": 1.0})],
    model=ModelConfig(hidden_size=16, layers=1, heads=2, intermediate_size=24),
    inner=InnerRecipe(batch_windows=2, warmup_steps=5),
    window=16,
    steps=30,
    rounds=5,
    snapshot_every=2,
)
SITES = """format = 2
[home]
store = "home"
jurisdictions = ["SE"]
[[site]]
name = "berlin"
region = "europe"
store = "sites/europe"
jurisdictions = ["DE"]
[[site]]
name = "munich"
region = "europe"
store = "sites/europe"
jurisdictions = ["DE"]
[[site]]
name = "tokyo"
region = "asia"
store = "sites/asia"
jurisdictions = ["JP"]
"""


@pytest.fixture
def run(tmp_path: Path) -> tuple[Workspace, Plan]:
    workspace = opened(tmp_path, SITES)
    for name in ("notes", "tales"):
        ingest(workspace, tmp_path, name, range(4))
    return workspace, planned(workspace, CONFIG)


def test_data_and_sites_come_and_go_in_a_run_and_every_position_is_accounted_for(
    run: tuple[Workspace, Plan], tmp_path: Path
) -> None:
    workspace, plan = run
    assert [s.name for s in plan.sites] == ["berlin", "munich", "tokyo"]
    sites = Sites(workspace, plan, allowed=1)
    first = {d.dataset: d.version for d in plan.datasets}
    amending.change_site(workspace, plan.run, "remove-site", "munich", "power cut")
    sites.start("berlin", "tokyo")
    sites.go(1)
    ingest(workspace, tmp_path, "notes", range(4, 7))
    added = amending.add_version(workspace, plan.run, "test/notes", None, {}, "three more days")
    amending.change_site(workspace, plan.run, "add-site", "munich", "power is back")
    sites.go(2)
    amending.withdraw_version(workspace, plan.run, "test/tales", None, "the author asked for it")
    sites.start("munich")
    sites.go(3)
    sites.allowed = 99
    sites.end()
    assert sites.failed == {}

    found = verify_run(workspace, plan.run)
    assert found.ok, found.problems
    assert check_policy(workspace).violations == ()
    state = newest_state(workspace.home, plan)
    data = read_run_data(workspace.home, plan, state)
    assert state.round == plan.rounds
    assert [o.round for o in state.openings] == [2, 3, 4]  # the curriculum, what was added, what was withdrawn
    assert set(data.in_force.versions) == {first["test/notes"], added.version}
    # What the loaders wrote down by themselves is what the chain says, over all segments.
    history = [(s, inputs) for s, _, inputs in replay(workspace.home, plan, start_state(workspace.home, plan))]
    entries = ledger.entries(plan, [(s.round, inputs) for s, inputs in history])
    booked = {(e.region, e.lane, i): e.round for e in entries for i in range(e.start, e.end)}
    seen = {}
    windows: dict[tuple[str, int], set[int]] = {}
    for line in loader_lines(workspace):
        order = data.orders[plan.site(line["site"]).region]
        for (lane, index), (dataset, epoch, window, shard, inner) in zip(line["places"], line["handed"], strict=True):
            number, position = order.locate(lane, index)
            assert (order.streams[number].dataset, *order.streams[number].window(position)) == (dataset, epoch, window)
            assert order.find(number, position) == (lane, index)
            seen[order.region, lane, index] = line["round"]
            windows.setdefault((shard, inner), set()).add(line["round"])
    assert seen == booked
    counted = {(s.round, c.header.site): set(c.header.tokens_by_dataset) for s, inputs in history for c in inputs}
    assert {site for number, site in counted if number in (1, 2)} == {"berlin", "tokyo"}
    assert {site for number, site in counted if number == 3} == {"berlin", "munich", "tokyo"}
    assert {name for (number, _), names in counted.items() if number < 4 for name in names} == set(first)
    assert {name for (number, _), names in counted.items() if number >= 4 for name in names} == {"test/notes"}
    # A record of an added day and one of the first days, each across all segments.
    assert all(len(o.segments.parts) > 2 for o in data.orders.values())
    traced = set()
    for ref in next(v for v in data.versions if v.sha == added.version).shards:
        shard = open_shard(workspace.sites.region_store(ref.region).path(ref.arrow_key))
        for row in range(0, len(shard.record_ids), 5):
            tokens = range(int(shard.offsets[row]), int(shard.offsets[row + 1]))
            touched = {w for t in tokens for w in (t // plan.window, (t - 1) // plan.window)}
            rounds = set().union(*(windows.get((ref.arrow_sha256, w), set()) for w in touched))
            assert set(trace_record(workspace, plan.run, str(shard.record_ids[row])).rounds) == rounds
            traced |= {(ref.partition, number) for number in rounds}
    assert {partition for partition, _ in traced} >= {"day0", "day4"}


def test_what_must_not_happen_is_refused_before_it_is_signed(run: tuple[Workspace, Plan], tmp_path: Path) -> None:
    workspace, plan = run
    name = plan.run
    with pytest.raises(RoundError, match="site munich is a member already"):
        amending.change_site(workspace, name, "add-site", "munich", "")
    with pytest.raises(RoundError, match="test/songs is no data set of it"):
        amending.change_weights(workspace, name, {"test/songs": 1.0}, "")
    with pytest.raises(RoundError, match="would leave .* nothing to train on"):
        amending.change_weights(workspace, name, {"test/notes": 0.0, "test/tales": 0.0}, "")
    with pytest.raises(RoundError, match="trains on test/notes@.* already"):
        amending.add_version(workspace, name, "test/notes", None, {}, "")
    with pytest.raises(RoundError, match="test/notes: 0 versions begin with 'ffff'"):
        amending.add_version(workspace, name, "test/notes", "ffff", {}, "")
    with pytest.raises(RoundError, match="has no version of test/songs in force"):
        amending.withdraw_version(workspace, name, "test/songs", None, "")
    amending.withdraw_version(workspace, name, "test/notes", None, "wanted back")
    with pytest.raises(RoundError, match="would leave .* nothing to train on"):
        amending.withdraw_version(workspace, name, "test/tales", None, "")
    amending.change_site(workspace, name, "remove-site", "tokyo", "")
    amending.change_site(workspace, name, "remove-site", "munich", "")
    with pytest.raises(RoundError, match="berlin is its last site; to end the run: causeway train cancel"):
        amending.change_site(workspace, name, "remove-site", "berlin", "")
    cancel(workspace.home, plan, "a test")
    with pytest.raises(RoundError, match="was cancelled"):
        amending.change_site(workspace, name, "add-site", "tokyo", "")


def test_terms_that_forbid_a_new_data_set_keep_it_out_of_a_run(run: tuple[Workspace, Plan], tmp_path: Path) -> None:
    workspace, plan = run
    ingest(workspace, tmp_path, "songs", range(2))
    with pytest.raises(RoundError, match="give test/songs a weight as well"):
        amending.add_version(workspace, plan.run, "test/songs", None, {}, "songs too")
    made = amending.add_version(workspace, plan.run, "test/songs", None, {"test/songs": 0.5}, "songs too")
    assert made.dataset == "test/songs"
    contract = workspace.contract("test/songs")
    ingest(workspace, tmp_path, "songs", range(2, 4))
    put_terms(workspace.home, contract.id, replace(contract.terms, permitted=("evaluation",)), workspace.owner)
    with pytest.raises(PolicyRefused):
        amending.add_version(workspace, plan.run, "test/songs", None, {"test/songs": 0.5}, "more songs")


def test_positions_of_a_damaged_shard_are_skipped_on_record_where_the_plan_says_so(
    tmp_path: Path,
) -> None:
    workspace = opened(tmp_path, SITES)
    ingest(workspace, tmp_path, "notes", range(6))
    config = CONFIG.model_copy(
        update={"datasets": ["test/notes"], "curriculum": [], "unreadable": "skip", "rounds": 2, "sites": ["berlin"]}
    )
    plan = planned(workspace, config)
    store = workspace.store("berlin")
    ref = read_run_data(workspace.home, plan).shards("test/notes", "europe", "train")[0]
    lost = open_shard(store.path(ref.arrow_key)).record_ids
    whole = store.path(ref.arrow_key).read_bytes()
    damaged = bytearray(whole)
    damaged[len(whole) // 2] ^= 1
    store.path(ref.arrow_key).write_bytes(damaged)
    sites = Sites(workspace, plan)
    sites.start("berlin")
    sites.end()
    assert sites.failed == {}
    history = [(s, inputs) for s, _, inputs in replay(workspace.home, plan, start_state(workspace.home, plan))]
    assert len(history) == 2
    entries = ledger.entries(plan, [(s.round, inputs) for s, inputs in history])
    order = read_run_data(workspace.home, plan, history[-1][0]).orders["europe"]
    where: dict[str, set[bool]] = {}
    for entry in entries:
        for index in range(entry.start, entry.end):
            stream, position = order.locate(entry.lane, index)
            _, window = order.streams[stream].window(position)
            number, _ = order.streams[stream].shard(window)
            where.setdefault(order.shards[stream][number].key, set()).add(entry.skipped)
    assert where.pop(ref.key) == {True}
    assert set().union(*where.values()) == {False}
    assert np.isfinite([c.header.loss for _, inputs in history for c in inputs]).all()
    # Restored, it is still not what these rounds trained on.
    store.path(ref.arrow_key).write_bytes(whole)
    assert trace_record(workspace, plan.run, str(lost[0])).rounds == ()
