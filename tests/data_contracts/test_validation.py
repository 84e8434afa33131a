from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.catalog.tables import QUARANTINE_SCHEMA
from data_contracts.contract import Contract
from data_contracts.validation import Report, accepted_schema, validate
from tests.data_contracts.making import KEYED, SECRET, batch, column, make_contract


def run(
    contract: Contract, *batches: pa.RecordBatch, attempt: str = "t"
) -> tuple[Report, list[dict[str, Any]], list[dict[str, Any]]]:
    good, bad = [accepted_schema(contract).empty_table()], [QUARANTINE_SCHEMA.empty_table()]
    report = validate(contract, batches, "p", SECRET, good.append, bad.append, ingest_id="i", attempt_id=attempt)
    return report, pa.concat_tables(good).to_pylist(), pa.concat_tables(bad).to_pylist()


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Contract:
    return make_contract(tmp_path_factory.mktemp("keyed"))


def test_an_accepted_row_knows_who_it_is_and_where_it_came_from(keyed: Contract) -> None:
    report, (row,), bad = run(keyed, batch(keyed, [{"key": "a", "day": "d", "content": "four"}]))
    assert report.verdict == "accepted"
    assert bad == []
    assert (row["partition"], row["ingest_id"], row["attempt_id"]) == ("p", "i", "t")
    assert (row["source_file"], row["source_line"], row["text_bytes"]) == ("file", 1, 4)
    assert len(row["record_id"]) == 32
    assert row["split"] in ("train", "held-out")


def test_text_bytes_are_bytes_of_utf8_not_characters(keyed: Contract) -> None:
    report, (row,), _ = run(keyed, batch(keyed, [{"key": "a", "content": "Zürich"}]))
    assert row["text_bytes"] == 7
    assert report.bytes_in == 7


def test_a_refused_row_carries_every_rule_it_fails_and_the_row_itself(keyed: Contract) -> None:
    report, good, (row,) = run(keyed, batch(keyed, [{"day": "d", "content": "xy"}]))
    assert good == []
    assert row["reasons"] == ["key.required", "content.minLength"]
    assert set(json.loads(row["detail"])) == {"key.required", "content.minLength"}
    assert json.loads(row["raw"]) == {"key": None, "day": "d", "content": "xy"}
    assert row["record_id"] is None
    assert report.reasons == {"key.required": 1, "content.minLength": 1}
    assert report.rows_quarantined == 1


def test_an_undecodable_record_keeps_its_bytes_and_says_why(keyed: Contract) -> None:
    rows = batch(keyed, [{"key": "a"}], fault="not UTF-8: byte 3 is 0xff", raw=b"abc\xff")
    report, _, (row,) = run(keyed, rows)
    assert "record.decodes" in row["reasons"]
    assert row["raw"] == b"abc\xff".hex()
    assert json.loads(row["detail"])["record.decodes"] == "not UTF-8: byte 3 is 0xff"
    assert report.bytes_in == 4


def test_of_one_key_the_first_record_counts_also_across_batches(keyed: Contract) -> None:
    rows = [{"key": "a", "content": "first"}, {"key": "a", "content": "second"}]
    report, good, bad = run(keyed, batch(keyed, rows), batch(keyed, [{"key": "a", "content": "third"}]))
    assert [row["content"] for row in good] == ["first"]
    assert [row["reasons"] for row in bad] == [["primaryKey.duplicate"]] * 2
    assert report.reasons == {"primaryKey.duplicate": 2}
    assert bad[0]["record_id"] == good[0]["record_id"]


def test_records_without_a_key_are_no_duplicates_of_each_other(keyed: Contract) -> None:
    report, _, _ = run(keyed, batch(keyed, [{"content": "one"}, {"content": "two"}]))
    assert report.reasons == {"key.required": 2}


def test_a_licence_that_is_unknown_or_not_listed_is_refused(tmp_path: Path) -> None:
    terms = {"licence": {"column": "licence", "allowed": ["MIT", "Apache-2.0"]}}
    contract = make_contract(tmp_path, (*KEYED, column("licence")), terms=terms)
    stated = ["MIT", "GPL-3.0-only OR MIT", "GPL-3.0-only", None]
    rows = [{"key": str(n), "content": "text", "licence": licence} for n, licence in enumerate(stated)]
    report, good, _ = run(contract, batch(contract, rows))
    assert [row["licence"] for row in good] == stated[:2]
    assert report.reasons == {"licence.allowed": 2}


