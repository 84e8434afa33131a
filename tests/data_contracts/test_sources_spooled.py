"""Sources that are read once: partitions by the value of a column, rows of queries, data sets of a hub's library."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from data_contracts.errors import ContractError, DataRefused, StoreError
from data_contracts.sources import Source, open_source, spooled
from tests.data_contracts.making import column, make_contract, write_lines

COLUMNS = (column("key"), column("count", "integer"), column("day", partitioned=True), column("content"))
BY_DAY = {"from": "column"}


def rows_of(source: Source) -> dict[str, list[tuple[Any, ...]]]:
    return {
        part.value: [
            (row["_source_line"], row["key"], row["count"], row["_fault"] is None)
            for batch in source.read(part)
            for row in batch.to_pylist()
        ]
        for part in source.partitions()
    }


def shas(source: Source) -> dict[str, str]:
    return {part.value: part.source_sha for part in source.partitions()}


def write_csv(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(["key,count,day,content", *lines]) + "\n")


LINES = ["a,1,mon,x", "b,2,tue,x", "c,many,mon,x", "d,4", "e,5,,x"]


def test_a_column_divides_a_file_and_every_record_is_in_one_partition(tmp_path: Path) -> None:
    write_csv(tmp_path / "in" / "a.csv", LINES)
    contract = make_contract(tmp_path / "c", COLUMNS, reader={"format": "csv", "partition": BY_DAY})
    source = open_source(contract, str(tmp_path / "in"))
    assert rows_of(source) == {
        "mon": [(2, "a", 1, True), (4, "c", None, False)],
        "tue": [(3, "b", 2, True)],
        "unknown": [(5, None, None, False), (6, "e", 5, True)],
    }
    assert source.partitions()[0].files[0].name == "a.csv"
    assert sum(len(found) for found in rows_of(source).values()) == len(LINES)


def test_a_partition_is_restated_by_its_own_rows_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contract = make_contract(tmp_path / "c", COLUMNS, reader={"format": "csv", "partition": BY_DAY})
    source = open_source(contract, str(tmp_path / "in")) if (tmp_path / "in").mkdir() is None else None
    assert source is not None
    write_csv(tmp_path / "in" / "a.csv", LINES)
    before = shas(source)
    write_csv(tmp_path / "in" / "a.csv", ["z,9,tue,y", *LINES])
    after = shas(source)
    assert {value for value in before if before[value] != after[value]} == {"tue"}
    monkeypatch.setattr(spooled, "_HELD_BYTES", 1)
    assert shas(open_source(contract, str(tmp_path / "in"))) == after
    assert rows_of(open_source(contract, str(tmp_path / "in"))) == rows_of(source)


def test_too_many_values_of_a_partition_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spooled, "_MOST_PARTITIONS", 2)
    write_csv(tmp_path / "in" / "a.csv", LINES)
    contract = make_contract(tmp_path / "c", COLUMNS, reader={"format": "csv", "partition": BY_DAY})
    with pytest.raises(DataRefused, match="partition by a coarser one"):
        open_source(contract, str(tmp_path / "in")).partitions()


def test_a_whole_number_or_a_date_may_name_the_partition(tmp_path: Path) -> None:
    columns = (column("content"), column("day", "date", partitioned=True))
    write_lines(tmp_path / "in" / "a.jsonl", [{"content": "x", "day": "2024-01-02"}, {"content": "y", "day": "soon"}])
    contract = make_contract(tmp_path / "c", columns, reader={"format": "jsonl", "partition": BY_DAY})
    assert [part.value for part in open_source(contract, str(tmp_path / "in")).partitions()] == [
        "2024-01-02",
        "unknown",
    ]


def database(path: Path) -> Path:
    with sqlite3.connect(path) as connection:
        connection.execute("create table t (key text, count, day text, content text)")
        connection.executemany(
            "insert into t values (?, ?, ?, ?)",
            [("a", 1, "mon", "x"), ("b", "many", "tue", "y"), (None, None, "mon", None), ("d", 2.5, "mon", b"\x00")],
        )
        connection.execute("insert into t values ('e', 5, 'mon', cast(x'ff' as text))")
    connection.close()
    return path


QUERY = "select key, count, day, content from t order by rowid"


def test_the_rows_of_a_query_are_records(tmp_path: Path) -> None:
    url = f"sqlite:///{database(tmp_path / 'a.db')}"
    contract = make_contract(tmp_path / "c", COLUMNS, reader={"format": "sql", "query": QUERY, "partition": BY_DAY})
    source = open_source(contract, url)
    assert rows_of(source) == {
        "mon": [(1, "a", 1, True), (3, None, None, True), (4, "d", None, False), (5, "e", 5, False)],
        "tue": [(2, "b", None, False)],
    }
    before = shas(source)
    with sqlite3.connect(tmp_path / "a.db") as connection:
        connection.execute("insert into t values ('f', 6, 'tue', 'z')")
    connection.close()
    assert {value for value, sha in shas(source).items() if sha != before[value]} == {"tue"}


def test_adbc_streams_the_same_rows(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "a.db") as connection:
        connection.execute("create table t (key text, count integer, content text)")
        connection.executemany("insert into t values (?, ?, ?)", [(f"k{n}", n, "x") for n in range(3000)])
    connection.close()
    reader = {"format": "sql", "query": "select * from t order by count", "partition": {"constant": "one"}}
    contract = make_contract(tmp_path / "c", COLUMNS, reader=reader)
    found = [rows_of(open_source(contract, f"{driver}:///{tmp_path / 'a.db'}")) for driver in ("adbc+sqlite", "sqlite")]
    assert found[0] == found[1]
    assert len(found[0]["one"]) == 3000


def test_a_query_only_reads(tmp_path: Path) -> None:
    path = database(tmp_path / "a.db")
    for query in ("delete from t", "select 1; delete from t", "pragma user_version = 3", "attach 'x' as y"):
        contract = make_contract(tmp_path / "c", COLUMNS, reader={"format": "sql", "query": query})
        with pytest.raises(ContractError, match="a query is one SELECT"):
            open_source(contract, f"sqlite:///{path}")
    sneaky = "with x as (select 1) insert into t select 'h', 1, 'mon', 'x' from x"
    for driver in ("sqlite", "adbc+sqlite"):
        contract = make_contract(tmp_path / "c", COLUMNS, reader={"format": "sql", "query": sneaky})
        with pytest.raises(DataRefused, match=r"the query failed|no record"):
            open_source(contract, f"{driver}:///{path}").partitions()
    with sqlite3.connect(path) as connection:
        assert connection.execute("select count(*) from t").fetchone() == (5,)
    connection.close()


def test_a_password_in_a_url_and_a_missing_database_are_refused_without_being_quoted(tmp_path: Path) -> None:
    contract = make_contract(tmp_path / "c", COLUMNS, reader={"format": "sql", "query": QUERY})
    for url in ("postgresql://user:secret@host/db", "mssql+pyodbc:///?odbc_connect=DSN%3Dx%3BPWD%3Dsecret"):
        with pytest.raises(DataRefused, match="holds a password") as caught:
            open_source(contract, url)
        assert "secret" not in str(caught.value)
    with pytest.raises(DataRefused, match="no such database"):
        open_source(contract, f"sqlite:///{tmp_path / 'none.db'}")
    with pytest.raises(DataRefused, match="the query failed: OperationalError"):
        open_source(contract, f"sqlite:///{write_lines(tmp_path / 'no.db', [])}").partitions()


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path


def test_a_folder_is_read_by_the_builder_of_the_hubs_library(library: Path) -> None:
    rows = [{"key": f"k{n}", "count": n, "day": "mon" if n % 2 else "tue", "content": "x"} for n in range(6)]
    write_lines(library / "in" / "train.jsonl", rows)
    write_lines(library / "in" / "test.jsonl", rows[:1])
    contract = make_contract(library / "c", COLUMNS, reader={"format": "huggingface", "partition": BY_DAY})
    source = open_source(contract, f"hf:{library / 'in'}")
    assert rows_of(source) == {
        "mon": [(2, "k1", 1, True), (4, "k3", 3, True), (6, "k5", 5, True)],
        "tue": [(1, "k0", 0, True), (3, "k2", 2, True), (5, "k4", 4, True)],
    }
    reader = {"format": "huggingface", "split": "test", "builder": "json"}
    one = open_source(make_contract(library / "c", COLUMNS, reader=reader), f"hf:{library / 'in' / 'test.jsonl'}")
    assert rows_of(one) == {"all": [(1, "k0", 0, True)]}


def test_a_saved_data_set_is_read_and_one_that_is_not_there_is_refused(library: Path) -> None:
    import datasets

    made = datasets.Dataset.from_dict({"key": ["a", "b"], "count": ["1", "x"], "content": ["y", "z"]})
    datasets.DatasetDict({"train": made}).save_to_disk(str(library / "saved"))
    contract = make_contract(library / "c", COLUMNS, reader={"format": "huggingface"})
    assert rows_of(open_source(contract, f"hf:{library / 'saved'}")) == {
        "all": [(1, "a", 1, True), (2, "b", None, False)]
    }
    other = make_contract(library / "c", COLUMNS, reader={"format": "huggingface", "split": "dev"})
    with pytest.raises(DataRefused, match="has no split 'dev'; it has train"):
        open_source(other, f"hf:{library / 'saved'}").partitions()
    with pytest.raises((DataRefused, StoreError), match=r"hf:nobody/nothing: split train cannot be read"):
        open_source(contract, "hf:nobody/nothing").partitions()
    (library / "in").mkdir()
    (library / "in" / "train.jsonl").write_text(json.dumps({"key": "a"}) + "\n{broken\n")
    with pytest.raises(DataRefused, match="cannot be read"):
        open_source(contract, f"hf:{library / 'in'}").partitions()
