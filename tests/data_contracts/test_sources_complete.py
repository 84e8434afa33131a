"""Rows in = accepted + quarantined, for every reader, from the bytes to the published tables."""

from __future__ import annotations

import datetime as dt
import gzip
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from data_contracts.catalog.store import Store
from data_contracts.catalog.tables import Tables
from data_contracts.contract import load_contract
from data_contracts.ingest import ingest_partition
from data_contracts.reader import FORMATS
from data_contracts.sources import open_source
from tests.data_contracts.making import SECRET, column, make_contract

COLUMNS = (column("count", "integer"), column("content", required=True), column("day", partitioned=True))
ROWS: list[dict[str, Any]] = [{"count": n, "content": f"text {n}"} for n in range(20)]
BAD: list[dict[str, Any]] = [{"count": "many", "content": "x"}, {"count": 1, "content": None}]


def write(folder: Path, name: str, data: bytes) -> str:
    folder.mkdir(parents=True)
    (folder / name).write_bytes(data)
    return str(folder)


def csv_text() -> bytes:
    good = "".join(f"{row['count']},{row['content']}\n" for row in ROWS)
    return f'count,content\n{good}many,x\n1,\n1,"never closed\n1\n1,2,3\n'.encode() + b"1,\xff\n"


def lines() -> bytes:
    return "".join(json.dumps(row) + "\n" for row in [*ROWS, *BAD]).encode() + b"{broken\n\xff\n[1]\n"


def xml() -> bytes:
    rows = "".join(
        f"<r><count>{row['count']}</count><content>{row['content']}</content></r>" for row in [*ROWS, BAD[0]]
    )
    return f"<d>{rows}<r><count>1</count></r></d>".encode()


def arrow(folder: Path) -> str:
    rows = [{"count": str(row["count"]), "content": row["content"]} for row in [*ROWS, *BAD]]
    table = pa.Table.from_pylist(rows)
    folder.mkdir(parents=True)
    with pa.ipc.new_file(str(folder / "a.arrow"), table.schema) as writer:
        writer.write_table(table)
    pq.write_table(table, folder / "a.parquet")
    return str(folder)


def database(folder: Path) -> str:
    folder.mkdir(parents=True)
    with sqlite3.connect(folder / "a.db") as connection:
        connection.execute("create table t (count, content)")
        connection.executemany("insert into t values (?, ?)", [tuple(row.values()) for row in [*ROWS, *BAD]])
        connection.execute("insert into t values (1, cast(x'ff' as text))")
    connection.close()
    return f"sqlite:///{folder / 'a.db'}"


def environment(folder: Path) -> str:
    for number in range(22):
        name = f"m{number}.py"
        write(folder / "m" if number == 0 else folder / f"x{number}", name, b"x = 1\n")
        (folder / name).write_bytes(b"x = 1\n" if number < 20 else b"\xff")
    info = folder / "a-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Name: a\nVersion: 1.0\nLicense-Expression: MIT\n\nx\n")
    (info / "RECORD").write_text("".join(f"m{n}.py,,\n" for n in range(22)) + "a-1.0.dist-info/METADATA,,\n")
    return f"env:{folder}"


FIELDS = {"count": "count", "content": "content"}
Made = tuple[dict[str, Any], Callable[[Path], str], int]
# A reader's settings, what makes its source, and how many records of it are damaged: twenty are sound.
CASES: dict[str, Made] = {
    "csv": ({}, lambda f: write(f, "a.csv", csv_text()), 6),
    "csv packed": ({}, lambda f: write(f, "a.csv.gz", gzip.compress(csv_text())), 6),
    "table": (
        {"columns": ["count", "content"]},
        lambda f: write(f, "a.txt", b"1 x\n" * 20 + b"many x\n1\n1 2 3\n1 \xff\n"),
        4,
    ),
    "jsonl": ({}, lambda f: write(f, "a.jsonl", lines()), 5),
    "json": ({}, lambda f: write(f, "a.json", json.dumps([*ROWS, *BAD, 7]).encode()), 3),
    "json broken": (
        {"record": "$[*]"},
        lambda f: write(f, "a.json", json.dumps([*ROWS, *BAD]).encode()[:-1] + b', {"count": brok}, {}]'),
        3,
    ),
    "text": ({"split": "line"}, lambda f: write(f, "a.txt", b"line\n" * 20 + b"\xff\n"), 1),
    "xml": ({"record": "r", "fields": FIELDS}, lambda f: write(f, "a.xml", xml()), 2),
    "html": ({"record": ".//r", "fields": FIELDS}, lambda f: write(f, "a.html", xml()), 2),
    "parquet": ({}, arrow, 2),
    "arrow": ({}, arrow, 2),
    "sql": ({"query": "select * from t"}, database, 3),
    "huggingface": (
        {"builder": "json"},
        lambda f: "hf:" + write(f, "train.jsonl", "".join(json.dumps(row) + "\n" for row in [*ROWS, BAD[1]]).encode()),
        1,
    ),
    "python-environment": ({"share": 1}, environment, 2),
}


def test_every_format_has_a_case() -> None:
    assert {name.split()[0] for name in CASES} == set(FORMATS)


@pytest.mark.parametrize("name", CASES)
def test_every_record_is_accepted_or_in_quarantine(name: str, tmp_path: Path) -> None:
    reader, make, damaged = CASES[name]
    columns = COLUMNS
    if name == "python-environment":
        columns = (column("initial", partitioned=True), column("content", required=True))
    path = make_contract(tmp_path / "c", columns, reader={"format": name.split()[0], **reader}).path
    contract = load_contract(path)
    source = open_source(contract, make(tmp_path / "in"))
    tables = Tables(Store.open(tmp_path / "store"), contract.slug)
    (partition,) = source.partitions()
    result = ingest_partition(contract, source, partition, tables, SECRET, dt.datetime(2026, 1, 1, tzinfo=dt.UTC))
    report = result.report
    assert (report.rows_in, report.rows_accepted, report.rows_quarantined) == (20 + damaged, 20, damaged)
    assert tables.read_accepted(result.version).num_rows == 20
    quarantined = tables.read_quarantine(result.version)
    assert quarantined.num_rows == damaged
    assert all(quarantined.column("reasons").to_pylist())
