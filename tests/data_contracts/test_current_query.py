"""The shipped query gives the rows that `Tables` gives, in DuckDB and in Polars, whatever the history."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import polars
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from pyarrow.fs import LocalFileSystem, SubTreeFileSystem

from data_contracts.catalog.tables import Tables, current_query
from tests.data_contracts.made_versions import FIRST, RENAMED, WIDER, Made, notes

PAIRS = ["partition", "attempt_id", "record_id"]


def by_duckdb(tables: Tables) -> pa.Table:
    connection = duckdb.connect()
    for name in ("versions", "accepted"):
        files = SubTreeFileSystem(tables.uri(name), LocalFileSystem())
        connection.register(name, DeltaTable(tables.uri(name)).to_pyarrow_dataset(filesystem=files))
    return connection.sql(current_query()).to_arrow_table()


def by_polars(tables: Tables) -> pa.Table:
    context = polars.SQLContext({name: polars.scan_delta(tables.uri(name)) for name in ("versions", "accepted")})
    return context.execute(current_query()).collect().to_arrow()


ENGINES = pytest.mark.parametrize("engine", [by_duckdb, by_polars])
Engine = Callable[[Tables], pa.Table]


def rows(table: pa.Table) -> list[tuple[Any, ...]]:
    return sorted(zip(*(table[name].to_pylist() for name in PAIRS), strict=True))


def expected(tables: Tables) -> list[tuple[Any, ...]]:
    return sorted(row for version in tables.current().values() for row in rows(tables.read_accepted(version)))


@ENGINES
def test_bytes_that_returned_after_others_are_there_once(tmp_path: Path, engine: Engine) -> None:
    made = Made(tmp_path)
    for given in (notes(a="apple", b="berry"), notes(a="banana"), notes(a="apple", b="berry")):
        made.publish(given)
    made.publish(notes(x="another partition"), day="tuesday")
    found = engine(made.tables)
    assert sorted(found["content"].to_pylist()) == ["another partition", "apple", "berry"]
    assert rows(found) == expected(made.tables)


@ENGINES
def test_a_late_older_publication_and_a_refused_version_are_not_current(tmp_path: Path, engine: Engine) -> None:
    made = Made(tmp_path)
    strict = {"sequence": "publication", "quality": [{"metric": "rowCount", "mustBeGreaterThan": 0}]}
    contract = made.contract(**strict)
    made.publish(notes(a="final"), contract, published="2026-01-03")
    made.publish(notes(a="older"), contract, published="2026-01-01")
    assert made.publish([], contract, published="2026-01-09").verdict == "refused"
    assert engine(made.tables)["content"].to_pylist() == ["final"]


@ENGINES
def test_an_empty_version_that_is_current_gives_no_row_of_the_older_one(tmp_path: Path, engine: Engine) -> None:
    made = Made(tmp_path)
    made.publish(notes(a="gone"))
    assert made.publish([]).verdict == "empty"
    assert engine(made.tables).num_rows == 0


@ENGINES
def test_partitions_of_three_schemas_stand_in_one_result(tmp_path: Path, engine: Engine) -> None:
    made = Made(tmp_path)
    given = [
        ({"key": "a", "content": "first", "count": 1}, FIRST),
        ({"name": "b", "content": "renamed", "cases": 2}, RENAMED),
        ({"name": "c", "content": "wider", "cases": 3, "active": 4}, WIDER),
    ]
    for number, (row, columns) in enumerate(given):
        made.publish([row], made.contract(columns, version=f"{number + 1}.0.0"), day=f"day{number}")
    found = engine(made.tables).sort_by("partition")
    assert found["count"].to_pylist() == [1, None, None]
    assert found["cases"].to_pylist() == [None, 2, 3]
    assert found["active"].to_pylist() == [None, None, 4]
    assert rows(found) == expected(made.tables)
