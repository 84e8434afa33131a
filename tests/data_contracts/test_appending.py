from __future__ import annotations

import io
import json
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from data_contracts.catalog import appending
from data_contracts.catalog.appending import Appender
from data_contracts.catalog.store import Store
from data_contracts.catalog.tables import Tables
from data_contracts.errors import StoreError


def rows(start: int, count: int) -> pa.Table:
    names = [f"{number:08d}" for number in range(start, start + count)]
    text = pa.array([f"text of {name}" for name in names])
    repeated = {name: pa.repeat(value, count) for name, value in (("partition", "p"), ("attempt_id", "a"))}
    return pa.table({"record_id": names, "content": text, **repeated})


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*.parquet"))


def test_rows_come_as_they_are_added_and_are_committed_once(tmp_path: Path) -> None:
    tables = Tables(Store.open(tmp_path), "test--notes")
    with tables.appending("accepted", "a") as appender:
        for start in range(0, 300_000, 10_000):
            appender.add(rows(start, 10_000))
        assert not (tmp_path / "tables/test--notes/accepted/_delta_log").exists()
    target = DeltaTable(tables.uri("accepted"))
    assert [entry["operation"] for entry in target.history()] == ["WRITE", "CREATE TABLE"]
    found = target.to_pyarrow_table()
    assert found["record_id"].to_pylist() == [f"{number:08d}" for number in range(300_000)]
    assert set(found["attempt_id"].to_pylist()) == {"a"}


def test_nothing_stays_of_what_was_given_up(tmp_path: Path) -> None:
    tables = Tables(Store.open(tmp_path), "test--notes")
    with pytest.raises(KeyboardInterrupt), tables.appending("accepted", "a") as appender:
        for start in range(0, 200_000, 50_000):
            appender.add(rows(start, 50_000))
        raise KeyboardInterrupt
    assert files(tmp_path) == []
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("append")]


def test_a_file_ends_when_it_is_large_and_all_of_them_are_in_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(appending, "_FILE_BYTES", 1000)
    tables = Tables(Store.open(tmp_path), "test--notes")
    with tables.appending("accepted", "a") as appender:
        for start in range(0, 150_000, 50_000):
            appender.add(rows(start, 50_000))
    assert len(files(tmp_path)) == 3
    assert DeltaTable(tables.uri("accepted")).to_pyarrow_table().num_rows == 150_000


def test_a_disk_that_cannot_be_written_is_said_and_leaves_no_thread(tmp_path: Path) -> None:
    tables = Tables(Store.open(tmp_path), "test--notes")
    (tmp_path / "tables" / "test--notes").mkdir(parents=True)
    (tmp_path / "tables" / "test--notes" / "accepted").write_text("a file where the folder should be")
    with pytest.raises(StoreError, match="cannot be"), tables.appending("accepted", "a") as appender:
        appender.add(rows(0, 10))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("append")]


def test_a_store_that_is_no_directory_gets_whole_files() -> None:
    store = Store.open("memory:///")
    committed: list[Any] = []
    with Appender(store, "tables/t/accepted", "a", lambda schema, actions: committed.extend(actions)) as appender:
        appender.add(rows(0, 10))
    (action,) = committed
    data = store.get(f"tables/t/accepted/{action.path}")
    assert pq.read_table(io.BytesIO(data))["record_id"].to_pylist() == rows(0, 10)["record_id"].to_pylist()
    assert action.size == len(data)
    assert json.loads(action.stats)["minValues"] == {"record_id": "00000000", "partition": "p"}
