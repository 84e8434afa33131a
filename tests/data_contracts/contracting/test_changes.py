"""What changed between two versions of a contract, and whom it breaks."""
# ruff: noqa: E501

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import data_contracts
from data_contracts.contracting.changes import Change, changes, next_version
from data_contracts.contracting.document import Document, read_document
from tests.data_contracts.making import column, make_contract

COLUMNS = (
    column("key", primaryKey=True),
    column("day", partitioned=True),
    column("content", required=True, logicalTypeOptions={"minLength": 3, "maxLength": 100}),
    column("kind", enum=[{"value": "a"}, {"value": "b"}]),
)
QUALITY = [{"metric": "rowCount", "mustBeGreaterThan": 0}]
Edit = Callable[[dict[str, Any]], Any]


@pytest.fixture
def compare(tmp_path: Path) -> Callable[[Edit], list[Change]]:
    made = make_contract(tmp_path / "old", COLUMNS, quality=QUALITY)

    def found(edit: Edit) -> list[Change]:
        document = copy.deepcopy(dict(made.document))
        document["slaProperties"] = [{"property": "frequency", "value": "daily"}]
        old = write(tmp_path / "a.yaml", document)
        edit(document)
        return changes(old, write(tmp_path / "b.yaml", document))

    return found


def write(path: Path, document: dict[str, Any]) -> Document:
    path.write_text(json.dumps(document))
    return read_document(path)


