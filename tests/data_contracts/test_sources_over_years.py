"""A data set whose files changed over the years: other names of columns, other spellings of time, a byte order mark."""

from __future__ import annotations

from pathlib import Path

from data_contracts.sources import open_source
from tests.data_contracts.making import column, make_contract


def test_a_column_is_found_under_the_name_it_had_that_year(tmp_path: Path) -> None:
    columns = (
        column("day", "date", partitioned=True),
        column("content", physicalName="Country_Region"),
        column("updated", "timestamp", physicalName="Last_Update"),
    )
    reader = {
        "format": "csv",
        "aliases": {"content": ["Country/Region"], "updated": ["Last Update"]},
        "timestampFormats": ["%m/%d/%Y %H:%M", "%m/%d/%y %H:%M"],
        "partition": {"from": "path", "pattern": r"(?P<month>\d\d)-(?P<day>\d\d)-(?P<year>\d{4})\.csv$"},
    }
    contract = make_contract(tmp_path / "c", columns, reader=reader)
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "01-22-2020.csv").write_bytes(b"\xef\xbb\xbfCountry/Region,Last Update\r\nJapan,1/22/2020 17:00\r\n")
    (folder / "03-22-2020.csv").write_bytes(b"\xef\xbb\xbfLast_Update,Country_Region\n3/22/20 23:45,Japan\n")
    (folder / "03-23-2020.csv").write_bytes(b"Last_Update,Country_Region\n2020-03-23 23:19:34,Japan\n")
    source = open_source(contract, str(folder))
    assert [p.value for p in source.partitions()] == ["2020-01-22", "2020-03-22", "2020-03-23"]
    rows = [row for p in source.partitions() for b in source.read(p) for row in b.to_pylist()]
    assert [row["_fault"] for row in rows] == [None] * 3
    assert [row["content"] for row in rows] == ["Japan"] * 3
    assert [str(row["day"]) for row in rows] == ["2020-01-22", "2020-03-22", "2020-03-23"]
    assert [f"{row['updated']:%Y-%m-%d %H:%M}" for row in rows] == [
        "2020-01-22 17:00",
        "2020-03-22 23:45",
        "2020-03-23 23:19",
    ]
