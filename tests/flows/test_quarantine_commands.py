"""`causeway quarantine show` and `retry`: what is open, what passes now, what a restated version resolved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data_contracts.contract import Contract
from data_contracts.errors import DataRefused
from data_contracts.sources import open_source
from flows.cli import app_of
from tests.data_contracts.making import column, make_contract, write_lines
from training import steps
from training.checker import check_policy
from training.workspace import Workspace

READER = {"format": "jsonl", "partition": {"from": "path", "pattern": r"([^/]+)\.jsonl$"}}
ROWS = [
    {"key": "a", "content": "apple", "count": 1},
    {"key": "b", "content": "no", "count": 2},
    {"key": "c", "content": "x", "name": "Ann"},
    {"key": "d", "content": "date", "count": "many"},
    {"key": "a", "content": "again"},
]


def columns(least: int) -> tuple[dict[str, Any], ...]:
    return (
        column("key", primaryKey=True),
        column("day", partitioned=True),
        column("content", required=True, logicalTypeOptions={"minLength": least}),
        column("name", classification="person", logicalTypeOptions={"maxLength": 2}),
        column("count", "integer"),
    )


class Home:
    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.home, self.capsys = folder, folder / "home", capsys

    def contract(self, least: int = 3, version: str = "1.0.0") -> Contract:
        return make_contract(self.folder / f"in-{least}", columns(least), reader=READER, version=version)

    def source(self, rows: list[dict[str, Any]], day: str = "monday") -> None:
        write_lines(self.folder / "data" / f"{day}.jsonl", rows)

    def admit(self, contract: Contract) -> Workspace:
        workspace = Workspace.open(self.home)
        steps.admit(workspace, contract, str(self.folder / "data"))
        return workspace

    def ingest(self, contract: Contract) -> None:
        workspace = self.admit(contract)
        source = open_source(contract, str(self.folder / "data"))
        for part in steps.outstanding(workspace, contract, source).todo:
            steps.ingest_one(workspace, contract, source, part)

    def say(self, *words: str) -> str:
        given = ["quarantine", *words, "--home", str(self.home)]
        self.capsys.readouterr()
        assert not app_of(given)(given, result_action="return_value")
        return self.capsys.readouterr().out

    def ask(self, *words: str) -> Any:
        return json.loads(self.say(*words, "--json").strip().splitlines()[-1])

    def retry(self, *words: str) -> dict[str, Any]:
        (found,) = self.ask("retry", "test/notes", *words)
        return dict(found)


@pytest.fixture
def home(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Home:
    made = Home(tmp_path, capsys)
    made.source(ROWS)
    made.ingest(made.contract())
    return made


def test_show_groups_by_reason_and_hides_what_is_classified(home: Home) -> None:
    found = home.ask("show", "test/notes")
    rows = {group["reason"]: group["rows"] for group in found["reasons"]}
    assert rows == {"content.minLength": 2, "name.maxLength": 1, "record.decodes": 1, "primaryKey.duplicate": 1}
    shown = {group["reason"]: [e["shown"] for e in group["examples"]] for group in found["reasons"]}
    assert shown["content.minLength"] == ["'no'", "'x'"]
    assert shown["name.maxLength"] == ["(person, 3 characters)"]
    text = home.say("show", "test/notes")
    assert "Ann" not in text and "monday.jsonl:2 'no'" in text
    assert "Resolved so far: 0 accepted" in text


def test_the_group_itself_still_shows_reasons_without_values(home: Home) -> None:
    found = home.ask("test/notes")
    assert found["content.minLength"]["rows"] == 2 and "monday.jsonl:2" in found["content.minLength"]["examples"][0]


def test_a_dry_run_judges_by_another_contract_and_takes_nothing_in(home: Home) -> None:
    looser = home.contract(2, "2.0.0")
    before = len(Workspace.open(home.home).tables(looser).versions())
    found = home.retry("--contract", str(looser.path))
    assert (found["rows"], found["passing"], found["failing"], found["unknown"]) == (4, 1, 2, 1)
    assert found["outcome"] == "" and found["resolved"] == {"accepted": 0, "gone": 0, "still": 0}
    assert home.retry("--dry-run")["passing"] == 0
    assert len(Workspace.open(home.home).tables(looser).versions()) == before
    assert "1 of 4 records would pass; nothing was taken in" in home.say(
        "retry", "test/notes", "--contract", str(looser.path)
    )


def test_a_contract_that_asks_for_less_resolves_rows_by_a_restated_version(home: Home) -> None:
    home.admit(home.contract(2, "2.0.0"))
    found = home.retry()
    assert found["outcome"] == "restated" and found["passing"] == 1
    assert found["resolved"] == {"accepted": 1, "gone": 0, "still": 3}
    assert home.ask("show", "test/notes")["resolved"] == {"accepted": 1, "gone": 0}
    tables = Workspace.open(home.home).tables(home.contract(2))
    (row,) = tables.read_resolved().to_pylist()
    newest = tables.versions("monday")[-1]
    assert (row["source_line"], row["outcome"], row["resolved_by"]) == (2, "accepted", newest.ingest_id)
    assert row["reasons"] == ["content.minLength"]
    again = home.retry()
    assert again["outcome"] == "" and again["resolved"]["accepted"] == 0, "nothing is recorded twice"


def test_a_source_that_was_mended_resolves_rows_by_key_and_counts_those_that_are_gone(home: Home) -> None:
    home.source([ROWS[0], {"key": "b", "content": "now long"}, {"key": "d", "content": "date", "count": 4}])
    found = home.retry()
    assert found["outcome"] == "restated"
    assert found["resolved"]["accepted"] == 3, "b, d, and the second record of key a, whose key is accepted"
    assert found["resolved"]["gone"] == 1
    assert home.ask("show", "test/notes")["reasons"] == []


def test_what_an_ordinary_ingest_resolved_is_recorded_by_the_next_retry(home: Home) -> None:
    home.ingest(home.contract(2, "2.0.0"))
    found = home.retry()
    assert found["outcome"] == "" and found["resolved"]["accepted"] == 1


def test_nothing_is_resolved_by_a_version_that_is_refused(home: Home) -> None:
    strict = make_contract(
        home.folder / "strict", columns(2), reader=READER, quality=[{"metric": "rowCount", "mustBeGreaterThan": 9}]
    )
    home.admit(strict)
    found = home.retry()
    assert found["outcome"] == "refused" and found["resolved"] == {"accepted": 0, "gone": 0, "still": 0}


def test_the_checker_knows_the_table_of_resolved_rows(home: Home) -> None:
    home.admit(home.contract(2, "2.0.0"))
    home.retry()
    assert check_policy(Workspace.open(home.home)).violations == ()


def test_an_unknown_partition_is_refused(home: Home) -> None:
    with pytest.raises(DataRefused, match=r"no partition 'mondya' \(perhaps monday\?\)"):
        home.ask("retry", "test/notes", "--partition", "mondya")
