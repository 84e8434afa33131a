"""The tables of a data set in Ceph: what holds in a folder holds there, and writers that race lose nothing."""

from __future__ import annotations

import multiprocessing
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pyarrow as pa
import pytest

from data_contracts.catalog.leases import Busy, hold
from data_contracts.catalog.registry import kept_contract, read_registered, register
from data_contracts.catalog.store import Store
from data_contracts.catalog.tables import CURATION_SCHEMA, QUARANTINE_SCHEMA, Tables
from data_contracts.catalog.versions import version_rows
from data_contracts.errors import DataRefused, StoreError
from tests.data_contracts.made_versions import FIRST, RENAMED, Made
from tests.data_contracts.test_tables import accepted, version
from tests.stores import Access


@pytest.fixture(scope="module")
def bucket(rgw: Access) -> str:
    return rgw.bucket("tables-eu")


@pytest.fixture
def tables(bucket: str, request: pytest.FixtureRequest) -> Iterator[Tables]:
    yield Tables(Store.open(bucket), f"test--{abs(hash(request.node.name))}")


def test_rows_come_back_whole_by_column_and_in_batches(tables: Tables) -> None:
    assert tables.versions() == [] and version_rows(tables) == []
    tables.append_accepted(accepted("t1", "b", "c"))
    tables.append_accepted(accepted("t1", "a"))
    tables.append_accepted(accepted("t2", "z").append_column("more", pa.array([7], pa.int64())))
    for entry in (version("t1", 1, rows=3), version("t2", 2, name="j", rows=1)):
        tables.publish(entry)
    one, two = tables.versions()
    assert tables.read_accepted(one)["record_id"].to_pylist() == ["a", "b", "c"]
    assert tables.read_accepted(one)["more"].to_pylist() == [None] * 3
    assert tables.read_accepted(two, ["content", "more"]).to_pydict() == {"content": ["text of z"], "more": [7]}
    batches = list(tables.scan_accepted(one, ["attempt_id", "record_id"]))
    assert sorted(pa.Table.from_batches(batches)["record_id"].to_pylist()) == ["a", "b", "c"]
    assert set(batches[0]["attempt_id"].to_pylist()) == {"t1"}
    assert [row.attempt_id for row in version_rows(tables)] == ["t1", "t2"]
    assert tables.versions("p") == [one, two] and tables.versions("q") == []
    assert tables.version("p", "j") == two
    with pytest.raises(DataRefused, match="column more is int64, these rows have string"):
        tables.append_accepted(accepted("t3", "c").append_column("more", pa.array(["7"])))
    with pytest.raises(StoreError, match="1 rows, 2 were published"):
        tables.read_accepted(version("t2", rows=2))


def test_quarantine_and_curation_come_back(tables: Tables) -> None:
    row = {"reasons": ["a.required"], "partition": "p", "attempt_id": "t1", "source_file": "f"}
    lines = [{**row, "source_line": line} for line in (3, 1)]
    tables.append_quarantine(pa.Table.from_pylist(lines, QUARANTINE_SCHEMA))
    assert tables.read_quarantine(version())["source_line"].to_pylist() == [1, 3]
    assert tables.read_quarantine(version())["reasons"].to_pylist() == [["a.required"]] * 2
    entry = {"curation_id": "c", "record_id": "a", "partition": "p", "action": "remove", "reason": "duplicate"}
    for _ in range(2):
        tables.append_curation(pa.Table.from_pylist([entry], CURATION_SCHEMA))
    assert tables.read_curation("c")["record_id"].to_pylist() == ["a"]
    assert tables.read_curation("other").num_rows == 0


def test_an_attempt_that_fails_leaves_no_file(tables: Tables) -> None:
    with pytest.raises(ValueError, match="source"), tables.appending("accepted", "t1") as appender:
        appender.add(accepted("t1", "a"))
        raise ValueError("the source broke off")
    assert list(tables.store.list(f"tables/{tables.slug}")) == []


def _write(url: str, slug: str, writer: int, count: int) -> None:
    found = Tables(Store.open(url), slug)
    for number in range(count):
        attempt = f"w{writer}n{number}"
        found.append_accepted(accepted(attempt, attempt))
        found.publish(version(attempt, partition=attempt, rows=1))


def test_writers_that_append_at_once_lose_nothing_from_the_first_append_on(tables: Tables, bucket: str) -> None:
    context = multiprocessing.get_context("spawn")
    others = [context.Process(target=_write, args=(bucket, tables.slug, 100 + n, 3)) for n in range(2)]
    for other in others:
        other.start()
    with ThreadPoolExecutor(8) as pool:
        for done in [pool.submit(_write, bucket, tables.slug, writer, 2) for writer in range(8)]:
            done.result()
    for other in others:
        other.join(60)
    assert [other.exitcode for other in others] == [0, 0]
    found = tables.versions()
    assert len(found) == len({v.attempt_id for v in found}) == 22
    for one in found:
        assert tables.read_accepted(one)["record_id"].to_pylist() == [one.attempt_id]
    tables._compact()
    assert tables.versions() == found
    assert tables.open("versions").get_add_actions().num_rows == 1


def test_the_environment_cannot_make_commits_unsafe(tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_S3_ALLOW_UNSAFE_RENAME", "true")
    tables.publish(version())
    first = f"tables/{tables.slug}/versions/_delta_log/00000000000000000001.json"
    before = tables.store.get(first)
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda n: tables.publish(version(f"t{n}", partition=f"p{n}")), range(6)))
    assert tables.store.get(first) == before
    assert len(tables.versions()) == 7


def test_an_ingest_publishes_there_and_the_shipped_query_reads_it(bucket: str, tmp_path: Path) -> None:
    made = Made(tmp_path, bucket)
    made.publish([{"key": "a", "content": "first", "count": 1}], made.contract(FIRST, version="1.0.0"), day="monday")
    made.publish(
        [{"name": "b", "content": "later", "cases": 2}], made.contract(RENAMED, version="2.0.0"), day="tuesday"
    )
    page = (Path(__file__).parents[2] / "docs" / "tables.md").read_text("utf-8")
    (block,) = re.findall(r"```py\n(.*?)```", page, re.S)
    script = block.replace("health--reports", made.tables.slug)
    done = subprocess.run(
        [sys.executable, "-c", script], env={**os.environ, "TABLES_URL": bucket}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.endswith("[(2,)]\n")
    assert "first" in done.stdout and "later" in done.stdout


def test_a_contract_is_kept_and_read_there(bucket: str, tmp_path: Path) -> None:
    contract, store = Made(tmp_path).contract(), Store.open(bucket)
    register(store, contract, "somewhere")
    known = read_registered(store, contract.slug)
    assert known is not None and known.current.source == "somewhere"
    kept = kept_contract(store, contract.slug, contract.sha)
    assert kept.sha == contract.sha and kept.document == contract.document
    with pytest.raises(DataRefused, match="is not kept"):
        kept_contract(store, contract.slug, "0" * 64)


def test_a_lease_is_held_there_by_one(bucket: str) -> None:
    store = Store.open(bucket)
    with hold(store, "ingest/p", "first"), pytest.raises(Busy, match=f"first works on it .process {os.getpid()}"):  # noqa: SIM117
        with hold(store, "ingest/p", "second"):
            pass
    with hold(store, "ingest/p", "third"):
        pass
