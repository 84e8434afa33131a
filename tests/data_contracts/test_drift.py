"""Drift: a partition beside the one before it."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from data_contracts.batchchecks import BatchCheck, BatchResult
from data_contracts.catalog.store import Store
from data_contracts.catalog.tables import Tables
from data_contracts.contract import Contract
from data_contracts.errors import ContractError
from data_contracts.ingest import IngestResult, ingest_partition
from data_contracts.rules import batch_rules
from data_contracts.ruling.context import RuleContext
from data_contracts.sources import open_source
from tests.data_contracts.making import SECRET, column, make_contract, write_lines

NOW = dt.datetime(2026, 5, 4, tzinfo=dt.UTC)
READER = {"format": "jsonl", "partition": {"from": "path", "pattern": r"([^/]+)\.jsonl$"}}


def contract_of(folder: Path, on: str, metric: str, **more: Any) -> Contract:
    check = {"type": "custom", "engine": "causeway", "implementation": {"metric": metric, **more}}
    columns = [column("day", partitioned=True), column("content"), column("count", "integer"), column("when", "date")]
    for each in columns:
        if each["name"] == on:
            each["quality"] = [check]
    return make_contract(folder, columns, reader=READER, quality=[check] if on == "object" else ())


def judged(contract: Contract, before: dict[str, Any] | None, *batches: dict[str, Any]) -> BatchResult:
    def previous(columns: Sequence[str]) -> tuple[str, pa.Table] | None:
        return None if before is None else ("before", pa.table(before))

    (rule,) = batch_rules(contract)
    check = BatchCheck(rule, contract, RuleContext(previous=previous))
    tables = [pa.table(batch) for batch in batches]
    for table in tables:
        check.add(table)
    rows = sum(table.num_rows for table in tables)
    return check.judge(rows, rows)


def test_the_index_of_categories_is_the_sum_that_its_definition_says(tmp_path: Path) -> None:
    contract = contract_of(tmp_path, "content", "psi", mustBeLessThan=0.1)
    before = {"content": ["a"] * 60 + ["b"] * 40 + [None] * 9}
    result = judged(contract, before, {"content": ["a"] * 20}, {"content": ["b"] * 80})
    wanted = (0.2 - 0.6) * math.log(0.2 / 0.6) + (0.8 - 0.4) * math.log(0.8 / 0.4)
    assert result.observed == pytest.approx(wanted)
    assert (result.passed, result.rule.severity) == (False, "warning")
    assert judged(contract, before, {"content": ["a"] * 3 + ["b"] * 2}).observed == pytest.approx(0)
    # A value that was not there counts as a bin that had next to nothing.
    assert judged(contract, before, {"content": ["c"] * 5}).observed > 5


def test_numbers_and_dates_fall_into_the_quantiles_of_the_partition_before(tmp_path: Path) -> None:
    contract = contract_of(tmp_path, "count", "psi", mustBeLessThan=0.1, bins=4)
    before = {"count": list(range(1000))}
    assert judged(contract, before, {"count": list(range(0, 1000, 2))}, {"count": list(range(1, 1000, 2))}).passed
    shifted = judged(contract, before, {"count": [n + 500 for n in range(1000)]})
    assert not shifted.passed and shifted.observed > 0.5
    dates = contract_of(tmp_path, "when", "psi", mustBeLessThan=0.1)
    days = [dt.date(2024, 1, 1) + dt.timedelta(days=n) for n in range(100)]
    assert judged(dates, {"when": days}, {"when": days}).observed == pytest.approx(0)
    assert judged(dates, {"when": days}, {"when": [days[-1]] * 9}).observed > 1


def test_new_categories_are_counted_once_each_and_not_told(tmp_path: Path) -> None:
    contract = contract_of(tmp_path, "content", "newCategories", mustBe=0, severity="error")
    result = judged(
        contract, {"content": ["a", None]}, {"content": ["a", "secret"]}, {"content": ["secret", "x", None]}
    )
    assert (result.observed, result.passed, result.rule.severity) == (2, False, "error")
    assert "secret" not in result.detail


def test_the_share_of_null_is_compared_in_points(tmp_path: Path) -> None:
    contract = contract_of(tmp_path, "content", "nullShareChange", mustBeLessOrEqualTo=10)
    before = {"content": ["a", "b", "c", None]}
    assert judged(contract, before, {"content": ["a", None, None]}, {"content": ["a"]}).observed == 25
    assert judged(contract, before, {"content": ["a"] * 4}).observed == -25


def test_the_number_of_rows_is_compared_in_percent(tmp_path: Path) -> None:
    contract = contract_of(tmp_path, "object", "rowCountChange", mustBeBetween=[-20, 50])
    before = {"record_id": ["r"] * 10}
    assert judged(contract, before, {"day": ["d"] * 15}).passed
    result = judged(contract, before, {"day": ["d"] * 7})
    assert (result.observed, result.passed) == (-30, False)
    assert "-30.0 % than before" in result.detail


@pytest.mark.parametrize(
    ("on", "metric"), [("content", "psi"), ("content", "newCategories"), ("object", "rowCountChange")]
)
def test_without_a_partition_before_it_every_metric_holds(tmp_path: Path, on: str, metric: str) -> None:
    result = judged(contract_of(tmp_path, on, metric, mustBe=7), None, {"content": ["a"]})
    assert result.passed and "no partition before it" in result.detail


def test_values_on_one_side_only_cannot_be_compared(tmp_path: Path) -> None:
    contract = contract_of(tmp_path, "content", "psi", mustBe=7)
    nothing = {"content": pa.array([None], pa.string())}
    assert judged(contract, nothing, {"content": ["a"]}).passed
    assert judged(contract, {"content": ["a"]}, nothing).passed


@pytest.mark.parametrize(
    ("on", "metric", "more", "says"),
    [
        ("content", "psi", {}, "is compared with None"),
        ("content", "psi", {"mustBe": 0, "bins": 1}, "from 2 to 100"),
        ("content", "psi", {"mustBe": 0, "unit": "rows"}, "use index"),
        ("content", "newCategories", {"mustBe": 0, "bins": 5}, "no such argument"),
        ("object", "psi", {"mustBe": 0}, "metric 'psi' of an object cannot be run"),
        ("content", "rowCountChange", {"mustBe": 0}, "metric 'rowCountChange' of a column cannot be run"),
    ],
)
def test_a_metric_that_means_nothing_is_a_fault(
    tmp_path: Path, on: str, metric: str, more: dict[str, Any], says: str
) -> None:
    with pytest.raises(ContractError) as caught:
        contract_of(tmp_path, on, metric, **more)
    assert says in str(caught.value)


def test_the_partition_before_is_the_next_lower_one_in_force(tmp_path: Path) -> None:
    contract = contract_of(tmp_path, "content", "newCategories", mustBe=0, severity="error")
    tables = Tables(Store.open(tmp_path / "store"), contract.slug)
    folder = tmp_path / "data"

    def ingest(day: str, *contents: str) -> IngestResult:
        write_lines(folder / f"{day}.jsonl", [{"content": content} for content in contents])
        source = open_source(contract, str(folder))
        (partition,) = (p for p in source.partitions() if p.value == day)
        return ingest_partition(contract, source, partition, tables, SECRET, NOW)

    assert ingest("2024-01-02", "a", "b").outcome == "published"
    assert ingest("2024-01-03", "a", "c").outcome == "refused"
    # The one before is still the second of January: what was refused is no reference.
    assert ingest("2024-01-04", "a").outcome == "published"
    assert ingest("2024-01-05", "b").outcome == "refused"
    assert ingest("2024-01-01", "z").outcome == "published"  # nothing lies before it
