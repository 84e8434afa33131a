from __future__ import annotations

import json
import multiprocessing
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from data_contracts.catalog.store import Store
from data_contracts.catalog.tables import CURATION_SCHEMA, QUARANTINE_SCHEMA, PartitionVersion, Tables, ingest_id
from data_contracts.errors import DataRefused, StoreError


def tables(folder: Path) -> Tables:
    return Tables(Store.open(folder), "test--notes")


def accepted(attempt: str, *ids: str) -> pa.Table:
    rows = [{"record_id": i, "content": f"text of {i}", "partition": "p", "attempt_id": attempt} for i in ids]
    return pa.Table.from_pylist(
        rows, pa.schema([(n, pa.string()) for n in ("record_id", "content", "partition", "attempt_id")])
    )


def version(
    attempt: str = "t1", sequence: int = 1, *, partition: str = "p", rows: int = 0, name: str = "i"
) -> PartitionVersion:
    return PartitionVersion(
        dataset="test/notes",
        partition=partition,
        ingest_id=name,
        attempt_id=attempt,
        sequence=sequence,
        verdict="accepted",
        rows_in=rows,
        rows_accepted=rows,
        rows_quarantined=0,
        source_sha="s",
        contract_sha="c",
        contract_version="1.0.0",
        terms_sha="t",
        published_at="2026-01-02T03:04:05+00:00",
        reasons={"content.required": 2},
        bytes_in=10,
    )


def test_a_published_version_comes_back_as_it_was(tmp_path: Path) -> None:
    tables(tmp_path).publish(version())
    assert tables(tmp_path).versions() == [version()]


def test_a_data_set_without_tables_has_no_versions(tmp_path: Path) -> None:
    assert tables(tmp_path).versions() == []
    assert tables(tmp_path).current() == {}


def test_accepted_rows_come_back_sorted_by_record_id(tmp_path: Path) -> None:
    found = tables(tmp_path)
    found.append_accepted(accepted("t1", "b", "c"))
    found.append_accepted(accepted("t1", "a"))
    found.append_accepted(accepted("t2", "z"))
    assert found.read_accepted(version(rows=3)).column("record_id").to_pylist() == ["a", "b", "c"]
    assert found.read_accepted(version(rows=3), ["content"]).column_names == ["content"]


def test_a_version_whose_rows_are_gone_is_not_read_as_fewer_rows(tmp_path: Path) -> None:
    found = tables(tmp_path)
    found.append_accepted(accepted("t1", "a"))
    with pytest.raises(StoreError, match="1 rows, 2 were published"):
        found.read_accepted(version(rows=2))


def test_the_rows_of_a_refused_version_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(DataRefused, match="was refused"):
        tables(tmp_path).read_accepted(replace(version(), verdict="refused"))


def test_the_highest_sequence_is_current_and_ties_go_by_ingest_id(tmp_path: Path) -> None:
    found = tables(tmp_path)
    for entry in (version("t1", 2, name="a"), version("t2", 2, name="b"), version("t3", 1, name="c")):
        found.publish(entry)
    found.publish(replace(version("t4", 9), verdict="refused"))
    found.publish(version("t5", 1, partition="q"))
    assert {p: v.attempt_id for p, v in found.current().items()} == {"p": "t2", "q": "t5"}
    assert [v.attempt_id for v in found.versions("p")] == ["t3", "t1", "t2", "t4"]


def test_quarantine_comes_back_in_the_order_of_the_source(tmp_path: Path) -> None:
    row = {
        "reasons": ["a.required"],
        "detail": "{}",
        "raw": "{}",
        "partition": "p",
        "attempt_id": "t1",
        "source_file": "f",
    }
    rows = [{**row, "source_line": line} for line in (3, 1)]
    found = tables(tmp_path)
    found.append_quarantine(pa.Table.from_pylist(rows, QUARANTINE_SCHEMA))
    assert found.read_quarantine(version()).column("source_line").to_pylist() == [1, 3]
    assert found.read_quarantine(version()).column("reasons").to_pylist() == [["a.required"]] * 2


def test_a_curation_log_written_twice_is_read_once(tmp_path: Path) -> None:
    rows = [
        {"curation_id": "c", "record_id": r, "partition": "p", "action": "remove", "reason": "duplicate"} for r in "ba"
    ]
    found = tables(tmp_path)
    for _ in range(2):
        found.append_curation(pa.Table.from_pylist(rows, CURATION_SCHEMA))
    assert found.read_curation("c").column("record_id").to_pylist() == ["a", "b"]
    assert found.read_curation("other").num_rows == 0


def test_the_log_keeps_no_statistics_of_the_text(tmp_path: Path) -> None:
    tables(tmp_path).append_accepted(accepted("t1", "a", "b"))
    log = "".join(
        p.read_text() for p in sorted((tmp_path / "tables" / "test--notes" / "accepted" / "_delta_log").glob("*.json"))
    )
    stats = [json.loads(json.loads(line)["add"]["stats"]) for line in log.splitlines() if '"add"' in line]
    assert stats
    assert all(set(entry["minValues"]) == {"record_id", "partition"} for entry in stats)
    assert "text of" not in log


def test_a_newer_contract_may_add_a_column_but_not_change_a_type(tmp_path: Path) -> None:
    found = tables(tmp_path)
    found.append_accepted(accepted("t1", "a"))
    found.append_accepted(accepted("t2", "b").append_column("more", pa.array([1], pa.int64())))
    assert found.read_accepted(version("t2", rows=1)).column("more").to_pylist() == [1]
    changed = accepted("t3", "c").append_column("more", pa.array(["7"]))
    with pytest.raises(DataRefused, match="column more is int64, these rows have string"):
        found.append_accepted(changed)


def test_the_ingest_id_names_contract_partition_and_source() -> None:
    names = {ingest_id(*given) for given in (("c", "p", "s"), ("d", "p", "s"), ("c", "q", "s"), ("c", "p", "t"))}
    assert len(names) == 4
    assert ingest_id("c", "p", "s") in names


def _write(folder: Path, worker: int, count: int) -> None:
    found = tables(folder)
    for number in range(count):
        attempt = f"w{worker}n{number}"
        found.append_accepted(accepted(attempt, attempt))
        found.publish(version(attempt, partition=attempt, rows=1))


def test_threads_that_append_at_once_lose_nothing_from_the_first_append_on(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        for done in [pool.submit(_write, tmp_path, worker, 2) for worker in range(16)]:
            done.result()
    found = tables(tmp_path)
    assert len(found.current()) == 32
    assert all(found.read_accepted(v).column("record_id").to_pylist() == [v.attempt_id] for v in found.versions()[:4])
    assert DeltaTable(found.uri("accepted")).to_pyarrow_table().num_rows == 32


def test_processes_that_append_at_once_lose_nothing_from_the_first_append_on(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_write, args=(tmp_path, worker, 6)) for worker in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert len(tables(tmp_path).current()) == 18
