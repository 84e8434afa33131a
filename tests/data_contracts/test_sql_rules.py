"""Rules of type sql: what a query sees, what it cannot reach, and what becomes of its answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from data_contracts.batchchecks import BatchCheck, BatchResult
from data_contracts.checks.sql import Query
from data_contracts.contract import Contract
from data_contracts.errors import ContractError
from data_contracts.rules import BatchRule, batch_rules
from tests.data_contracts.making import column, make_contract

ROWS = pa.table({"day": ["a", "a", "b"], "content": ["x", "y", None], "count": pa.array([1, 2, 40], pa.int64())})


def contract_of(folder: Path, query: str, on: str = "object", **more: Any) -> Contract:
    check = {"type": "sql", "query": query, **(more or {"mustBe": 0})}
    columns = [column("day", partitioned=True), column("content"), column("count", "integer")]
    for each in columns:
        if each["name"] == on:
            each["quality"] = [check]
    return make_contract(folder, columns, quality=[check] if on == "object" else ())


def rule_of(contract: Contract) -> BatchRule:
    (rule,) = batch_rules(contract)
    return rule


def judged(contract: Contract, *tables: pa.Table) -> BatchResult:
    check = BatchCheck(rule_of(contract), contract)
    for table in tables:
        check.add(table)
    return check.judge(3, sum(table.num_rows for table in tables))


@pytest.mark.parametrize(
    "table", ["{object}", "${object}", "${table}", "{table}", "{model}", "notes", '"notes"', "NOTES"]
)  # fmt: skip
def test_the_accepted_rows_are_the_table_by_every_spelling(tmp_path: Path, table: str) -> None:
    contract = contract_of(tmp_path, f"SELECT sum(count) FROM {table} WHERE day = 'a'", mustBe=3)
    result = judged(contract, ROWS.slice(0, 1), ROWS.slice(1))
    assert (result.passed, result.observed, result.rule.runs) == (True, 3, "duckdb")
    assert rule_of(contract).arguments["columns"] == ["day", "count"]


@pytest.mark.parametrize("place", ["{property}", "${column}", "{field}", "${property}"])
def test_a_rule_of_a_column_may_name_it_by_its_place(tmp_path: Path, place: str) -> None:
    query = f"SELECT count(*) FROM {{object}} WHERE {place} IS NULL"
    contract = contract_of(tmp_path, query, on="content", mustBeLessThan=1, severity="warning", name="no nulls")
    result = judged(contract, ROWS)
    assert (result.passed, result.observed, result.rule.severity) == (False, 1, "warning")
    assert result.rule.name == "content.sql" and "no nulls" in result.detail


@pytest.mark.parametrize("query", ["SELECT count(*) FROM notes", "SELECT count(DISTINCT notes) FROM notes",
                                   "SELECT count(*) FROM (SELECT * FROM notes)", "SELECT 3"])  # fmt: skip
def test_queries_that_name_no_column_see_all_rows(tmp_path: Path, query: str) -> None:
    assert judged(contract_of(tmp_path, query, mustBe=3), ROWS).passed


def test_more_rows_than_memory_are_read_from_a_file_that_goes(tmp_path: Path) -> None:
    contract = contract_of(tmp_path, "SELECT max(count) - min(count) FROM notes", mustBe=39)
    query = Query(rule_of(contract))
    query.spool._memory_bytes = 0
    for part in (ROWS.slice(0, 1), ROWS.slice(1)):
        query.add(part)
    folder = query.spool._folder
    assert folder is not None and folder.exists()
    assert query.result(3, 3).figure == 39
    assert not folder.exists()


REACHING = [
    "SELECT count(*) FROM read_csv('{path}')",
    "SELECT count(*) FROM '{path}'",
    "SELECT count(*) FROM read_text('{path}')",
    "SELECT count(*) FROM glob('/*')",
    "SELECT count(*) FROM read_parquet('https://example.com/a.parquet')",
    "COPY (SELECT 1) TO '{path}.out'",
    "ATTACH '{path}.db'",
    "INSTALL httpfs",
    "LOAD httpfs",
    "SET enable_external_access = true",
    "CREATE TABLE t AS SELECT 1",
    "DROP VIEW notes",
    "SELECT 1; SELECT 2",
    "PRAGMA database_list",
    "EXPORT DATABASE '{path}.dir'",
    "SELECT getenv('HOME')",
    "SELECT count(*) FROM sniff_csv('{path}')",
    "SELECT count(*) FROM contract",
]


@pytest.mark.parametrize("query", [query for query in REACHING if "sniff_csv" not in query])  # it reads when it runs
def test_a_query_reaches_no_file_no_network_and_changes_nothing(tmp_path: Path, query: str) -> None:
    file = tmp_path / "secret.csv"
    file.write_text("a\n1\n")
    with pytest.raises(ContractError, match="the query cannot be run"):
        contract_of(tmp_path, query.replace("{path}", str(file)))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["contract.yaml", "secret.csv"]


@pytest.mark.parametrize("query", [query for query in REACHING if query.startswith("SELECT") and ";" not in query])
def test_nor_when_the_plan_is_run_without_being_checked_first(tmp_path: Path, query: str) -> None:
    file = tmp_path / "secret.csv"
    file.write_text("a\n1\n")
    rule = rule_of(contract_of(tmp_path, "SELECT 1"))
    broken = BatchRule(
        rule.name, rule.kind, {**rule.arguments, "query": query.replace("{path}", str(file))}, "", "error"
    )
    measure = Query(broken)
    measure.add(ROWS)
    measured = measure.result(3, 3)
    assert measured.passed is False and "the query failed" in measured.said


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("SELECT sum(amount) FROM notes", 'column "amount" not found'),
        ("SELECT FROM", "syntax error"),
        ("SELECT 1, 2", "it gives 2 columns"),
        ("SELECT {column} FROM {object}", "the placeholder {column} stands for nothing here"),
    ],
)
def test_a_query_that_cannot_be_run_is_a_fault_of_the_contract(tmp_path: Path, query: str, says: str) -> None:
    with pytest.raises(ContractError) as caught:
        contract_of(tmp_path, query)
    assert says.lower() in str(caught.value).lower()


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("SELECT max(count) FROM notes WHERE day = 'z'", "gave a NoneType, no number"),
        ("SELECT count FROM notes", "several rows"),
        ("SELECT count FROM notes WHERE day = 'z'", "no row"),
        ("SELECT max(content) FROM notes", "gave a str, no number"),
        ("SELECT sum(CAST(content AS INTEGER)) FROM notes", "ConversionException"),
        ("SELECT CAST('inf' AS DOUBLE)", "no finite number"),
    ],
)
def test_an_answer_that_is_no_number_does_not_hold_and_quotes_no_row(tmp_path: Path, query: str, says: str) -> None:
    result = judged(
        contract_of(tmp_path, query, mustBeGreaterOrEqualTo=0), ROWS.set_column(1, "content", [["secret"] * 3])
    )
    assert not result.passed
    assert says.replace("gave a str, no number", "gave a str") in result.detail and "secret" not in result.detail


def test_a_query_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    query = "SELECT count(*) FROM range(100000000) a, range(100000000) b, notes WHERE a.range + b.range = count"
    measure = Query(rule_of(contract_of(tmp_path, query)), longest_s=0.3)
    measure.add(ROWS)
    measured = measure.result(3, 3)
    assert measured.passed is False and "longer than 0.3 s" in measured.said


def test_without_rows_a_query_is_not_asked(tmp_path: Path) -> None:
    assert judged(contract_of(tmp_path, "SELECT 1", mustBe=0)).passed
