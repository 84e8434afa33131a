"""CSV as it comes: dialects, encodings, and damage that may cost its own record only."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.contract import Contract
from data_contracts.errors import ContractError, DataRefused
from data_contracts.sources import csv_files, open_source
from data_contracts.sources.csv_records import Dialect, parse
from tests.data_contracts.making import column, make_contract

COLUMNS = (column("key"), column("count", "integer"), column("content"), column("part", partitioned=True))


KNOWN: dict[str, Contract] = {}


def contract_of(folder: Path, **reader: Any) -> Contract:
    # Drawn cases read many files under a few contracts, and loading one takes longer than reading a file.
    name = json.dumps(reader, sort_keys=True)
    if name not in KNOWN:
        KNOWN[name] = make_contract(folder / "c", COLUMNS, reader={"format": "csv", **reader})
    return KNOWN[name]


def read(folder: Path, data: bytes, **reader: Any) -> list[dict[str, Any]]:
    (folder / "in").mkdir(exist_ok=True)
    (folder / "in" / "a.csv").write_bytes(data)
    source = open_source(contract_of(folder, **reader), str(folder / "in"))
    return [row for part in source.partitions() for batch in source.read(part) for row in batch.to_pylist()]


def brief(rows: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(r["_source_line"], r["key"], r["count"], r["content"], r["_fault"] is not None) for r in rows]


def test_a_quote_that_never_closes_costs_its_line_and_the_rest_goes_on(tmp_path: Path) -> None:
    found = read(tmp_path, b'key,count,content\na,1,x\nb,2,"never closed\nc,3,y\nd,4,z\n')
    assert brief(found) == [
        (2, "a", 1, "x", False),
        (3, None, None, None, True),
        (4, "c", 3, "y", False),
        (5, "d", 4, "z", False),
    ]
    assert found[1]["_raw"] == b'b,2,"never closed'
    assert "never closed" in found[1]["_fault"]


def test_a_stray_quote_does_not_swallow_the_lines_up_to_the_next_one(tmp_path: Path) -> None:
    found = read(tmp_path, b'key,count,content\nb,2,"stray\nc,3,"y"\nd,4,z\n')
    assert brief(found) == [(2, None, None, None, True), (3, "c", 3, "y", False), (4, "d", 4, "z", False)]
    assert "follows the closing quote" in found[0]["_fault"]


def test_a_quote_that_closes_nowhere_near_is_no_reason_to_read_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("opening", "csv_records"):
        monkeypatch.setattr(f"data_contracts.sources.{module}.MOST_RECORD_BYTES", 500)
    monkeypatch.setattr(csv_files, "_BLOCK_BYTES", 100)
    rows = "".join(f"k{n},{n},text\n" for n in range(300))
    found = read(tmp_path, f'key,count,content\na,1,"open\n{rows}'.encode())
    assert [row["_fault"] is None for row in found] == [False] + [True] * 300
    assert found[0]["_raw"] == b'a,1,"open'


def test_a_quote_inside_an_unquoted_field_is_a_character(tmp_path: Path) -> None:
    assert brief(read(tmp_path, b'key,count,content\na,1,a 5" pipe\nb,2,"c"\n')) == [
        (2, "a", 1, 'a 5" pipe', False),
        (3, "b", 2, "c", False),
    ]


def test_ragged_records_of_several_lines_are_one_record_with_its_bytes(tmp_path: Path) -> None:
    found = read(tmp_path, b'key,count,content\na,"two\nlines"\nb,2,x\n')
    assert brief(found) == [(2, None, None, None, True), (3, "b", 2, "x", False)]
    assert found[0]["_raw"] == b'a,"two\nlines"'


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_every_end_of_a_line_is_read_and_mixed_ones_too(tmp_path: Path, end: bytes) -> None:
    data = end.join([b"key,count,content", b"a,1,x", b"", b'b,2,"y\ny"', b"c,3,z"])
    assert brief(read(tmp_path, data)) == [
        (2, "a", 1, "x", False),
        (3, "b", 2, "y\ny", False),
        (4, "c", 3, "z", False),
    ]
    mixed = b"key,count,content\r\na,1,x\rb,2,y\nc,3,z"
    assert [row["key"] for row in read(tmp_path, mixed)] == ["a", "b", "c"]


@pytest.mark.parametrize(("name", "data"), [("lf", b"a,1,x\ry\n"), ("cr", b"a,1,x\ny\r"), ("crlf", b"a,1,x\ny\r\n")])
def test_a_stated_line_end_leaves_the_others_to_the_data(tmp_path: Path, name: str, data: bytes) -> None:
    (row,) = read(tmp_path, data, lineEnd=name, columns=["key", "count", "content"])
    assert row["content"] in ("x\ry", "x\ny")


@pytest.mark.parametrize("codec", ["gb18030", "utf-16", "utf-16-be", "utf-8-sig", "big5"])
def test_a_stated_encoding_is_read(tmp_path: Path, codec: str) -> None:
    (row,) = read(tmp_path, "key,count,content\na,1,心血管\n".encode(codec), encoding=codec)
    assert row["content"] == "心血管"


@pytest.mark.parametrize(
    ("codec", "text"),
    [
        ("gb18030", "高血压病人可以口服党参的，党参有降血脂的作用。"),
        ("cp1252", "Le café où naïve Señor Müller – “quoted”"),
        ("utf-8", "Le café où naïve 高血压"),
        ("utf-16-le", "plain words"),
    ],
)
def test_an_encoding_is_detected_and_said(tmp_path: Path, codec: str, text: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.csv").write_bytes(f"key,count,content\na,1,{text}\n".encode(codec))
    source = open_source(contract_of(tmp_path, encoding="detect"), str(tmp_path / "in"))
    (row,) = [row for part in source.partitions() for batch in source.read(part) for row in batch.to_pylist()]
    assert row["content"] == text
    assert isinstance(source, csv_files.CsvFiles)
    assert source.layout.notes == [f"a.csv: its encoding is not stated and was taken to be {codec}"]


def test_bytes_that_the_encoding_lacks_cost_their_record_and_are_kept(tmp_path: Path) -> None:
    good = "key,count,content\na,1,心\n".encode("gb18030")
    found = read(tmp_path, good + b"b,2,\xff\xff\n" + "c,3,血\n".encode("gb18030"), encoding="gb18030")
    assert brief(found) == [(2, "a", 1, "心", False), (3, "b", 2, None, True), (4, "c", 3, "血", False)]
    assert found[1]["_raw"] == b"b,2,\xff\xff"
    assert "not gb18030: 0xff" in found[1]["_fault"]


def test_words_for_null_count_without_quotes_only(tmp_path: Path) -> None:
    data = b'key,count,content\nNA,NA,"NA"\n\\N,1,\\N\nx,,""\n'
    found = read(tmp_path, data, nulls=["NA", "\\N"], escape="\\")
    assert brief(found) == [(2, None, None, "NA", False), (3, None, 1, None, False), (4, "x", None, "", True)]


def test_an_escape_takes_the_next_character_as_it_is(tmp_path: Path) -> None:
    data = b'key,count,content\na,1,"say \\"no\\", Cote D\\\\\'Azur"\nb\\,c,2,x\n'
    assert brief(read(tmp_path, data, escape="\\")) == [
        (2, "a", 1, 'say "no", Cote D\\\'Azur', False),
        (3, "b,c", 2, "x", False),
    ]


def test_trim_takes_blanks_off_before_words_for_null_are_known(tmp_path: Path) -> None:
    data = b'key,count,content\n a , 1 ,"  padded  "\nb,  , NA \n'
    for dirty in (b"", b'c,3,"x\n'):
        found = read(tmp_path, data + dirty, trim=True, nulls=["", "NA"])
        assert brief(found)[:2] == [(2, "a", 1, "padded", False), (3, "b", None, None, False)]


def test_no_quotes_where_the_contract_says_so(tmp_path: Path) -> None:
    data = b'"a\t1\t"x\nb\t2\ty"\n'
    found = read(tmp_path, data, quote=None, delimiter="\t", columns=["key", "count", "content"])
    assert brief(found) == [(1, '"a', 1, '"x', False), (2, "b", 2, 'y"', False)]


def test_lines_before_the_header_are_skipped(tmp_path: Path) -> None:
    data = b'made by "someone\n\nkey,count,content\na,1,x\n'
    assert brief(read(tmp_path, data, skipRows=2)) == [(2, "a", 1, "x", False)]


def test_a_header_that_cannot_be_read_refuses_the_file(tmp_path: Path) -> None:
    with pytest.raises(DataRefused, match=r"a\.csv: the header cannot be read"):
        read(tmp_path, b'key,"count,content\na,1,x\n')
    with pytest.raises(DataRefused, match="the header cannot be read"):
        read(tmp_path, b"key,\xff,content\na,1,x\n")


def test_delimiter_and_quote_are_single_characters_that_differ(tmp_path: Path) -> None:
    for reader in ({"delimiter": "||"}, {"quote": ""}, {"delimiter": '"'}, {"encoding": "klingon"}, {"nulls": "NA"}):
        with pytest.raises(ContractError, match="reader"):
            contract_of(tmp_path, **reader)
    with pytest.raises(ContractError, match="delimiter"):
        contract_of(tmp_path, delimitr=";")


def test_drift_is_a_decision_of_the_contract(tmp_path: Path) -> None:
    added, fewer = b"key,count,content,more\na,1,x,y\n", b"key,count\na,1\n"
    assert len(read(tmp_path, added)) == len(read(tmp_path, fewer)) == 1
    with pytest.raises(DataRefused, match=r"a\.csv: has the column 'more'"):
        read(tmp_path, added, drift={"added": "refuse"})
    with pytest.raises(DataRefused, match=r"a\.csv: lacks the column 'content'"):
        read(tmp_path, fewer, drift={"missing": "refuse"})
    assert len(read(tmp_path, added, drift={"missing": "refuse"})) == 1


def test_a_renamed_column_is_found_by_transform_source_objects(tmp_path: Path) -> None:
    columns = (column("content", transformSourceObjects=["Text", "Body"]), column("part", partitioned=True))
    reader = {"format": "csv", "drift": {"added": "refuse", "missing": "refuse"}}
    (tmp_path / "in").mkdir()
    for name, header in (("a", "Text"), ("b", "Body"), ("c", "content")):
        (tmp_path / "in" / f"{name}.csv").write_text(f"{header}\n{name}\n")
    source = open_source(make_contract(tmp_path / "c", columns, reader=reader), str(tmp_path / "in"))
    (part,) = source.partitions()
    assert [row["content"] for batch in source.read(part) for row in batch.to_pylist()] == ["a", "b", "c"]


@given(
    rows=st.lists(st.tuples(*[st.text(st.sampled_from('ab ,"\n\r\\é心'), max_size=6)] * 2), max_size=30),
    block=st.sampled_from([7, 64, 400, 1 << 20]),
    codec=st.sampled_from(["utf-8", "gb18030", "utf-16-le"]),
)
@settings(deadline=None, max_examples=60)
def test_what_python_writes_is_read_whatever_the_block(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]], block: int, codec: str
) -> None:
    folder, text = tmp_path_factory.mktemp("csv"), io.StringIO()
    csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL).writerows([("key", "content"), *rows])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_files, "_BLOCK_BYTES", block)
        patch.setattr(csv_files, "_SMALL_BYTES", min(block, 64))
        found = read(folder, text.getvalue().encode(codec), encoding=codec)
    assert [(row["key"], row["content"]) for row in found] == rows
    assert [row["_source_line"] for row in found] == list(range(2, len(rows) + 2))


DIALECTS = st.sampled_from(
    [{}, {"quote": None}, {"escape": "\\"}, {"delimiter": ";"}, {"lineEnd": "lf"}, {"lineEnd": "crlf"}, {"trim": True}]
)


@given(
    data=st.lists(
        st.sampled_from([b"a", b",", b'"', b"\n", b"\r", b"\\", b"\xff", "é".encode(), b";", b" ", b"1"])
    ).map(b"".join),
    more=DIALECTS,
    block=st.sampled_from([5, 33, 1 << 20]),
)
@settings(deadline=None, max_examples=150)
def test_the_fast_way_reads_what_the_careful_way_reads(
    tmp_path_factory: pytest.TempPathFactory, data: bytes, more: dict[str, Any], block: int
) -> None:
    folder = tmp_path_factory.mktemp("csv")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_files, "_BLOCK_BYTES", block)
        patch.setattr(csv_files, "_SMALL_BYTES", min(block, 16))
        found = read(folder, data, columns=["key", "content"], **more)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_files, "sound", lambda data, dialect, final: (0, True))
        slow = read(folder, data, columns=["key", "content"], **more)
    assert brief(found) == brief(slow)
    assert [row["_raw"] for row in found if row["_fault"]] == [row["_raw"] for row in slow if row["_fault"]]
    assert [row["_source_line"] for row in found] == list(range(1, len(found) + 1))


@given(data=st.binary(max_size=300) | st.text(st.sampled_from('a,"\n\r\\'), max_size=300).map(str.encode))
@settings(deadline=None)
def test_no_byte_of_a_text_is_in_no_record(data: bytes) -> None:
    for dialect in (Dialect(), Dialect(escape=b"\\"), Dialect(quote=None, end="lf")):
        at, seen = 0, b""
        while at < len(data):
            record = parse(data, at, dialect, True)
            assert record is not None
            assert record.end > at
            seen += record.raw + data[at + len(record.raw) : record.end]
            at = record.end
        assert seen == data
