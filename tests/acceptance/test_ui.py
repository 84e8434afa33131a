"""The Prefect UI of a home that is up, as a person uses it: forms filled, runs watched, a refusal overridden."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from data_contracts.catalog.tables import PartitionVersion
from tests.acceptance.api import free_port
from tests.acceptance.conftest import run, run_json, wait_for
from tests.data_contracts.making import KEYED, make_contract, write_lines
from tests.training.ingested import READER
from training.workspace import Workspace

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(1200)]
DAYS = [f"2026-01-{n:02d}" for n in range(1, 7)]
REFUSED = "2026-01-07"
WHY = "a holiday: one note is all there is"
MINUTES = 4 * 60_000  # in ms: what a run may take on a busy machine
SHOTS = os.environ.get("CAUSEWAY_SHOTS")  # a folder to keep the pictures of docs/ui.md in


@dataclass(frozen=True)
class Ui:
    """A browser's page on a home that is up, with one data set: six good days and one that its batch rule refuses."""

    page: Any
    url: str
    home: Path

    def open_form(self, deployment: str) -> None:
        """From the list of deployments to the form of a custom run."""
        self.page.goto(f"{self.url}/deployments")
        self.page.get_by_placeholder("Search deployments...").fill(deployment)
        self.page.get_by_role("link", name=deployment, exact=True).first.click()
        self.page.get_by_role("button", name="Run", exact=True).click()
        self.page.get_by_text("Custom run").click()

    def field(self, title: str) -> Any:
        """Return a field of the form that is open."""
        exactly = re.compile(rf"^{re.escape(title)}( \(Optional\))?$")
        label = self.page.locator(".schema-form-property__label", has_text=exactly)
        return self.page.locator(".schema-form-property").filter(has=label)

    def choose(self, title: str, value: str) -> None:
        """Choose from a list: by its arrow, since Prefect's lists close again at a click on their words."""
        self.field(title).locator(".p-select-button__icon").click()
        self.page.locator(".p-select-option").get_by_text(value, exact=True).click()

    def press(self, button: Any, asks: str) -> Any:
        """Press a button that asks the server for something, again while its database is busy; return the answer."""

        def answered() -> Any:
            with self.page.expect_response(f"**/{asks}") as answer:
                button.press("Enter")  # a click may not reach it: Prefect shows its message of a failure above it
            return None if answer.value.status == 503 else answer.value

        return wait_for(answered, 120, f"the server is too busy for {asks}")

    def submit(self) -> str:
        """Submit a form and go to its run; return the run's address."""
        made = self.press(self.page.get_by_role("button", name="Submit"), "create_flow_run").json()
        address = f"{self.url}/runs/flow-run/{made['id']}"
        self.page.goto(address)
        return address

    def see(self, words: str, timeout: float = MINUTES) -> None:
        """Wait until these words, and no others with them, can be seen."""
        self.page.get_by_text(words, exact=True).first.wait_for(timeout=timeout)

    def open_artifact(self, words: str) -> str:
        """From a run's page to the artifact that has these words on its card, once it is there; return what it says."""
        found = self.page.locator("a[href*='/artifacts/artifact/']", has_text=words)

        def listed() -> int:
            self.page.reload()
            self.page.locator(".p-tab", has_text="Artifacts").click()
            self.page.wait_for_timeout(1500)
            return int(found.count())

        wait_for(listed, 240, f"the run has no artifact with {words!r}")
        found.click()
        self.page.wait_for_url("**/artifacts/artifact/*")
        return self.artifact()

    def artifact(self) -> str:
        """Return the words of the artifact that is open."""
        self.page.locator("h2").first.wait_for()  # each of ours begins with a heading
        return "\n".join(self.page.locator("article").all_inner_texts())

    def shoot(self, name: str) -> None:
        """Keep a picture for docs/ui.md when somebody asks for it."""
        if SHOTS:
            self.page.wait_for_timeout(800)  # what is animated comes to rest
            self.page.screenshot(path=Path(SHOTS) / f"{name}.png")

    def current(self) -> dict[str, PartitionVersion]:
        """Return the current version of each partition, from the tables."""
        workspace = Workspace.open(self.home)
        return workspace.tables(workspace.contract("test/notes")).current()


@pytest.fixture(scope="module")
def ui(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ui]:
    from playwright.sync_api import sync_playwright

    folder = tmp_path_factory.mktemp("ui")
    home, data, port = folder / "home", folder / "data", str(free_port())
    rule = {"metric": "rowCount", "mustBeGreaterThan": 1}
    contract = make_contract(folder / "contract", KEYED, reader=READER, quality=[rule])
    for day in DAYS:
        write_lines(data / f"{day}.jsonl", [{"key": f"{n}", "content": f"note {n} of {day}"} for n in range(4)])
    rows = [{"key": "0", "content": "the one note of a holiday"}, *({"key": f"{n}", "content": "-"} for n in (1, 2, 3))]
    write_lines(data / f"{REFUSED}.jsonl", rows)
    run_json("sources", "add", contract.path, data, "--home", home)
    try:
        run_json("up", "--home", home, "--port", port, "--sites", "")
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-background-networking"]
            )
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.set_default_timeout(60_000)
            yield Ui(page, f"http://127.0.0.1:{port}", home)
            browser.close()
    finally:
        run("down", "--home", home)


