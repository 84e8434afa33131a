"""Compressed files, archives, and objects of stores: the same records, and no bomb, damage or change gets through."""

from __future__ import annotations

import gzip
import hashlib
import os
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import zstandard

from data_contracts.errors import DataRefused
from data_contracts.sources import Source, open_source, place_of
from data_contracts.sources.files import fits
from tests.data_contracts.making import column, make_contract

COLUMNS = (column("content"), column("part", partitioned=True))
LINES = b'{"content": "a"}\n{"content": "b"}\n'


def source_of(folder: Path, location: str, **reader: Any) -> Source:
    made = {"format": "jsonl", **reader}
    return open_source(make_contract(folder / "c", COLUMNS, reader=made), location)


def contents(source: Source) -> list[tuple[str, Any]]:
    rows = [row for part in source.partitions() for batch in source.read(part) for row in batch.to_pylist()]
    return [(row["_source_file"], row["content"]) for row in rows]


def test_compressed_files_and_members_of_archives_are_read_as_files(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(LINES[:17]) + gzip.compress(LINES[17:]))
    (folder / "b.jsonl.zst").write_bytes(zstandard.compress(LINES))
    with zipfile.ZipFile(folder / "c.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("deep/d.jsonl", LINES)
        archive.writestr("deep/e.jsonl.gz", gzip.compress(LINES))
        archive.writestr("readme.txt", b"not a record")
        archive.writestr("__MACOSX/d.jsonl", b"nor this")
    names = ["a.jsonl.gz", "b.jsonl.zst", "c.zip/deep/d.jsonl", "c.zip/deep/e.jsonl.gz"]
    expected = [(name, text) for name in names for text in ("a", "b")]
    assert contents(source_of(tmp_path, str(folder))) == expected
    one = source_of(tmp_path, str(folder), files="c.zip/*/d.jsonl")
    assert contents(one) == expected[4:6]
    assert one.partitions()[0].files[0].sha == hashlib.sha256(LINES).hexdigest()
    several = source_of(tmp_path, str(folder), files=["*.gz", "*.zst"])
    assert contents(several) == expected[:4]
    assert contents(source_of(tmp_path, str(folder / "c.zip"), files="*.zip/**/*.jsonl")) == expected[4:6]


@pytest.mark.parametrize("kind", ["gz", "zst", "zip"])
def test_what_unpacks_to_more_than_the_limit_is_refused_as_it_is_read(tmp_path: Path, kind: str) -> None:
    data = b'{"content": "' + b"a" * (8 << 20) + b'"}\n'
    path = tmp_path / "in" / f"a.jsonl.{kind}"
    path.parent.mkdir()
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.jsonl", data)
    else:
        path.write_bytes(gzip.compress(data) if kind == "gz" else zstandard.compress(data))
    with pytest.raises(DataRefused, match=r"unpacks to more than 200 times its size; .*raise reader\.expansionLimit"):
        contents(source_of(tmp_path, str(tmp_path / "in"), files="**/*"))
    ((_, text),) = contents(source_of(tmp_path, str(tmp_path / "in"), files="**/*", expansionLimit=100_000))
    assert len(text) == 8 << 20


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.jsonl.gz", gzip.compress(os.urandom(5000))[:-9]),
        ("a.jsonl.gz", b"no gzip"),
        ("a.jsonl.gz", b""),
        ("a.jsonl.zst", zstandard.compress(os.urandom(5000))[:-9]),
        ("a.jsonl.zst", b"no zstd"),
        ("a.zip", b"PK no zip"),
    ],
)
def test_damaged_packing_refuses_the_file_by_name(tmp_path: Path, name: str, data: bytes) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / name).write_bytes(data)
    with pytest.raises(DataRefused, match=r"a\.(jsonl|zip).*restore it"):
        contents(source_of(tmp_path, str(tmp_path / "in")))


def test_a_damaged_member_and_an_archive_in_an_archive_are_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    path = tmp_path / "in" / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.jsonl", LINES * 50)
    data = bytearray(path.read_bytes())
    data[200:204] = b"zzzz"
    path.write_bytes(data)
    with pytest.raises(DataRefused, match=r"a\.zip/a\.jsonl cannot be read: Bad CRC"):
        contents(source_of(tmp_path, str(tmp_path / "in")))
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("b.zip", b"")
    with pytest.raises(DataRefused, match="archive in an archive"):
        contents(source_of(tmp_path, str(tmp_path / "in")))


