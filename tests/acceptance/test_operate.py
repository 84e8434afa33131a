"""Backfill, schedule and UI, on a folder of text files and with a real Prefect server."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.api import free_port
from tests.acceptance.conftest import Demo, run, run_json, start, wait_for
from training.workspace import Workspace

pytestmark = pytest.mark.acceptance
LIBRARY = Path(__file__).parents[2] / "data_contracts" / "library"
SHOTS = os.environ.get("CAUSEWAY_SHOTS")  # a folder to keep screenshots in, to look at


def shoot(page: Any, name: str) -> None:
    """Keep a screenshot when somebody wants to look."""
    if SHOTS:
        time.sleep(0.5)
        page.screenshot(path=Path(SHOTS) / name)


@pytest.fixture
def minutes(tmp_path: Path) -> Path:
    """A folder of three made meetings in the form of the FOMC minutes: one file a date."""
    folder = tmp_path / "minutes"
    folder.mkdir()
    for day in ("20100127", "20100316", "20100428"):
        (folder / f"{day}.txt").write_text(f"Meeting of {day}. " + "The committee discussed the outlook. " * 800)
    return folder


def partitions(home: Path) -> set[str]:
    workspace = Workspace.open(home)
    return set(workspace.tables(workspace.contract("finance/fomc-minutes")).current())


def test_backfill_ingests_exactly_what_is_missing(minutes: Path, tmp_path: Path) -> None:
    home, contract = tmp_path / "home", LIBRARY / "finance-fomc-minutes.yaml"
    first = run_json("ingest", contract, minutes, "--home", home, "--partition", "20100316")
    assert [row["partition"] for row in first["rows"]] == ["20100316"]
    filled = run_json("backfill", "finance/fomc-minutes", "--only", "missing", "--home", home)
    assert [(row["partition"], row["outcome"]) for row in filled["rows"]] == [
        ("20100127", "published"),
        ("20100428", "published"),
    ]
    assert partitions(home) == {"20100127", "20100316", "20100428"}
    again = run("backfill", "finance/fomc-minutes", "--only", "missing", "--home", home)
    assert "nothing to backfill; 3 partitions are left alone" in again.stdout


def test_serve_ingests_on_a_schedule_with_no_one_at_the_keyboard(minutes: Path, tmp_path: Path) -> None:
    home, contract = tmp_path / "home", LIBRARY / "finance-fomc-minutes.yaml"
    process = start("serve", contract, minutes, "--home", home, "--every", "5", "--port", str(free_port()))
    try:
        wait_for(lambda: _ingested(home) == 3, 240, "the schedule ingested nothing")
        (minutes / "20100623.txt").write_text("Meeting of June. " + "The committee discussed the outlook. " * 800)
        wait_for(lambda: _ingested(home) == 4, 120, "the next scheduled run did not see the new file")
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)


def _ingested(home: Path) -> int:
    try:
        return len(partitions(home))
    except Exception:  # nothing there yet
        return 0


def test_the_prefect_ui_shows_runs_and_artifacts(copied: Path, demo: Demo) -> None:
    from playwright.sync_api import expect, sync_playwright

    port = free_port()
    process = start("ui", "--home", copied, "--port", str(port))
    try:
        line = process.stdout.readline() if process.stdout else ""
        assert f"http://127.0.0.1:{port}" in line
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-background-networking"]
            )
            page = browser.new_page(viewport={"width": 1400, "height": 1000})
            page.goto(f"http://127.0.0.1:{port}/runs")
            expect(page.get_by_text(f"train {demo.run}").first).to_be_visible(timeout=60_000)
            shoot(page, "ui-runs.png")
            page.goto(f"http://127.0.0.1:{port}/artifacts")
            expect(page.get_by_text("run-summary").first).to_be_visible(timeout=60_000)
            expect(page.get_by_text("placement").first).to_be_visible(timeout=60_000)
            shoot(page, "ui-artifacts.png")
            browser.close()
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=60)
