from __future__ import annotations

import contextlib
import csv
import datetime
import io
import json
import os
from pathlib import Path
from typing import Any
from xml.parsers.expat import ExpatError

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.errors import ContractError, DataRefused
from data_contracts.sources import Source, open_source
from data_contracts.sources.xml_files import parse
from tests.data_contracts.making import column, make_contract, write_lines

PACKAGE_COLUMNS = tuple(
    column(name, **({"partitioned": True} if name == "initial" else {}))
    for name in ("distribution", "version", "path", "initial", "licence", "content_type", "content")
)


def rows(source: Source) -> list[dict[str, Any]]:
    return [row for part in source.partitions() for batch in source.read(part) for row in batch.to_pylist()]


def install(
    site: Path,
    name: str,
    files: dict[str, bytes],
    headers: str = "License-Expression: MIT\n",
    record: str | None = None,
) -> None:
    folder = f"{name}-1.0.dist-info"
    everything = {**files, f"{folder}/METADATA": f"Name: {name}\nVersion: 1.0\n{headers}\nAbout {name}.\n".encode()}
    for path, data in everything.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_bytes(data)
    listed = record or "".join(f"{path},,\n" for path in everything)
    (site / folder / "RECORD").write_text(listed)


def packages(folder: Path, site: Path, part: str = "source", **more: Any) -> Source:
    reader = {"format": "python-environment", "part": part, "share": 1, **more}
    return open_source(make_contract(folder, PACKAGE_COLUMNS, reader=reader), f"env:{site}")


def test_a_module_carries_its_distribution_version_path_licence_and_initial(tmp_path: Path) -> None:
    install(tmp_path / "site", "Alpha", {"alpha/a.py": b"x = 1\n", "alpha/data.json": b"{}"})
    source = packages(tmp_path, tmp_path / "site")
    assert [part.value for part in source.partitions()] == ["a"]
    (row,) = rows(source)
    assert row | {"_source_file": "alpha/a.py", "_source_line": 1, "_fault": None, "_raw": None} == row
    assert row["distribution"] == "Alpha"
    assert row["version"] == "1.0"
    assert row["licence"] == "MIT"
    assert row["path"] == "alpha/a.py"
    assert row["initial"] == "a"
    assert row["content"] == "x = 1\n"


def test_the_descriptions_of_packages_are_a_part_of_their_own(tmp_path: Path) -> None:
    install(tmp_path / "site", "alpha", {}, "Description-Content-Type: text/markdown\n")
    (row,) = rows(packages(tmp_path, tmp_path / "site", "docs"))
    assert (row["content"], row["content_type"]) == ("About alpha.\n", "text/markdown")
    assert row["licence"] is None


def test_the_licence_files_of_packages_are_a_part_of_their_own(tmp_path: Path) -> None:
    files = {
        f"alpha-1.0.dist-info/{name}": b"text" for name in ("LICENSE.txt", "licence", "COPYING", "Notice.md", "AUTHORS")
    }
    install(tmp_path / "site", "alpha", {**files, "alpha/license_tools.py": b""})
    found = {row["path"].split("/")[1] for row in rows(packages(tmp_path, tmp_path / "site", "licences"))}
    assert found == {"LICENSE.txt", "licence", "COPYING", "Notice.md"}


def test_bytes_that_are_not_utf8_are_a_fault_with_the_bytes_kept(tmp_path: Path) -> None:
    install(tmp_path / "site", "alpha", {"a.py": b"# caf\xe9\n"})
    (row,) = rows(packages(tmp_path, tmp_path / "site"))
    assert row["content"] is None
    assert row["_raw"] == b"# caf\xe9\n"
    assert "0xe9" in row["_fault"]


def test_names_that_leave_the_environment_and_missing_files_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "outside.py").write_text("secret = 1\n")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "link.py").symlink_to(tmp_path / "outside.py")
    names = [
        "../outside.py",
        str(tmp_path / "outside.py"),
        "link.py",
        "gone.py",
        "a.py",
        "alpha-1.0.dist-info/METADATA",
    ]
    install(tmp_path / "site", "alpha", {"a.py": b"a = 1\n"}, record="".join(f"{name},,\n" for name in names))
    assert [row["path"] for row in rows(packages(tmp_path, tmp_path / "site"))] == ["a.py"]


