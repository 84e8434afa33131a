"""Backfills as an operator runs them: planned, inline, on workers; test_backfill_killed.py kills them."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_contracts.backfill.selection import Request
from tests.acceptance.api import Api, free_port
from tests.acceptance.conftest import run, run_json, wait_for
from tests.data_contracts.making import KEYED, make_contract, write_lines
from tests.training.ingested import READER
from training.backfilling import plan_backfill, start_backfill
from training.workspace import Workspace

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(1800)]
DAYS = [f"2026-01-{n:02d}" for n in range(1, 7)]


def fill(folder: Path, days: list[str]) -> Path:
    for day in days:
        write_lines(folder / f"{day}.jsonl", [{"key": f"{n}", "content": f"note {n} of {day}"} for n in range(4)])
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a data set of six days registered, nothing of it taken in."""
    contract = make_contract(tmp_path / "c", KEYED, reader=READER)
    run_json("sources", "add", contract.path, fill(tmp_path / "data", DAYS), "--home", tmp_path / "home")
    return tmp_path / "home"


def partitions(home: Path) -> set[str]:
    workspace = Workspace.open(home)
    return set(workspace.tables(workspace.contract("test/notes")).current())


def test_a_dry_run_shows_the_plan_and_stores_nothing(home: Path) -> None:
    done = run("backfill", "test/notes", "--from", DAYS[2], "--order", "newest", "--dry-run", "--home", home)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if "2026-01-06" in line and "never taken in" in line]
    assert "4 partitions (missing)" in done.stdout
    assert run_json("backfill", "list", "--home", home) == []
    assert partitions(home) == set()


def test_inline_needs_no_prefect_run(home: Path) -> None:
    done = run_json("backfill", "test/notes", "--inline", "--yes", "--home", home)
    assert (done["word"], done["done"]) == ("done", 6)
    assert partitions(home) == set(DAYS)
    assert not (home / "prefect").exists()
    again = run("backfill", "test/notes", "--inline", "--yes", "--home", home)
    assert "nothing to backfill; 6 partitions are left alone" in again.stdout


def test_a_backfill_goes_through_curation(home: Path) -> None:
    done = run_json("backfill", "test/notes", "--through", "curate", "--yes", "--inline", "--home", home)
    assert done["word"] == "done"
    curated = run_json("curate", "test/notes", "--home", home)
    assert curated["test/notes"]["new"] is False


def test_what_failed_is_named_with_exit_1_and_retry_mends_it(home: Path, tmp_path: Path) -> None:
    workspace = Workspace.open(home)
    record, _ = start_backfill(workspace, plan_backfill(workspace, "test/notes", Request()).plan)
    lost = tmp_path / "data" / f"{DAYS[3]}.jsonl"
    text = lost.read_text()
    lost.unlink()
    failed = run("backfill", "resume", record.plan.id, "--inline", "--home", home)
    assert failed.returncode == 1
    assert f"partition {DAYS[3]} is gone since the backfill was planned" in failed.stdout
    assert f"then: causeway backfill retry {record.plan.id}" in failed.stdout
    assert partitions(home) == set(DAYS) - {DAYS[3]}
    resumed = run("backfill", "resume", record.plan.id, "--inline", "--home", home)
    assert resumed.returncode == 2
    assert "has ended (failed); causeway backfill retry" in resumed.stderr
    lost.write_text(text)
    mended = run_json("backfill", "retry", record.plan.id, "--inline", "--home", home)
    assert (mended["word"], mended["done"]) == ("done", 6)
    assert [r["attempts"] for r in mended["rows"] if r["partition"] == DAYS[3]] == [2]
    assert partitions(home) == set(DAYS)


def test_paused_and_cancelled_from_another_terminal(home: Path) -> None:
    workspace = Workspace.open(home)
    record, _ = start_backfill(workspace, plan_backfill(workspace, "test/notes", Request()).plan)
    run("backfill", "pause", record.plan.id, "--reason", "not now", "--home", home)
    assert run_json("backfill", "status", record.plan.id, "--home", home)["word"] == "paused"
    assert run("backfill", "cancel", record.plan.id, "--home", home).returncode == 0
    assert run("backfill", "resume", record.plan.id, "--inline", "--home", home).returncode == 2
    assert partitions(home) == set()


@pytest.mark.long
def test_scheduled_runs_go_before_those_of_a_backfill(home: Path) -> None:
    port = free_port()
    api = Api(port)
    try:
        run_json("up", "--home", home, "--port", str(port), "--sites", "", timeout=600)
        api.ask("PATCH", "work_pools/home", {"concurrency_limit": 1})
        started = run_json("backfill", "test/notes", "--yes", "--detach", "--max-active", "6", "--home", home)
        assert started["word"] == "running"
        # The backfill's own run takes the one place of the pool: its partitions can only wait.
        ours = {"tags": {"all_": [f"backfill:{started['id']}"]}}
        waiting = {**ours, "state": {"type": {"any_": ["SCHEDULED"]}}}
        wait_for(lambda: len(api.runs(flow_runs=waiting)) >= 6, 240, "the backfill's runs do not wait")
        made = api.start("ingest/test--notes", partitions=["2026-01-06"])
        assert made["work_queue_name"] == "scheduled"
        api.ask("PATCH", "work_pools/home", {"concurrency_limit": 2})
        done = run_json("backfill", "watch", started["id"], "--home", home, timeout=900)
        assert done["word"] == "done"
        items = [r["start_time"] for r in api.runs(flow_runs=ours) if r["name"].startswith("ingest ")]
        assert len(items) == 6
        assert api.run(made["id"])["start_time"] < min(items)
    finally:
        run("down", "--home", home)
