from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from data_contracts.catalog.tables import PartitionVersion
from data_contracts.catalog.versions import newest_and_in_force, version_rows
from data_contracts.contract import Contract
from data_contracts.errors import DataRefused, StoreError
from data_contracts.overriding import overridden_version, override_partition, refusal, refused_version, would_be_current
from tests.data_contracts.making import make_contract
from tests.data_contracts.test_ingest import NOW, READER, ingest, tables, texts

LATER = NOW + datetime.timedelta(hours=1)
DAY = datetime.timedelta(days=1)
FEW = [{"key": "a", "content": "apple"}, {"key": "b", "content": "banana"}, {"key": "c", "content": "no"}]
OTHER = [{"key": "a", "content": "cherry"}]
MANY = [{"key": str(number), "content": f"text {number}"} for number in range(3)]
THREE_ROWS = {"metric": "rowCount", "mustBeGreaterOrEqualTo": 3}


@pytest.fixture
def strict(tmp_path: Path) -> Contract:
    return make_contract(tmp_path, reader=READER, quality=[THREE_ROWS])


def override(folder: Path, contract: Contract, ingest_id: str = "", **more: Any) -> PartitionVersion:
    said = {"by": "Ann", "why": "a holiday: fewer rows are right", **more}
    return override_partition(contract, tables(folder), "monday", ingest_id, now=LATER, **said)


def test_an_override_publishes_the_refused_rows_with_who_when_and_why(tmp_path: Path, strict: Contract) -> None:
    refused = ingest(tmp_path, FEW, made=strict).version
    assert (refused.verdict, texts(tmp_path)) == ("refused", [])
    version = override(tmp_path, strict, by=" Ann ")
    assert (version.verdict, version.approved_by, version.approved_why) == (
        "overridden",
        "Ann",
        "a holiday: fewer rows are right",
    )
    assert (version.attempt_id, version.sequence) == (refused.attempt_id, refused.sequence + 1)
    assert version.published_at == "2026-03-04T06:06:07.000000+00:00"
    assert tables(tmp_path).current() == {"monday": version}
    assert texts(tmp_path) == ["apple", "banana"]


def test_the_refusal_stays_in_the_history_and_the_quarantined_rows_in_quarantine(
    tmp_path: Path, strict: Contract
) -> None:
    refused = ingest(tmp_path, FEW, made=strict).version
    version = override(tmp_path, strict)
    assert tables(tmp_path).versions() == [refused, version]
    assert tables(tmp_path).read_quarantine(version).column("reasons").to_pylist() == [["content.minLength"]]


def test_overriding_the_same_version_twice_adds_nothing(tmp_path: Path, strict: Contract) -> None:
    ingest(tmp_path, FEW, made=strict)
    first = override(tmp_path, strict)
    assert override(tmp_path, strict, by="Ben", why="another reason") == first
    assert len(tables(tmp_path).versions()) == 2


def test_the_same_bytes_after_an_override_are_unchanged(tmp_path: Path, strict: Contract) -> None:
    ingest(tmp_path, FEW, made=strict)
    version = override(tmp_path, strict)
    again = ingest(tmp_path, FEW, made=strict)
    assert (again.outcome, again.version) == ("unchanged", version)
    assert len(tables(tmp_path).versions()) == 2


def test_the_same_publication_after_an_override_is_unchanged(tmp_path: Path) -> None:
    made = make_contract(tmp_path, reader=READER, quality=[THREE_ROWS], sequence="publication")
    ingest(tmp_path, FEW, made=made, publication=NOW)
    version = override(tmp_path, made)
    again = ingest(tmp_path, FEW, made=made, publication=NOW)
    assert (again.outcome, again.version) == ("unchanged", version)
    assert len(tables(tmp_path).versions()) == 2


def test_bytes_that_return_after_others_are_taken_as_they_were_approved(tmp_path: Path, strict: Contract) -> None:
    ingest(tmp_path, FEW, made=strict)
    override(tmp_path, strict)
    ingest(tmp_path, MANY, made=strict)
    back = ingest(tmp_path, FEW, made=strict)
    assert (back.outcome, back.version.verdict, back.version.approved_by) == ("restated", "overridden", "Ann")
    assert texts(tmp_path) == ["apple", "banana"]


def test_an_override_of_an_older_version_becomes_current_where_arrival_decides(
    tmp_path: Path, strict: Contract
) -> None:
    refused = ingest(tmp_path, FEW, made=strict).version
    ingest(tmp_path, MANY, made=strict)
    assert would_be_current(strict, tables(tmp_path), refused)
    assert override(tmp_path, strict, refused.ingest_id[:12]).sequence == 3
    assert texts(tmp_path) == ["apple", "banana"]


def test_a_newer_publication_stays_current(tmp_path: Path) -> None:
    made = make_contract(tmp_path, reader=READER, quality=[THREE_ROWS], sequence="publication")
    refused = ingest(tmp_path, FEW, made=made, publication=NOW).version
    assert would_be_current(made, tables(tmp_path), refused)
    newer = ingest(tmp_path, MANY, made=made, publication=NOW + DAY).version
    assert not would_be_current(made, tables(tmp_path), refused)
    version = override(tmp_path, made)
    assert version.sequence == refused.sequence
    assert tables(tmp_path).current()["monday"] == newer
    assert tables(tmp_path).read_accepted(version).num_rows == 2


