"""One run over unlike sites, through the deployments: Ceph holds home, two Swift regions the sites' buckets.

North trains in float32 by one process, west in bfloat16 by two DDP ranks, lab by two FSDP2 ranks. Lab joins at round 5
and leaves at round 9; the weights change at round 7, and a data set version is withdrawn at round 11.
"""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.acceptance.conftest import run, run_json, wait_for, workers_of
from tests.acceptance.deployed import Server
from tests.acceptance.test_object_stores import ingest
from tests.stores import Access
from training.rounds.chain import commit_key
from training.rounds.contribution import Header
from training.rounds.plan import read_plan
from training.rounds.run import replay, start_state
from training.workspace import Workspace

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(1200)]
POOLS = ("home", "lab", "north", "west")
SITES = """
format = 2
[home]
store = "{home}"
jurisdictions = ["SE"]
[[site]]
name = "north"
region = "eu-north"
jurisdictions = ["SE"]
store = "{north}"
decides_creates = false
[[site]]
name = "west"
region = "us-west"
jurisdictions = ["US"]
store = "{west}"
decides_creates = false
tables = "{tables}"
ranks = 2
form = "ddp"
dtype = "bfloat16"
[[site]]
name = "lab"
region = "us-west"
jurisdictions = ["US"]
store = "{west}"
decides_creates = false
ranks = 2
form = "fsdp"
"""
RUN_TOML = """
name = "mixed"
purpose = "research pre-training"
tokenizer = 400
datasets = ["test/free", "test/se", "test/us"]
join_later = ["lab"]
window = 64
rounds = 12
steps = 40
snapshot_every = 4
[weights]
"test/free" = 1
"test/se" = 1
"test/us" = 1
[model]
hidden_size = 48
layers = 2
heads = 2
intermediate_size = 96
"""


@dataclass(frozen=True)
class Mixed:
    """A finished mixed run: its home, its id, the server it ran by, and the text of its report."""

    home: Path
    run: str
    server: Server
    text: str
    page: Path


@pytest.fixture(scope="module")
def mixed(rgw: Access, north: Access, west: Access, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mixed]:
    folder = tmp_path_factory.mktemp("mixed")
    home = folder / "home"
    home.mkdir()
    buckets = {"home": rgw.bucket("home"), "tables": rgw.bucket("tables")}
    buckets |= {"north": north.bucket("shards"), "west": west.bucket("shards")}
    (home / "sites.toml").write_text(SITES.format(**buckets))
    (folder / "run.toml").write_text(RUN_TOML)
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(Server, folder / "server")
        ingest(Workspace.open(home), folder / "in", ("free", "se", "us"))
        name = run_json("shard", folder / "run.toml", "--home", home)["run"]
        server = starting.result()
    try:
        server.deploy(home, POOLS)
        for place in POOLS:
            server.start_worker(place)
        flow = server.start("train/train", run=name, deployed=True)
        amend(home, name, 5, "add-site", "lab", "--reason", "the lab has its machines")
        amend(home, name, 7, "change-weights", "--set", "test/free=3", "--reason", "more of what is free")
        amend(home, name, 9, "remove-site", "lab", "--reason", "the lab needs its machines")
        amend(home, name, 11, "withdraw-version", "test/free", "--reason", "the licence ended")
        wait_for(lambda: server.state(flow) in ("Completed", "Failed", "Crashed"), 400, "the run did not end")
        assert server.state(flow) == "Completed"
        page = Path(run_json("report", name, "--home", home)["report"])
        plain = re.sub(r"<style>.*?</style>|<svg.*?</svg>", " ", page.read_text(), flags=re.DOTALL)
        text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", plain))
        yield Mixed(home, name, server, text, page)
    finally:
        server.close()


def amend(home: Path, name: str, number: int, *what: str) -> None:
    """Sign an amendment while the round before this one is under way, so that it is in force from this one on."""
    store = Workspace.open(home).home
    wait_for(lambda: store.exists(commit_key(name, number - 2)), 400, f"no commit {number - 2}")
    with held(home, "north"):
        assert not store.exists(commit_key(name, number - 1)), "too late: the round before is committed"
        done = run("amend", name, *what, "--home", home)
        assert done.returncode == 0, done.stderr


