"""The table `versions` stays fast: small files become one, and nobody loses a row or a file by it."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from data_contracts.catalog.tables import PartitionVersion, Tables, _local
from tests.data_contracts.test_tables import tables, version

SINCE_FORMAT_2 = ("seconds", "approved_by", "approved_why")


def _publish(folder: Path, worker: int, count: int) -> None:
    found = tables(folder)
    for number in range(count):
        found.publish(version(f"w{worker}n{number}", partition=f"w{worker}n{number}", rows=1))


def _writes(found: Tables) -> Counter[str]:
    entries = DeltaTable(found.uri("versions")).history()
    return Counter(entry["operationParameters"]["mode"] for entry in entries if entry["operation"] == "WRITE")


def _rows(versions: list[PartitionVersion]) -> pa.Table:
    return pa.Table.from_pylist([{**asdict(v), "reasons": json.dumps(dict(v.reasons))} for v in versions])


def test_two_processes_that_publish_one_by_one_compact_and_lose_and_double_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_publish, args=(tmp_path, worker, 100)) for worker in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join(300)
    assert [writer.exitcode for writer in writers] == [0, 0]
    found = tables(tmp_path)
    names = sorted(f"w{worker}n{number}" for worker in range(2) for number in range(100))
    assert [v.partition for v in found.versions()] == names
    assert _writes(found)["Append"] == 200
    assert _writes(found)["Overwrite"] >= 1
    assert len(DeltaTable(found.uri("versions")).file_uris()) < 140


def test_compactions_at_once_lose_and_double_nothing_and_none_of_them_is_an_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = tables(tmp_path)
    for number in range(12):
        found.publish(version(f"t{number}", partition=f"{number:02d}"))
    with caplog.at_level(logging.WARNING), ThreadPoolExecutor(6) as pool:
        work = [pool.submit(tables(tmp_path)._compact) for _ in range(4)]
        work += [pool.submit(_publish, tmp_path, worker, 3) for worker in range(2)]
        for done in work:
            done.result()
    assert caplog.records == []
    assert len(found.versions()) == 18
    assert len(found.current()) == 18


def test_a_compaction_leaves_a_checkpoint_that_names_one_file(tmp_path: Path) -> None:
    found = tables(tmp_path)
    _publish(tmp_path, 0, 3)
    found._compact()
    log = tmp_path / "tables" / "test--notes" / "versions" / "_delta_log"
    newest = json.loads((log / "_last_checkpoint").read_text())
    assert newest["numOfAddFiles"] == 1
    assert newest["version"] == DeltaTable(found.uri("versions")).version()


def test_a_reader_that_opened_the_table_before_a_compaction_still_reads_it(tmp_path: Path) -> None:
    found = tables(tmp_path)
    _publish(tmp_path, 0, 5)
    before = DeltaTable(found.uri("versions"))
    found._compact()
    assert before.to_pyarrow_table(filesystem=_local(found.uri("versions"))).num_rows == 5


def test_files_that_no_version_names_go_when_they_are_older_than_seven_days(tmp_path: Path) -> None:
    found = tables(tmp_path)
    _publish(tmp_path, 0, 2)
    folder = tmp_path / "tables" / "test--notes" / "versions"
    for name, days in (("left-six.parquet", 6), ("left-eight.parquet", 8)):
        (folder / name).write_bytes(b"of a writer that died")
        os.utime(folder / name, (time.time() - days * 86400,) * 2)
    found._compact()
    assert (folder / "left-six.parquet").exists()
    assert not (folder / "left-eight.parquet").exists()
    assert len(found.versions()) == 2


def test_rows_of_format_1_are_read_and_compacted_with_those_of_today(tmp_path: Path) -> None:
    found = tables(tmp_path)
    old = _rows([version("t1", 1), version("t2", 2)]).drop_columns(list(SINCE_FORMAT_2))
    write_deltalake(found.uri("versions"), old.set_column(old.column_names.index("format"), "format", pa.array([1, 1])))
    first = found.versions()
    assert [(v.attempt_id, v.seconds, v.approved_by, v.format) for v in first] == [
        ("t1", 0.0, "", 1),
        ("t2", 0.0, "", 1),
    ]
    found.publish(version("t3", 3))
    found._compact()
    assert found.versions() == [*first, version("t3", 3)]
    assert len(DeltaTable(found.uri("versions")).file_uris()) == 1


def test_a_failing_compaction_does_not_fail_the_publication(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        tables(tmp_path)._compact()
    assert "cannot be compacted" in caplog.text


def test_ten_thousand_versions_are_read_in_300_ms(tmp_path: Path) -> None:
    found = tables(tmp_path)
    _publish(tmp_path, 0, 2)
    many = [version(f"t{n:05d}", partition=f"p{n:05d}", name=f"{n:064x}") for n in range(10_000)]
    write_deltalake(found.uri("versions"), _rows(many).cast(found.versions_table().schema), mode="append")
    found._compact()
    _publish(tmp_path, 1, 40)
    took = []
    for _ in range(7):
        began = time.process_time()
        versions = found.versions()
        took.append(time.process_time() - began)
    assert len(versions) == 10_042
    # Seconds of processor time, all threads: what a busy machine does to the wall clock says nothing of the code.
    assert min(took) < 0.3, took
