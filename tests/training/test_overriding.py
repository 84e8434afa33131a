from __future__ import annotations

import datetime as dt
import json
from pathlib import Path
from typing import Any

import pytest

from data_contracts.catalog.leases import Busy, hold
from data_contracts.contract import Contract
from data_contracts.errors import DataRefused
from data_contracts.sources import open_source
from tests.data_contracts.making import make_contract, write_lines
from training.overriding import Overridden, case_of, override_one
from training.steps import admit, ingest_one, partition_lease
from training.workspace import Workspace

READER = {"format": "jsonl", "partition": {"from": "path", "pattern": r"([^/]+)\.jsonl$"}}
RULE = {"metric": "rowCount", "mustBeGreaterOrEqualTo": 3}
FEW = [{"key": "a", "content": "apple"}, {"key": "c", "content": "no"}]
MANY = [{"key": str(number), "content": f"text {number}"} for number in range(3)]
NOW = dt.datetime(2026, 3, 4, tzinfo=dt.UTC)


def contract_of(folder: Path, **more: Any) -> Contract:
    return make_contract(folder, reader=READER, quality=[RULE], **more)


def ingest(folder: Path, contract: Contract, rows: list[Any], published: dt.datetime | None = None) -> Workspace:
    workspace = Workspace.open(folder / "home")
    source = open_source(contract, str(write_lines(folder / "in" / "monday.jsonl", rows).parent))
    admit(workspace, contract, str(folder / "in"), published)
    ingest_one(workspace, contract, source, source.partitions()[0], published)
    return workspace


def override(workspace: Workspace, contract: Contract, **more: Any) -> Overridden:
    return override_one(workspace, contract, "monday", "", "Ann", "a holiday, few reports", **more)


def events(workspace: Workspace, contract: Contract) -> list[dict[str, Any]]:
    store = workspace.tables(contract).store
    lines = [line for key, _ in store.list("lineage/override") for line in store.get(key).splitlines()]
    return [json.loads(line) for line in lines]


def test_a_case_shows_what_is_refused_what_is_in_force_and_what_approving_changes(tmp_path: Path) -> None:
    made = contract_of(tmp_path)
    workspace = ingest(tmp_path, made, FEW)
    first = case_of(workspace, made, "monday")
    assert (first.current, first.replaces, first.overridden) == (None, True, None)
    assert [r.detail for r in first.refusal.failed] == [r.detail for r in first.refusal.judged]
    ingest(tmp_path, made, MANY)
    second = case_of(workspace, made, "monday")
    assert second.refused == first.refused
    assert second.current is not None
    assert (second.current.rows_accepted, second.replaces) == (3, True)


def test_a_case_is_judged_by_the_contract_that_refused_it(tmp_path: Path) -> None:
    workspace = ingest(tmp_path, contract_of(tmp_path), FEW)
    lax = make_contract(tmp_path, reader=READER, version="1.1.0")
    workspace.keep_contract(lax)
    assert [r.rule.kind for r in case_of(workspace, lax, "monday").refusal.failed] == ["rowCount"]


def test_an_override_is_in_the_lineage_once_with_who_and_why(tmp_path: Path) -> None:
    made = contract_of(tmp_path)
    workspace = ingest(tmp_path, made, FEW)
    done, again = override(workspace, made), override(workspace, made)
    assert done == again
    assert done.current
    _, complete = events(workspace, made)
    node = f"partition/test/notes/monday@{done.version.ingest_id[:12]}"
    assert [n["name"] for n in complete["inputs"]] == [n["name"] for n in complete["outputs"]] == [node]
    facts = complete["outputs"][0]["facets"]["causeway_node"]["facts"]
    assert (facts["verdict"], facts["approved_by"], facts["approved_why"]) == (
        "overridden",
        "Ann",
        "a holiday, few reports",
    )
    assert complete["inputs"][0]["facets"]["causeway_node"]["facts"] == {"verdict": "refused"}


def test_the_result_says_that_a_newer_publication_stays_current(tmp_path: Path) -> None:
    made = contract_of(tmp_path, sequence="publication")
    ingest(tmp_path, made, FEW, NOW)
    workspace = ingest(tmp_path, made, MANY, NOW + dt.timedelta(days=1))
    assert not case_of(workspace, made, "monday").replaces
    done = override(workspace, made)
    assert not done.current
    assert "a newer version of the partition stays current" in done.words


def test_an_approval_does_not_replace_what_came_into_force_after_it_was_asked_for(tmp_path: Path) -> None:
    made = contract_of(tmp_path)
    workspace = ingest(tmp_path, made, FEW)
    shown = case_of(workspace, made, "monday")
    ingest(tmp_path, made, MANY)
    with pytest.raises(DataRefused, match="no version was in force, now it is ingest"):
        override(workspace, made, shown=shown)
    tables = workspace.tables(made)
    assert [v.verdict for v in tables.versions()] == ["refused", "accepted"]


def test_an_approval_that_was_carried_out_may_be_carried_out_again(tmp_path: Path) -> None:
    made = contract_of(tmp_path)
    workspace = ingest(tmp_path, made, FEW)
    shown = case_of(workspace, made, "monday")
    assert override(workspace, made, shown=shown) == override(workspace, made, shown=shown)


def test_a_partition_that_is_worked_on_is_not_overridden(tmp_path: Path) -> None:
    made = contract_of(tmp_path)
    workspace = ingest(tmp_path, made, FEW)
    with (
        hold(workspace.tables(made).store, partition_lease(made.id, "monday"), "an ingest"),
        pytest.raises(Busy, match="an ingest works on it"),
    ):
        override(workspace, made)
