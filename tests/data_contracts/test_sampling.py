"""Acceptance sampling: a seeded sample, a file for reviewers, their verdicts, and a person who publishes."""

from __future__ import annotations

import csv
import datetime as dt
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from data_contracts.batchchecks import BatchCheck, BatchResult
from data_contracts.catalog.store import Store
from data_contracts.catalog.tables import Tables
from data_contracts.contract import Contract
from data_contracts.errors import ContractError
from data_contracts.ingest import ingest_partition
from data_contracts.overriding import override_partition, refusal, refused_version
from data_contracts.rules import batch_rules
from data_contracts.ruling.context import Reviews, RuleContext
from data_contracts.sources import open_source
from tests.data_contracts.making import KEYED, SECRET, make_contract, write_lines

NOW = dt.datetime(2026, 5, 4, tzinfo=dt.UTC)


def contract_of(folder: Path, **given: Any) -> Contract:
    inner = {"metric": "acceptanceSampling", **given}
    check = {"type": "custom", "engine": "causeway", "implementation": inner}
    reader = {"format": "jsonl", "partition": {"constant": "all"}}
    return make_contract(folder, KEYED, quality=[check], reader=reader)


def table(rows: int) -> pa.Table:
    ids = [f"{n:032x}" for n in range(rows)]
    return pa.table({"record_id": ids, "key": ids, "day": ["d"] * rows, "content": [f"=text {n}" for n in range(rows)]})


def judged(contract: Contract, folder: Path | None, *batches: pa.Table) -> BatchResult:
    (rule,) = batch_rules(contract)
    reviews = None if folder is None else Reviews(Store.open(folder.parent), folder.name)
    check = BatchCheck(rule, contract, RuleContext(reviews=reviews))
    for batch in batches:
        check.add(batch)
    rows = sum(batch.num_rows for batch in batches)
    return check.judge(rows, rows)


def fill(file: Path, verdicts: list[str]) -> None:
    with file.open(encoding="utf-8-sig", newline="") as stream:
        head, *rows = list(csv.reader(stream))
    for row, verdict in zip(rows, verdicts, strict=False):
        row[head.index("verdict")] = verdict
    with file.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([head, *rows])


def drawn(folder: Path) -> list[str]:
    (file,) = folder.glob("*.csv")
    return [row.split(",")[0] for row in file.read_text("utf-8-sig").splitlines()[1:]]


def test_the_sample_is_the_same_whatever_the_order_and_another_by_another_seed(tmp_path: Path) -> None:
    contract = contract_of(tmp_path / "c", records=50, accept=90)
    rows = table(4000)
    backwards = rows.take(pa.array(range(3999, -1, -1)))
    judged(contract, tmp_path / "one", rows.slice(0, 1500), rows.slice(1500))
    judged(contract, tmp_path / "two", *(backwards.slice(start, 500) for start in range(0, 4000, 500)))
    judged(contract_of(tmp_path / "c", records=50, accept=90, seed="2"), tmp_path / "three", rows)
    one, two, three = (drawn(tmp_path / name) for name in ("one", "two", "three"))
    assert one == two and len(set(one)) == 50
    assert [path.name for path in (tmp_path / "one").iterdir()] == [path.name for path in (tmp_path / "two").iterdir()]
    assert len(set(one) & set(three)) < 10


@pytest.mark.parametrize(("rows", "size"), [(1, 1), (95, 10), (1001, 101), (9001, 901)])
def test_a_share_is_rounded_up(tmp_path: Path, rows: int, size: int) -> None:
    contract, whole = contract_of(tmp_path / "c", preset="gb-t-45652-technical"), table(rows)
    judged(contract, tmp_path / "r", *(whole.slice(start, 700) for start in range(0, rows, 700)))
    assert len(drawn(tmp_path / "r")) == size
    judged(contract, tmp_path / "again", whole)
    assert drawn(tmp_path / "again") == drawn(tmp_path / "r")


def test_verdicts_are_taken_back_and_the_share_of_good_ones_decides(tmp_path: Path) -> None:
    contract, folder, rows = contract_of(tmp_path / "c", records=4, accept=75), tmp_path / "r", table(30)
    waiting = judged(contract, folder, rows)
    assert not waiting.passed and "awaiting review: 0 of 4 verdicts" in waiting.detail
    (file,) = folder.glob("*.csv")
    assert "'=text" in file.read_text("utf-8-sig")
    fill(file, ["good", "bad"])
    assert "2 of 4 verdicts" in judged(contract, folder, rows).detail
    fill(file, ["good", "bad", "Good ", "good"])
    result = judged(contract, folder, rows)
    assert (result.passed, result.observed) == (True, 75)
    fill(file, ["good", "bad", "bad", "good"])
    assert judged(contract, folder, rows).passed is False
    fill(file, ["good", "fine"])
    assert "row 3 has another verdict than good or bad" in judged(contract, folder, rows).detail
    file.write_text("a,b\n")
    assert "lacks record_id or verdict" in judged(contract, folder, rows).detail
    assert judged(contract, folder, table(0)).passed
    assert "no folder" in judged(contract, None, rows).detail


def test_a_partition_waits_for_its_reviewers_and_a_person_publishes_it(tmp_path: Path) -> None:
    contract = contract_of(tmp_path / "c", records=2, accept=50, show=["content"])
    write_lines(tmp_path / "data.jsonl", [{"key": f"k{n}", "content": f"text {n}"} for n in range(5)])
    source = open_source(contract, str(tmp_path / "data.jsonl"))
    (partition,) = source.partitions()
    tables = Tables(Store.open(tmp_path / "store"), contract.slug)
    first = ingest_partition(contract, source, partition, tables, SECRET, NOW)
    assert first.outcome == "refused" and "awaiting review" in first.report.batch_results[0].detail
    (file,) = (tmp_path / "store" / "reviews" / contract.slug).glob("review-*.csv")
    refused = refused_version(tables, "all")
    assert [r.rule.name for r in refusal(contract, tables, refused).failed] == ["acceptanceSampling"]
    fill(file, ["good", "good"])
    assert refusal(contract, tables, refused).failed == ()
    version = override_partition(contract, tables, "all", "", "Ann Berg", "both records are good", NOW)
    assert tables.current()["all"] == version and version.verdict == "overridden"


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"accept": 90}, "give records (a number) or share"),
        ({"records": 5, "share": 5, "accept": 90}, "give records (a number) or share"),
        ({"records": 0, "accept": 90}, "a whole number from 1"),
        ({"share": 101, "accept": 90}, "a percentage above 0"),
        ({"records": 5}, "None is no share"),
        ({"preset": "gb-t"}, "use one of gb-t-45652-manual"),
        ({"records": 5, "accept": 90, "show": ["nothing"]}, "are no columns"),
        ({"records": 5, "accept": 90, "sed": 1}, "perhaps seed"),
    ],
)
def test_a_sample_that_is_not_said_is_a_fault(tmp_path: Path, given: dict[str, Any], says: str) -> None:
    with pytest.raises(ContractError) as caught:
        contract_of(tmp_path, **given)
    assert says in str(caught.value)
