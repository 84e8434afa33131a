"""`causeway table ...` on a home with a data set of three schemas, A -> B -> A, and publications that arrive late."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pyarrow.parquet as pq
import pytest

from data_contracts.catalog.tables import PartitionVersion, Tables
from data_contracts.contract import Contract
from data_contracts.errors import DataRefused
from data_contracts.sources import open_source
from flows.cli import app_of
from tests.data_contracts.made_versions import FIRST, READER, RENAMED, notes
from tests.data_contracts.making import KEYED, column, make_contract, write_lines
from training import steps
from training.workspace import Workspace


class Home:
    """A home folder into which versions are ingested, and whose commands are called as the shell calls them."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.home, self.capsys = folder, folder / "home", capsys

    def contract(self, columns: Sequence[Any] = KEYED, **more: Any) -> Contract:
        return make_contract(self.folder / "in", columns, reader=READER, **more)

    def ingest(
        self, rows: Sequence[Any], contract: Contract | None = None, day: str = "monday", published: str | None = None
    ) -> PartitionVersion:
        contract = contract or self.contract()
        workspace = Workspace.open(self.home)
        write_lines(self.folder / "data" / f"{day}.jsonl", rows)
        source = open_source(contract, str(self.folder / "data"))
        moment = dt.datetime.fromisoformat(published).replace(tzinfo=dt.UTC) if published else None
        steps.admit(workspace, contract, str(self.folder / "data"), moment)
        part = next(part for part in source.partitions() if part.value == day)
        return steps.ingest_one(workspace, contract, source, part, moment).version

    @property
    def tables(self) -> Tables:
        workspace = Workspace.open(self.home)
        return workspace.tables(workspace.contract("test/notes"))

    def say(self, *words: str) -> str:
        """Run `causeway table WORDS`; return what it prints, and keep standard error in `errors`."""
        self.capsys.readouterr()
        app = app_of(["table", *words])
        assert not app(["table", *words, "--home", str(self.home)], result_action="return_value")
        out, self.errors = self.capsys.readouterr()
        return out

    def ask(self, *words: str) -> Any:
        return json.loads(self.say(*words, "--json").strip().splitlines()[-1])


