"""Backfills over real sources and tables, one item at a time."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from data_contracts.backfill.selection import Request
from data_contracts.catalog.leases import hold
from data_contracts.errors import DataRefused
from tests.data_contracts.making import KEYED, make_contract, write_lines
from training import steps
from training.backfilling import backfills, cause_of, open_backfill, plan_backfill, run_item, start_backfill
from training.workspace import Workspace

READER = {"format": "jsonl", "partition": {"from": "path", "pattern": r"([^/]+)\.jsonl$"}}
RULES = [{"metric": "rowCount", "mustBeGreaterThan": 1, "description": "more than one row"}]


def fill(folder: Path, days: range, text: str = "note") -> Path:
    for day in days:
        write_lines(folder / f"2026-01-{day:02d}.jsonl", [{"key": f"{n}", "content": f"{text} {n}"} for n in range(3)])
    return folder


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = Workspace.open(tmp_path / "home")
    contract = make_contract(tmp_path / "c", KEYED, reader=READER, quality=RULES)
    steps.admit(made, contract, str(fill(tmp_path / "data", range(1, 5))))
    return made


def run_all(workspace: Workspace, request: Request | None = None) -> list[tuple[str, str]]:
    plan = plan_backfill(workspace, "test/notes", request or Request()).plan
    record, _ = start_backfill(workspace, plan)
    return [(i.partition, run_item(workspace, record, i.number, 1).ended) for i in plan.items]


def test_a_backfill_takes_in_what_is_missing_and_then_nothing(workspace: Workspace, tmp_path: Path) -> None:
    assert run_all(workspace) == [(f"2026-01-0{n}", "published") for n in range(1, 5)]
    again = plan_backfill(workspace, "test/notes", Request()).plan
    assert again.items == ()
    fill(tmp_path / "data", range(5, 6))
    assert run_all(workspace) == [("2026-01-05", "published")]


def test_changed_bytes_are_restated_and_the_older_version_stays_readable(workspace: Workspace, tmp_path: Path) -> None:
    run_all(workspace)
    fill(tmp_path / "data", range(2, 3), "told")
    assert run_all(workspace, Request("restated")) == [("2026-01-02", "restated")]
    tables = workspace.tables(workspace.contract("test/notes"))
    old, new = tables.versions("2026-01-02")
    assert tables.current()["2026-01-02"] == new
    assert tables.read_accepted(old, ["content"]).column(0).to_pylist()[0].startswith("note")
    assert tables.read_accepted(new, ["content"]).column(0).to_pylist()[0].startswith("told")


def test_a_newer_contract_makes_all_stale_and_a_backfill_mends_it(workspace: Workspace, tmp_path: Path) -> None:
    run_all(workspace)
    newer = make_contract(tmp_path / "c2", KEYED, reader=READER, quality=RULES, version="1.1.0")
    steps.admit(workspace, newer)
    assert [outcome for _, outcome in run_all(workspace, Request("stale-contract"))] == ["restated"] * 4
    assert plan_backfill(workspace, "test/notes", Request("stale-contract")).plan.items == ()


def test_a_refusal_is_an_outcome_with_its_rules_and_failed_finds_it(workspace: Workspace, tmp_path: Path) -> None:
    write_lines(tmp_path / "data" / "2026-01-03.jsonl", [{"key": "1", "content": "x"}, {"key": "2", "content": "note"}])
    assert dict(run_all(workspace))["2026-01-03"] == "refused"
    record = backfills(workspace)[0]
    outcomes = [o for attempts in record.progress().outcomes.values() for o in attempts.values()]
    outcome = next(o for o in outcomes if o.ended == "refused")
    assert "more than one row: does not hold, 1 rows" in outcome.message
    assert "content.minLength 1" in outcome.message
    plan = plan_backfill(workspace, "test/notes", Request("failed")).plan
    assert [i.partition for i in plan.items] == ["2026-01-03"]


def test_bytes_that_changed_since_the_plan_are_not_taken_in_under_it(workspace: Workspace, tmp_path: Path) -> None:
    record, _ = start_backfill(workspace, plan_backfill(workspace, "test/notes", Request()).plan)
    fill(tmp_path / "data", range(2, 3), "told")
    (tmp_path / "data" / "2026-01-03.jsonl").unlink()
    changed, gone = (run_item(workspace, record, number, 1) for number in (2, 3))
    assert (changed.ended, changed.final) == ("failed", True)
    assert "other bytes than when the backfill was planned" in changed.message
    assert "partition 2026-01-03 is gone" in gone.message
    assert run_item(workspace, record, 1, 1).ended == "published"


def test_an_attempt_that_has_ended_is_not_made_again(workspace: Workspace) -> None:
    record, _ = start_backfill(workspace, plan_backfill(workspace, "test/notes", Request()).plan)
    first = run_item(workspace, record, 1, 1)
    assert run_item(workspace, record, 1, 1) == first
    assert len(workspace.tables(workspace.contract("test/notes")).versions()) == 1


def test_whoever_asks_for_what_is_under_way_gets_that_backfill(workspace: Workspace) -> None:
    record, _ = start_backfill(workspace, plan_backfill(workspace, "test/notes", Request(), asked_by="anna").plan)
    same = plan_backfill(workspace, "test/notes", Request(order="newest"), asked_by="ben").existing
    assert same is not None
    assert same.plan.id == record.plan.id
    run_item(workspace, record, 1, 1)
    rest = plan_backfill(workspace, "test/notes", Request(), asked_by="ben").existing
    assert rest is not None
    assert rest.plan.asked_by == "anna"


def test_what_another_backfill_will_do_is_left_alone(workspace: Workspace, tmp_path: Path) -> None:
    record, _ = start_backfill(
        workspace, plan_backfill(workspace, "test/notes", Request(partitions=("2026-01-02",))).plan
    )
    plan = plan_backfill(workspace, "test/notes", Request()).plan
    assert [i.partition for i in plan.items] == ["2026-01-01", "2026-01-03", "2026-01-04"]
    assert plan.skipped[0].reason == f"in flight: item 1 of backfill {record.plan.id}"


def test_what_a_process_works_on_is_left_alone(workspace: Workspace) -> None:
    tables = workspace.tables(workspace.contract("test/notes"))
    with hold(tables.store, steps.partition_lease("test/notes", "2026-01-02"), "flow run blue-fox"):
        plan = plan_backfill(workspace, "test/notes", Request()).plan
    assert [i.partition for i in plan.items] == ["2026-01-01", "2026-01-03", "2026-01-04"]
    assert "flow run blue-fox works on it" in plan.skipped[0].reason


def test_publications_end_the_same_in_any_order(tmp_path: Path) -> None:
    march, july = dt.datetime(2026, 3, 25, tzinfo=dt.UTC), dt.datetime(2026, 7, 1, tzinfo=dt.UTC)
    seen = []
    for order in ("oldest", "newest"):
        workspace = Workspace.open(tmp_path / order)
        for moment, version, text in ((march, "1.0.0", "then"), (july, "2.0.0", "now")):
            contract = make_contract(
                tmp_path / f"c{version}", KEYED, reader=READER, sequence="publication", version=version
            )
            steps.admit(workspace, contract, str(fill(tmp_path / f"d{version}", range(1, 3), text)), moment)
        run_all(workspace, Request(order=order))  # type: ignore[arg-type]
        tables = workspace.tables(workspace.contract("test/notes"))
        facts = [(v.partition, v.sequence, v.contract_version) for v in tables.versions()]
        texts = [tables.read_accepted(v, ["content"]).column(0).to_pylist() for v in tables.versions()]
        current = {p: v.contract_version for p, v in tables.current().items()}
        seen.append((facts, [sorted(t) for t in texts], current))
    assert seen[0] == seen[1]
    assert set(seen[0][2].values()) == {"2.0.0"}


def test_a_backfill_is_found_by_the_beginning_of_its_id(workspace: Workspace) -> None:
    record, _ = start_backfill(workspace, plan_backfill(workspace, "test/notes", Request()).plan)
    assert open_backfill(workspace, record.plan.id[:6]).plan == record.plan
    with pytest.raises(DataRefused, match="there is none"):
        open_backfill(workspace, "bf-nothing")


def test_causes_leave_out_what_is_particular() -> None:
    messages = ["/data/2026-01-02.csv: cannot be read: gone", "/data/2026-01-03.csv: cannot be read: gone"]
    assert len({cause_of(DataRefused(text)) for text in messages}) == 1
