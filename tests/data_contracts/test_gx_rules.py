"""Expectations in a contract: which rule each becomes, where it runs, and which rows fail it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from data_contracts.batchchecks import BatchCheck, BatchResult
from data_contracts.checks import gx
from data_contracts.checks.spool import Spool
from data_contracts.contract import Contract
from data_contracts.errors import ContractError
from data_contracts.rules import BatchRule, RowRule, batch_rules, failing, row_rules
from data_contracts.ruling.expecting import EMPTY, EXPECTATIONS, NEED_SQL
from tests.data_contracts.making import column, make_contract

pytestmark = pytest.mark.filterwarnings("ignore")


def entry(name: str, kwargs: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    implementation = {"type": name, "kwargs": kwargs or {}}
    return {"type": "custom", "engine": "greatExpectations", "implementation": implementation, **more}


def contract_of(folder: Path, *checks: dict[str, Any], on: str = "word") -> Contract:
    columns = [
        column("day", partitioned=True),
        column("content"),
        column("word"),
        column("count", "integer"),
        column("size", "integer"),
        column("share", "number"),
        column("when", "date"),
    ]
    for each in columns:
        if each["name"] == on:
            each["quality"] = list(checks)
    return make_contract(folder, columns, quality=list(checks) if on == "object" else ())


def rules_of(contract: Contract) -> list[RowRule | BatchRule]:
    return [rule for rule in (*row_rules(contract), *batch_rules(contract)) if rule.kind in ("expectation", "mostly")]


def judged(contract: Contract, *tables: pa.Table) -> BatchResult:
    (rule,) = batch_rules(contract)
    check = BatchCheck(rule, contract)
    for table in tables:
        check.add(table)
    rows = sum(table.num_rows for table in tables)
    return check.judge(rows, rows)


def test_every_expectation_of_the_library_is_known_with_its_arguments() -> None:
    library = gx.library().expectations
    from great_expectations.expectations.expectation import BatchExpectation

    base = {*BatchExpectation.__fields__, "row_condition", "condition_parser", "library_metadata", "escape"}
    theirs = {}
    for name in dir(library):
        kind = getattr(library, name)
        if isinstance(kind, type) and issubclass(kind, BatchExpectation):
            words = re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
            theirs[words] = set(kind.__fields__) - base
    known = set(EXPECTATIONS) | set(NEED_SQL) | set(EMPTY)
    assert set(theirs) == known
    subject = {"column": {"column"}, "pair": {"column_A", "column_B"}, "columns": {"column_list"}, "table": set()}
    for name, what in EXPECTATIONS.items():
        assert {*subject[what.about], *what.required, *what.optional} == theirs[name], name


@pytest.mark.parametrize(
    "implementation",
    [
        {"type": "expect_column_value_lengths_to_be_between", "kwargs": {"min_value": 2}},
        {"expectation": "expect_column_value_lengths_to_be_between", "kwargs": {"minValue": 2}},
        {"expectation_type": "ExpectColumnValueLengthsToBeBetween", "kwargs": {"column": "word", "min_value": 2}},
        "type: expect_column_value_lengths_to_be_between\nkwargs:\n  minValue: 2\n",
        '{"type": "expect_column_value_lengths_to_be_between", "kwargs": {"min_value": 2}}',
    ],
)
@pytest.mark.parametrize("engine", ["greatExpectations", "great-expectations", "great_expectations"])
def test_every_spelling_of_an_expectation_is_the_same_rule(tmp_path: Path, implementation: Any, engine: str) -> None:
    check = {"type": "custom", "engine": engine, "implementation": implementation}
    (rule,) = rules_of(contract_of(tmp_path, check))
    assert isinstance(rule, RowRule)
    assert (rule.name, rule.kind, rule.runs) == (
        "word.expect_column_value_lengths_to_be_between", "expectation", "arrow"
    )  # fmt: skip
    assert failing(rule, pa.record_batch({"word": ["a", "ab", None]})).to_pylist() == [True, False, False]


def test_where_there_is_no_kernel_great_expectations_judges_each_value_once(tmp_path: Path) -> None:
    contract = contract_of(
        tmp_path, entry("expect_column_values_to_match_strftime_format", {"strftime_format": "%d.%m.%Y"})
    )
    (rule,) = rules_of(contract)
    assert isinstance(rule, RowRule) and rule.runs == "great-expectations"
    words = ["31.01.2024", "31.02.2024", None, "31.01.2024", "soon"]
    found = failing(rule, pa.record_batch({"word": pa.array(words, pa.string())})).to_pylist()
    assert found == [False, True, False, False, True]
    nulls = pa.record_batch({"word": pa.array([None], pa.string())})
    assert failing(rule, nulls).to_pylist() == [False]


def test_json_schema_is_asked_of_great_expectations(tmp_path: Path) -> None:
    schema = {"type": "object", "required": ["a"]}
    (rule,) = rules_of(
        contract_of(tmp_path, entry("expect_column_values_to_match_json_schema", {"json_schema": schema}))
    )
    assert isinstance(rule, RowRule)
    batch = pa.record_batch({"word": ['{"a": 1}', "{}", None]})
    assert failing(rule, batch).to_pylist() == [False, True, False]


def test_mostly_and_severity_make_a_batch_rule(tmp_path: Path) -> None:
    wanted = {"value_set": ["a", "b"]}
    mostly = contract_of(tmp_path, entry("expect_column_values_to_be_in_set", {**wanted, "mostly": 0.75}))
    (rule,) = rules_of(mostly)
    assert isinstance(rule, BatchRule) and (rule.kind, rule.severity) == ("mostly", "error")
    three = pa.table({"word": ["a", "b", None, "a"]})
    assert judged(mostly, three, pa.table({"word": ["c"]})).passed
    assert not judged(mostly, three, pa.table({"word": ["c", "c"]})).passed
    assert judged(mostly, pa.table({"word": pa.array([None], pa.string())})).passed
    warned = contract_of(tmp_path, entry("expect_column_values_to_be_in_set", wanted, severity="warning"))
    (rule,) = rules_of(warned)
    assert isinstance(rule, BatchRule) and rule.severity == "warning"
    assert not judged(warned, pa.table({"word": ["c"]})).passed
    critical = contract_of(tmp_path, entry("expect_column_values_to_be_in_set", wanted, severity="critical"))
    assert isinstance(rules_of(critical)[0], RowRule)


@pytest.mark.parametrize(
    ("name", "kwargs", "batches", "passed", "observed"),
    [
        ("expect_column_mean_to_be_between", {"min_value": 1, "max_value": 2}, [[1, 2], [3, None]], True, 2),
        ("expect_column_stdev_to_be_between", {"max_value": 0.9}, [[1, 2], [3]], False, 1),
        ("expect_column_sum_to_be_between", {"min_value": 2**63}, [[2**62, 2**62], [1]], True, 2**63 + 1),
        ("expect_column_values_to_be_increasing", {}, [[1, 2], [2, None, 1]], False, 1),
        ("expect_column_values_to_be_increasing", {"strictly": True}, [[1], [None], [1]], False, 1),
        ("expect_column_values_to_be_decreasing", {"mostly": 0.5}, [[3, 1], [2]], True, 1),
        ("expect_column_values_to_be_unique", {}, [[1, 2], [1, None, None]], False, 2),
        ("expect_column_distinct_values_to_equal_set", {"value_set": [1, 2]}, [[1], [1, None]], False, 1),
        ("expect_column_median_to_be_between", {"min_value": 2, "max_value": 2}, [[1, 2], [9]], True, 2),
        (
            "expect_column_values_to_not_be_outliers",
            {"method": "iqr", "multiplier": 1.5},
            [[1, 2, 2], [1, 900]],
            False,
            1,
        ),
        (
            "expect_column_value_z_scores_to_be_less_than",
            {"threshold": 1, "double_sided": True},
            [[1, 1, 1], [9]],
            False,
            1,
        ),
        ("expect_column_mean_to_be_between", {"min_value": 0}, [[None]], False, 0),
    ],
)
def test_expectations_about_the_whole_are_judged_across_batches(
    tmp_path: Path, name: str, kwargs: dict[str, Any], batches: list[list[int | None]], passed: bool, observed: float
) -> None:
    contract = contract_of(tmp_path, entry(name, kwargs), on="count")
    result = judged(contract, *(pa.table({"count": pa.array(values, pa.int64())}) for values in batches))
    assert (result.passed, result.observed) == (passed, observed)


def test_a_like_pattern_that_pandas_lacks_runs_in_arrow(tmp_path: Path) -> None:
    (rule,) = rules_of(
        contract_of(tmp_path, entry("expect_column_values_to_match_like_pattern", {"like_pattern": "a_%"}))
    )
    assert isinstance(rule, RowRule)
    assert failing(rule, pa.record_batch({"word": ["a", "ab", "ba", None]})).to_pylist() == [True, False, True, False]


def test_sums_of_columns_are_exact_beyond_64_bits(tmp_path: Path) -> None:
    kwargs = {"column_list": ["count", "size"], "sum_total": 2}
    (rule,) = rules_of(contract_of(tmp_path, entry("expect_multicolumn_sum_to_equal", kwargs), on="object"))
    assert isinstance(rule, RowRule)
    big = 2**62
    batch = pa.record_batch({"count": [1, big, None, None], "size": [1, big, 2, None]})
    assert failing(rule, batch).to_pylist() == [False, True, True, False]


@pytest.mark.parametrize(
    ("check", "on", "says"),
    [
        (entry("expect_column_values_to_be_in_sett"), "word", "perhaps expect_column_values_to_be_in_set"),
        (entry("expect_column_values_to_be_in_set"), "word", "needs value_set"),
        (entry("expect_column_values_to_be_in_set", {"value_set": [1]}), "word", "a value is no string"),
        (entry("expect_column_values_to_be_between", {"min_value": 1}), "word", "asks for a column of type"),
        (entry("expect_column_values_to_be_between"), "count", "neither min_value nor max_value"),
        (entry("expect_column_values_to_be_between", {"min_value": 2, "max_value": 1}), "count", "nothing passes"),
        (entry("expect_column_values_to_be_between", {"min_value": "x"}), "count", "is no integer"),
        (
            entry("expect_column_values_to_be_between", {"min_value": 1, "row_condition": "a"}),
            "count",
            "no such argument",
        ),
        (entry("expect_column_values_to_match_regex", {"regex": "(?=a)"}), "word", "is no RE2 expression"),
        (entry("expect_column_values_to_be_unique", {"mostly": 2}), "word", "is no share"),
        (entry("expect_column_values_to_not_be_null", {"column": "wird"}), "object", "no column 'wird' (perhaps word"),
        (
            entry("expect_column_pair_values_to_be_equal", {"column_A": "word", "column_B": "count"}),
            "object",
            "of one type",
        ),
        (
            entry("expect_multicolumn_sum_to_equal", {"column_list": ["count"], "sum_total": 1}),
            "object",
            "at least two",
        ),
        (
            entry("expect_column_values_to_match_json_schema", {"json_schema": {"items": [{"$ref": "http://a.b/c"}]}}),
            "word",
            "would be fetched",
        ),
        (entry("unexpected_rows_expectation", {}), "object", "write it as a rule of type sql"),
        (entry("expect_column_values_to_be_unique", severity="fatal"), "word", "'fatal' is not allowed"),
        ({"type": "custom", "engine": "greatExpectations", "implementation": "[1"}, "word", "no expectation is named"),
    ],
)
def test_an_expectation_that_cannot_be_run_is_a_fault(
    tmp_path: Path, check: dict[str, Any], on: str, says: str
) -> None:
    with pytest.raises(ContractError) as caught:
        contract_of(tmp_path, check, on=on)
    assert says in str(caught.value)


def test_a_spool_that_outgrows_its_memory_counts_the_same_from_a_file() -> None:
    table = pa.table({"a": ["x", "y", "x", None, None], "b": [1, 1, 1, 2, 2]})
    small, big = Spool(["a", "b"]), Spool(["a", "b"], memory_bytes=0)
    for part in (table.slice(0, 2), table.slice(2)):
        small.add(part)
        big.add(part)
    folder = big._folder
    assert folder is not None and folder.exists() and small._folder is None
    assert (small.rows, small.distinct(), small.repeated()) == (big.rows, big.distinct(), big.repeated()) == (5, 3, 4)
    big.close()
    assert not folder.exists()
