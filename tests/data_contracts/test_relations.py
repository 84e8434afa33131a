"""Foreign keys: into another data set a row's verdict, into the same partition a batch's."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from data_contracts.batchchecks import BatchCheck
from data_contracts.catalog.store import Store
from data_contracts.catalog.tables import Tables
from data_contracts.contract import Contract
from data_contracts.errors import ContractError, DataRefused
from data_contracts.ingest import IngestResult, ingest_partition
from data_contracts.oracle import ask_oracle
from data_contracts.rules import RowRule, batch_rules, failing, row_rules
from data_contracts.ruling.context import RuleContext
from data_contracts.sources import open_source
from tests.data_contracts.making import SECRET, column, make_contract, write_lines

NOW = dt.datetime(2026, 5, 4, tzinfo=dt.UTC)
READER = {"format": "jsonl", "partition": {"from": "path", "pattern": r"([^/]+)\.jsonl$"}}


def leads(to: Any, dataset: str | None = "test/people", **more: Any) -> dict[str, Any]:
    named = [{"property": "dataset", "vendor": "causeway", "value": dataset}]
    return {"to": to, **({"customProperties": named} if dataset else {}), **more}


def contract_of(folder: Path, *relations: dict[str, Any], **more: Any) -> Contract:
    columns = [
        column("day", partitioned=True),
        column("id", "integer", primaryKey=True),
        column("person", "integer", relationships=list(relations)),
        column("content"),
    ]
    return make_contract(folder, columns, reader=READER, id="test/visits", **more)


def known(**columns: list[Any]) -> RuleContext:
    def references(dataset: str, names: Sequence[str]) -> Iterator[pa.Table]:
        assert dataset == "test/people"
        yield pa.table(columns).select(list(names))

    return RuleContext(references=references)


def key_rule(contract: Contract, context: RuleContext) -> RowRule:
    (rule,) = (rule for rule in row_rules(contract, context) if rule.kind == "foreignKey")
    return rule


@pytest.mark.parametrize(
    "to", ["people.id", "people.yaml#/schema/people/properties/id", "/schema/people/properties/id"]
)
def test_a_key_must_stand_in_the_other_data_set_and_null_leads_nowhere(tmp_path: Path, to: str) -> None:
    rule = key_rule(contract_of(tmp_path, leads(to)), known(id=[1, 2, None]))
    assert rule.name == "person.foreignKey"
    batch = pa.record_batch({"person": pa.array([1, 3, None, 2, 3], pa.int64())})
    assert failing(rule, batch).to_pylist() == [False, True, False, False, True]
    assert failing(rule, batch.slice(0, 0)).to_pylist() == []


def test_keys_are_compared_as_values_of_this_column(tmp_path: Path) -> None:
    rule = key_rule(contract_of(tmp_path, leads("people.id")), known(id=["1", "2", "three"]))
    assert failing(rule, pa.record_batch({"person": pa.array([1, 3], pa.int64())})).to_pylist() == [False, True]


def test_a_key_of_two_columns_is_one_key(tmp_path: Path) -> None:
    columns = [column("day", partitioned=True), column("a", "integer"), column("b"), column("content")]
    document = make_contract(tmp_path, columns)
    table = {**document.document["schema"][0]}
    relation = leads(["people.x", "people.y"], **{"from": ["notes.a", "notes.b"]})
    table["relationships"] = [relation]
    contract = _with(tmp_path, document, table)
    rule = key_rule(contract, known(x=[1, 2], y=["p", "q"]))
    assert rule.name == "a+b.foreignKey"
    batch = pa.record_batch({"a": pa.array([1, 1, 2, None], pa.int64()), "b": ["p", "q", "q", "p"]})
    assert failing(rule, batch).to_pylist() == [False, True, False, False]


def _with(folder: Path, contract: Contract, table: dict[str, Any]) -> Contract:
    import json

    from data_contracts.contract import load_contract

    path = folder / "changed.yaml"
    path.write_text(json.dumps({**contract.document, "schema": [table]}))
    return load_contract(path)


def test_without_the_other_rows_nothing_is_judged(tmp_path: Path) -> None:
    rule = key_rule(contract_of(tmp_path, leads("people.id")), RuleContext())
    with pytest.raises(DataRefused, match="the rows of test/people are not at hand"):
        failing(rule, pa.record_batch({"person": pa.array([1], pa.int64())}))
    lacking = key_rule(contract_of(tmp_path, leads("people.id")), known(id=[1]))
    object.__setattr__(
        lacking.arguments["known"], "_ask", (lambda *_: [pa.table({"x": [1]})], "test/people", ["id"], ["integer"])
    )
    with pytest.raises(DataRefused, match="has no column id"):
        failing(lacking, pa.record_batch({"person": pa.array([1], pa.int64())}))


def test_a_key_into_the_same_object_is_judged_when_the_partition_is_whole(tmp_path: Path) -> None:
    contract = contract_of(tmp_path, leads("notes.id", None))
    (rule,) = batch_rules(contract)
    check = BatchCheck(rule, contract)
    for ids, people in (([1, 2], [3, None]), ([3, 4], [1, 9])):
        check.add(pa.table({"id": pa.array(ids, pa.int64()), "person": pa.array(people, pa.int64())}))
    result = check.judge(4, 4)
    assert (rule.name, result.passed, result.observed) == ("person.foreignKey", False, 1)


@pytest.mark.parametrize(
    ("relation", "says"),
    [
        (leads("people.id", None), "leads to another data set, and does not say which"),
        (leads("people.id", "Not An Id"), "does not say which"),
        (leads("notes.idd", None), "there is no column 'idd' (perhaps id"),
        (leads(["people.a", "people.b"]), "an end cannot be read"),
    ],
)
def test_a_relation_that_cannot_be_checked_is_a_fault(tmp_path: Path, relation: dict[str, Any], says: str) -> None:
    with pytest.raises(ContractError) as caught:
        contract_of(tmp_path, relation)
    assert says in str(caught.value)


def ingest(folder: Path, contract: Contract, others: Any = None) -> IngestResult:
    source = open_source(contract, str(folder))
    (partition,) = source.partitions()
    tables = Tables(Store.open(folder.parent / "store"), contract.slug)
    return ingest_partition(contract, source, partition, tables, SECRET, NOW, others=others)


@pytest.mark.filterwarnings("ignore")
def test_rows_whose_key_is_unknown_go_to_quarantine_and_great_expectations_agrees(tmp_path: Path) -> None:
    columns = [column("day", partitioned=True), column("id", "integer", primaryKey=True), column("content")]
    people = make_contract(tmp_path / "c1", columns, reader=READER, id="test/people")
    write_lines(tmp_path / "people" / "a.jsonl", [{"id": n, "content": "text"} for n in (1, 2)])
    assert ingest(tmp_path / "people", people).outcome == "published"
    visits = contract_of(tmp_path / "c2", leads("people.id"))
    rows = [{"id": n, "person": person, "content": "text"} for n, person in enumerate((1, 2, 3, None))]
    write_lines(tmp_path / "visits" / "a.jsonl", rows)

    def others(dataset: str) -> Tables:
        return Tables(Store.open(tmp_path / "store"), dataset.replace("/", "--"))

    with pytest.raises(DataRefused, match="not at hand"):
        ingest(tmp_path / "visits", visits)
    result = ingest(tmp_path / "visits", visits, others)
    assert (result.outcome, dict(result.report.reasons)) == ("published", {"person.foreignKey": 1})
    answer, _ = ask_oracle(visits, open_source(visits, str(tmp_path / "visits")), others("test/visits"), SECRET, others)
    assert answer.differences == () and answer.verdicts["person.foreignKey"] == 1
