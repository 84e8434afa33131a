"""Contracts to and from other forms: JSON schema, Great Expectations, Parquet, Frictionless."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_contracts.contract import Contract, load_contract
from data_contracts.contracting.document import check
from data_contracts.contracting.exporting import gx_suite, json_schema
from data_contracts.contracting.importing import Imported, import_contract
from data_contracts.errors import ContractError
from data_contracts.rules import batch_rules, row_rules
from tests.data_contracts.making import column, make_contract

COLUMNS = (
    column("key", primaryKey=True, logicalTypeOptions={"pattern": "^[a-z]+$", "maxLength": 8}),
    column("day", partitioned=True),
    column("content", required=True, logicalTypeOptions={"minLength": 3}),
    column("kind", enum=[{"value": "a"}, {"value": "b"}]),
    column("count", "integer", logicalTypeOptions={"minimum": 0, "exclusiveMaximum": 10}),
    column("seen", "date", logicalTypeOptions={"minimum": "2026-01-01"}),
    column("ratio", "number", quality=[{"metric": "nullValues", "mustBeLessThan": 5, "unit": "percent"}]),
)
QUALITY = [
    {"metric": "rowCount", "mustBeBetween": [1, 9]},
    {
        "type": "custom",
        "engine": "greatExpectations",
        "implementation": {"type": "expect_column_mean_to_be_between", "kwargs": {"column": "ratio", "max_value": 1}},
    },
]


@pytest.fixture
def contract(tmp_path: Path) -> Contract:
    return make_contract(tmp_path / "made", COLUMNS, quality=QUALITY)


def decided(found: Imported, folder: Path) -> Contract:
    """The imported contract with its terms decided."""
    text = found.text
    for old, new in (
        ("expression: TODO", "expression: CC0-1.0"),
        ("permitted: [TODO]", "permitted: [pre-training]"),
        ("storage: [TODO]", "storage: [EU]"),
        ("processing: [TODO]", "processing: [EU]"),
        ("share: TODO", "share: 0.1"),
        ("key: TODO", "key: x/1"),
        ("text: TODO", "text: content"),
    ):
        text = text.replace(old, new)
    path = folder / "imported.yaml"
    path.write_text(text)
    return load_contract(path)


GOOD = {"key": "abc", "day": "d", "content": "text", "kind": "a", "count": 3, "seen": "2026-03-01", "ratio": 0.5}


@pytest.mark.parametrize(
    ("change", "valid"),
    [
        ({}, True),
        ({"kind": None, "count": None}, True),
        ({"content": None}, False),
        ({"content": "ab"}, False),
        ({"key": "ABC"}, False),
        ({"kind": "c"}, False),
        ({"count": 10}, False),
        ({"count": 9}, True),
        ({"count": -1}, False),
        ({"count": 1.5}, False),
    ],
)
def test_the_json_schema_accepts_what_the_row_rules_accept(
    contract: Contract, change: dict[str, Any], valid: bool
) -> None:
    schema = json_schema(contract).document
    jsonschema.Draft202012Validator.check_schema(schema)
    assert jsonschema.Draft202012Validator(schema).is_valid({**GOOD, **change}) is valid


def test_what_a_json_schema_cannot_say_is_noted(contract: Contract) -> None:
    notes = " ".join(json_schema(contract).notes)
    for rule in ("primary key key", "seen.minimum", "rowCount", "ratio.nullValues", "expect_column_mean"):
        assert rule in notes


def test_every_rule_is_in_the_suite_or_in_the_notes(contract: Contract) -> None:
    made = gx_suite(contract)
    named = {entry["meta"]["rule"] for entry in made.document["expectations"]}
    noted = {note.split(": ", 1)[0] for note in made.notes}
    rules = {rule.name for rule in row_rules(contract) if rule.kind not in ("decodes", "type")}
    assert rules | {rule.name for rule in batch_rules(contract)} <= named | noted
    assert noted == {"ratio.nullValues", "seen.minimum"}


def test_great_expectations_runs_the_suite_as_it_is(contract: Contract) -> None:
    import great_expectations as gx

    good = {**GOOD, "seen": pd.Timestamp("2026-03-01")}
    frame = pd.DataFrame([good, {**good, "key": "bcd", "content": "ab"}, {**good, "key": "bcd", "kind": "c"}])
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    suite = context.suites.add(gx.ExpectationSuite(**gx_suite(contract).document))
    batch = context.data_sources.add_pandas("p").add_dataframe_asset("a").add_batch_definition_whole_dataframe("b")
    found = batch.get_batch({"dataframe": frame}).validate(suite)
    failed = {r.expectation_config.meta["rule"] for r in found.results if not r.success}
    assert failed == {"content.minLength", "kind.enum", "primaryKey"}


def test_a_suite_comes_back_as_the_clauses_it_was_made_of(contract: Contract, tmp_path: Path) -> None:
    path = tmp_path / "suite.json"
    path.write_text(json.dumps(gx_suite(contract).document))
    back = decided(import_contract(path), tmp_path)
    assert back.property("content").options == {"minLength": 3} and back.property("content").required
    assert back.property("key").options == {"pattern": "^[a-z]+$", "maxLength": 8} and back.property("key").unique
    assert back.property("count").options == {"minimum": 0, "exclusiveMaximum": 10}
    kinds = {rule.kind for rule in batch_rules(back)}
    assert {"rowCount", "expectation", "uniqueness"} <= kinds
    assert back.property("ratio").logical_type == "number"


def test_a_suite_of_an_older_form_and_of_unknown_expectations_says_what_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "suite.json"
    entries = [
        {"expectation_type": "expect_column_to_exist", "kwargs": {"column": "content"}},
        {"expectation_type": "expect_column_values_to_be_of_type", "kwargs": {"column": "n", "type_": "int64"}},
        {
            "expectation_type": "expect_column_values_to_be_between",
            "kwargs": {"column": "d", "min_value": "2026-01-01"},
        },
        {"expectation_type": "expect_column_values_to_be_fun", "kwargs": {"column": "n"}},
        {"expectation_type": "expect_column_values_to_be_unique", "kwargs": {"column": "n", "mostly": 0.9}},
    ]
    path.write_text(json.dumps({"expectation_suite_name": "old", "expectations": entries}))
    found = import_contract(path)
    assert found.form == "gx" and "expect_column_values_to_be_fun: there is no such expectation here" in found.notes[0]
    back = decided(found, tmp_path)
    assert back.property("d").logical_type == "date" and back.property("d").options == {"minimum": "2026-01-01"}
    assert back.name == "old" and back.property("n").logical_type == "integer"
    assert [rule.arguments["mostly"] for rule in batch_rules(back) if rule.kind == "expectation"] == [0.9]


def test_a_json_schema_comes_back_as_it_was(contract: Contract, tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    path.write_text(json.dumps(json_schema(contract).document))
    found = import_contract(path)
    back = decided(found, tmp_path)
    assert found.form == "json-schema" and not found.notes
    for prop in contract.properties:
        assert back.property(prop.name).logical_type == prop.logical_type
        assert back.property(prop.name).required is prop.required
    assert back.property("count").options == contract.property("count").options


def test_what_is_nested_in_a_json_schema_is_noted(tmp_path: Path) -> None:
    path = tmp_path / "schema.json"
    schema = {"properties": {"a": {"type": "object"}, "b": {"type": ["string", "null"]}}, "oneOf": [{}]}
    path.write_text(json.dumps(schema))
    found = import_contract(path)
    assert found.notes == ("property a of type object", "oneOf of the schema") and found.columns == 1


def test_a_parquet_schema_gives_types_and_what_is_required(tmp_path: Path) -> None:
    path = tmp_path / "data.parquet"
    schema = pa.schema(
        [
            pa.field("content", pa.string(), nullable=False),
            pa.field("n", pa.int16()),
            pa.field("x", pa.float32()),
            pa.field("at", pa.timestamp("us")),
            pa.field("tags", pa.list_(pa.string())),
        ]
    )
    pq.write_table(schema.empty_table(), path)
    found = import_contract(path)
    assert found.notes == ("column tags of type list<element: string>: a contract has plain columns",)
    back = decided(found, tmp_path)
    assert [p.logical_type for p in back.properties] == ["string", "integer", "number", "timestamp", "string"]
    assert back.property("content").required and not back.property("n").required
    assert back.property("n").options == {"format": "i16"} and back.reader["format"] == "parquet"


PACKAGE: dict[str, Any] = {
    "name": "orders",
    "licenses": [{"name": "ODC-PDDL-1.0"}],
    "resources": [
        {
            "name": "orders",
            "path": "orders.csv",
            "encoding": "cp1252",
            "dialect": {"delimiter": ";"},
            "schema": {
                "missingValues": ["", "NA"],
                "primaryKey": ["no", "line"],
                "fields": [
                    {"name": "no", "type": "string", "constraints": {"required": True, "pattern": "[0-9]+"}},
                    {"name": "line", "type": "integer", "constraints": {"minimum": 1}},
                    {"name": "content", "type": "string", "description": "what was ordered"},
                    {"name": "when", "type": "datetime"},
                    {"name": "shape", "type": "geojson"},
                ],
            },
        },
        {"name": "customers", "path": "customers.csv", "schema": {"fields": [{"name": "content", "type": "string"}]}},
    ],
}


def test_a_frictionless_package_gives_columns_keys_and_reader(tmp_path: Path) -> None:
    path = tmp_path / "datapackage.json"
    path.write_text(json.dumps(PACKAGE))
    found = import_contract(path)
    back = decided(found, tmp_path)
    assert back.primary_key == ("no", "line") and back.property("no").options == {"pattern": "^(?:[0-9]+)$"}
    assert back.property("line").options == {"minimum": 1} and back.property("when").logical_type == "timestamp"
    assert {k: back.reader[k] for k in ("format", "files", "encoding", "delimiter", "nulls")} == {
        "format": "csv",
        "files": "orders.csv",
        "encoding": "cp1252",
        "delimiter": ";",
        "nulls": ["", "NA"],
    }
    assert any("licence 'ODC-PDDL-1.0'" in note for note in found.notes), "a licence is told, never taken over"
    assert any("field shape of type geojson" in note for note in found.notes)
    other = import_contract(path, resource="customers")
    assert other.columns == 1
    with pytest.raises(ContractError, match=r"no table 'customer' \(perhaps customers\?\)"):
        import_contract(path, resource="customer")


@pytest.mark.parametrize("form", ["gx", "json-schema", "frictionless", "parquet"])
def test_terms_are_never_taken_over(contract: Contract, tmp_path: Path, form: str) -> None:
    path = tmp_path / ("data.parquet" if form == "parquet" else f"{form}.json")
    if form == "parquet":
        pq.write_table(pa.table({"content": ["a"]}), path)
    else:
        made = {
            "gx": gx_suite(contract).document,
            "json-schema": json_schema(contract).document,
            "frictionless": PACKAGE,
        }
        path.write_text(json.dumps(made[form]))
    out = tmp_path / "out.yaml"
    out.write_text(import_contract(path).text)
    faults = check(out).faults
    assert faults and all("TODO is a placeholder" in fault for fault in faults)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[]", "neither JSON schema nor GX suite"),
        ("{", "no JSON"),
        ('{"properties": {}}', "describes no column"),
        ('{"resources": [{"name": "a"}]}', "no resource has a schema"),
    ],
)
def test_what_describes_nothing_is_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "data.json"
    path.write_text(text)
    with pytest.raises(ContractError, match=says):
        import_contract(path)
