"""A site bucket on a real object store goes away in the middle of a round and comes back: nothing is lost."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import torch

from data_contracts.catalog.store import Store
from tests.conftest import available
from tests.stores import Swift
from tests.training.small_run import Sites, ingest, loader_lines, opened, planned
from training.keeping import Kept
from training.planning import ModelConfig, RunConfig
from training.recipe import InnerRecipe
from training.rounds import ledger
from training.rounds.run import replay, start_state
from training.verify import verify_run

torch.set_num_threads(1)
CONFIG = RunConfig(
    name="outage",
    purpose="research pre-training",
    tokenizer=300,
    datasets=["test/notes"],
    model=ModelConfig(hidden_size=16, layers=1, heads=2, intermediate_size=24),
    inner=InnerRecipe(batch_windows=2, warmup_steps=5),
    window=16,
    steps=8,
    rounds=2,
)
SITES = """format = 2
[home]
store = "home"
jurisdictions = ["SE"]
[[site]]
name = "berlin"
region = "europe"
store = "{bucket}"
jurisdictions = ["DE"]
[[site]]
name = "munich"
region = "europe"
store = "{bucket}"
jurisdictions = ["DE"]
"""


@pytest.mark.long
def test_a_site_bucket_that_is_away_for_20_s_costs_no_position(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with available(), Swift(tmp_path / "swift", "europe") as server:
        for name, value in server.access.environment().items():
            monkeypatch.setitem(os.environ, name, value)
        workspace = opened(tmp_path, SITES.format(bucket=server.access.bucket("site")))
        ingest(workspace, tmp_path, "notes", range(2))
        plan = planned(workspace, CONFIG)
        sites = Sites(workspace, plan, allowed=1, cache=tmp_path / "cache")
        sites.start("berlin", "munich")
        sites.go(1)
        # Both stand in round 2, before its first step.
        server.stop()
        sites.allowed = 99
        time.sleep(20)
        server.start()
        sites.end()
        assert sites.failed == {}
        found = verify_run(workspace, plan.run)
        assert found.ok, found.problems
        history = [
            (s.round, inputs) for s, _, inputs in replay(workspace.home, plan, start_state(workspace.home, plan))
        ]
        assert [len(inputs) for _, inputs in history] == [2, 2]
        entries = ledger.entries(plan, history)
        booked = {(e.lane, i): (e.round, e.site) for e in entries for i in range(e.start, e.end)}
        handed = [((lane, i), (x["round"], x["site"])) for x in loader_lines(workspace) for lane, i in x["places"]]
        assert dict(handed) == booked
        assert len(handed) == len(booked) == 2 * 2 * plan.steps * plan.batch_windows


def test_a_lease_that_the_store_does_not_take_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with available(), Swift(tmp_path / "swift", "europe") as server:
        for name, value in server.access.environment().items():
            monkeypatch.setitem(os.environ, name, value)
        store = Store.open(server.access.bucket("lease"))
        kept = Kept(store, "run-1", "berlin", "a")
        kept.beat({"round": 1}, now=True)
        server.stop()
        started = time.monotonic()
        for _ in range(5):
            kept.beat({"round": 2})
        assert time.monotonic() - started < 10
        server.start()
        assert store.get_json("runs/run-1/leases/berlin.json")["round"] == 1
        kept.beat({"round": 3}, now=True)
        assert store.get_json("runs/run-1/leases/berlin.json")["round"] == 3
