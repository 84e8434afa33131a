"""Sites that die, and Ctrl-C: the run ends well, nothing is trained twice, nothing half done is left."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.acceptance.conftest import Demo, run, run_json, start, wait_for, workers_of
from training.rounds import ledger
from training.rounds.plan import Plan, read_plan
from training.rounds.run import read_run_data, replay, start_state
from training.verify import verify_run
from training.workspace import Workspace

pytestmark = pytest.mark.acceptance

RUN_TOML = """
name = "faults"
purpose = "commercial pre-training"
tokenizer = 2048
datasets = ["software/package-docs", "legal/licence-texts"]
rounds = 4
steps = 12
snapshot_every = 2
[model]
hidden_size = 48
layers = 2
heads = 2
intermediate_size = 96
"""


def chain(home: Path, name: str) -> dict[str, bytes]:
    """Return every object of the run's chain in the home store, leases and telemetry apart."""
    root = home / "home" / "runs" / name
    return {
        str(p.relative_to(root)): p.read_bytes()
        for p in sorted(root.rglob("*"))
        if p.is_file() and "evaluations" not in p.parts
    }


def recount(
    home: Path, plan: Plan, log: Path, steps: int = 12
) -> tuple[set[tuple[str, int, int]], set[tuple[str, int, int]]]:
    """Return (region, lane, index) of every position that the ledger applied, and of what the loaders handed out
    to the attempts whose contributions were committed, counted from their own log."""
    workspace = Workspace.open(home)
    committed = []
    for after, _, inputs in replay(workspace.home, plan, start_state(workspace.home, plan)):
        committed.append((after.round, inputs))
    applied: set[tuple[str, int, int]] = set()
    for entry in ledger.entries(plan, committed):
        for index in range(entry.start, entry.end):
            assert (entry.region, entry.lane, index) not in applied
            applied.add((entry.region, entry.lane, index))
    orders = read_run_data(workspace.home, plan).orders
    handed: dict[tuple[str, int, str], list[tuple[int, int]]] = {}
    for path in log.glob("*.ndjson"):
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            region = plan.site(entry["site"]).region
            for (lane, index), (dataset, epoch, window, _, _) in zip(entry["places"], entry["handed"], strict=True):
                number, position = orders[region].locate(lane, index)
                stream = orders[region].streams[number]
                assert (stream.dataset, *stream.window(position)) == (dataset, epoch, window)
                handed.setdefault((entry["site"], entry["round"], entry["attempt"]), []).append((lane, index))
    counted: set[tuple[str, int, int]] = set()
    for number, inputs in committed:
        for one in inputs:
            site = one.header.site
            whole = [
                v
                for (s, r, _), v in handed.items()
                if (s, r) == (site, number) and len(v) == steps * plan.batch_windows
            ]
            assert whole, f"no attempt of {site} handed out all of round {number}"
            for lane, index in whole[-1]:
                key = (plan.site(site).region, lane, index)
                assert key not in counted, f"{key} was handed out for two commits"
                counted.add(key)
    return applied, counted


@pytest.fixture(scope="module")
def undisturbed(demo: Demo, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, bytes]]:
    folder = tmp_path_factory.mktemp("undisturbed")
    home = folder / "home"
    shutil.copytree(demo.home, home)
    (folder / "run.toml").write_text(RUN_TOML)
    done = run_json("train", folder / "run.toml", "--home", home)
    assert done["rounds"] == 4
    return done["run"], chain(home, done["run"])


@pytest.mark.long
def test_a_site_killed_in_the_middle_changes_nothing(
    copied: Path, tmp_path: Path, undisturbed: tuple[str, dict[str, bytes]]
) -> None:
    name, expected = undisturbed
    (tmp_path / "run.toml").write_text(RUN_TOML)
    process = start("train", tmp_path / "run.toml", "--home", copied, "--loader-log", tmp_path / "log", "--json")
    first = copied / "home" / "runs" / name / "commits" / "000001.json"
    wait_for(first.exists, 200, "no first commit")
    victim = "north"
    lease = copied / "sites" / victim / "runs" / name / "leases" / f"{victim}.json"

    def in_the_middle() -> bool:
        beat = json.loads(lease.read_text())
        return beat["round"] >= 2 and 0 < beat["step"] < beat["steps"]

    wait_for(in_the_middle, 60, "the site never was in the middle of a round")
    os.kill(workers_of(copied)[victim], signal.SIGKILL)
    out, said = process.communicate(timeout=300)
    assert process.returncode == 0, said[-4000:]
    assert json.loads(out.strip().splitlines()[-1])["rounds"] == 4

    workspace = Workspace.open(copied)
    assert verify_run(workspace, name).ok
    plan = read_plan(workspace.home, name)
    attempts = {p.name for p in (tmp_path / "log").glob(f"*-{victim}-*.ndjson")}
    assert len(attempts) == 2, "the site was not started again"
    applied, counted = recount(copied, plan, tmp_path / "log")
    assert applied == counted
    assert len(applied) == 2 * 4 * 12 * plan.batch_windows
    # Fixed steps and no late site: the killed run's chain is that of the undisturbed one, to the byte.
    assert chain(copied, name) == expected


def test_ctrl_c_ends_every_process_and_the_next_start_goes_on(
    copied: Path, tmp_path: Path, undisturbed: tuple[str, dict[str, bytes]]
) -> None:
    name, expected = undisturbed
    (tmp_path / "run.toml").write_text(RUN_TOML)
    process = start("train", tmp_path / "run.toml", "--home", copied)
    wait_for((copied / "home" / "runs" / name / "commits" / "000001.json").exists, 200, "no first commit")
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode != 0
    assert "Traceback" not in said, said[-3000:]
    wait_for(lambda: not workers_of(copied), 20, "site processes were left behind")
    assert run("train", tmp_path / "run.toml", "--home", copied).returncode == 0
    assert chain(copied, name) == expected
