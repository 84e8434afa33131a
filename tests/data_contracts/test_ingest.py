from __future__ import annotations

import datetime
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from data_contracts.catalog.store import Store
from data_contracts.catalog.tables import Tables
from data_contracts.contract import Contract
from data_contracts.errors import DataRefused
from data_contracts.ingest import IngestResult, ingest_partition
from data_contracts.sources import open_source
from tests.data_contracts.making import SECRET, make_contract, write_lines

NOW = datetime.datetime(2026, 3, 4, 5, 6, 7, tzinfo=datetime.UTC)
READER = {"format": "jsonl", "partition": {"from": "path", "pattern": r"([^/]+)\.jsonl$"}}
ROWS = {"quality": [{"metric": "rowCount", "mustBeGreaterThan": 0}]}


def ingest(
    folder: Path, rows: list[Any], day: str = "monday", *, made: Contract | None = None, **more: Any
) -> IngestResult:
    contract = made or make_contract(folder, reader=READER)
    write_lines(folder / "in" / f"{day}.jsonl", rows)
    source = open_source(contract, str(folder / "in"))
    (part,) = [part for part in source.partitions() if part.value == day]
    return ingest_partition(contract, source, part, tables(folder), SECRET, NOW, **more)


def tables(folder: Path) -> Tables:
    return Tables(Store.open(folder / "store"), "test--notes")


def texts(folder: Path) -> list[str]:
    current = tables(folder).current()
    return sorted(
        t for v in current.values() for t in tables(folder).read_accepted(v, ["content"])["content"].to_pylist()
    )


A = [{"key": "a", "content": "apple"}, {"key": "b", "content": "no"}]
B = [{"key": "a", "content": "banana"}]


def test_a_new_partition_is_published_with_its_counts(tmp_path: Path) -> None:
    result = ingest(tmp_path, A)
    assert result.outcome == "published"
    assert tables(tmp_path).versions() == [result.version]
    found = result.version
    assert (found.rows_in, found.rows_accepted, found.rows_quarantined, found.sequence) == (2, 1, 1, 1)
    assert found.published_at == "2026-03-04T05:06:07.000000+00:00"
    assert found.reasons == {"content.minLength": 1}
    assert found.bytes_in == (tmp_path / "in" / "monday.jsonl").stat().st_size
    assert texts(tmp_path) == ["apple"]
    assert tables(tmp_path).read_quarantine(found).column("reasons").to_pylist() == [["content.minLength"]]


def test_the_same_bytes_again_are_unchanged_and_add_no_row(tmp_path: Path) -> None:
    first, second = ingest(tmp_path, A), ingest(tmp_path, A)
    assert second.outcome == "unchanged"
    assert second.version == first.version
    assert second.report.rows_accepted == 1
    assert len(tables(tmp_path).versions()) == 1


def test_new_bytes_restate_the_partition(tmp_path: Path) -> None:
    ingest(tmp_path, A)
    assert ingest(tmp_path, B).outcome == "restated"
    assert texts(tmp_path) == ["banana"]


def test_a_new_contract_over_the_same_bytes_restates_the_partition(tmp_path: Path) -> None:
    first = ingest(tmp_path, A)
    second = ingest(tmp_path, A, made=make_contract(tmp_path, reader=READER, version="1.1.0"))
    assert second.outcome == "restated"
    assert second.version.contract_version == "1.1.0"
    assert first.version.ingest_id != second.version.ingest_id


def test_bytes_that_return_name_the_old_attempt_and_write_no_row_again(tmp_path: Path) -> None:
    first = ingest(tmp_path, A)
    ingest(tmp_path, B)
    third = ingest(tmp_path, A)
    assert third.outcome == "restated"
    assert third.version.attempt_id == first.version.attempt_id
    assert third.version.sequence == 3
    assert texts(tmp_path) == ["apple"]
    assert ingest(tmp_path, A).outcome == "unchanged"
    assert ingest(tmp_path, B).outcome == "restated"