def judged(tmp_path: Path, check: dict[str, Any], rows: list[dict[str, Any]], **more: Any) -> Report:
    contract = make_contract(tmp_path, quality=[check], **more)
    return run(contract, batch(contract, rows))[0]


def test_too_few_rows_refuse_the_partition(tmp_path: Path) -> None:
    report = judged(tmp_path, {"metric": "rowCount", "mustBeGreaterThan": 1}, [{"key": "a", "content": "text"}])
    (result,) = report.batch_results
    assert report.verdict == "refused"
    assert (result.passed, result.observed) == (False, 1)
    assert "1 rows" in result.detail


def test_a_failed_warning_does_not_refuse(tmp_path: Path) -> None:
    check = {"metric": "rowCount", "mustBeGreaterThan": 1, "severity": "warning"}
    report = judged(tmp_path, check, [{"key": "a", "content": "text"}])
    assert report.verdict == "accepted"
    assert not report.batch_results[0].passed


def test_the_share_of_quarantined_rows_is_judged(tmp_path: Path) -> None:
    inner = {"metric": "quarantineShare", "mustBeLessOrEqualTo": 25}
    check = {"type": "custom", "engine": "causeway", "implementation": inner}
    rows = [{"key": str(n), "content": "text"} for n in range(3)]
    assert judged(tmp_path, check, [*rows, {"content": "text"}]).verdict == "accepted"
    report = judged(tmp_path, check, [*rows, {"content": "text"}, {"content": "text"}])
    assert report.verdict == "refused"
    assert report.batch_results[0].observed == 40


def test_duplicate_values_are_counted_over_accepted_rows_without_nulls(tmp_path: Path) -> None:
    check = {"metric": "duplicateValues", "mustBe": 0, "arguments": {"properties": ["day", "content"]}}
    rows = [{"key": str(n), "day": day, "content": "text"} for n, day in enumerate(["d", "d", "e", None, None])]
    report = judged(tmp_path, check, [*rows, {"day": "e", "content": "text"}])
    assert report.verdict == "refused"
    assert report.batch_results[0].observed == 1


@pytest.mark.parametrize(
    ("check", "observed"),
    [
        ({"metric": "nullValues", "mustBeLessThan": 50, "unit": "percent"}, 25.0),
        ({"metric": "missingValues", "mustBeLessThan": 9, "arguments": {"missingValues": ["n/a"]}}, 2),
        ({"metric": "invalidValues", "mustBeLessThan": 9, "arguments": {"validValues": ["d", "n/a"]}}, 1),
        ({"metric": "invalidValues", "mustBeLessThan": 9, "arguments": {"pattern": "^[a-z]$"}}, 1),
    ],
)
def test_thresholds_on_a_column_are_batch_rules(tmp_path: Path, check: dict[str, Any], observed: float) -> None:
    columns = (KEYED[0], {**KEYED[1], "quality": [check]}, KEYED[2])
    contract = make_contract(tmp_path, columns)
    rows = [{"key": str(n), "day": day, "content": "text"} for n, day in enumerate(["d", "n/a", None, "e"])]
    report, good, _ = run(contract, batch(contract, rows))
    assert [result.observed for result in report.batch_results] == [observed]
    assert len(good) == 4


def test_no_rows_at_all_are_empty_unless_a_rule_asks_for_some(tmp_path: Path, keyed: Contract) -> None:
    assert run(keyed)[0].verdict == "empty"
    assert judged(tmp_path, {"metric": "rowCount", "mustBeGreaterThan": 0}, []).verdict == "refused"


ROW = st.fixed_dictionaries(
    {
        "key": st.none() | st.sampled_from("abcdef"),
        "day": st.none() | st.text(max_size=3),
        "content": st.none() | st.text(max_size=6),
    }
)


@given(rows=st.lists(ROW, max_size=30), cut=st.integers(0, 30))
def test_every_row_is_accepted_or_quarantined_once_whatever_the_batches(
    keyed: Contract, rows: list[dict[str, Any]], cut: int
) -> None:
    clean = [{k: v if v is None else v.encode("utf-8", "ignore").decode() for k, v in row.items()} for row in rows]
    report, good, bad = run(keyed, batch(keyed, clean))
    whole = batch(keyed, clean)
    pieces = run(keyed, whole.slice(0, cut), whole.slice(cut)) if len(clean) > cut else run(keyed, whole)
    assert len(good) + len(bad) == len(clean) == report.rows_in
    assert sorted(row["source_line"] for row in [*good, *bad]) == list(range(1, len(clean) + 1))
    assert pieces == (report, good, bad)
    assert all(row["reasons"] for row in bad)
