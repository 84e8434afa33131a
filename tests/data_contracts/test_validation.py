from __future__ import annotations

import itertools
import json
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.canonical import canonical_json, json_value
from data_contracts.catalog.tables import QUARANTINE_SCHEMA
from data_contracts.contract import Contract
from data_contracts.errors import DataRefused
from data_contracts.rules import row_rules
from data_contracts.validation import Report, accepted_schema, validate
from data_contracts.verdicts import passes
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


@settings(deadline=None)
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


WIDE = (
    column("key", "integer", primaryKey=True, primaryKeyPosition=1),
    column("day", partitioned=True),
    column("content", required=True, logicalTypeOptions={"minLength": 1, "maxLength": 4, "pattern": "^[a-zé]*$"}),
    column("kind", enum=[{"value": "a"}, {"value": "é"}]),
    column("count", "integer", logicalTypeOptions={"minimum": -2, "exclusiveMaximum": 5, "multipleOf": 2}),
    column("byte", "integer", logicalTypeOptions={"format": "u8"}),
    column("share", "number", logicalTypeOptions={"exclusiveMinimum": 0, "maximum": 1.5, "multipleOf": 0.5}),
    column("on", "date", logicalTypeOptions={"minimum": "2024-01-01"}),
    column("at", "timestamp", required=True, logicalTypeOptions={"maximum": "2024-06-01T00:00:00Z"}),
    column("closed", "boolean", enum=[{"value": True}]),
)
DRAWN = st.fixed_dictionaries(
    {
        "key": st.none() | st.integers(0, 9),
        "content": st.none() | st.text("aé1 ", max_size=6),
        "kind": st.none() | st.sampled_from(["a", "é", "b", ""]),
        "count": st.none() | st.integers(-4, 6) | st.just("x"),
        "byte": st.none() | st.sampled_from([-1, 0, 255, 256]),
        "share": st.none() | st.sampled_from([-0.5, 0, 0.25, 0.5, 1.5, 2.0, "nan"]),
        "on": st.none() | st.sampled_from(["2023-12-31", "2024-01-01", "2024-02-30"]),
        "at": st.none() | st.sampled_from(["2024-06-01T00:00:00", "2024-06-01T00:00:00.000001Z", "noon"]),
        "closed": st.none() | st.booleans(),
    }
)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Contract:
    return make_contract(tmp_path_factory.mktemp("wide"), WIDE)


def reasons_one_by_one(contract: Contract, rows: list[dict[str, Any]]) -> list[list[str]]:
    """Each rule asked about each value alone, in plain Python."""
    seen, found = set(), []
    for row in rows:
        failed = []
        for rule in row_rules(contract):
            value = row[rule.column]
            if rule.kind in ("minLength", "maxLength"):
                size = None if value is None else len(value)
                bad = size is not None and not (
                    size >= rule.arguments["value"] if rule.kind == "minLength" else size <= rule.arguments["value"]
                )
            elif rule.kind in ("required", "decodes"):
                bad = (value is None) == (rule.kind == "required")
            else:
                bad = not passes(rule, value)
            if bad:
                failed.append(rule.name)
        if row["key"] in seen:
            failed.append("primaryKey.duplicate")
        seen.add(row["key"])
        seen.discard(None)
        found.append(failed)
    return found


@settings(max_examples=100, deadline=None)
@given(rows=st.lists(DRAWN, min_size=1, max_size=25), cut=st.integers(0, 25))
def test_every_row_breaks_the_rules_that_its_values_break_one_by_one(
    wide: Contract, rows: list[dict[str, Any]], cut: int
) -> None:
    whole = batch(wide, rows)
    pieces = [whole.slice(0, cut), whole.slice(cut)] if cut < len(rows) else [whole]
    report, good, bad = run(wide, *pieces)
    judged: list[pa.Table] = []
    assert validate(wide, pieces, "p", None, None, judged.append) == report  # without ids the same verdicts
    assert [name for table in judged for name in table["reasons"].to_pylist()] == [row["reasons"] for row in bad]
    expected = reasons_one_by_one(wide, whole.to_pylist())
    found = {row["source_line"]: row["reasons"] for row in bad} | {row["source_line"]: [] for row in good}
    assert [found[line] for line in range(1, len(rows) + 1)] == expected
    assert report.reasons == dict(sorted(Counter(name for names in expected for name in names).items()))
    for row in bad:
        assert set(json.loads(row["detail"])) == set(row["reasons"])
        values = {prop.name: json_value(whole[prop.name][row["source_line"] - 1].as_py()) for prop in wide.properties}
        raw = whole["_raw"][row["source_line"] - 1].as_py()
        assert row["raw"] == (raw.hex() if raw is not None else canonical_json(values).decode())


@pytest.mark.parametrize("logical", ["string", "integer", "date"])
def test_repeated_keys_are_found_without_a_secret(tmp_path: Path, logical: str) -> None:
    contract = make_contract(tmp_path, (column("key", logical, primaryKey=True, primaryKeyPosition=1), *KEYED[1:]))
    spelt = {"string": ["a", "b"], "integer": [-1, 2**62], "date": ["2024-01-01", "2024-01-02"]}[logical]
    rows = [{"key": spelt[number], "content": "text"} for number in (0, 1, 0)]
    report = validate(contract, [batch(contract, rows)], "p", None, lambda _: None, lambda _: None)
    assert report.reasons == {"primaryKey.duplicate": 1}


def test_a_stream_is_read_ahead_in_order_and_its_error_comes_after_what_was_before_it(keyed: Contract) -> None:
    def stream() -> Iterator[pa.RecordBatch]:
        for number in range(40):
            yield batch(keyed, [{"key": str(number), "content": "text"}])
        raise DataRefused("changed while it was read")

    kept: list[pa.Table] = []
    with pytest.raises(DataRefused, match="changed while"):
        validate(keyed, stream(), "p", SECRET, kept.append, kept.append)
    assert [table["key"].to_pylist() for table in kept] == [[str(number)] for number in range(40)]


def test_an_error_or_ctrl_c_while_writing_ends_the_reading_thread_and_closes_the_source(keyed: Contract) -> None:
    closed = threading.Event()

    def stream() -> Iterator[pa.RecordBatch]:
        try:
            for number in itertools.count():
                yield batch(keyed, [{"key": str(number), "content": "text"}])
        finally:
            closed.set()

    def interrupt(_: pa.Table) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        validate(keyed, stream(), "p", SECRET, interrupt, interrupt)
    assert closed.is_set()
    assert not [thread for thread in threading.enumerate() if thread.name == "read-ahead"]