@pytest.fixture
def home(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Home:
    return Home(tmp_path, capsys)


def test_list_counts_partitions_versions_and_rows_in_force(home: Home) -> None:
    home.ingest(notes(a="apple", b="berry"))
    home.ingest(notes(a="banana"))
    newest = home.ingest(notes(c="cherry"), day="tuesday")
    assert home.ask("list") == [
        {
            "dataset": "test/notes",
            "place": "home",
            "partitions": 2,
            "versions": 3,
            "rows": 2,
            "newest": newest.published_at,
        }
    ]
    assert "test/notes" in home.say("list")


def test_history_of_bytes_that_return_marks_the_last_row_as_current(home: Home) -> None:
    for text in ("apple", "banana", "apple"):
        home.ingest(notes(a=text))
    found = home.ask("history", "test/notes", "monday")
    assert [entry["sequence"] for entry in found] == [1, 2, 3]
    assert [entry["current"] for entry in found] == [False, False, True]
    assert found[0]["ingest_id"] == found[2]["ingest_id"] != found[1]["ingest_id"]
    assert home.say("history", "test/notes").count("current") == 1


def test_history_gives_the_moment_of_publication_where_that_is_the_order(home: Home) -> None:
    contract = home.contract(sequence="publication")
    home.ingest(notes(a="final"), contract, published="2026-01-03")
    home.ingest(notes(a="older"), contract, published="2026-01-01")
    found = home.ask("history", "test/notes")
    assert [entry["publication"] for entry in found] == ["2026-01-01T00:00:00+00:00", "2026-01-03T00:00:00+00:00"]
    assert [entry["current"] for entry in found] == [False, True]
    assert "2026-01-01 00:00" in home.say("history", "test/notes")


def test_history_says_who_overrode_and_why(home: Home) -> None:
    refused = home.ingest(notes(a="alone"), home.contract(quality=[{"metric": "rowCount", "mustBeGreaterThan": 1}]))
    assert refused.verdict == "refused"
    home.tables.publish(
        replace(
            refused,
            verdict="overridden",
            approved_by="ann",
            approved_why="one is right",
            published_at="2099-01-02T03:04:05.000000+00:00",
        )
    )
    said = " ".join(home.say("history", "test/notes", "monday").split())
    assert "refused" in said
    assert "ann: one is" in said
    assert [entry["verdict"] for entry in home.ask("history", "test/notes")] == ["refused", "overridden"]
    assert home.ask("show", "test/notes", "monday")["rows"] == 1


def test_history_of_a_partition_that_is_not_there_names_the_nearest(home: Home) -> None:
    home.ingest(notes(a="apple"))
    with pytest.raises(DataRefused, match=r"no partition 'mondya' \(perhaps monday"):
        home.say("history", "test/notes", "mondya")


def test_show_gives_the_current_rows_and_those_of_an_older_version(home: Home) -> None:
    old = home.ingest(notes(a="apple"))
    home.ingest(notes(a="banana", b="berry"))
    assert sorted(row["content"] for row in home.ask("show", "test/notes", "monday")["shown"]) == ["banana", "berry"]
    older = home.ask("show", "test/notes", "monday", "--version", old.ingest_id[:8], "--columns", "content")
    assert older["shown"] == [{"content": "apple"}]
    assert "1 of 2 rows" in home.say("show", "test/notes", "monday", "--limit", "1")


def test_show_prints_text_in_brackets_as_it_is(home: Home) -> None:
    home.ingest(notes(a="see [/bold] and [red]"))
    assert "see [/bold] and [red]" in home.say("show", "test/notes", "monday")


def test_show_gives_a_version_the_columns_of_its_own_contract(home: Home) -> None:
    old = home.ingest([{"key": "a", "content": "apple", "count": 1}], home.contract(FIRST))
    home.ingest([{"name": "a", "content": "apple", "cases": 1}], home.contract(RENAMED, version="2.0.0"))
    assert set(home.ask("show", "test/notes", "monday")["shown"][0]) == {
        *("name", "day", "content", "cases", "split", "record_id")
    }
    assert "count" in home.ask("show", "test/notes", "monday", "--version", old.ingest_id)["shown"][0]
    with pytest.raises(DataRefused, match="has no column 'count'"):
        home.say("show", "test/notes", "monday", "--columns", "count")


def test_a_version_that_is_not_there_or_not_one_is_refused_with_those_there_are(home: Home) -> None:
    first = home.ingest(notes(a="apple"))
    with pytest.raises(DataRefused, match=f"no version begins with 'zz'; it has {first.ingest_id[:16]}"):
        home.say("show", "test/notes", "monday", "--version", "zz")


def test_diff_compares_the_current_version_with_the_one_before_it(home: Home) -> None:
    home.ingest(notes(a="apple", b="berry", c="cherry"))
    home.ingest(notes(a="apple", b="banana", d="date"))
    found = home.ask("diff", "test/notes", "monday")
    assert [found[name] for name in ("added", "removed", "changed", "unchanged")] == [1, 1, 1, 1]
    assert (found["key"], found["key_is"]) == (["key"], "primary key")
    (change,) = found["examples"]["changed"]
    assert change["key"] == {"key": "b"}
    assert change["columns"]["content"] == ["berry", "banana"]
    said = home.say("diff", "test/notes", "monday")
    assert "1 added, 1 removed, 1 changed, 1 unchanged" in said
    assert "content: berry -> banana" in said


def test_diff_of_named_versions_goes_the_way_that_was_asked(home: Home) -> None:
    a, b = home.ingest(notes(a="apple")), home.ingest(notes(a="apple", b="berry"))
    found = home.ask("diff", "test/notes", "monday", "--from", b.ingest_id[:8], "--to", a.ingest_id[:8])
    assert (found["added"], found["removed"]) == (0, 1)
    assert home.ask("diff", "test/notes", "monday", "--key", "content")["key_is"] == "chosen"


def test_diff_without_a_primary_key_says_that_a_change_is_a_removal_and_an_addition(home: Home) -> None:
    contract = home.contract((column("key"), *KEYED[1:]))
    home.ingest(notes(a="apple"), contract)
    home.ingest(notes(a="banana"), contract)
    found = home.ask("diff", "test/notes", "monday")
    assert (found["added"], found["removed"], found["changed"]) == (1, 1, 0)
    assert "matched by record_id" in found["note"]
    assert "matched by record_id" in home.say("diff", "test/notes", "monday")


def test_diff_names_columns_that_one_version_lacks_and_keys_that_stand_twice(home: Home) -> None:
    home.ingest([{"key": k, "content": "same", "count": 1} for k in "ab"], home.contract(FIRST))
    renamed = [{"name": k, "content": "same", "cases": 1} for k in "ab"]
    home.ingest(renamed, home.contract(RENAMED, version="2.0.0"))
    said = home.say("diff", "test/notes", "monday", "--key", "content")
    assert "only 'from' has: key, count" in said
    assert "only 'to' has: name, cases" in said
    assert "1 keys stand more than once in 'from'" in said


def test_diff_of_a_single_version_is_refused(home: Home) -> None:
    home.ingest(notes(a="apple"))
    with pytest.raises(DataRefused, match="nothing to compare it with"):
        home.say("diff", "test/notes", "monday")


def test_export_writes_the_current_rows_and_says_the_terms_on_standard_error(home: Home, tmp_path: Path) -> None:
    terms = {"attribution": "The Test Office", "residency": {"storage": ["anywhere"], "processing": ["NO", "anywhere"]}}
    home.ingest(notes(a="apple"), home.contract(terms=terms))
    home.ingest(notes(a="banana"), home.contract(terms=terms))
    done = home.ask("export", "test/notes", str(tmp_path / "out"))
    assert (done["rows"], done["partitions"]) == (1, 1)
    assert pq.read_table(tmp_path / "out")["content"].to_pylist() == ["banana"]
    for part in ("licence CC0-1.0", "attribution: The Test Office", "residency.processing: NO, anywhere"):
        assert part in home.errors
    assert "warning" not in home.errors
    with pytest.raises(DataRefused, match="is not overwritten"):
        home.say("export", "test/notes", str(tmp_path / "out"))


def test_export_says_the_terms_of_each_contract_whose_rows_are_in_it(home: Home, tmp_path: Path) -> None:
    home.ingest(notes(a="apple"), home.contract(terms={"attribution": "The First Office"}))
    second = home.contract(terms={"attribution": "The Second Office"}, version="2.0.0")
    home.ingest(notes(b="berry"), second, day="tuesday")
    home.say("export", "test/notes", str(tmp_path / "out"))
    assert "contract 1.0.0: licence" in home.errors
    assert "The First Office" in home.errors
    assert "The Second Office" in home.errors


def test_export_warns_where_the_terms_do_not_permit_the_home_to_hold_the_data(home: Home, tmp_path: Path) -> None:
    workspace = Workspace.open(home.home)
    abroad = next(
        c for s in workspace.sites.sites for c in s.jurisdictions if c not in workspace.sites.home.jurisdictions
    )
    home.ingest(notes(a="apple"), home.contract(terms={"residency": {"storage": [abroad], "processing": [abroad]}}))
    home.say("export", "test/notes", str(tmp_path / "out"))
    assert "warning: test/notes, contract 1.0.0: residency.storage: home lies in" in home.errors


def test_export_of_an_older_version_as_json_lines_and_as_a_dataset(home: Home, tmp_path: Path) -> None:
    old = home.ingest(notes(a="apple"))
    home.ingest(notes(a="banana"))
    lines, folder = tmp_path / "rows.jsonl", tmp_path / "dataset"
    home.say("export", "test/notes", str(lines), "--format", "jsonl", "--version", old.ingest_id[:8])
    home.say("export", "test/notes", str(folder), "--format", "dataset", "--partition", "monday")
    assert json.loads(lines.read_text())["content"] == "apple"
    assert datasets.load_from_disk(str(folder))["content"][:] == ["banana"]
