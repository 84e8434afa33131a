from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pytest

from data_contracts import oracle
from data_contracts.catalog.store import Store
from data_contracts.catalog.tables import Tables
from data_contracts.contract import Contract
from data_contracts.ingest import ingest_partition
from data_contracts.oracle import Agreement, ask_oracle
from data_contracts.sources import open_source
from tests.data_contracts.making import SECRET, make_contract, write_lines

pytestmark = pytest.mark.filterwarnings("ignore")
READER = {"format": "jsonl", "partition": {"from": "path", "pattern": r"([^/]+)\.jsonl$"}}
QUALITY = ({"metric": "rowCount", "mustBeGreaterThan": 1, "severity": "warning"},)
NOW = dt.datetime(2026, 5, 4, tzinfo=dt.UTC)


def contract_of(folder: Path) -> Contract:
    return make_contract(folder, reader=READER, quality=QUALITY)


def tables_of(folder: Path) -> Tables:
    return Tables(Store.open(folder / "store"), "test--notes")


def write(folder: Path, day: str, *contents: str) -> None:
    # The same keys in each partition: they repeat within one only.
    rows = [{"key": f"k{n}", "content": content} for n, content in enumerate(contents)]
    write_lines(folder / "data" / f"{day}.jsonl", [*rows, {"key": "k0", "content": "the key of the first"}])


def ingest(folder: Path, *days: str) -> None:
    contract = contract_of(folder)
    source = open_source(contract, str(folder / "data"))
    for partition in source.partitions():
        if partition.value in days:
            ingest_partition(contract, source, partition, tables_of(folder), SECRET, NOW)


def ask(folder: Path) -> tuple[Agreement, bool]:
    contract = contract_of(folder)
    return ask_oracle(contract, open_source(contract, str(folder / "data")), tables_of(folder), SECRET)


def test_partitions_are_judged_one_by_one_and_only_those_that_are_current_as_they_are(tmp_path: Path) -> None:
    write(tmp_path, "a", "good", "no", "fine")
    write(tmp_path, "b", "good")
    write(tmp_path, "c", "x", "yy")
    ingest(tmp_path, "a", "b", "c")
    found, new = ask(tmp_path)
    assert new
    assert found.differences == ()
    assert found.rows == 4 + 2 + 3
    assert found.verdicts["primaryKey.duplicate"] == 3
    assert found.verdicts["content.minLength"] == 3
    assert found.verdicts["rowCount"] == 3 - 1
    assert ask(tmp_path) == (found, False)
    # c has other bytes now that nobody has taken in, and d is new: neither side speaks of them.
    write(tmp_path, "c", "another text")
    write(tmp_path, "d", "z")
    found, new = ask(tmp_path)
    assert (new, found.differences, found.rows) == (True, (), 4 + 2)
    assert found.verdicts["content.minLength"] == 1


def test_an_answer_with_differences_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "a", "good", "no", "fine")
    ingest(tmp_path, "a")
    real = oracle.run_expectations

    def wrong(*arguments: Any) -> dict[str, int]:
        return {**real(*arguments), "content.minLength": 7}

    monkeypatch.setattr(oracle, "run_expectations", wrong)
    for _ in range(2):
        found, new = ask(tmp_path)
        assert new
        assert found.differences == ("content.minLength: validation counts 1, expectations 7",)
    monkeypatch.undo()
    assert ask(tmp_path)[0].differences == ()