def test_an_editable_project_and_broken_metadata_hide_no_other_package(tmp_path: Path) -> None:
    site = tmp_path / "site"
    install(site, "alpha", {"a.py": b"a = 1\n"})
    install(site, "beta", {"b.py": b"b = 1\n"})
    (site / "beta-1.0.dist-info" / "direct_url.json").write_text(json.dumps({"dir_info": {"editable": True}}))
    install(site, "gamma", {"c.py": b"c = 1\n"})
    (site / "gamma-1.0.dist-info" / "METADATA").write_bytes(b"Name: gamma\xff\n")
    (site / "delta-1.0.dist-info").mkdir()
    (site / "delta-1.0.dist-info" / "RECORD").write_bytes(b"\xff\xfe")
    found = {row["path"]: (row["distribution"], row["licence"]) for row in rows(packages(tmp_path, site))}
    assert found == {"a.py": ("alpha", "MIT"), "c.py": ("gamma", None)}


def test_only_selected_files_are_read_and_the_seed_selects_them(tmp_path: Path) -> None:
    install(tmp_path / "site", "alpha", {f"alpha/m{i}.py": b"x" for i in range(400)})
    chosen = {row["path"] for row in rows(packages(tmp_path, tmp_path / "site", share=0.25))}
    other = {row["path"] for row in rows(packages(tmp_path, tmp_path / "site", share=0.25, seed="2"))}
    assert 60 < len(chosen) < 140
    assert chosen != other
    assert chosen == {row["path"] for row in rows(packages(tmp_path, tmp_path / "site", share=0.25))}
    for path in sorted((tmp_path / "site" / "alpha").iterdir()):
        if f"alpha/{path.name}" not in chosen:
            path.write_bytes(b"\xff")  # a change that no partition may notice
    (part,) = packages(tmp_path, tmp_path / "site", share=0.25).partitions()
    assert {file.name for file in part.files} == chosen | {"alpha-1.0.dist-info/METADATA"}


def test_new_metadata_is_a_new_source_even_where_the_modules_stay(tmp_path: Path) -> None:
    install(tmp_path / "site", "alpha", {"a.py": b"a = 1\n"})
    before = packages(tmp_path, tmp_path / "site").partitions()[0].source_sha
    install(tmp_path / "site", "alpha", {"a.py": b"a = 1\n"}, "License-Expression: GPL-3.0-only\n")
    assert packages(tmp_path, tmp_path / "site").partitions()[0].source_sha != before


def test_a_file_that_changes_between_hashing_and_reading_is_refused(tmp_path: Path) -> None:
    install(tmp_path / "site", "alpha", {"a.py": b"a = 1\n"})
    source = packages(tmp_path, tmp_path / "site")
    (part,) = source.partitions()
    assert len(part.source_sha) == 64
    (tmp_path / "site" / "a.py").write_bytes(b"a = 2\n")
    with pytest.raises(DataRefused, match=r"a\.py: changed while it was read"):
        list(source.read(part))


def test_the_environment_of_this_interpreter_is_the_default(tmp_path: Path) -> None:
    reader = {"format": "python-environment", "part": "docs"}
    source = open_source(make_contract(tmp_path, PACKAGE_COLUMNS, reader=reader), "env:")
    assert "p" in [part.value for part in source.partitions()]


def test_a_missing_source_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DataRefused, match="nowhere"):
        packages(tmp_path, tmp_path / "nowhere")
    with pytest.raises(DataRefused, match="nowhere"):
        open_source(make_contract(tmp_path), str(tmp_path / "nowhere"))


XML_COLUMNS = (
    column("pid", primaryKey=True, primaryKeyPosition=1),
    column("group", partitioned=True),
    column("url"),
    column("content"),
)
XML_READER = {
    "format": "xml",
    "record": "Pairs/Pair",
    "fields": {"pid": "@pid", "url": "/Document/@url", "content": "Answer"},
    "partition": {"from": "path", "pattern": "^([^/]+)/"},
}


def xml_rows(tmp_path: Path, data: bytes) -> list[dict[str, Any]]:
    (tmp_path / "in" / "g1").mkdir(parents=True)
    (tmp_path / "in" / "g1" / "one.xml").write_bytes(data)
    return rows(open_source(make_contract(tmp_path, XML_COLUMNS, reader=XML_READER), str(tmp_path / "in")))