def test_an_ingest_is_started_from_its_form_and_its_artifacts_say_what_came_in(ui: Ui) -> None:
    ui.open_form("test--notes")
    assert ui.field("Contract").locator("textarea").input_value() == "test/notes"
    assert ui.field("Home").locator("textarea").input_value() == str(ui.home)
    ui.choose("Only", "missing")
    for number, day in enumerate((DAYS[0], REFUSED)):
        ui.page.get_by_role("button", name="Add item").click()
        ui.field("Partitions").locator("textarea").nth(number).fill(day)
    ui.shoot("ingest-form")
    address = ui.submit()
    ui.see("Completed")
    ui.shoot("ingest-run")
    table = ui.open_artifact("ingest-test-notes")
    assert "8 rows in, 5 accepted, 3 quarantined." in table
    rows = [re.split(r"\s+", row, maxsplit=5) for row in ui.page.locator("tbody tr").all_inner_texts()]
    assert [row[:5] for row in rows] == [[DAYS[0], "published", "4", "4", "0"], [REFUSED, "refused", "4", "1", "3"]]

    ui.page.goto(address)
    ui.page.locator(".p-tab", has_text="Subflow Runs").click()
    ui.page.get_by_role("link", name=f"ingest test/notes {REFUSED}").last.click()
    ui.page.wait_for_url(lambda url: "/runs/flow-run/" in url and url != address)
    refused = ui.open_artifact("partition-test-notes")
    ui.shoot("partition-refused")
    assert "4 rows in, 1 accepted, 3 quarantined." in refused
    assert "Why: rowCount mustBeGreaterThan 1 rows: does not hold, 1 rows; content.minLength 3." in refused
    assert f"{REFUSED}.jsonl:2" in refused
    assert f"causeway override request test/notes {REFUSED}" in refused
    assert set(ui.current()) == {DAYS[0]}


def test_a_backfill_is_started_from_its_form_and_its_page_has_a_square_a_partition(ui: Ui) -> None:
    ui.open_form("backfill")
    ui.choose("Data set", "test/notes")
    ui.choose("Order", "newest")
    ui.field("Max active").locator("input").fill("2")
    address = ui.submit()
    seen = [ui.open_artifact("Backfill bf-")]

    def done() -> bool:
        ui.page.reload()
        seen.append(ui.artifact())
        if {"🟩", "🟦", "⬜"} <= set(grid(seen[-1])):
            ui.shoot("backfill-page")
        return "of test/notes: done" in seen[-1]

    wait_for(done, 300, "the backfill did not end")
    assert len(grid(seen[0])) == 5
    assert grid(seen[-1]) == "🟩" * 5
    assert f"{DAYS[1]} to {DAYS[-1]}" in seen[-1]
    assert "5 done" in seen[-1]
    ui.page.goto(address)
    ui.see("Completed")
    plan = ui.open_artifact("Plan of bf-")
    assert "newest first, 2 at once" in plan
    assert plan.index(DAYS[-1]) < plan.index(DAYS[1])
    assert set(ui.current()) == set(DAYS)


def grid(words: str) -> str:
    """Return the squares of a backfill's page."""
    rows: list[str] = re.findall("[⬜🟦🟩🟧🟥]+", words)
    return max(rows, key=len)


def test_a_refused_partition_is_published_when_a_person_approves_it_with_name_and_reason(ui: Ui) -> None:
    ui.open_form("override")
    ui.choose("Data set", "test/notes")
    ui.field("Partition").locator("textarea").fill(REFUSED)
    ui.submit()
    ui.see("Paused")
    ui.page.get_by_role("button", name="Resume").click()
    assert "rowCount mustBeGreaterThan 1 rows: does not hold, 1 rows" in ui.page.get_by_role("dialog").inner_text()
    ui.field("Publish the refused partition?").get_by_role("switch").click()
    ui.field("Your name").locator("textarea").fill("Ann Berg")
    ui.field("Why").locator("textarea").fill(WHY)
    ui.shoot("override-resume")
    submit = ui.page.get_by_role("dialog").get_by_role("button", name="Submit")
    ui.field("Why").locator("textarea").fill("short")
    ui.press(submit, "resume")
    ui.page.get_by_text("'short' is too short").first.wait_for()
    assert REFUSED not in ui.current()
    ui.field("Why").locator("textarea").fill(WHY)
    ui.press(submit, "resume")
    ui.see("Completed")
    decided = ui.open_artifact(f"{REFUSED}: approved by Ann Berg")
    assert f"approved by Ann Berg: {WHY}" in decided
    assert f"{REFUSED}.jsonl:2" in decided
    ui.shoot("override-approved")
    version = ui.current()[REFUSED]
    assert (version.verdict, version.approved_by, version.approved_why) == ("overridden", "Ann Berg", WHY)
