"""Text, tables, JSON documents, HTML and Arrow: what a record is, and what damage costs."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from data_contracts.errors import ContractError, DataRefused
from data_contracts.sources import json_files, open_source
from data_contracts.sources.html_files import seen_text
from tests.data_contracts.making import column, make_contract

PART = column("part", partitioned=True)


def read(
    folder: Path, files: Mapping[str, bytes], names: Sequence[str | Mapping[str, Any]], **reader: Any
) -> list[dict[str, Any]]:
    columns = [column(name) if isinstance(name, str) else name for name in names]
    if "part" not in names:
        columns.append(PART)
    for name, data in files.items():
        (folder / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "in" / name).write_bytes(data)
    source = open_source(make_contract(folder / "c", columns, reader=reader), str(folder / "in"))
    return [row for part in source.partitions() for batch in source.read(part) for row in batch.to_pylist()]


def contents(rows: list[dict[str, Any]]) -> list[tuple[int, Any]]:
    return [(row["_source_line"], row["content"]) for row in rows]


def test_each_line_of_a_text_is_a_record_and_blank_ones_are_none(tmp_path: Path) -> None:
    found = read(
        tmp_path, {"a.txt": b"\xef\xbb\xbfone\r\n\n two \r\xff\nthree"}, ["content"], format="text", split="line"
    )
    assert contents(found) == [(1, "one"), (3, " two "), (4, None), (5, "three")]
    assert found[2]["_raw"] == b"\xff"


def test_paragraphs_are_what_stands_between_blank_lines(tmp_path: Path) -> None:
    data = b"\none\nmore\n \n\r\ntwo\n\n\n"
    found = read(tmp_path, {"a.txt": data}, ["content"], format="text", split="paragraph", trim=True)
    assert contents(found) == [(2, "one\nmore"), (6, "two")]


def test_a_pattern_separates_records_and_a_lookahead_keeps_what_it_finds(tmp_path: Path) -> None:
    reader = {"format": "text", "split": {"pattern": "^(?=# )"}, "fields": {"title": r"\A# (.*)"}}
    found = read(tmp_path, {"a.txt": b"# One\ntext\n# Two\n"}, ["title", "content"], **reader)
    assert [(r["_source_line"], r["title"], r["content"]) for r in found] == [
        (1, "One", "# One\ntext\n"),
        (3, "Two", "# Two\n"),
    ]


def test_a_front_is_taken_off_and_its_groups_are_columns(tmp_path: Path) -> None:
    front = {"pattern": r"(?s)\A---\nTitle: (?P<title>[^\n]*)\n---\n"}
    files = {"a.txt": "---\nTitle: Gesetz\n---\nParagraph ü\n".encode(), "b.txt": b"no head\n"}
    found = read(tmp_path, files, ["title", "content"], format="text", front=front)
    assert [(row["title"], row["content"]) for row in found] == [("Gesetz", "Paragraph ü\n"), (None, "no head\n")]
    found = read(tmp_path, files, ["title", "content"], format="text", front=front, split="line")
    assert contents(found) == [(4, "Paragraph ü"), (1, "no head")]


def test_files_side_by_side_are_joined_by_line_and_unmatched_lines_are_faults(tmp_path: Path) -> None:
    reader = {"format": "text", "split": "line", "beside": {"label": "labels.txt"}, "nulls": [""]}
    files = {"t/titles.txt": b"a\n\nc\nd\ne\n", "t/labels.txt": b"1\n2\n\xff\n"}
    found = read(tmp_path, files, ["label", "content"], **reader)
    assert [(r["_source_line"], r["content"], r["label"], r["_fault"] is None) for r in found] == [
        (1, "a", "1", True),
        (2, None, "2", True),
        (3, "c", None, False),
        (4, None, None, False),
        (5, None, None, False),
    ]
    assert "labels.txt has no line 4" in found[3]["_fault"]
    assert found[3]["_raw"] == b"d"
    more = read(tmp_path, {"t/titles.txt": b"a\n", "t/labels.txt": b"1\n2\n"}, ["label", "content"], **reader)
    assert [(r["content"], r["_fault"] is None, r["_raw"]) for r in more] == [("a", True, None), (None, False, b"2")]


def test_a_change_of_what_stands_beside_is_another_version_of_the_partition(tmp_path: Path) -> None:
    reader = {"format": "text", "files": "titles.txt", "split": "line", "beside": {"label": "labels.txt"}}
    contract = make_contract(tmp_path / "c", [column("label"), column("content"), PART], reader=reader)
    (tmp_path / "titles.txt").write_text("a\n")
    shas = []
    for label in ("1\n", "2\n"):
        (tmp_path / "labels.txt").write_text(label)
        shas.append(open_source(contract, str(tmp_path)).partitions()[0].source_sha)
    assert shas[0] != shas[1]
    (tmp_path / "labels.txt").unlink()
    with pytest.raises(DataRefused, match=r"labels\.txt: not there"):
        open_source(contract, str(tmp_path)).partitions()


def test_tables_of_blanks_have_as_many_words_as_columns(tmp_path: Path) -> None:
    data = b"made by hand\n1  2.5 x  \n\n2\t-\ty\n3 4\n4 5 6 7\n5 nan \xff\n"
    names = [column("unit", "integer"), column("value", "number"), column("content")]
    reader = {"format": "table", "columns": ["unit", "value", "content"], "skipRows": 1, "nulls": ["-"]}
    found = sorted(read(tmp_path, {"a.txt": data}, names, **reader), key=lambda row: int(row["_source_line"]))
    assert [(r["_source_line"], r["unit"], r["value"], r["content"], r["_fault"] is None) for r in found] == [
        (2, 1, 2.5, "x", True),
        (4, 2, None, "y", True),
        (5, None, None, None, False),
        (6, None, None, None, False),
        (7, None, None, None, False),
    ]
    assert found[2]["_raw"] == b"3 4"


def test_the_first_line_of_a_table_names_its_columns(tmp_path: Path) -> None:
    assert contents(read(tmp_path, {"a.txt": b"x content\n1 a\n"}, ["content"], format="table")) == [(2, "a")]


SQUAD = {
    "version": "v1",
    "data": [
        {"title": "T1", "paragraphs": [{"context": "C1", "qas": [{"id": "q1", "q": "?"}, {"id": "q2"}]}]},
        {"title": "T2", "paragraphs": [{"context": "C2", "qas": []}, {"context": "C3", "qas": [{"id": "q3"}]}]},
    ],
}
SQUAD_FIELDS = {"id": "id", "content": "^.context", "title": "^^.title", "version": "/version", "place": "^@index"}


def test_nested_records_reach_upward_and_to_the_root(tmp_path: Path) -> None:
    reader = {"format": "json", "record": "$.data[*].paragraphs[*].qas[*]", "fields": SQUAD_FIELDS}
    names = ["id", "content", "title", "version", "place"]
    files = {"a.json": json.dumps(SQUAD).encode()}
    with pytest.raises(ContractError, match="place"):
        read(tmp_path, files, names[:4], **reader)
    names[4] = column("place", "integer")  # type: ignore[call-overload]
    found = read(tmp_path, files, names, **reader)
    assert [[row[name] for name in ("id", "content", "title", "version", "place")] for row in found] == [
        ["q1", "C1", "T1", "v1", 0],
        ["q2", "C1", "T1", "v1", 0],
        ["q3", "C3", "T2", "v1", 1],
    ]


def test_members_lists_and_single_documents_are_records(tmp_path: Path) -> None:
    keyed = {"p1": {"texts": ["a", "b", None], "a": [{"t": "x"}]}, "p2": {"texts": [], "a": []}}
    fields = {"key": "@key", "content": "texts[*]", "first": "a[0].t"}
    found = read(
        tmp_path / "1",
        {"a.json": json.dumps(keyed).encode()},
        ["key", "content", "first"],
        format="json",
        record="$.*",
        fields=fields,
    )
    assert [(r["key"], r["content"], r["first"]) for r in found] == [("p1", "a\nb", "x"), ("p2", None, None)]
    listed = read(
        tmp_path / "2", {"a.json": b'[{"content": "x"}, 7]', "b.json": b'{"content": "y"}'}, ["content"], format="json"
    )
    assert [(r["content"], r["_fault"] is None) for r in listed] == [("x", True), (None, False), ("y", True)]
    odd = {"format": "json", "record": "$", "fields": {"content": '["odd.name"].x'}}
    assert contents(read(tmp_path / "3", {"a.json": b'{"odd.name": {"x": "z"}}'}, ["content"], **odd)) == [(1, "z")]


@pytest.mark.parametrize(
    ("data", "good", "rest"),
    [
        (b'[{"content": "a"}, {"content": "b"}, {"content": brok}, {"content": "d"}]', 2, b'{"content": brok}'),
        (b'[{"content": "a"}, {"content": "b"', 1, b'{"content": "b"'),
        (b'[{"content": "a"}] trailing', 0, b'{"content": "a"}] trailing'),
        (b"", 0, b""),
        (b"[" * 100_000, 0, b"["),
        (b'[{"content": NaN}]', 0, b'{"content": NaN}]'),
    ],
)
def test_a_broken_document_gives_what_stands_before_the_damage_and_the_rest_as_one_fault(
    tmp_path: Path, data: bytes, good: int, rest: bytes
) -> None:
    found = read(tmp_path, {"a.json": data}, ["content"], format="json", record="$[*]")
    assert [row["_fault"] is None for row in found] == [True] * good + [False]
    assert found[-1]["_raw"].startswith(rest)


@pytest.mark.parametrize("record", ["$[*]", "$.*", "$.data[*].rows[*]"])
def test_a_large_document_is_streamed_to_the_same_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record: str
) -> None:
    rows = [{"content": f"text {n}", "n": 1.5} for n in range(50)]
    document: Any = {"$[*]": rows, "$.*": {f"k{n}": row for n, row in enumerate(rows)}}.get(record)
    document = document or {"head": 1, "data": [{"title": "t", "rows": rows[:20]}, {"title": "u", "rows": rows[20:]}]}
    nested = record.startswith("$.data")
    fields = {"content": "content", "key": "^.title" if nested else "@key"}
    reader = {"format": "json", "record": record, "fields": fields}
    files = {"a.json": json.dumps(document).encode()}
    whole = read(tmp_path, files, ["content", "key"], **reader)
    monkeypatch.setattr(json_files, "_WHOLE_BYTES", 100)
    assert read(tmp_path, files, ["content", "key"], **reader) == whole
    assert len(whole) == 50
    broken = read(tmp_path, {"a.json": files["a.json"][:-40]}, ["content", "key"], **reader)
    assert broken[-1]["_fault"]
    # What is streamed is an entry of the outermost list: the one that breaks off is the fault.
    assert len(broken) == (21 if nested else 49 if record == "$.*" else len(broken))
    with pytest.raises(DataRefused, match="split it"):
        read(tmp_path, files, ["content", "key"], format="json", record=record, fields={"content": "/head"})


def test_paths_that_are_none_are_faults_of_the_contract(tmp_path: Path) -> None:
    for reader in ({"record": "data[*]"}, {"record": "$.a[x]"}, {"fields": {"content": "a[["}}):
        with pytest.raises(ContractError, match=r"reader\.(record|fields)"):
            read(tmp_path, {"a.json": b"{}"}, ["content"], format="json", **reader)


def test_drift_of_json_is_judged_by_members(tmp_path: Path) -> None:
    names = ["key", "content"]
    for form, data in (("json", b'[{"content": "a", "x": 1}]'), ("jsonl", b'{"content": "a", "x": 1}\n')):
        files = {f"a.{form}": data}
        assert len(read(tmp_path / form, files, names, format=form)) == 1
        with pytest.raises(DataRefused, match="has 'x'"):
            read(tmp_path / form, files, names, format=form, drift={"added": "refuse"})
        with pytest.raises(DataRefused, match="no record has 'key'"):
            read(tmp_path / form, files, names, format=form, drift={"missing": "refuse"})


PAGE = b"""<html><head><title>The title</title><style>x{}</style></head><body><h1>Head</h1>
<script>alert("no")</script><p>One <b>bold</b>&amp;   word<br>next</p><div style="display:none">never</div>
<table><tr><td>a</td><td>b</td></tr></table><p hidden>no</p><a href="u">link</a></body>"""


def test_what_is_seen_of_a_page_is_its_text(tmp_path: Path) -> None:
    fields = {"title": "head/title", "content": "body", "link": ".//a/@href"}
    (row,) = read(tmp_path, {"a.html": PAGE}, ["title", "content", "link"], format="html", fields=fields)
    assert row["content"] == "Head\nOne bold& word\nnext\na\tb\nlink"
    assert (row["title"], row["link"]) == ("The title", "u")
    rows = read(tmp_path, {"a.html": PAGE}, ["content"], format="html", record=".//td", fields={"content": "."})
    assert contents(rows) == [(1, "a"), (2, "b")]


def test_pages_say_their_encoding_and_damage_of_markup_is_repaired(tmp_path: Path) -> None:
    gb = '<meta charset="gb2312"><p>心血管'.encode("gb18030")
    assert contents(read(tmp_path, {"a.html": gb}, ["content"], format="html")) == [(1, "心血管")]
    deep = b"<div>" * 5_000 + b"x"
    assert contents(read(tmp_path, {"a.html": deep}, ["content"], format="html")) in ([(1, "x")], [(1, "")])
    for data in (b"", b"\xff\xfe\xfd", b"<p>\xff", b'<meta charset="nonsense">x'):
        (row,) = read(tmp_path, {"a.html": data}, ["content"], format="html")
        assert "not usable HTML" in row["_fault"]
        assert row["_raw"] == data


def test_seen_text_of_nothing_is_empty() -> None:
    from lxml import etree

    assert seen_text(etree.fromstring("<p/>")) == ""


def test_xml_in_a_stated_encoding_overrules_what_it_says(tmp_path: Path) -> None:
    data = '<?xml version="1.0" encoding="ascii"?><d><r>心</r></d>'.encode("gb18030")
    reader = {"format": "xml", "record": "r", "fields": {"content": "."}}
    assert contents(read(tmp_path, {"a.xml": data}, ["content"], encoding="gb18030", **reader)) == [(1, "心")]
    assert read(tmp_path, {"a.xml": data}, ["content"], **reader)[0]["_fault"]


def test_a_text_of_an_arrow_file_that_is_no_utf8_costs_its_record(tmp_path: Path) -> None:
    texts = pa.array([b"a", b"\xff", b"c"]).view(pa.string())
    (tmp_path / "in").mkdir()
    with pa.ipc.new_file(str(tmp_path / "in" / "a.arrow"), pa.schema({"content": pa.string()})) as writer:
        writer.write_batch(pa.record_batch({"content": texts}))
    found = read(tmp_path, {}, ["content"], format="arrow")
    assert [(row["content"], row["_fault"] is None) for row in found] == [("a", True), (None, False), ("c", True)]


@pytest.mark.parametrize("kind", ["file", "stream"])
def test_arrow_files_and_streams_are_read_with_dictionaries_as_values(tmp_path: Path, kind: str) -> None:
    table = pa.table({"content": pa.array(["x", None, "x"]).dictionary_encode(), "n": pa.array([1, 2, 3], pa.int8())})
    sink = pa.BufferOutputStream()
    with (pa.ipc.new_file if kind == "file" else pa.ipc.new_stream)(sink, table.schema) as writer:
        writer.write_table(table)
    data = sink.getvalue().to_pybytes()
    found = read(tmp_path, {"a.arrow": data}, ["content", column("n", "integer")], format="arrow")
    assert [(row["content"], row["n"]) for row in found] == [("x", 1), (None, 2), ("x", 3)]
    for broken in (data[: len(data) // 2], b"", b"ARROW1\0\0"):
        with pytest.raises(DataRefused, match=r"a\.arrow: cannot be read as Arrow"):
            read(tmp_path, {"a.arrow": broken}, ["content", column("n", "integer")], format="arrow")