def test_xml_records_take_attributes_texts_and_facts_of_the_document(tmp_path: Path) -> None:
    pairs = '<Pair pid="1"><Answer> a &amp; <b>b</b> </Answer></Pair><Pair pid="2"/>'
    text = f'<Document url="u"><Pairs>{pairs}</Pairs></Document>'
    first, second = xml_rows(tmp_path, text.encode())
    assert (first["pid"], first["group"], first["url"], first["content"]) == ("1", "g1", "u", "a & b")
    assert (second["pid"], second["content"], second["_source_line"]) == ("2", None, 2)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'<!DOCTYPE d [<!ENTITY a "aaaa">]><d>&a;</d>', "DTD"),
        (b'<!DOCTYPE d SYSTEM "file:///etc/passwd"><d/>', "DTD"),
        (b"<d><unclosed></d>", "mismatched tag"),
        (b"<d>\xff</d>", "not well-formed"),
        (b"", "no element found"),
    ],
)
def test_xml_with_a_dtd_or_that_is_not_well_formed_is_one_faulty_record(
    tmp_path: Path, data: bytes, reason: str
) -> None:
    (row,) = xml_rows(tmp_path, data)
    assert reason in row["_fault"]
    assert row["_raw"] == data
    assert row["group"] == "g1"


@given(st.binary(max_size=200))
def test_the_xml_parser_answers_or_refuses_any_bytes(data: bytes) -> None:
    with contextlib.suppress(ExpatError, ValueError, LookupError):
        assert parse(data).tag


def test_a_text_file_is_one_record_and_its_path_gives_columns(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "fomc-20240131.txt").write_bytes(b"\xef\xbb\xbfMinutes\n")
    (tmp_path / "in" / "fomc-20240320.txt").write_bytes(b"\xff")
    reader = {"format": "text", "partition": {"from": "path", "pattern": r"(?P<meeting>\d{8})\.txt$"}}
    contract = make_contract(tmp_path, (column("meeting", partitioned=True), column("content")), reader=reader)
    first, second = rows(open_source(contract, str(tmp_path / "in")))
    assert (first["meeting"], first["content"], first["_fault"]) == ("20240131", "Minutes\n", None)
    assert (second["meeting"], second["content"], second["_raw"]) == ("20240320", None, b"\xff")


def test_a_file_in_no_partition_is_refused_not_skipped(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("x")
    reader = {"format": "text", "partition": {"from": "path", "pattern": r"(\d{8})"}}
    contract = make_contract(tmp_path, (column("day", partitioned=True), column("content")), reader=reader)
    with pytest.raises(DataRefused, match=r"notes\.txt"):
        open_source(contract, str(tmp_path / "in")).partitions()


def test_a_partition_pattern_without_a_group_is_a_fault_of_the_contract(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="no group"):
        open_source(make_contract(tmp_path, reader={"format": "text", "partition": {"pattern": "x"}}), str(tmp_path))


TABLE_COLUMNS = (
    column("key", primaryKey=True, primaryKeyPosition=1),
    column("day", "date", partitioned=True),
    column("count", "integer"),
    column("share", "number"),
    column("seen", "timestamp"),
    column("good", "boolean"),
    column("content", physicalName="Text"),
)


def table_rows(tmp_path: Path, form: str, data: bytes) -> list[dict[str, Any]]:
    path = tmp_path / "in" / f"2024-02-03.{form}"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    reader = {"format": form, "partition": {"from": "path", "pattern": r"(\d{4}-\d\d-\d\d)"}}
    return rows(open_source(make_contract(tmp_path, TABLE_COLUMNS, reader=reader), str(tmp_path / "in")))


def test_csv_fields_are_typed_by_the_contract(tmp_path: Path) -> None:
    data = b'key,count,share,seen,good,Text\na,1,0.5,2024-02-03T04:05:06Z,true,"two\nlines"\nb,,,,,""\n'
    first, second = table_rows(tmp_path, "csv", data)
    assert first["day"] == datetime.date(2024, 2, 3)
    assert first["count"] == 1
    assert first["share"] == 0.5
    assert first["seen"] == datetime.datetime(2024, 2, 3, 4, 5, 6, tzinfo=datetime.UTC)
    assert first["good"] is True
    assert first["content"] == "two\nlines"
    assert second["content"] == ""
    assert second["count"] is None


def test_bad_csv_rows_are_faults_of_their_own_record_in_order(tmp_path: Path) -> None:
    data = b"key,count,Text\na,1,x\nb,2\nc,many,y\nd,4,\xff\ne,5,z\nf,6,z,9\n"
    found = table_rows(tmp_path, "csv", data)
    assert [row["_source_line"] for row in found] == [2, 3, 4, 5, 6, 7]
    assert [row["_fault"] is None for row in found] == [True, False, False, False, True, False]
    assert "2 fields" in found[1]["_fault"]
    assert "'many'" in found[2]["_fault"]
    assert "content" in found[3]["_fault"]
    assert found[1]["_raw"] == b"b,2"
    assert found[2]["count"] is None
    assert found[2]["content"] == "y"


def test_empty_and_truncated_csv_files_lose_no_record_silently(tmp_path: Path) -> None:
    assert table_rows(tmp_path, "csv", b"") == []
    assert table_rows(tmp_path, "csv", b"key,Text\n") == []
    found = table_rows(tmp_path, "csv", b'key,Text\na,x\nb,"never closed\n')
    assert found[0]["content"] == "x"
    assert len(found) == 2


FIELD = st.text(st.sampled_from('ab ,"\n\u00e9'), min_size=1, max_size=5).filter(str.strip)


@settings(deadline=None)
@given(cells=st.lists(st.lists(FIELD, min_size=1, max_size=3), max_size=40), block=st.sampled_from([400, 1 << 20]))
def test_csv_rows_keep_their_order_and_number_whatever_the_block(
    tmp_path_factory: pytest.TempPathFactory, cells: list[list[str]], block: int
) -> None:
    from data_contracts.sources import csv_files

    folder, text = tmp_path_factory.mktemp("csv"), io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([["key", "Text"], *cells])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_files, "_BLOCK_BYTES", block)
        found = table_rows(folder, "csv", text.getvalue().encode())
    assert [row["_source_line"] for row in found] == list(range(2, len(cells) + 2))
    for row, cell in zip(found, cells, strict=True):
        assert (row["_fault"] is None) == (len(cell) == 2)
        assert len(cell) != 2 or [row["key"], row["content"]] == cell


