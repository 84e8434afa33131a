"""Accepted rows as files: whole or not at all, and only of the versions that were asked for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import datasets
import pyarrow.parquet as pq
import pytest

from data_contracts.catalog.exporting import Format, export_rows, terms_lines, versions_to_export
from data_contracts.errors import DataRefused, StoreError
from tests.data_contracts.made_versions import FIRST, RENAMED, WIDER, Made, notes
from tests.data_contracts.making import column

FORMATS = pytest.mark.parametrize("format", get_args(Format))


def two_days(folder: Path) -> Made:
    made = Made(folder)
    made.publish(notes(a="apple", b="berry"), day="monday")
    made.publish(notes(a="banana"), day="monday")
    made.publish(notes(c="cherry"), day="tuesday")
    return made


def contents(to: Path, format: Format) -> list[str]:
    match format:
        case "parquet":
            return pq.read_table(to)["content"].to_pylist()  # type: ignore[no-any-return]
        case "jsonl":
            return [json.loads(line)["content"] for line in to.read_text("utf-8").splitlines()]
        case "dataset":
            return list(datasets.load_from_disk(str(to))["content"])


@FORMATS
def test_an_export_holds_the_current_rows_of_every_partition(tmp_path: Path, format: Format) -> None:
    made, to = two_days(tmp_path), tmp_path / "out" / "rows"
    done = export_rows(made.tables, versions_to_export(made.tables), to, format)
    assert contents(to, format) == ["banana", "cherry"]
    assert (done.partitions, done.rows) == (2, 2)
    assert done.bytes == sum(f.stat().st_size for f in ([to] if to.is_file() else to.iterdir()))
    assert [p.name for p in to.parent.iterdir()] == ["rows"]


@FORMATS
def test_an_export_does_not_overwrite(tmp_path: Path, format: Format) -> None:
    made, to = two_days(tmp_path), tmp_path / "rows"
    to.write_text("mine")
    with pytest.raises(DataRefused, match="is not overwritten"):
        export_rows(made.tables, versions_to_export(made.tables), to, format)
    assert to.read_text() == "mine"


@FORMATS
def test_an_export_that_fails_in_the_middle_leaves_nothing(tmp_path: Path, format: Format) -> None:
    made, to = two_days(tmp_path), tmp_path / "out" / "rows"
    chosen = versions_to_export(made.tables)
    accepted = Path(made.tables.uri("accepted"))
    for file in (accepted / f"attempt_id={chosen[1].attempt_id}").iterdir():
        file.unlink()
    with pytest.raises(StoreError):
        export_rows(made.tables, chosen, to, format)
    assert list(to.parent.iterdir()) == []


def test_a_named_version_takes_the_place_of_the_current_one(tmp_path: Path) -> None:
    made = two_days(tmp_path)
    first = made.tables.versions("monday")[0]
    chosen = versions_to_export(made.tables, names=[first.ingest_id[:10]])
    assert [v.attempt_id for v in chosen] == [first.attempt_id, made.tables.version("tuesday").attempt_id]
    assert versions_to_export(made.tables, ["monday"], [first.ingest_id]) == [first]
    assert [v.partition for v in versions_to_export(made.tables, ["tuesday"])] == ["tuesday"]


def test_partitions_and_versions_that_are_not_there_are_refused_by_name(tmp_path: Path) -> None:
    made = two_days(tmp_path)
    with pytest.raises(DataRefused, match=r"no partition 'mondy' \(perhaps monday"):
        versions_to_export(made.tables, ["mondy"])
    with pytest.raises(DataRefused, match="0 partitions have a version that begins with 'zz'"):
        versions_to_export(made.tables, names=["zz"])


def test_a_refused_version_is_not_exported(tmp_path: Path) -> None:
    made = Made(tmp_path)
    contract = made.contract(quality=[{"metric": "rowCount", "mustBeGreaterThan": 1}])
    refused = made.publish(notes(a="alone"), contract)
    with pytest.raises(DataRefused, match="no version was accepted"):
        versions_to_export(made.tables)
    with pytest.raises(DataRefused, match="was refused"):
        export_rows(made.tables, versions_to_export(made.tables, names=[refused.ingest_id]), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_versions_of_three_schemas_share_the_columns_of_all(tmp_path: Path) -> None:
    made = Made(tmp_path)
    given = [
        ({"key": "a", "content": "first", "count": 1}, FIRST),
        ({"name": "b", "content": "renamed", "cases": 2}, RENAMED),
        ({"name": "c", "content": "wider", "cases": 3, "active": 4}, WIDER),
    ]
    for number, (row, columns) in enumerate(given):
        made.publish([row], made.contract(columns, version=f"{number + 1}.0.0"), day=f"day{number}")
    done = export_rows(made.tables, versions_to_export(made.tables), tmp_path / "all")
    found = pq.read_table(tmp_path / "all")
    assert found["cases"].to_pylist() == [None, 2, 3]
    assert found["count"].to_pylist() == [1, None, None]
    assert tuple(found.column_names) == done.columns
    # Columns of contracts that no exported version has are not there at all.
    export_rows(made.tables, versions_to_export(made.tables, ["day1", "day2"]), tmp_path / "newer")
    assert "count" not in pq.read_table(tmp_path / "newer").column_names


def test_json_lines_hold_dates_in_iso_8601_and_text_as_it_is(tmp_path: Path) -> None:
    made = Made(tmp_path)
    contract = made.contract((*WIDER, column("seen", "date"), column("at", "timestamp")))
    made.publish([{"name": "a", "content": "grün ✓", "seen": "2026-01-02", "at": "2026-01-02T03:04:05Z"}], contract)
    export_rows(made.tables, versions_to_export(made.tables), tmp_path / "rows.jsonl", "jsonl")
    text = (tmp_path / "rows.jsonl").read_text("utf-8")
    row = json.loads(text)
    assert (row["seen"], row["at"]) == ("2026-01-02", "2026-01-02T03:04:05+00:00")
    assert "grün ✓" in text


def test_a_partition_without_rows_is_exported_as_none(tmp_path: Path) -> None:
    made = two_days(tmp_path)
    made.publish([], day="monday")
    assert export_rows(made.tables, versions_to_export(made.tables), tmp_path / "some").rows == 1
    empty = versions_to_export(made.tables, ["monday"])
    assert export_rows(made.tables, empty, tmp_path / "none").rows == 0
    with pytest.raises(DataRefused, match="export as parquet"):
        export_rows(made.tables, empty, tmp_path / "dataset", "dataset")


def test_the_terms_say_licence_attribution_residency_and_purposes(tmp_path: Path) -> None:
    terms = {"attribution": "The Test Office, 2026", "residency": {"storage": ["EU"], "processing": ["EU", "NO"]}}
    contract = Made(tmp_path).contract(
        terms={**terms, "purposes": {"permitted": ["research"], "prohibited": ["commercial"]}}
    )
    said = "\n".join(terms_lines([("test/notes", contract.terms)]))
    for part in (
        "licence CC0-1.0",
        "The Test Office, 2026",
        "storage: EU",
        "processing: EU, NO",
        "prohibited: commercial",
    ):
        assert part in said