@contextmanager
def held(home: Path, site: str) -> Iterator[None]:
    """Let a site's process stand still, so that the round waits for it."""
    process = workers_of(home)[site]
    os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process, signal.SIGCONT)


def headers(mixed: Mixed) -> dict[int, dict[str, Header]]:
    """What the chain applied, by round and site."""
    home = Workspace.open(mixed.home).home
    plan = read_plan(home, mixed.run)
    rounds = replay(home, plan, start_state(home, plan))
    return {after.round: {c.header.site: c.header for c in inputs} for after, _, inputs in rounds}


def test_it_completes_and_verifies_and_no_store_holds_what_it_may_not(mixed: Mixed) -> None:
    found = run_json("verify", mixed.run, "--home", mixed.home)
    assert (found["ok"], found["rounds"]) == (True, 12)
    assert run_json("check", "--home", mixed.home)["violations_of_policy"] == 0


def test_the_chain_has_each_site_in_its_rounds_and_says_what_it_is_inside(mixed: Mixed) -> None:
    found = headers(mixed)
    assert [number for number, by in found.items() if {"north", "west"} <= by.keys()] == list(range(1, 13))
    # The round whose commit takes a site out does not wait for it.
    assert [number for number, by in found.items() if "lab" in by] in ([5, 6, 7, 8], [5, 6, 7])
    devices = {(site, header.device) for by in found.values() for site, header in by.items()}
    assert devices == {("north", "cpu"), ("west", "cpu bfloat16 ddp-2"), ("lab", "cpu fsdp-2")}


def test_what_is_withdrawn_is_trained_on_no_more(mixed: Mixed) -> None:
    used = {n: {d for h in by.values() for d in h.tokens_by_dataset} for n, by in headers(mixed).items()}
    assert all("test/free" in used[number] for number in range(1, 11))
    assert used[11] == used[12] == {"test/se", "test/us"}


def test_the_sites_ran_in_their_own_pools_and_ended_in_order(mixed: Mixed) -> None:
    ended = {site: [mixed.server.state(r) for r in mixed.server.runs(f"train-site/{site}")] for site in POOLS[1:]}
    assert ended == {"lab": ["Left"], "north": ["Completed"], "west": ["Completed"]}


def test_the_report_shows_each_of_these_facts(mixed: Mixed) -> None:
    said = mixed.text
    for fact in (
        "5 amendment: add-site lab the lab has its machines",
        "5 lab joins",
        "7 amendment: change-weights test/free=3 more of what is free",
        "9 amendment: remove-site lab the lab needs its machines",
        "9 lab leaves",
        "11 amendment: withdraw-version test/free@",
        "the licence ended",
        "The chain of 12 commits verified.",
        "5 lab counted cpu float32 fsdp-2",
        "1 north counted cpu float32",
        "12 west counted cpu bfloat16 ddp-2",
    ):
        assert fact in said, fact
    assert not re.search(r" (?:4|9|1\d) lab counted", said)
    # Sites that are known by the same words stand together.
    known = re.findall(r"((?:lab|north|west)(?:, (?:north|west))*): Energy (?:measured|estimated)", said)
    assert {site for sites in known for site in sites.split(", ")} == {"lab", "north", "west"}
    assert "MFU: the peak of " in said


def test_the_server_shows_progress_a_table_a_round_and_where_the_report_is(mixed: Mixed) -> None:
    asked = httpx.post(f"{mixed.server.url}/artifacts/filter", json={"limit": 200, "sort": "CREATED_DESC"})
    found = asked.raise_for_status().json()
    kept = {key: [a["data"] for a in found if a["key"] == key] for key in ("train-progress", "train-round")}
    assert kept["train-progress"] == [100.0]
    (report,) = [a["data"] for a in found if a["key"] == "train-report"]
    assert mixed.page.as_uri() in report
    tables = [json.loads(data) for data in reversed(kept["train-round"])]
    assert [{row["round"] for row in rows} for rows in tables] == [{number} for number in range(1, 13)]
    assert {row["site"] for row in tables[5]} == {"lab", "north", "west"}
    assert all(0 < row["utilisation"] <= 1 and row["compute_s"] > 0 and row["energy"] for row in tables[5])