@pytest.mark.parametrize(
    ("glob", "name", "expected"),
    [
        ("**/*.csv", "a.csv", True),
        ("**/*.csv", "x/y/a.csv", True),
        ("*.csv", "x/a.csv", False),
        ("x/**/a.csv", "x/a.csv", True),
        ("[0-9]?.csv", "1b.csv", True),
        ("[!0-9].csv", "1.csv", False),
        ("a.csv", "abcsv", False),
    ],
)
def test_globs_of_archives_and_stores_mean_what_they_mean_in_folders(glob: str, name: str, expected: bool) -> None:
    assert fits(glob, name) is expected


def test_a_place_is_registered_as_a_path_or_as_its_url() -> None:
    assert place_of("data") == str(Path("data").absolute())
    for url in ("s3://bucket/x", "hf:owner/name", "sqlite:////x/a.db", "adbc+postgresql://h/d", "env:"):
        assert place_of(url) == url
    assert place_of("sqlite:///a.db") == f"sqlite:///{Path('a.db').absolute()}"
    assert place_of("hf:tests") == f"hf:{Path('tests').absolute()}"


class _Bucket(BaseHTTPRequestHandler):
    """The three calls of the S3 protocol that a source makes: list, head, get. Objects stand in `objects`."""

    objects: dict[str, bytes]
    asked: list[str]

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        self.asked.append(f"{self.command} {url.path}")
        if "list-type=2" in url.query:
            prefix = parse_qs(url.query).get("prefix", [""])[0]
            entries = "".join(
                f"<Contents><Key>{key}</Key><Size>{len(data)}</Size><ETag>{self._tag(data)}</ETag>"
                "<LastModified>2026-01-02T03:04:05Z</LastModified></Contents>"
                for key, data in sorted(self.objects.items())
                if key.startswith(prefix)
            )
            listed = f"<ListBucketResult><IsTruncated>false</IsTruncated>{entries}</ListBucketResult>".encode()
            self._answer(200, listed, {})
            return
        found = self.objects.get(url.path.removeprefix("/bucket/"))
        if found is None:
            self._answer(404, b"", {})
            return
        self._answer(200, found, {"ETag": self._tag(found), "Last-Modified": "Fri, 02 Jan 2026 03:04:05 GMT"})

    do_HEAD = do_GET

    def _tag(self, data: bytes) -> str:
        return f'"{hashlib.md5(data).hexdigest()}"'

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def bucket(objects: dict[str, bytes], patch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    handler = type("Bucket", (_Bucket,), {"objects": objects, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    patch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_port}")
    patch.setenv("AWS_ALLOW_HTTP", "true")
    patch.setenv("AWS_REGION", "eu-north-1")
    patch.setenv("AWS_ACCESS_KEY_ID", "key")
    patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    try:
        yield handler.asked  # type: ignore[attr-defined]
    finally:
        server.shutdown()
        server.server_close()


def test_objects_of_a_store_are_files_downloaded_when_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = {
        "data/2024-01-01.jsonl": LINES,
        "data/sub/2024-01-02.jsonl.gz": gzip.compress(LINES),
        "data/readme.txt": b"no record",
        "other/2024-01-03.jsonl": LINES,
    }
    with bucket(objects, monkeypatch) as asked:
        partition = {"from": "path", "pattern": r"(\d{4}-\d\d-\d\d)"}
        source = source_of(tmp_path, "s3://bucket/data", partition=partition)
        parts = source.partitions()
        assert [part.value for part in parts] == ["2024-01-01", "2024-01-02"]
        assert not any("2024" in line for line in asked)
        assert contents(source) == [
            (name, text) for name in ("2024-01-01.jsonl", "sub/2024-01-02.jsonl.gz") for text in ("a", "b")
        ]
        assert parts[0].files[0].sha == hashlib.sha256(LINES).hexdigest()
        one = source_of(tmp_path, "s3://bucket/data/2024-01-01.jsonl")
        assert contents(one) == [("2024-01-01.jsonl", "a"), ("2024-01-01.jsonl", "b")]


def test_an_object_that_changes_after_it_was_listed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    objects = {"data/a.jsonl": LINES, "data/b.jsonl": LINES}
    with bucket(objects, monkeypatch):
        source = source_of(tmp_path, "s3://bucket/data")
        (part,) = source.partitions()
        objects["data/b.jsonl"] = b'{"content": "c"}\n'
        with pytest.raises(DataRefused, match=r"s3://bucket/data/b\.jsonl: changed since it was listed"):
            list(source.read(part))
        del objects["data/b.jsonl"]
        with pytest.raises(DataRefused, match=r"b\.jsonl: no longer there"):
            list(source.read(part))
    with pytest.raises(DataRefused, match="no file matches"), bucket({}, monkeypatch):
        source_of(tmp_path, "s3://bucket/data").partitions()
