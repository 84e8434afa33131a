"""What NULL means to every kind of rule, as docs/rules.md says; and that the page has every kind."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from ruamel.yaml import YAML

from data_contracts.batchchecks import BatchCheck
from data_contracts.checks import KERNELS
from data_contracts.contract import Contract
from data_contracts.errors import ContractError
from data_contracts.rules import BatchRule, RowRule, batch_rules, failing, row_rules
from data_contracts.ruling.causeway import DRIFT
from data_contracts.ruling.context import RuleContext
from data_contracts.ruling.expecting import EMPTY, EXPECTATIONS, NEED_SQL
from data_contracts.ruling.formats import FREE_FORMATS, NUMBER_FORMATS, TEXT_FORMATS
from data_contracts.ruling.kinds import BATCH_KINDS, ROW_KINDS
from data_contracts.ruling.sampling import PRESETS
from data_contracts.ruling.texts import ARGUMENTS
from tests.data_contracts.making import column, make_contract

PAGE = Path(__file__).parents[2] / "docs" / "rules.md"


def ours(metric: str, **more: Any) -> dict[str, Any]:
    return {"quality": [{"type": "custom", "engine": "causeway", "implementation": {"metric": metric, **more}}]}


def gx(name: str, **kwargs: Any) -> dict[str, Any]:
    implementation = {"type": name, "kwargs": kwargs}
    return {"quality": [{"type": "custom", "engine": "greatExpectations", "implementation": implementation}]}


def options(**given: Any) -> dict[str, Any]:
    return {"logicalTypeOptions": given}


def leads(**more: Any) -> dict[str, Any]:
    return {"relationships": [{"to": "o.id", **more}]}


PEOPLE = [{"property": "dataset", "vendor": "causeway", "value": "test/people"}]
ROWS: list[tuple[str, str, dict[str, Any], bool]] = [
    ("required", "string", {"required": True}, True),
    ("licence", "string", {}, True),
    ("type", "integer", {}, False),
    ("minLength", "string", options(minLength=1), False),
    ("maxLength", "string", options(maxLength=1), False),
    ("pattern", "string", options(pattern="a"), False),
    ("minimum", "integer", options(minimum=1), False),
    ("maximum", "integer", options(maximum=1), False),
    ("exclusiveMinimum", "number", options(exclusiveMinimum=1), False),
    ("exclusiveMaximum", "date", options(exclusiveMaximum="2024-01-01"), False),
    ("multipleOf", "integer", options(multipleOf=2), False),
    ("enum", "string", {"enum": [{"value": "a"}]}, False),
    (
        "validValues",
        "integer",
        {"quality": [{"metric": "invalidValues", "mustBe": 0, "arguments": {"validValues": [1]}}]},
        False,
    ),
    ("format", "string", options(format="email"), False),
    ("precision", "timestamp", options(format="yyyy"), False),
    ("foreignKey", "string", leads(customProperties=PEOPLE), False),
    ("expectation", "string", gx("expect_column_values_to_be_in_set", value_set=["a"]), False),
    ("expectation", "string", gx("expect_column_values_to_not_be_null"), True),
    ("expectation", "string", gx("expect_column_values_to_be_null"), False),
    ("expectation", "string", gx("expect_column_values_to_not_match_regex", regex="a"), False),
    ("expectation", "string", gx("expect_column_values_to_be_json_parseable"), False),
    ("mojibake", "string", ours("mojibake"), False),
    ("controlCharacters", "string", ours("controlCharacters"), False),
    ("lengthInCharacters", "string", ours("lengthInCharacters", minimum=1), False),
    ("lengthInTokens", "string", ours("lengthInTokens", minimum=1), False),
    ("language", "string", ours("language", expected=["en"]), False),
    ("repetition", "string", ours("repetition", minWords=0), False),
    ("nonTextShare", "string", ours("nonTextShare", maximum=0), False),
    ("personalData", "string", ours("personalData"), False),
    ("secrets", "string", ours("secrets"), False),
]
FEW = {"mustBeLessThan": 9}
# Over the values 'a', 'a', NULL, NULL (partition before: 'a', NULL): the figure that is compared.
BATCHES: list[tuple[str, dict[str, Any], float]] = [
    ("rowCount", {"object": [{"metric": "rowCount", **FEW}]}, 4),
    ("quarantineShare", {"object": ours("quarantineShare", **FEW)["quality"]}, 0),
    ("duplicateValues", {"quality": [{"metric": "duplicateValues", **FEW}]}, 1),
    ("uniqueness", {"unique": True}, 1),
    ("nullValues", {"quality": [{"metric": "nullValues", **FEW}]}, 2),
    ("missingValues", {"quality": [{"metric": "missingValues", "arguments": {"missingValues": ["b"]}, **FEW}]}, 2),
    ("failingRows", {"quality": [{"metric": "invalidValues", "arguments": {"validValues": ["b"]}, **FEW}]}, 2),
    ("foreignKey", leads(to="notes.id"), 2),
    ("sql", {"quality": [{"type": "sql", "query": "SELECT count({property}) FROM {object}", **FEW}]}, 2),
    ("mostly", gx("expect_column_values_to_be_in_set", value_set=["a"], mostly=1.0), 0),
    ("mostly", gx("expect_column_values_to_not_be_null", mostly=0.5), 2),
    ("expectation", gx("expect_column_values_to_be_unique"), 2),
    ("expectation", gx("expect_column_unique_value_count_to_be_between", max_value=9), 1),
    ("expectation", gx("expect_column_distinct_values_to_be_in_set", value_set=["a"]), 0),
    ("psi", ours("psi", **FEW), 0),
    ("newCategories", ours("newCategories", **FEW), 0),
    ("nullShareChange", ours("nullShareChange", **FEW), 0),
    ("rowCountChange", {"object": ours("rowCountChange", mustBeLessThan=101)["quality"]}, 100),
    ("acceptanceSampling", {"object": ours("acceptanceSampling", records=1, accept=1)["quality"]}, 0),
]


def contract_of(folder: Path, logical: str, more: dict[str, Any], licence: bool = False) -> Contract:
    of_object = more.get("object", ())
    own = {key: value for key, value in more.items() if key != "object"}
    columns = [column("day", partitioned=True), column("content"), column("id"), column("x", logical, **own)]
    terms = {"licence": {"column": "x", "allowed": ["MIT"]}} if licence else None
    return make_contract(folder, columns, quality=of_object, terms=terms)


def references(_dataset: str, _columns: Sequence[str]) -> Iterator[pa.Table]:
    yield pa.table({"id": ["a"]})


def previous(columns: Sequence[str]) -> tuple[str, pa.Table]:
    return "before", pa.table({name: pa.array(["a", None], pa.string()) for name in columns or ["record_id"]})


CONTEXT = RuleContext(references=references, previous=previous, count_tokens=lambda texts: [0] * len(texts))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("kind", "logical", "more", "fails"), ROWS)
def test_null_in_a_row(tmp_path: Path, kind: str, logical: str, more: dict[str, Any], fails: bool) -> None:
    contract = contract_of(tmp_path, logical, more, licence=kind == "licence")
    (rule,) = (rule for rule in row_rules(contract, CONTEXT) if (rule.kind, rule.column) == (kind, "x"))
    types = {"integer": pa.int64(), "number": pa.float64(), "date": pa.date32(), "timestamp": pa.timestamp("us", "UTC")}
    nulls = pa.record_batch({"x": pa.nulls(2, types.get(logical, pa.string()))})
    assert failing(rule, nulls).to_pylist() == [fails, fails]


@pytest.mark.parametrize(("kind", "more", "observed"), BATCHES)
def test_null_in_a_batch(tmp_path: Path, kind: str, more: dict[str, Any], observed: float) -> None:
    if kind == "mostly" and "mostly" in str(more):
        more["quality"][0]["severity"] = "warning"
    contract = contract_of(tmp_path, "string", more)
    (rule,) = (rule for rule in batch_rules(contract) if rule.kind == kind)
    check = BatchCheck(rule, contract, CONTEXT)
    nothing = pa.nulls(4, pa.string())
    known = {"x": ["a", "a", None, None], "id": ["b", None, None, "c"], "record_id": ["1", "2", "3", "4"]}
    check.add(pa.table({**known, "day": nothing, "content": nothing}))
    assert check.judge(4, 4).observed == observed


def test_every_kind_is_tried_here() -> None:
    assert {kind for kind, *_ in ROWS} == set(ROW_KINDS) - {"decodes"}  # _fault is NULL where nothing is wrong
    assert {kind for kind, *_ in BATCHES} == set(BATCH_KINDS)


def test_the_kinds_are_those_that_can_be_run(tmp_path: Path) -> None:
    assert set(KERNELS) < set(ROW_KINDS)
    contract = contract_of(tmp_path, "string", {})
    with pytest.raises(ContractError, match="is no kind of row rule"):
        failing(RowRule("r", "x", "nonsense", {}, ""), pa.record_batch({"x": ["a"]}))
    with pytest.raises(ContractError, match="is no kind of batch rule"):
        BatchCheck(BatchRule("r", "nonsense", {}, "", "error"), contract)


def test_the_page_has_every_kind_metric_format_and_expectation() -> None:
    words = re.sub(r"```.*?```", "", PAGE.read_text("utf-8"), flags=re.DOTALL)
    told = set(re.findall(r"`([^`]+)`", words))
    names = {*ROW_KINDS, *BATCH_KINDS, *ARGUMENTS, *DRIFT, *EXPECTATIONS, *NEED_SQL, *EMPTY, *TEXT_FORMATS}
    names |= {*NUMBER_FORMATS, *FREE_FORMATS["string"], *FREE_FORMATS["number"]}
    names |= {*PRESETS, "records", "share", "accept", "seed", "show", "preset"}
    names |= {argument for known in ARGUMENTS.values() for argument in known}
    assert sorted(names - told) == []


def test_every_example_of_the_page_loads(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    examples = [entry for block in blocks for entry in YAML(typ="safe", pure=True).load(block)]
    contract = make_contract(tmp_path, [column("day", partitioned=True), column("content"), *examples])
    assert len(examples) == 5
    assert len([*row_rules(contract), *batch_rules(contract)]) == 13
