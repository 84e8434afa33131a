from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.contract import Contract
from data_contracts.errors import DataRefused
from data_contracts.expectations import agreement, run_expectations, suite
from data_contracts.rules import batch_rules, row_rules
from data_contracts.validation import DUPLICATE_KEY, Report, validate
from data_contracts.verdicts import matches
from tests.data_contracts.making import SECRET, batch, column, make_contract

pytestmark = pytest.mark.filterwarnings("ignore")

EVERY_RULE = (
    column("key", primaryKey=True, primaryKeyPosition=1, logicalTypeOptions={"pattern": r"^\w+$"}),
    column("day", partitioned=True, quality=[{"metric": "nullValues", "mustBeLessThan": 90, "unit": "percent"}]),
    column("content", required=True, logicalTypeOptions={"minLength": 2, "maxLength": 4, "pattern": r"\S"}),
    column(
        "count", "integer", logicalTypeOptions={"minimum": 0, "exclusiveMaximum": 9, "multipleOf": 2, "format": "i8"}
    ),
    column("share", "number", logicalTypeOptions={"exclusiveMinimum": 0, "maximum": 1, "multipleOf": 0.1}),
    column("when", "date", logicalTypeOptions={"minimum": "2024-01-02"}),
    column("seen", "timestamp", logicalTypeOptions={"exclusiveMaximum": "2024-01-02T00:00:00Z"}),
    column("kind", enum=[{"value": "x"}, {"value": "y"}]),
    column("size", "integer", quality=[{"metric": "invalidValues", "mustBe": 0, "arguments": {"validValues": [1, 2]}}]),
    column(
        "name", unique=True, quality=[{"metric": "invalidValues", "mustBeLessThan": 1, "arguments": {"pattern": "^n"}}]
    ),
    column("licence"),
)
QUALITY = (
    {"metric": "rowCount", "mustBeBetween": [1, 3]},
    {"metric": "duplicateValues", "mustNotBe": 7, "arguments": {"properties": ["day"]}},
    {
        "type": "custom",
        "engine": "causeway",
        "implementation": {"metric": "quarantineShare", "mustBeLessOrEqualTo": 50},
    },
)
GX_ENTRIES = tuple(
    {"type": "custom", "engine": "greatExpectations", "implementation": {"type": name, "kwargs": kwargs}}
    for name, kwargs in (
        ("expect_column_pair_values_a_to_be_greater_than_b", {"column_A": "size", "column_B": "count"}),
        ("expect_column_values_to_be_in_set", {"column": "kind", "value_set": ["x"]}),
        ("expect_column_values_to_be_json_parseable", {"column": "content"}),
        ("expect_column_mean_to_be_between", {"column": "count", "max_value": 1}),
        ("expect_column_values_to_match_regex", {"column": "name", "regex": "^n", "mostly": 0.9}),
    )
)
GOOD: dict[str, Any] = {"key": "k", "day": "d", "content": "text", "licence": "MIT"}


@pytest.fixture(scope="module")
def contract(tmp_path_factory: pytest.TempPathFactory) -> Contract:
    terms = {"licence": {"column": "licence", "allowed": ["MIT"]}}
    return make_contract(tmp_path_factory.mktemp("c"), EVERY_RULE, quality=QUALITY, terms=terms)


def both(contract: Contract, rows: list[dict[str, Any]], docs: Path | None = None) -> tuple[Report, dict[str, int]]:
    batches = [batch(contract, rows)]
    report = validate(contract, batches, "p", SECRET, lambda _: None, lambda _: None)
    return report, run_expectations(contract, pa.Table.from_batches(batches), docs)


def test_the_suite_has_an_expectation_for_every_rule(contract: Contract) -> None:
    found = {entry.meta["rule"] for entry in suite(contract).expectations}
    assert found == {rule.name for rule in (*row_rules(contract), *batch_rules(contract))} | {DUPLICATE_KEY}


