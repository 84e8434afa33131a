"""A contract tried on a source: all verdicts, examples without sensitive values, nothing written."""

from __future__ import annotations

from pathlib import Path

import pytest

from data_contracts.contract import Contract
from data_contracts.contracting.trial import rules_of, try_contract
from data_contracts.errors import DataRefused
from data_contracts.masking import is_sensitive, shown
from data_contracts.sources import open_source
from tests.data_contracts.making import column, make_contract, write_lines

COLUMNS = (
    column("key", primaryKey=True),
    column("day", partitioned=True),
    column("content", required=True, logicalTypeOptions={"minLength": 3}),
    column("name", classification="person", logicalTypeOptions={"maxLength": 4}),
)
READER = {"format": "jsonl", "partition": {"from": "path", "pattern": r"([^/]+)\.jsonl$"}}


@pytest.fixture
def contract(tmp_path: Path) -> Contract:
    quality = [{"metric": "rowCount", "mustBeGreaterThan": 1}]
    made = make_contract(tmp_path / "contract", COLUMNS, reader=READER, quality=quality)
    write_lines(
        tmp_path / "data" / "monday.jsonl",
        [
            {"key": "a", "content": "apple", "name": "Ann"},
            {"key": "a", "content": "again", "name": "Ann"},
            {"key": "b", "content": "x", "name": "Bartholomew"},
            {"key": "c", "content": "carrot"},
        ],
    )
    write_lines(tmp_path / "data" / "tuesday.jsonl", [{"key": "d", "content": "no"}])
    return made


def test_all_verdicts_are_told_and_nothing_is_written(contract: Contract, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    trial = try_contract(contract, open_source(contract, str(tmp_path / "data")))
    assert [(p.partition, p.verdict, p.rows_in, p.accepted, p.quarantined) for p in trial.partitions] == [
        ("monday", "accepted", 4, 2, 2),
        ("tuesday", "refused", 1, 0, 1),
    ]
    failing = {verdict.rule: verdict.failing for verdict in trial.rows}
    assert failing["content.minLength"] == 2
    assert failing["name.maxLength"] == failing["primaryKey.duplicate"] == 1
    assert failing["record.decodes"] == 0
    assert [(b.partition, b.rule, b.passed, b.observed) for b in trial.batches] == [
        ("monday", "rowCount", True, 2.0),
        ("tuesday", "rowCount", False, 0.0),
    ]
    assert (trial.refused, trial.quarantined, trial.passed) == (1, 3, False)
    assert sorted(tmp_path.rglob("*")) == before


def test_examples_name_file_and_record_and_mask_what_is_classified(contract: Contract, tmp_path: Path) -> None:
    trial = try_contract(contract, open_source(contract, str(tmp_path / "data")), examples=1)
    found = {verdict.rule: verdict.examples for verdict in trial.rows}
    (example,) = found["content.minLength"]
    assert (example.file, example.record, example.shown) == ("monday.jsonl", 3, "'x'")
    (example,) = found["name.maxLength"]
    assert example.shown == "(person, 11 characters)"


def test_a_named_partition_is_tried_alone_and_an_unknown_one_is_refused(contract: Contract, tmp_path: Path) -> None:
    source = open_source(contract, str(tmp_path / "data"))
    assert [p.partition for p in try_contract(contract, source, ["tuesday"]).partitions] == ["tuesday"]
    with pytest.raises(DataRefused, match="no partition friday; the source has monday, tuesday"):
        try_contract(contract, source, ["friday"])


def test_every_rule_that_is_tried_is_a_rule_of_the_contract(contract: Contract, tmp_path: Path) -> None:
    trial = try_contract(contract, open_source(contract, str(tmp_path / "data")))
    listed = {name for name, _, _ in rules_of(contract)}
    assert {v.rule for v in trial.rows} | {b.rule for b in trial.batches} == listed


@pytest.mark.parametrize(
    ("classification", "hidden"),
    [(None, False), ("public", False), ("Internal", False), ("person", True), ("restricted", True), ("", True)],
)
def test_only_open_classifications_are_shown(classification: str | None, hidden: bool) -> None:
    assert is_sensitive(classification) is hidden
    assert ("secret" in shown("secret", classification)) is not hidden


def test_what_is_shown_is_short_and_without_addresses() -> None:
    assert shown("write to ann@example.org", None) == "'write to <email>'"
    assert len(shown("x" * 1000, None)) < 70
    assert shown(None, "person") == "NULL"
    assert shown(12, None) == "'12'"
