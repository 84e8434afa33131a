"""Training and evaluation as deployments at each site's own worker: killed, cut off, paused, the chain is the same."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.acceptance.conftest import run, run_json, start, wait_for, workers_of
from tests.acceptance.deployed import POOLS, Server, kill_run
from tests.acceptance.test_faults import chain
from tests.data_contracts.making import make_contract, write_lines
from training.rounds.plan import read_plan
from training.rounds.run import newest_state
from training.verify import verify_run
from training.workspace import Workspace

# The first test waits for the server, the data and the undisturbed run too.
# In .ci/run the mixed run trains through the same deployments.
pytestmark = [pytest.mark.acceptance, pytest.mark.long, pytest.mark.timeout(1800)]
SITES_TOML = """format = 1
[home]
store = "home"
jurisdictions = ["SE"]
[[site]]
name = "east"
region = "asia"
jurisdictions = ["JP"]
store = "sites/east"
[[site]]
name = "north"
region = "europe"
jurisdictions = ["SE"]
store = "sites/north"
"""
RUN_TOML = """
name = "deployed"
purpose = "research pre-training"
tokenizer = 400
datasets = ["test/notes"]
rounds = 8
steps = 60
snapshot_every = 2
window = 128
[model]
hidden_size = 64
layers = 2
heads = 2
intermediate_size = 128
"""
READER = {"format": "jsonl", "partition": {"from": "path", "pattern": r"([^/]+)\.jsonl$"}}
TERMS = {"purposes": {"permitted": ["pre-training", "evaluation"], "prohibited": []}}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    made = Server(tmp_path_factory.mktemp("server"))
    try:
        yield made
    finally:
        made.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, server: Server) -> Path:
    """A home with a made data set, sharded over two sites, and its run.toml: nothing is trained."""
    folder = tmp_path_factory.mktemp("deployed")
    home = folder / "home"
    home.mkdir()
    (home / "sites.toml").write_text(SITES_TOML)
    (folder / "run.toml").write_text(RUN_TOML)
    server.deploy(home)
    make_contract(folder / "in", reader=READER, terms=TERMS)
    for day in range(4):
        rows = [{"key": f"{day}-{n}", "content": f"day {day}: note {n} of {n * day} words. " * 20} for n in range(60)]
        write_lines(folder / "in" / "data" / f"day{day}.jsonl", rows)
    run_json("ingest", folder / "in" / "contract.yaml", folder / "in" / "data", "--home", home)
    run_json("curate", "--home", home)
    run_json("shard", folder / "run.toml", "--home", home)
    return folder


@pytest.fixture(scope="module")
def undisturbed(folder: Path) -> tuple[Path, str, dict[str, bytes]]:
    """A home trained by one command on this machine, without deployments."""
    home = folder / "undisturbed"
    shutil.copytree(folder / "home", home)
    done = run_json("train", folder / "run.toml", "--home", home)
    assert done["rounds"] == 8
    return home, done["run"], made(home, done["run"])


@pytest.fixture
def home(folder: Path, server: Server, tmp_path: Path) -> Path:
    """An untrained copy, to which the deployments point."""
    shutil.copytree(folder / "home", tmp_path / "home")
    server.deploy(tmp_path / "home")
    for pool in POOLS:
        if pool not in server.workers:
            server.start_worker(pool)
    return tmp_path / "home"


def made(home: Path, name: str) -> dict[str, bytes]:
    """Every object of the run in the home store but the wish to pause it, which is no part of the chain."""
    return {key: data for key, data in chain(home, name).items() if key != "control.json"}


def round_made(home: Path, name: str, number: int) -> Callable[[], bool]:
    return (home / "home" / "runs" / name / "commits" / f"{number:06d}.json").exists


def test_a_killed_coordinator_is_started_again_and_the_sites_do_not_notice(
    server: Server, home: Path, undisturbed: tuple[Path, str, dict[str, bytes]], tmp_path: Path
) -> None:
    _, name, expected = undisturbed
    log = str(tmp_path / "log")
    first = server.start("train/train", run=name, deployed=True, loader_log=log)
    wait_for(round_made(home, name, 1), 300, "no first round")
    sites = workers_of(home)
    # Held, so that the run is not over before there is a second coordinator to look at it.
    os.kill(sites["north"], signal.SIGSTOP)
    kill_run(first)
    wait_for(lambda: server.state(first) == "Crashed", 120, "the kill was not noticed")
    resumed = run("train", "resume", name, "--home", home)
    assert "started: flow run train" in resumed.stdout, resumed.stdout + resumed.stderr
    second = server.runs("train/train", run=name)[-1]
    assert second.id != first.id
    wait_for(lambda: server.state(second) == "Running", 200, "no second coordinator")
    time.sleep(10)
    assert workers_of(home) == sites, "the sites noticed"
    os.kill(sites["north"], signal.SIGCONT)
    wait_for(lambda: server.state(second) == "Completed", 400, "the second coordinator did not end")
    assert {site: len(server.runs(f"train-site/{site}", run=name)) for site in POOLS[1:]} == {"east": 1, "north": 1}
    assert len(list(Path(log).glob("*.ndjson"))) == 2
    assert verify_run(Workspace.open(home), name).ok
    assert made(home, name) == expected


@pytest.mark.long
def test_a_killed_site_is_started_again_by_itself(
    server: Server, home: Path, undisturbed: tuple[Path, str, dict[str, bytes]]
) -> None:
    _, name, expected = undisturbed
    coordinator = server.start("train/train", run=name, deployed=True)
    wait_for(round_made(home, name, 1), 300, "no first round")
    (site,) = server.runs("train-site/north", run=name)
    child = workers_of(home)["north"]
    kill_run(site)
    wait_for(lambda: workers_of(home).get("north") != child, 10, "the site's process lives on without its flow")
    wait_for(lambda: server.state(coordinator) == "Completed", 400, "the run did not end")
    assert [server.state(r) for r in server.runs("train-site/north", run=name)] == ["Crashed", "Completed"]
    assert len(server.runs("train-site/east", run=name)) == 1
    assert made(home, name) == expected


@pytest.mark.long
def test_a_killed_worker_and_its_flow_are_replaced_when_another_worker_comes(
    server: Server, home: Path, undisturbed: tuple[Path, str, dict[str, bytes]]
) -> None:
    _, name, expected = undisturbed
    coordinator = server.start("train/train", run=name, deployed=True)
    wait_for(round_made(home, name, 1), 300, "no first round")
    # The worker and what it started, as when the machine goes down: nobody is left to say so to the server.
    (site,) = server.runs("train-site/north", run=name)
    worker = server.workers.pop("north")
    os.killpg(worker.pid, signal.SIGKILL)
    worker.wait()
    kill_run(site)
    wait_for(lambda: "north" not in workers_of(home), 10, "the site's process lives on without its flow")
    assert server.state(site) == "Running"
    server.start_worker("north")
    wait_for(lambda: server.state(coordinator) == "Completed", 500, "the run did not end")
    assert [server.state(r) for r in server.runs("train-site/north", run=name)] == ["Crashed", "Completed"]
    assert len(server.runs("train-site/east", run=name)) == 1
    assert made(home, name) == expected


@pytest.mark.long
def test_a_server_that_is_gone_for_a_while_stops_neither_sites_nor_coordinator(
    server: Server, home: Path, undisturbed: tuple[Path, str, dict[str, bytes]]
) -> None:
    _, name, expected = undisturbed
    coordinator = server.start("train/train", run=name, deployed=True)
    wait_for(round_made(home, name, 1), 300, "no first round")
    server.kill()
    wait_for(round_made(home, name, 4), 300, "the sites stopped with the server")
    server.up()
    wait_for(lambda: server.state(coordinator) == "Completed", 400, "the coordinator did not live through it")
    assert {site: len(server.runs(f"train-site/{site}", run=name)) for site in POOLS[1:]} == {"east": 1, "north": 1}
    assert made(home, name) == expected


@pytest.mark.long
def test_a_paused_run_leaves_its_workers_free_and_resumed_it_ends_as_if_never_paused(
    server: Server, home: Path, undisturbed: tuple[Path, str, dict[str, bytes]]
) -> None:
    _, name, expected = undisturbed
    coordinator = server.start("train/train", run=name, deployed=True)
    wait_for(round_made(home, name, 1), 300, "no first round")
    paused = run("train", "pause", name, "--home", home, "--reason", "power cut")
    assert f"To go on: causeway train resume {name}" in paused.stdout, paused.stderr
    wait_for(lambda: server.state(coordinator) == "Paused", 200, "the coordinator did not end")
    assert workers_of(home) == {}
    ended = {site: [server.state(r) for r in server.runs(f"train-site/{site}", run=name)] for site in POOLS[1:]}
    assert ended == {"east": ["Paused"], "north": ["Paused"]}
    workspace = Workspace.open(home)
    assert 1 <= newest_state(workspace.home, read_plan(workspace.home, name)).round < 8

    assert "started: flow run train" in run("train", "resume", name, "--home", home).stdout
    second = server.runs("train/train", run=name)[-1]
    wait_for(lambda: server.state(second) == "Completed", 400, "the run did not end")
    assert made(home, name) == expected


@pytest.mark.long
def test_a_command_that_is_paused_from_another_terminal_says_how_to_go_on(
    folder: Path, tmp_path: Path, undisturbed: tuple[Path, str, dict[str, bytes]]
) -> None:
    _, name, expected = undisturbed
    home = tmp_path / "home"
    shutil.copytree(folder / "home", home, ignore=shutil.ignore_patterns("prefect"))
    process = start("train", folder / "run.toml", "--home", home)
    wait_for(round_made(home, name, 1), 300, "no first round")
    assert run("train", "pause", name, "--home", home).returncode == 0
    out, said = process.communicate(timeout=120)
    assert process.returncode == 0, said[-3000:]
    assert f"paused; causeway train resume {name}" in out
    assert workers_of(home) == {}
    again = run_json("train", folder / "run.toml", "--home", home)
    assert (again["ended"], again["rounds"] < 8) == ("paused", True)
    assert "no train deployment here" in run("train", "resume", name, "--home", home).stdout
    assert run_json("train", folder / "run.toml", "--home", home)["ended"] == "whole"
    assert made(home, name) == expected


@pytest.mark.long
def test_a_cancelled_run_is_never_trained_again(folder: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(folder / "home", home, ignore=shutil.ignore_patterns("prefect"))
    (name,) = {p.name for p in (home / "home" / "runs").iterdir()}
    assert run("train", "cancel", name, "--home", home, "--reason", "the licence ended").returncode == 0
    for command in (["train", folder / "run.toml"], ["train", "resume", name]):
        done = run(*command, "--home", home)
        assert done.returncode == 2
        assert "the licence ended" in done.stderr
        assert "Traceback" not in done.stderr
    assert workers_of(home) == {}


def test_each_site_evaluates_at_its_own_worker_and_the_figures_are_the_same(
    server: Server, undisturbed: tuple[Path, str, dict[str, bytes]], tmp_path: Path
) -> None:
    trained, name, _ = undisturbed
    home = tmp_path / "home"
    shutil.copytree(trained, home)
    server.deploy(home)
    for pool in POOLS:
        if pool not in server.workers:
            server.start_worker(pool)
    evaluation = server.start("evaluate/evaluate", run=name, max_bytes=20_000, deployed=True)
    wait_for(lambda: server.state(evaluation) in ("Completed", "Failed", "Crashed"), 300, "the evaluation did not end")
    assert server.state(evaluation) == "Completed"
    sites = {site: [server.state(r) for r in server.runs(f"evaluate-site/{site}", run=name)] for site in POOLS[1:]}
    assert sites == {"east": ["Completed"], "north": ["Completed"]}
    run_json("evaluate", name, "--home", trained, "--max-bytes", "20000")
    assert summaries(home, name) == summaries(trained, name) != {}


def summaries(home: Path, name: str) -> dict[str, object]:
    root = home / "home" / "runs" / name / "evaluations"
    return {str(p.relative_to(root)): json.loads(p.read_text()) for p in sorted(root.rglob("*.json"))}
