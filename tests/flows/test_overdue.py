"""What a home waits for: late partitions, text that no run has used."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import pytest

from data_contracts.contract import Contract, load_contract
from data_contracts.sources import open_source
from flows.overdue import late, waiting_bytes
from tests.data_contracts.making import make_contract, write_lines
from tests.training.ingested import CONFIG, READER, make
from training import steps
from training.shards.sharding import Sharded
from training.workspace import Workspace


def promising(folder: Path, frequency: str) -> Contract:
    path = make_contract(folder, reader=READER).path
    document = json.loads(path.read_text())
    document["slaProperties"] = [{"property": "frequency", "value": frequency}]
    path.write_text(json.dumps(document))
    return load_contract(path)


def take_in(workspace: Workspace, contract: Contract, data: Path, *days: str) -> None:
    for day in days:
        write_lines(data / f"{day}.jsonl", [{"key": f"{day}-{n}", "content": f"note {n} of {day}"} for n in range(4)])
    source = open_source(contract, str(data))
    steps.admit(workspace, contract, str(data))
    for partition in steps.outstanding(workspace, contract, source).todo:
        steps.ingest_one(workspace, contract, source, partition)


NOON = dt.datetime(2024, 3, 10, 12, tzinfo=dt.UTC)


def test_a_data_set_is_late_under_one_subject_until_what_is_missing_longest_has_come(tmp_path: Path) -> None:
    workspace, data = Workspace.open(tmp_path / "home"), tmp_path / "data"
    contract = promising(tmp_path / "in", "daily")
    take_in(workspace, contract, data, "2024-03-07", "2024-03-08")
    assert late(workspace, NOON) == []
    (one,) = late(workspace, NOON + dt.timedelta(days=2))
    assert one.subject == "test/notes 2024-03-09"
    assert one.slug == "test--notes"
    assert "late by" in one.message and "causeway backfill test/notes" in one.message
    (same,) = late(workspace, NOON + dt.timedelta(days=4))
    assert same.subject == one.subject
    take_in(workspace, contract, data, "2024-03-09")
    (other,) = late(workspace, NOON + dt.timedelta(days=4))
    assert other.subject == "test/notes 2024-03-10"


def test_a_data_set_that_promises_nothing_is_never_late(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "home")
    take_in(workspace, make_contract(tmp_path / "in", reader=READER), tmp_path / "data", "2024-03-07")
    assert late(workspace, NOON + dt.timedelta(days=1000)) == []


@pytest.fixture
def planned(tmp_path: Path) -> Workspace:
    workspace = make(tmp_path)
    sets = steps.read_sets(workspace, CONFIG.datasets)
    record = steps.make_tokenizer(workspace, CONFIG, sets)
    made: Sharded = steps.make_shards(workspace, CONFIG, sets, record)
    steps.plan_run(workspace, CONFIG, made, record.tokenizer.vocab_size)
    return workspace


def test_text_waits_from_its_partition_on_until_a_plan_uses_it(planned: Workspace, tmp_path: Path) -> None:
    workspace = planned
    assert waiting_bytes(workspace) == {}
    rows = [{"key": f"9-{n}", "content": f"day 9: note {n}"} for n in range(8)]
    path = write_lines(tmp_path / "in" / "data" / "day9.jsonl", rows)
    contract = workspace.contract("test/notes")
    source = open_source(contract, str(tmp_path / "in" / "data"))
    (new,) = steps.outstanding(workspace, contract, source).todo
    steps.ingest_one(workspace, contract, source, new)
    assert waiting_bytes(workspace) == {"test/notes": path.stat().st_size}


def test_text_of_a_data_set_that_no_run_uses_counts_only_when_it_is_named(tmp_path: Path) -> None:
    workspace = make(tmp_path)
    assert waiting_bytes(workspace) == {}
    assert waiting_bytes(workspace, ["test/notes"])["test/notes"] > 0
