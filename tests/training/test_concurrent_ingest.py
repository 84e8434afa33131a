"""Processes that ingest at once: different partitions never disturb each other, one partition has one at a time."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from data_contracts.catalog.leases import Busy, hold
from data_contracts.sources import open_source
from tests.data_contracts.making import KEYED, make_contract, write_lines
from training import steps
from training.workspace import Workspace

READER = {"format": "jsonl", "partition": {"from": "path", "pattern": r"([^/]+)\.jsonl$"}}
INGEST = """
import sys
from pathlib import Path
from data_contracts.errors import CausewayError
from data_contracts.sources import open_source
from training.steps import ingest_one
from training.workspace import Workspace
workspace = Workspace.open(Path(sys.argv[1]))
contract = workspace.contract("test/notes")
source = open_source(contract, workspace.source("test/notes")[1])
for partition in source.partitions():
    if partition.value in sys.argv[2:]:
        try:
            print(partition.value, ingest_one(workspace, contract, source, partition).outcome)
        except CausewayError as error:
            print(partition.value, type(error).__name__, error)
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    made = Workspace.open(tmp_path / "home")
    for day in range(16):
        rows = [{"key": f"{n}", "content": f"note {n} of day {day}"} for n in range(50)]
        write_lines(tmp_path / "data" / f"day{day:02d}.jsonl", rows)
    steps.admit(made, make_contract(tmp_path / "c", KEYED, reader=READER), str(tmp_path / "data"))
    return made


def ingest(workspace: Workspace, *days: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", INGEST, str(workspace.root), *days]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])


def said(process: subprocess.Popen[str]) -> list[str]:
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    return out.splitlines()


def test_different_partitions_in_different_processes_never_fail_each_other(workspace: Workspace) -> None:
    days = [f"day{n:02d}" for n in range(16)]
    processes = [ingest(workspace, *days[k::4]) for k in range(4)]
    lines = sorted(line for process in processes for line in said(process))
    assert lines == [f"{day} published" for day in days]
    tables = workspace.tables(workspace.contract("test/notes"))
    assert {p: v.rows_accepted for p, v in tables.current().items()} == dict.fromkeys(days, 50)
    assert len(tables.versions()) == 16


def test_of_one_partition_one_works_and_the_other_is_told(workspace: Workspace) -> None:
    contract = workspace.contract("test/notes")
    source = open_source(contract, workspace.source("test/notes")[1])
    store = workspace.tables(contract).store
    with hold(store, steps.partition_lease("test/notes", "day03"), "flow run blue-fox"):
        (told,) = said(ingest(workspace, "day03"))
        assert told.startswith("day03 Busy ingest/test--notes/")
        assert "flow run blue-fox works on it (process" in told
        with pytest.raises(Busy):
            steps.ingest_one(workspace, contract, source, source.partitions()[3])
    assert said(ingest(workspace, "day03")) == ["day03 published"]


def test_two_that_begin_at_once_publish_one_version(workspace: Workspace) -> None:
    processes = [ingest(workspace, "day05") for _ in range(4)]
    outcomes = [line.split()[1] for process in processes for line in said(process)]
    assert outcomes.count("published") == 1
    assert set(outcomes) <= {"published", "unchanged", "Busy"}
    assert len(workspace.tables(workspace.contract("test/notes")).versions()) == 1