def test_an_overridden_publication_is_no_more_counted_as_refused(tmp_path: Path) -> None:
    made = make_contract(tmp_path, reader=READER, quality=[THREE_ROWS], sequence="publication")
    ingest(tmp_path, FEW, made=made, publication=NOW)
    override(tmp_path, made)
    newest, in_force = newest_and_in_force(version_rows(tables(tmp_path)))
    assert newest["monday"].verdict == in_force["monday"].verdict == "overridden"


def test_without_an_ingest_id_the_newest_refused_version_is_meant(tmp_path: Path, strict: Contract) -> None:
    first = ingest(tmp_path, FEW, made=strict).version
    second = ingest(tmp_path, OTHER, made=strict).version
    assert refused_version(tables(tmp_path), "monday") == second
    assert refused_version(tables(tmp_path), "monday", first.ingest_id) == first
    assert override(tmp_path, strict).ingest_id == second.ingest_id
    assert overridden_version(tables(tmp_path), first) is None


def test_what_was_not_refused_cannot_be_overridden(tmp_path: Path, strict: Contract) -> None:
    with pytest.raises(DataRefused, match="test/notes: partition monday: never ingested"):
        override(tmp_path, strict)
    accepted = ingest(tmp_path, MANY, made=strict).version
    with pytest.raises(DataRefused, match="none of its 1 versions was refused"):
        override(tmp_path, strict)
    refused = ingest(tmp_path, FEW, made=strict).version
    with pytest.raises(DataRefused, match=f"is no refused version; refused were: {refused.ingest_id[:12]}"):
        override(tmp_path, strict, accepted.ingest_id)


def test_a_beginning_that_fits_several_refused_versions_is_refused(tmp_path: Path, strict: Contract) -> None:
    found: dict[str, int] = {}
    for number in range(17):  # 17 ids of 16 first digits: two begin alike
        made = ingest(tmp_path, [{"key": "a", "content": f"text {number}"}], made=strict).version
        found[made.ingest_id[0]] = found.get(made.ingest_id[0], 0) + 1
        if found[made.ingest_id[0]] == 2:
            break
    with pytest.raises(DataRefused, match="begins several refused versions"):
        override(tmp_path, strict, made.ingest_id[0])


@pytest.mark.parametrize(("said", "lacks"), [({"by": "  "}, "a name"), ({"why": "\n"}, "a reason")])
def test_an_override_without_a_name_or_a_reason_is_refused(
    tmp_path: Path, strict: Contract, said: dict[str, str], lacks: str
) -> None:
    ingest(tmp_path, FEW, made=strict)
    with pytest.raises(DataRefused, match=f"needs {lacks}"):
        override(tmp_path, strict, **said)
    assert len(tables(tmp_path).versions()) == 1


def test_a_version_without_an_accepted_row_cannot_be_overridden(tmp_path: Path, strict: Contract) -> None:
    ingest(tmp_path, [{"key": "c", "content": "no"}], made=strict)
    with pytest.raises(DataRefused, match="none of its 1 rows was accepted"):
        override(tmp_path, strict)


def test_rows_that_are_not_all_there_are_not_published(tmp_path: Path, strict: Contract) -> None:
    ingest(tmp_path, FEW, made=strict)
    DeltaTable(tables(tmp_path).uri("accepted")).delete("key = 'a'")
    with pytest.raises(StoreError, match="has 1 rows, 2 were published"):
        override(tmp_path, strict)
    assert tables(tmp_path).current() == {}


def test_a_refusal_names_each_rule_with_its_count_and_places_but_no_value(tmp_path: Path) -> None:
    rules = [
        THREE_ROWS,
        {"type": "custom", "engine": "causeway", "implementation": {"metric": "quarantineShare", "mustBeLessThan": 50}},
        {"metric": "rowCount", "mustBeGreaterThan": 9, "severity": "warning"},
    ]
    made = make_contract(tmp_path, reader=READER, quality=rules)
    refused = ingest(tmp_path, FEW, made=made).version
    found = refusal(made, tables(tmp_path), refused)
    assert [(r.rule.kind, r.passed, round(r.observed)) for r in found.judged] == [
        ("rowCount", False, 2),
        ("quarantineShare", True, 33),
        ("rowCount", False, 2),
    ]
    (failed,) = found.failed
    assert failed.detail.endswith("does not hold, 2 rows")
    ((place,),) = found.examples.values()
    assert place.startswith("monday.jsonl:3 (")
    assert list(found.examples) == ["content.minLength"]


def test_a_refusal_is_judged_as_it_was_when_the_rows_came_in(tmp_path: Path) -> None:
    columns = (
        {"name": "key", "logicalType": "string", "primaryKey": True, "primaryKeyPosition": 1},
        {"name": "day", "logicalType": "string", "partitioned": True},
        {
            "name": "content",
            "logicalType": "string",
            "quality": [
                {"metric": "nullValues", "mustBe": 0},
                {"metric": "duplicateValues", "mustBeLessThan": 1},
                {"metric": "invalidValues", "mustBeLessThan": 1, "arguments": {"validValues": ["apple"]}},
                {"metric": "missingValues", "mustBe": 0, "arguments": {"missingValues": ["n/a"]}},
            ],
        },
    )
    made = make_contract(tmp_path, columns, reader=READER)
    rows = [{"key": str(n), "content": value} for n, value in enumerate(["apple", "apple", "n/a", None, "fig"])]
    result = ingest(tmp_path, rows, made=made)
    assert result.outcome == "refused"
    assert [r.observed for r in result.report.batch_results] == [1, 1, 2, 2]
    assert refusal(made, tables(tmp_path), result.version).judged == result.report.batch_results