def test_bad_json_lines_are_faults_of_their_own_line(tmp_path: Path) -> None:
    lines = [b'{"key": "a", "count": 1, "Text": "x"}', b"", b"{broken", b"[1]", b'{"key": "b", "share": NaN}']
    lines += [b'{"key": "c", "count": 1.5}', b'{"key": 7}', b'{"Text": "\\ud800"}', b"\xff"]
    found = table_rows(tmp_path, "jsonl", b"\n".join(lines))
    assert [row["_source_line"] for row in found] == [1, 3, 4, 5, 6, 7, 8, 9]
    assert [row["_fault"] is None for row in found] == [True] + [False] * 7
    assert found[0]["count"] == 1
    assert found[1]["_raw"] == b"{broken"


def test_parquet_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    made = pa.table({"key": ["a", "b"], "count": pa.array([1, None], pa.int32()), "Text": ["x", "y"], "more": [1, 2]})
    sink = pa.BufferOutputStream()
    pq.write_table(made, sink)
    found = table_rows(tmp_path, "parquet", sink.getvalue().to_pybytes())
    assert [(row["key"], row["count"], row["content"]) for row in found] == [("a", 1, "x"), ("b", None, "y")]
    with pytest.raises(DataRefused, match=r"2024-02-03\.parquet"):
        table_rows(tmp_path, "parquet", b"PAR1 this is none")


def test_partitions_are_sorted_and_name_their_files_relative_to_the_source(tmp_path: Path) -> None:
    for day in ("2024-02-03", "2024-02-01"):
        write_lines(tmp_path / "in" / "sub" / f"{day}.jsonl", [{"key": "a"}])
    (tmp_path / "in" / ".hidden.jsonl").write_text("{")
    os.symlink("/etc/hostname", tmp_path / "in" / "link.jsonl")
    reader = {"format": "jsonl", "partition": {"from": "path", "pattern": r"(\d{4}-\d\d-\d\d)"}}
    parts = open_source(make_contract(tmp_path, TABLE_COLUMNS, reader=reader), str(tmp_path / "in")).partitions()
    assert [part.value for part in parts] == ["2024-02-01", "2024-02-03"]
    assert parts[0].files[0].name == "sub/2024-02-01.jsonl"
    assert parts[0].source_sha != parts[1].source_sha
