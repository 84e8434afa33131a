"""A foreign key into another data set is followed within a home, and only where both data sets' tables lie."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from data_contracts.contract import Contract
from data_contracts.errors import DataRefused, PolicyRefused
from data_contracts.ingest import IngestResult
from data_contracts.sources import open_source
from tests.data_contracts.making import column, make_contract, write_lines
from training import steps
from training.workspace import Workspace

READER = {"format": "jsonl", "partition": {"constant": "all"}}
ONLY_SINGAPORE = {"residency": {"storage": ["SG"], "processing": ["SG"]}}


def people(folder: Path, **terms: Any) -> Contract:
    columns = [column("day", partitioned=True), column("id", primaryKey=True), column("content")]
    return make_contract(folder / "people", columns, reader=READER, id="test/people", terms=terms)


def visits(folder: Path, **terms: Any) -> Contract:
    leads = {
        "to": "people.id",
        "customProperties": [{"property": "dataset", "vendor": "causeway", "value": "test/people"}],
    }
    columns = [column("day", partitioned=True), column("person", relationships=[leads]), column("content")]
    return make_contract(folder / "visits", columns, reader=READER, id="test/visits", terms=terms)


def ingest(workspace: Workspace, contract: Contract, path: Path) -> IngestResult:
    source = open_source(contract, str(path))
    steps.admit(workspace, contract, str(path))
    (partition,) = source.partitions()
    return steps.ingest_one(workspace, contract, source, partition)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    write_lines(tmp_path / "people.jsonl", [{"id": "a", "content": "text"}])
    write_lines(tmp_path / "visits.jsonl", [{"person": person, "content": "text"} for person in ("a", "b", None)])
    return Workspace.open(tmp_path / "home")


def test_rows_that_lead_nowhere_go_to_quarantine(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(DataRefused, match="test/people"):
        ingest(workspace, visits(tmp_path), tmp_path / "visits.jsonl")
    ingest(workspace, people(tmp_path), tmp_path / "people.jsonl")
    result = ingest(workspace, visits(tmp_path), tmp_path / "visits.jsonl")
    assert dict(result.version.reasons) == {"person.foreignKey": 1}


def test_keys_do_not_leave_the_place_of_their_tables(workspace: Workspace, tmp_path: Path) -> None:
    ingest(workspace, people(tmp_path, **ONLY_SINGAPORE), tmp_path / "people.jsonl")
    with pytest.raises(PolicyRefused, match="whose tables lie at east and not at home"):
        ingest(workspace, visits(tmp_path), tmp_path / "visits.jsonl")
    result = ingest(workspace, visits(tmp_path, **ONLY_SINGAPORE), tmp_path / "visits.jsonl")
    assert dict(result.version.reasons) == {"person.foreignKey": 1}