def test_expectations_and_validation_count_the_same_failing_rows(contract: Contract, tmp_path: Path) -> None:
    edges: list[dict[str, Any]] = [
        {"key": "nine\n"},
        {"key": "é"},
        {"key": None},
        {"content": "a"},
        {"content": "ééééé"},
        {"content": None},
        {"content": "\v\v"},
        {"content": "  "},
        {"count": -1},
        {"count": 9},
        {"count": 3},
        {"count": 200},
        {"share": 0.0},
        {"share": 0.3},
        {"share": 0.35},
        {"share": 1.1},
        {"when": "2024-01-01"},
        {"when": "2024-01-02"},
        {"seen": "2024-01-01T23:59:59.999999Z"},
        {"seen": "2024-01-02T00:00:00Z"},
        {"kind": "z"},
        {"kind": ""},
        {"size": 3},
        {"size": 2**53 + 1},
        {"licence": None},
        {"licence": "MIT OR GPL-3.0-only"},
        {"licence": "nonsense"},
        {"count": "many"},
        {"name": "n"},
        {"name": "n"},
        {"name": "other"},
    ]
    rows = [{**GOOD, "key": f"k{number}", **edge} for number, edge in enumerate(edges)]
    report, verdicts = both(contract, [*rows, {**GOOD, "key": "k3"}], tmp_path / "docs")
    assert agreement(report, verdicts) == []
    failed = {name for name, count in verdicts.items() if count}
    assert len(failed) >= 22
    assert report.verdict == "refused"
    pages = {path.name: path.read_text() for path in (tmp_path / "docs").rglob("*.html")}
    assert "index.html" in pages
    assert len(pages) >= 5
    assert any("content has at least 2 characters" in page for page in pages.values())
    assert not any("nonsense" in page or "ééééé" in page for page in pages.values())


@pytest.mark.parametrize("rows", [[], [GOOD], [GOOD, GOOD], [{**GOOD, "content": None}]])
def test_they_agree_on_small_and_empty_partitions(contract: Contract, rows: list[dict[str, Any]]) -> None:
    report, verdicts = both(contract, rows)
    assert agreement(report, verdicts) == []


def test_a_difference_is_told_with_both_counts(contract: Contract) -> None:
    report, verdicts = both(contract, [{**GOOD, "content": "a"}])
    assert agreement(report, {**verdicts, "content.minLength": 0}) == [
        "content.minLength: validation counts 1, expectations 0"
    ]
    assert agreement(report, {**verdicts, "rowCount": 0}) == ["rowCount: validation counts 1, expectations 0"]


def test_a_table_that_is_not_of_the_source_is_refused(contract: Contract) -> None:
    with pytest.raises(DataRefused, match="_source_file"):
        run_expectations(contract, pa.table({"key": ["k"]}), None)


PATTERNS = [
    r"^\w+$",
    r"\S",
    r"[^\s$]",
    r"a$|b\z",
    r"^[$\d]*$",
    r"\bé",
    r"(?i)É",
    r"(?m)^a$",
    r"[[:alpha:]]",
    r"\p{L}",
    r"[^]$]",
    r".",
]


@given(st.sampled_from(PATTERNS), st.text(st.sampled_from("abÉé1$ \n\v\t\r_"), max_size=6))
def test_patterns_mean_in_python_what_they_mean_in_re2(pattern: str, text: str) -> None:
    assert matches(pattern, text) == pc.match_substring_regex(pa.array([text]), pattern)[0].as_py()


def test_expectations_in_the_contract_are_counted_alike(tmp_path: Path) -> None:
    contract = make_contract(tmp_path, EVERY_RULE, quality=GX_ENTRIES)
    edges: list[dict[str, Any]] = [{"size": 2, "count": 2}, {"size": 2}, {"kind": "y"}, {"content": "1"}, {"name": "o"}]
    rows = [{**GOOD, "key": f"k{number}", "content": "12", **edge} for number, edge in enumerate(edges)]
    report, verdicts = both(contract, rows)
    assert agreement(report, verdicts) == []
    assert verdicts["expect_column_pair_values_a_to_be_greater_than_b"] == 2
    assert verdicts["name.expect_column_values_to_match_regex"] == 1
    assert verdicts["count.expect_column_mean_to_be_between"] == 1  # no value is left, so there is no mean