def test_a_refused_restatement_leaves_what_was_current(tmp_path: Path) -> None:
    made = make_contract(tmp_path, reader=READER, **ROWS)
    first = ingest(tmp_path, A, made=made)
    bad = ingest(tmp_path, [{"key": "x", "content": "no"}], made=made)
    again = ingest(tmp_path, [{"key": "x", "content": "no"}], made=made)
    assert (bad.outcome, again.outcome) == ("refused", "refused")
    assert again.version == bad.version
    assert texts(tmp_path) == ["apple"]
    assert len(tables(tmp_path).versions()) == 2
    assert ingest(tmp_path, A, made=made).version == first.version
    with pytest.raises(DataRefused):
        tables(tmp_path).read_accepted(bad.version)
    assert tables(tmp_path).read_quarantine(bad.version).num_rows == 1


def test_an_empty_partition_is_recorded_and_reads_as_no_rows(tmp_path: Path) -> None:
    assert ingest(tmp_path, A).outcome == "published"
    assert ingest(tmp_path, []).outcome == "empty"
    assert texts(tmp_path) == []


def test_an_older_publication_that_arrives_late_does_not_become_current(tmp_path: Path) -> None:
    made = make_contract(tmp_path, reader=READER, sequence="publication")
    ingest(tmp_path, B, made=made, publication=NOW)
    late = ingest(tmp_path, A, made=made, publication=NOW - datetime.timedelta(days=1))
    assert late.version.rows_accepted == 1
    assert texts(tmp_path) == ["banana"]
    known = ingest(tmp_path, A, made=made, publication=NOW - datetime.timedelta(days=1))
    assert known.outcome == "unchanged"
    assert len(tables(tmp_path).versions()) == 2
    newer = ingest(tmp_path, A, made=made, publication=NOW + datetime.timedelta(days=1))
    assert newer.version.attempt_id == late.version.attempt_id
    assert texts(tmp_path) == ["apple"]


def test_a_contract_that_orders_by_publication_needs_its_time(tmp_path: Path) -> None:
    with pytest.raises(DataRefused, match="say when it was published"):
        ingest(tmp_path, A, made=make_contract(tmp_path, reader=READER, sequence="publication"))


def test_rows_of_a_writer_that_died_before_publishing_are_not_read(tmp_path: Path) -> None:
    made, found = make_contract(tmp_path, reader=READER), tables(tmp_path)

    class Dies(Tables):
        def publish(self, version: Any) -> None:
            raise KeyboardInterrupt

    source = open_source(made, str(write_lines(tmp_path / "in" / "monday.jsonl", A).parent))
    with pytest.raises(KeyboardInterrupt):
        ingest_partition(made, source, source.partitions()[0], Dies(found.store, found.slug), SECRET, NOW)
    assert found.current() == {}
    assert ingest(tmp_path, A, made=made).version.rows_accepted == 1
    assert texts(tmp_path) == ["apple"]


def test_record_ids_survive_restatement(tmp_path: Path) -> None:
    first = tables(tmp_path).read_accepted(ingest(tmp_path, A).version)
    second = tables(tmp_path).read_accepted(ingest(tmp_path, B).version)
    assert first["record_id"].to_pylist() == second["record_id"].to_pylist()
    assert first["split"].to_pylist() == second["split"].to_pylist()


def test_partitions_may_be_ingested_at_once(tmp_path: Path) -> None:
    made = make_contract(tmp_path, reader=READER)
    for number in range(12):
        write_lines(tmp_path / "in" / f"day{number}.jsonl", [{"key": "k", "content": f"text {number}"}])
    source, found = open_source(made, str(tmp_path / "in")), tables(tmp_path)
    with ThreadPoolExecutor(6) as pool:
        jobs = [pool.submit(ingest_partition, made, source, p, found, SECRET, NOW) for p in source.partitions()]
        assert {job.result().outcome for job in jobs} == {"published"}
    assert texts(tmp_path) == sorted(f"text {number}" for number in range(12))


def test_the_quarantine_says_why_in_words(tmp_path: Path) -> None:
    result = ingest(tmp_path, ["no object", *A])
    (first, second) = tables(tmp_path).read_quarantine(result.version).to_pylist()
    assert json.loads(first["detail"])["record.decodes"] == "not a JSON object but str"
    assert (first["source_file"], first["source_line"], second["source_line"]) == ("monday.jsonl", 1, 3)
