"""What fuzzing damages: a reader with settings, and small sources for it that are sound."""

from __future__ import annotations

import csv
import gzip
import io
import json
import sqlite3
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from tests.data_contracts.making import column

COLUMNS = (
    column("key"),
    column("count", "integer", logicalTypeOptions={"minimum": 0}),
    column("share", "number"),
    column("seen", "timestamp"),
    column("good", "boolean"),
    column("content", required=True),
    column("part", partitioned=True),
)
ROWS: list[dict[str, Any]] = [
    {"key": f"k{n}", "count": n, "share": n / 7, "seen": "2024-02-03T04:05:06Z", "good": n % 2 == 0, "content": text}
    for n, text in enumerate(
        ["plain", 'two\nlines, "quoted"', "é 心血管 \U0001f600", "", "x" * 300, "-1", "NaN", "last"]
    )
]
FIELDS = {name: name for name in ROWS[0]}


@dataclass(frozen=True)
class Target:
    """A reader with settings, and the seeds that are damaged for it: file name -> bytes, from which one is drawn."""

    reader: dict[str, Any]
    seeds: dict[str, bytes]
    location: Callable[[Path], str] = str
    count: Callable[[bytes], int] | None = None


def _csv(delimiter: str = ",", codec: str = "utf-8", end: str = "\n") -> bytes:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator=end)
    writer.writerows([list(ROWS[0]), *(list(row.values()) for row in ROWS)])
    return text.getvalue().encode(codec, "replace")


def _lines() -> bytes:
    return "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def _zip(name: str, data: bytes) -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, data)
    return sink.getvalue()


def _table() -> pa.Table:
    return pa.Table.from_pylist(ROWS)


def _arrow(kind: Callable[..., Any]) -> bytes:
    sink = pa.BufferOutputStream()
    with kind(sink, _table().schema) as writer:
        writer.write_table(_table())
    return bytes(sink.getvalue())


def _parquet() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(_table(), sink)
    return bytes(sink.getvalue())


def _sqlite() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.db"
        connection = sqlite3.connect(path)
        connection.execute("create table t (key, count, share, seen, good, content)")
        connection.executemany("insert into t values (?, ?, ?, ?, ?, ?)", [tuple(row.values()) for row in ROWS])
        connection.commit()
        connection.close()
        return path.read_bytes()


def _xml() -> bytes:
    rows = "".join(
        f"<r key='{row['key']}'><count>{row['count']}</count><content>{n}</content></r>" for n, row in enumerate(ROWS)
    )
    return f"<d>{rows}</d>".encode()


def _blank_lines(data: bytes) -> int:
    return sum(bool(line.strip()) for line in data.removeprefix(b"\xef\xbb\xbf").splitlines())


def marked(data: bytes) -> bool:
    """Say whether bytes begin with a mark of UTF-16 or UTF-32: their lines are not those of the bytes."""
    return data.startswith((b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff"))


TARGETS: dict[str, list[Target]] = {
    "csv": [
        Target({"format": "csv"}, {"a.csv": _csv(), "b.csv": _csv(end="\r")}),
        Target(
            {"format": "csv", "delimiter": ";", "escape": "\\", "trim": True, "nulls": ["", "NA"]}, {"a.csv": _csv(";")}
        ),
        Target({"format": "csv", "encoding": "gb18030"}, {"a.csv": _csv(codec="gb18030")}),
        Target(
            {"format": "csv", "encoding": "detect"}, {"a.csv": _csv(codec="gb18030"), "b.csv": _csv(codec="utf-16")}
        ),
        Target(
            {"format": "csv", "quote": None, "columns": list(ROWS[0]), "lineEnd": "crlf"}, {"a.csv": _csv(end="\r\n")}
        ),
        Target({"format": "csv", "partition": {"from": "column"}, "aliases": {"part": ["key"]}}, {"a.csv": _csv()}),
    ],
    "packed": [
        Target(
            {"format": "jsonl"}, {"a.jsonl.gz": gzip.compress(_lines()), "a.jsonl.zst": zstandard.compress(_lines())}
        ),
        Target({"format": "jsonl"}, {"a.zip": _zip("a.jsonl", _lines())}),
        Target({"format": "csv"}, {"a.csv.gz": gzip.compress(_csv() * 50)}),
    ],
    "jsonl": [
        Target({"format": "jsonl"}, {"a.jsonl": _lines()}, count=_blank_lines),
        Target(
            {"format": "jsonl", "fields": {**FIELDS, "content": "a.b[*].c", "key": "@index"}},
            {"a.jsonl": _lines()},
            count=_blank_lines,
        ),
    ],
    "json": [
        Target({"format": "json", "record": "$[*]"}, {"a.json": json.dumps(ROWS).encode()}),
        Target(
            {"format": "json", "record": "$.*", "fields": {**FIELDS, "key": "@key"}},
            {"a.json": json.dumps({str(n): r for n, r in enumerate(ROWS)}).encode()},
        ),
        Target(
            {"format": "json", "record": "$.data[*].rows[*]", "fields": {**FIELDS, "key": "^.title", "share": "/x"}},
            {"a.json": json.dumps({"data": [{"title": "t", "rows": ROWS}], "x": 1}).encode()},
        ),
    ],
    "table": [
        Target(
            {"format": "table", "columns": ["key", "count", "content"]},
            {"a.txt": b"a 1 x\nb  2\ty \nc 3\n" * 5},
            count=_blank_lines,
        ),
    ],
    "text": [
        Target({"format": "text"}, {"a.txt": _csv()}, count=lambda _: 1),
        Target({"format": "text", "split": "line"}, {"a.txt": _csv()}, count=_blank_lines),
        Target(
            {"format": "text", "split": "paragraph", "encoding": "detect"},
            {"a.txt": b"one\ntwo\n\nthree\n \n\nfour" * 4},
        ),
        Target(
            {
                "format": "text",
                "split": {"pattern": "^(?=#)"},
                "front": {"pattern": r"(?s)\A---\n(?P<key>.*?)---\n"},
                "fields": {"count": r"(\d+)"},
            },
            {"a.txt": b"---\nhead\n---\n# 1\ntext\n# 2\nmore\n"},
        ),
    ],
    "xml": [
        Target(
            {"format": "xml", "record": "r", "fields": {"key": "@key", "count": "count", "content": "content"}},
            {"a.xml": _xml()},
        )
    ],
    "html": [
        Target({"format": "html", "record": ".//r", "fields": {"key": "@key", "content": "."}}, {"a.html": _xml()}),
        Target({"format": "html"}, {"a.html": _xml()}, count=lambda _: 1),
    ],
    "parquet": [Target({"format": "parquet"}, {"a.parquet": _parquet()})],
    "arrow": [Target({"format": "arrow"}, {"a.arrow": _arrow(pa.ipc.new_file), "b.arrow": _arrow(pa.ipc.new_stream)})],
    "sql": [
        Target(
            {"format": "sql", "query": "select * from t"},
            {"a.db": _sqlite()},
            location=lambda folder: f"sqlite:///{folder / 'a.db'}",
        )
    ],
    "huggingface": [
        Target(
            {"format": "huggingface", "builder": "json"},
            {"train.jsonl": _lines()},
            location=lambda folder: f"hf:{folder}",
        )
    ],
}