def properties(d: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = d["schema"][0]["properties"]
    return found


def terms(d: dict[str, Any], **more: Any) -> None:
    d["customProperties"][0]["value"].update(more)


def place(*zones: str) -> dict[str, list[str]]:
    return {"storage": list(zones), "processing": ["anywhere"]}


# fmt: off
CASES: dict[str, tuple[Edit, str, str, tuple[str, ...]]] = {
    "a property goes": (lambda d: properties(d).pop(3), "schema[notes].properties[kind]", "gone", ("consumers",)),
    "an optional one comes": (lambda d: properties(d).append(column("more")), "schema[notes].properties[more]", "new", ()),
    "a required one comes": (lambda d: properties(d).append(column("more", required=True)), "schema[notes].properties[more]", "required", ("producers",)),
    "a type changes": (lambda d: properties(d)[1].update(logicalType="date"), "schema[notes].properties[day].logicalType", "string became date", ("producers", "consumers")),
    "required is asked": (lambda d: properties(d)[3].update(required=True), "schema[notes].properties[kind].required", "false became true", ("producers",)),
    "required is given up": (lambda d: properties(d)[2].pop("required"), "schema[notes].properties[content].required", "true became false", ("consumers",)),
    "a longer minimum": (lambda d: properties(d)[2]["logicalTypeOptions"].update(minLength=5), "schema[notes].properties[content].logicalTypeOptions.minLength", "3 became 5", ("producers",)),
    "a shorter minimum": (lambda d: properties(d)[2]["logicalTypeOptions"].update(minLength=1), "schema[notes].properties[content].logicalTypeOptions.minLength", "3 became 1", ("consumers",)),
    "a longer maximum": (lambda d: properties(d)[2]["logicalTypeOptions"].update(maxLength=200), "schema[notes].properties[content].logicalTypeOptions.maxLength", "100 became 200", ("consumers",)),
    "no maximum": (lambda d: properties(d)[2]["logicalTypeOptions"].pop("maxLength"), "schema[notes].properties[content].logicalTypeOptions.maxLength", "gone: 100", ("consumers",)),
    "a pattern": (lambda d: properties(d)[2]["logicalTypeOptions"].update(pattern="x"), "schema[notes].properties[content].logicalTypeOptions.pattern", "new: x", ("producers",)),
    "a value less": (lambda d: properties(d)[3]["enum"].pop(), "schema[notes].properties[kind].enum", "no longer allowed", ("producers",)),
    "a value more": (lambda d: properties(d)[3]["enum"].append({"value": "c"}), "schema[notes].properties[kind].enum", "also allowed", ("consumers",)),
    "another physical name": (lambda d: properties(d)[3].update(physicalName="k"), "schema[notes].properties[kind].physicalName", "new: k", ("producers",)),
    "a classification": (lambda d: properties(d)[3].update(classification="person"), "schema[notes].properties[kind].classification", "person", ("terms",)),
    "a description": (lambda d: properties(d)[3].update(description="words"), "schema[notes].properties[kind].description", "new: words", ()),
    "a rule goes": (lambda d: d["schema"][0].pop("quality"), "schema[notes].quality[rowCount]", "gone", ("consumers",)),
    "a rule warns only": (lambda d: d["schema"][0]["quality"][0].update(severity="warning"), "schema[notes].quality[rowCount]", "warning", ("consumers",)),
    "a rule asks for more": (lambda d: d["schema"][0]["quality"][0].update(mustBeGreaterThan=9), "schema[notes].quality[rowCount]", "9", ("producers", "consumers")),
    "a rule comes": (lambda d: d["schema"][0]["quality"].append({"metric": "duplicateValues", "mustBe": 0}), "schema[notes].quality[duplicateValues]", "a new rule", ("producers",)),
    "a warning comes": (lambda d: d["schema"][0]["quality"].append({"metric": "duplicateValues", "mustBe": 0, "severity": "warning"}), "schema[notes].quality[duplicateValues]", "a new rule", ()),
    "data comes less often": (lambda d: d["slaProperties"][0].update(value="weekly"), "slaProperties[frequency]", "daily became weekly", ("consumers",)),
    "data comes more often": (lambda d: d["slaProperties"][0].update(value="hourly"), "slaProperties[frequency]", "daily became hourly", ("producers",)),
    "another reader": (lambda d: d["customProperties"][1]["value"].update(format="csv"), "reader", "csv", ("producers",)),
    "another id": (lambda d: d.update(id="test/other"), "id", "another data set", ("producers", "consumers")),
    "a use less": (lambda d: terms(d, purposes={"permitted": ["research pre-training"]}), "trainingTerms.purposes", "no longer permitted: commercial pre-training", ("terms",)),
    "a use more": (lambda d: terms(d, purposes={"permitted": ["pre-training", "evaluation"]}), "trainingTerms.purposes", "newly permitted: commercial evaluation, research evaluation", ()),
    "the same uses in other words": (lambda d: terms(d, purposes={"permitted": ["research pre-training", "commercial pre-training"]}), "", "", ()),
    "fewer places": (lambda d: terms(d, residency=place("EU", "US")), "trainingTerms.residency.storage", "no longer permitted in AD, AE", ("terms",)),
    "an earlier end": (lambda d: terms(d, validUntil="2030-01-01"), "trainingTerms.validUntil", "no day became 2030-01-01", ("terms",)),
    "updates stay": (lambda d: terms(d, derivedUpdates="restricted"), "trainingTerms.derivedUpdates", "no longer leave", ("terms",)),
    "another licence": (lambda d: terms(d, licence={"expression": "MIT"}), "trainingTerms.licence", "MIT", ("terms",)),
    "another held-out set": (lambda d: terms(d, heldOut={"share": 0.25, "key": "other"}), "trainingTerms.heldOut", "held out", ("terms",)),
    "a credit": (lambda d: terms(d, attribution="A"), "trainingTerms.attribution", "A", ()),
    "no terms": (lambda d: d["customProperties"].pop(0), "trainingTerms", "gone", ("terms",)),
    "a tag": (lambda d: d.update(tags=["x"]), "tags", "new", ()),
}
# fmt: on


@pytest.mark.parametrize("name", CASES)
def test_a_change_says_where_and_whom_it_breaks(compare: Callable[[Edit], list[Change]], name: str) -> None:
    edit, path, words, breaks = CASES[name]
    found = compare(edit)
    if not path:
        assert found == []
        return
    chosen = [change for change in found if change.path == path]
    assert len(chosen) == 1, found
    assert words in chosen[0].what and chosen[0].breaks == breaks
    assert found == chosen


def test_a_contract_does_not_differ_from_itself_written_otherwise(compare: Callable[[Edit], list[Change]]) -> None:
    assert compare(lambda d: properties(d)[3].update(logicalType="string")) == []


def test_more_in_terms_of_format_2_is_compared(compare: Callable[[Edit], list[Change]]) -> None:
    found = compare(
        lambda d: terms(
            d,
            format=2,
            retention={"period": "P1Y", "then": "delete"},
            residency={**place("anywhere"), "neverIn": ["US"]},
            legalBasis={"basis": "consent", "reference": "r"},
        )
    )
    assert {(change.path, change.breaks) for change in found} == {
        ("trainingTerms.format", ()),
        ("trainingTerms.retention", ("terms",)),
        ("trainingTerms.residency.storage", ("terms",)),
        ("trainingTerms.residency.processing", ("terms",)),
        ("trainingTerms.legalBasis", ("terms",)),
    }


def test_the_next_version_is_major_when_something_breaks() -> None:
    assert next_version([Change("x", "y", ("terms",))], "1.2.3") == "2.0.0"
    assert next_version([Change("x", "y")], "1.2.3") == "1.3.0"
    assert next_version([], "1.2.3") == "1.2.3"


def test_the_two_versions_of_a_shipped_contract_differ_where_they_should() -> None:
    library = Path(data_contracts.__file__).parent / "library"
    old = read_document(library / "healthcare-covid19-daily-reports-first.yaml")
    new = read_document(library / "healthcare-covid19-daily-reports.yaml")
    assert not changes(old, old)
    found = {change.path: change.breaks for change in changes(old, new)}
    assert "version" in found and not found["version"]
