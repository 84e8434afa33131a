from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from data_contracts.catalog.terms_chain import put_terms
from data_contracts.errors import PolicyRefused, RoundError
from data_contracts.sources import open_source
from tests.data_contracts.making import make_contract, write_lines
from training import steps
from training.checker import check_policy
from training.planning import ModelConfig, RunConfig
from training.recipe import InnerRecipe
from training.rounds import contribution as contributions
from training.rounds import ledger
from training.rounds.amendment import write_amendment
from training.rounds.plan import Plan, read_plan
from training.rounds.run import read_run_data, replay, start_state
from training.shards.schedule import unroll
from training.shards.writer import open_shard
from training.tracing import trace_record
from training.verify import verify_run
from training.worker import SiteWorker, Stopped
from training.workspace import Workspace

torch.set_num_threads(1)
CONFIG = RunConfig(
    name="small",
    purpose="research pre-training",
    tokenizer=300,
    datasets=["test/notes"],
    model=ModelConfig(hidden_size=16, layers=1, heads=2, intermediate_size=24),
    inner=InnerRecipe(batch_windows=2, warmup_steps=5),
    window=16,
    steps=40,
    rounds=3,
    snapshot_every=2,
)
READER = {"format": "jsonl", "partition": {"from": "path", "pattern": r"([^/]+)\.jsonl$"}}
SITES = ("east", "north", "west")


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a small data set ingested, curated, sharded over three sites, and a signed plan."""
    folder = tmp_path_factory.mktemp("planned")
    contract = make_contract(folder / "in", reader=READER)
    for day in range(6):
        rows = [{"key": f"{day}-{n}", "content": f"day {day}: note {n} of {n * day} words, kept"} for n in range(8)]
        write_lines(folder / "in" / "data" / f"day{day}.jsonl", rows)
    workspace = Workspace.open(folder / "home")
    source = open_source(contract, str(folder / "in" / "data"))
    steps.admit(workspace, contract, str(folder / "in" / "data"))
    for partition in steps.outstanding(workspace, contract, source).todo:
        steps.ingest_one(workspace, contract, source, partition)
    steps.curate_set(workspace, contract)
    sets = steps.read_sets(workspace, CONFIG.datasets)
    record = steps.make_tokenizer(workspace, CONFIG, sets)
    made = steps.make_shards(workspace, CONFIG, sets, record)
    steps.plan_run(workspace, CONFIG, made, record.tokenizer.vocab_size)
    return folder / "home"


@pytest.fixture
def as_in_a_process() -> Iterator[None]:
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


def opened(planned: Path, folder: Path) -> tuple[Workspace, Plan]:
    """A copy of the planned folder: keys, shards and plan are the same, nothing is trained."""
    shutil.copytree(planned, folder)
    workspace = Workspace.open(folder)
    (run,) = {k.split("/")[1] for k, _ in workspace.home.list("runs")}
    return workspace, read_plan(workspace.home, run)


def worker(
    workspace: Workspace,
    plan: Plan,
    site: str,
    stop: Callable[[], bool] = lambda: False,
    key: Ed25519PrivateKey | None = None,
) -> SiteWorker:
    peers = {s: workspace.store(s) for s in SITES if s != site}
    key = key or workspace.site_key(site)
    return SiteWorker(plan, site, workspace.home, workspace.store(site), peers, key, workspace.root / "log", stop)


def in_threads(workspace: Workspace, plan: Plan, sites: tuple[str, ...]) -> list[threading.Thread]:
    workers = [worker(workspace, plan, site) for site in sites]
    threads = [threading.Thread(target=one.run) for one in workers]
    for thread in threads:
        thread.start()
    return threads


def process(workspace: Workspace, plan: Plan, site: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "training.worker", "--run", plan.run, "--site", site]
    command += ["--home-store", workspace.home.url, "--store", workspace.store(site).url]
    command += ["--keys", str(workspace.keys.directory), "--loader-log", str(workspace.root / "log")]
    for peer in SITES:
        if peer != site:
            command += ["--peer", f"{peer}={workspace.store(peer).url}"]
    return subprocess.Popen(command, stdout=subprocess.PIPE)


def wait_for(what: Callable[[], object]) -> None:
    until = time.monotonic() + 180
    while not what():
        assert time.monotonic() < until, "waited for 180 s"
        time.sleep(0.001)


def handed(workspace: Workspace) -> list[dict[str, Any]]:
    files = sorted((workspace.root / "log").glob("*.ndjson"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def chain(workspace: Workspace, plan: Plan) -> dict[str, bytes]:
    keys = [k for part in ("commits", "inputs", "snapshots") for k, _ in workspace.home.list(f"runs/{plan.run}/{part}")]
    return {key: workspace.home.get(key) for key in keys}


def recount(workspace: Workspace, plan: Plan) -> int:
    """Compare the ledger with what loaders wrote down by themselves; return the positions compared."""
    orders = read_run_data(workspace.home, plan).orders
    committed = [(s.round, inputs) for s, _, inputs in replay(workspace.home, plan, start_state(workspace.home, plan))]
    booked = {
        (e.region, e.lane, index): (e.round, e.site)
        for e in ledger.entries(plan, committed)
        for index in range(e.start, e.end)
    }
    whole: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for line in handed(workspace):
        whole.setdefault((line["attempt"], line["round"]), []).append(line)
    seen: dict[tuple[str, int, int], tuple[int, str]] = {}
    for (_, number), lines in whole.items():
        site = lines[0]["site"]
        order = orders[plan.site(site).region]
        (header,) = (c.header for n, inputs in committed if n == number for c in inputs if c.header.site == site)
        places = [(lane, index) for line in lines for lane, index in line["places"]]
        # A process that was killed had begun the very same list.
        assert places == unroll(header.claims)[: len(places)]
        for line in lines:
            for (lane, index), (_, epoch, window, shard, inner) in zip(line["places"], line["handed"], strict=True):
                stream, position = order.locate(lane, index)
                assert order.streams[stream].window(position) == (epoch, window)
                k, own = order.streams[stream].shard(window)
                assert (order.shards[stream][k].arrow_sha256, own) == (shard, inner)
                seen[order.region, lane, index] = (number, site)
    assert seen == booked
    return len(seen)


@pytest.mark.usefixtures("as_in_a_process")
def test_three_sites_train_and_a_killed_site_leaves_no_trace_in_the_chain(planned: Path, tmp_path: Path) -> None:
    calm, plan = opened(planned, tmp_path / "calm")
    assert [s.name for s in plan.sites] == list(SITES)
    for thread in in_threads(calm, plan, SITES):
        thread.join(timeout=60)
    undisturbed = chain(calm, plan)
    assert sum("/commits/" in key for key in undisturbed) == 3

    wild, _ = opened(planned, tmp_path / "wild")
    north = wild.store("north")
    # Killed within the round, with batches handed out and nothing published.
    victim = process(wild, plan, "north")
    wait_for(lambda: (wild.root / "log").exists() and handed_safely(wild))
    victim.kill()
    assert victim.wait() == -signal.SIGKILL
    assert contributions.find(north, plan.run, 1, "north") == []
    # Killed with its contribution published and the round still open.
    victim = process(wild, plan, "north")
    wait_for(lambda: contributions.find(north, plan.run, 1, "north"))
    victim.kill()
    victim.wait()
    assert list(wild.home.list(f"runs/{plan.run}/commits")) == []
    victim = process(wild, plan, "north")
    for thread in in_threads(wild, plan, ("east", "west")):
        thread.join(timeout=60)
    said, _ = victim.communicate(timeout=60)
    assert victim.returncode == 0
    assert json.loads(said)["round"] == 3
    assert chain(wild, plan) == undisturbed

    for workspace in (calm, wild):
        found = verify_run(workspace, plan.run)
        assert found.ok, found.problems
        assert check_policy(workspace).violations == ()
        assert recount(workspace, plan) == 3 * 3 * plan.steps * plan.batch_windows
    trace_every_record(calm, plan)


def handed_safely(workspace: Workspace) -> bool:
    return any(file.stat().st_size for file in (workspace.root / "log").glob("*.ndjson"))


def trace_every_record(workspace: Workspace, plan: Plan) -> None:
    """The trace of a record is what the loaders' logs say of the windows that its tokens lie in."""
    by_window: dict[tuple[str, int], set[int]] = {}
    for line in handed(workspace):
        for _, _, _, shard, inner in line["handed"]:
            by_window.setdefault((shard, inner), set()).add(line["round"])
    for version in read_run_data(workspace.home, plan).versions:
        for ref in version.shards[::2]:
            shard = open_shard(workspace.sites.region_store(ref.region).path(ref.arrow_key))
            for row, record in list(enumerate(shard.record_ids))[::4]:
                tokens = range(int(shard.offsets[row]), int(shard.offsets[row + 1]))
                windows = {w for t in tokens for w in (t // plan.window, (t - 1) // plan.window)}
                rounds = set().union(*(by_window.get((ref.arrow_sha256, w), set()) for w in windows))
                assert set(trace_record(workspace, plan.run, record).rounds) == rounds
                assert (ref.split == "train") or not rounds


def test_a_site_with_another_key_is_not_let_in(planned: Path, tmp_path: Path) -> None:
    workspace, plan = opened(planned, tmp_path / "w")
    with pytest.raises(RoundError, match="site east: its key is not the one that plan"):
        worker(workspace, plan, "east", key=workspace.site_key("north"))


def test_a_site_that_is_told_to_stop_publishes_nothing_half(planned: Path, tmp_path: Path) -> None:
    workspace, plan = opened(planned, tmp_path / "w")
    calls = iter(range(100))
    with pytest.raises(Stopped):
        worker(workspace, plan, "east", stop=lambda: next(calls) > 5).run()
    assert list(workspace.store("east").list(f"runs/{plan.run}/contributions")) == []


def test_a_removed_site_ends_with_a_sentence_and_the_others_go_on(planned: Path, tmp_path: Path) -> None:
    workspace, plan = opened(planned, tmp_path / "w")
    write_amendment(workspace.home, plan, "remove-site", "west", "sold", workspace.owner)
    threads = in_threads(workspace, plan, ("east", "north"))
    with pytest.raises(RoundError, match="site west: no member of run"):
        worker(workspace, plan, "west").run()
    for thread in threads:
        thread.join(timeout=60)
    documents = [d for _, d, _ in replay(workspace.home, plan, start_state(workspace.home, plan))]
    # The rounds did not wait for it, and what it had published by chance could only count in the first.
    assert [[i["site"] for i in d["inputs"]] for d in documents][1:] == [["east", "north"], ["east", "north"]]


def test_a_site_does_not_train_when_the_terms_in_force_no_longer_permit_it(planned: Path, tmp_path: Path) -> None:
    workspace, plan = opened(planned, tmp_path / "home")
    contract = workspace.contract("test/notes")
    now = replace(contract.terms, permitted=("evaluation",))
    put_terms(workspace.home, contract.id, now, workspace.owner)
    with pytest.raises(PolicyRefused, match=r"purposes\.permitted"):
        worker(workspace, plan, "north").run()
    assert not list(workspace.store("north").list(f"runs/{plan.run}/contributions"))


def test_another_data_sets_terms_do_not_begin_a_run_anew(planned: Path, tmp_path: Path) -> None:
    workspace, plan = opened(planned, tmp_path / "home")
    other = make_contract(tmp_path / "other", id="test/other")
    put_terms(workspace.home, other.id, other.terms, workspace.owner)
    sets = steps.read_sets(workspace, CONFIG.datasets)
    record = steps.make_tokenizer(workspace, CONFIG, sets)
    again = steps.plan_run(
        workspace, CONFIG, steps.make_shards(workspace, CONFIG, sets, record), record.tokenizer.vocab_size
    )
    assert again.run == plan.run


def test_terms_that_were_rolled_back_are_found_by_verify(planned: Path, tmp_path: Path) -> None:
    workspace, plan = opened(planned, tmp_path / "home")
    contract = workspace.contract("test/notes")
    stricter = replace(contract.terms, attribution="Nobody")
    put_terms(workspace.home, contract.id, stricter, workspace.owner)
    for thread in in_threads(workspace, plan, SITES):
        thread.join(timeout=60)
    assert verify_run(workspace, plan.run).ok
    workspace.home.delete("terms/000002.json")
    assert any("terms" in problem for problem in verify_run(workspace, plan.run).problems)
