"""Stores that are reached over a network: Ceph's gateway and Swift, and what goes wrong on the way to them."""

from __future__ import annotations

import os
import random
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import deltalake
import pyarrow as pa
import pytest

from data_contracts.canonical import sha256
from data_contracts.catalog.store import Store
from data_contracts.catalog.store_transfer import PIECE_BYTES
from data_contracts.errors import ObjectExists, ObjectMissing, StoreError
from tests.data_contracts.faulty import Proxy
from tests.stores import Access

LARGE = random.Random(5).randbytes(2 * PIECE_BYTES + 12345)
# What is ours and not the store's is tried with one of them: where shards lie.
once = pytest.mark.parametrize("access", ["north"], indirect=True)


@pytest.fixture(scope="module", params=["rgw", "north"])
def access(request: pytest.FixtureRequest) -> Access:
    found: Access = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="module")
def url(access: Access) -> str:
    return access.bucket("store")


@pytest.fixture
def store(url: str) -> Store:
    """A folder of its own in the bucket."""
    bucket, _, query = url.partition("?")
    return Store.open(f"{bucket}/{secrets.token_hex(4)}?{query}", retry_s=10)


@pytest.fixture
def proxy(access: Access) -> Iterator[Proxy]:
    with Proxy(access.endpoint) as made:
        yield made


@pytest.fixture
def large(tmp_path: Path) -> Path:
    path = tmp_path / "large"
    path.write_bytes(LARGE)
    return path


def through(proxy: Proxy, store: Store, retry_s: float = 10) -> Store:
    return Store.open(proxy.url(store.url), retry_s)


def first_only() -> Iterator[bool]:
    yield True
    while True:
        yield False


# What a store does


def test_it_does_what_a_local_directory_does(store: Store) -> None:
    store.create("a/b", b"first")
    with pytest.raises(ObjectExists, match=r"^s3://\S+/a/b: an object is already there$"):
        store.create("a/b", b"second")
    assert store.get("a/b", sha256(b"first")) == b"first"
    assert store.ensure("k", b"x")
    assert not store.ensure("k", b"x")
    store.put("k", b"22")
    store.put("å/%41#x y.json", b"odd")
    assert list(store.list()) == [("a/b", 5), ("k", 2), ("å/%41#x y.json", 3)]
    assert list(store.list("a")) == [("a/b", 5)]
    assert store.folders("") == ("a", "å")
    assert store.size("a/b") == 5
    store.delete("k")
    store.delete("k")
    assert not store.exists("k")
    with pytest.raises(ObjectMissing, match="k: no such object"):
        store.get("k")
    with pytest.raises(ObjectMissing, match="k: no such object"):
        store.size("k")
    with pytest.raises(StoreError, match="k cannot be mapped into memory"):
        store.path("k")


def test_ranges_are_what_was_asked_or_an_error(store: Store) -> None:
    store.put("k", LARGE)
    assert store.get_range("k", 10, 5) == LARGE[10:15]
    assert store.get_range("k", 10, 0) == b""
    starts, lengths = [0, 5_000_000, 30, len(LARGE) - 7], [10, 1000, 0, 7]
    wanted = [LARGE[s : s + n] for s, n in zip(starts, lengths, strict=True)]
    assert store.get_ranges("k", starts, lengths) == wanted
    for start in (len(LARGE) - 2, len(LARGE) + 9):
        with pytest.raises(StoreError, match="k: "):
            store.get_range("k", start, 5)
    with pytest.raises(StoreError, match="k: ends at byte"):
        store.get_ranges("k", [0, len(LARGE) - 2], [1, 5])
    with pytest.raises(ObjectMissing):
        store.get_range("none", 0, 5)


def test_a_large_file_goes_and_comes_whole(store: Store, large: Path, tmp_path: Path) -> None:
    sha = sha256(LARGE)
    assert store.create_file("f", large, sha)
    assert not store.create_file("f", large, sha)
    came: list[int] = []
    store.fetch("f", tmp_path / "below" / "got", sha, len(LARGE), came.append)
    assert (tmp_path / "below" / "got").read_bytes() == LARGE
    assert sum(came) == len(LARGE)
    store.create("c", LARGE)
    assert store.get("c", sha) == LARGE
    (tmp_path / "other").write_bytes(b"short")
    with pytest.raises(ObjectExists, match="f: an object of another size"):
        store.create_file("f", tmp_path / "other", sha256(b"short"))


def test_a_file_that_is_not_what_its_sha_says_is_not_written(store: Store, large: Path) -> None:
    for put in (store.put_file, store.create_file):
        with pytest.raises(StoreError, match="f: not written: sha256 of .* expected 0000"):
            put("f", large, "0" * 64)
        assert list(store.list()) == []


def test_delta_opens_the_table_that_the_store_names(store: Store) -> None:
    root, options = store.delta()
    assert store.uri("t/x") == f"{root}/t/x"
    assert "?" not in root
    deltalake.write_deltalake(f"{root}/t", pa.table({"n": [1, 2]}), storage_options=options)
    assert deltalake.DeltaTable(f"{root}/t", storage_options=options).to_pyarrow_table().num_rows == 2
    assert any(key.startswith("t/_delta_log/") for key, _ in store.list())


# What goes wrong on the way


def test_a_create_whose_answer_is_lost_is_ours_when_our_bytes_are_there(store: Store, proxy: Proxy) -> None:
    lost = first_only()
    proxy.lose = lambda asked: asked.startswith("PUT") and next(lost)
    through(proxy, store).create("k", b"ours")
    assert store.get("k") == b"ours"
    assert [line.split()[0] for line in proxy.requests] == ["PUT", "PUT", "GET"]


def test_a_create_whose_refusal_is_lost_is_another_writers(store: Store, proxy: Proxy) -> None:
    lost = first_only()
    proxy.lose = lambda asked: asked.startswith("PUT") and next(lost)
    store.create("k", b"theirs")
    with pytest.raises(ObjectExists, match="k: an object is already there"):
        through(proxy, store).create("k", b"ours")
    assert store.get("k") == b"theirs"


@pytest.mark.parametrize("large", [False, True])
def test_bytes_that_change_on_the_way_are_refused_and_sent_again(store: Store, proxy: Proxy, large: bool) -> None:
    data, flips = LARGE if large else b"small", first_only()
    proxy.flip_up = lambda asked: asked.startswith("PUT") and next(flips)
    through(proxy, store).put("k", data)
    assert store.get("k") == data
    proxy.flip_up = lambda asked: asked.startswith("PUT")
    with pytest.raises(StoreError, match="never: cannot be written: .*XAmzContentSHA256Mismatch"):
        through(proxy, store, 0).put("never", data)
    assert not store.exists("never")


@once
def test_bytes_that_change_on_the_way_back_are_read_again_or_refused(
    store: Store, proxy: Proxy, tmp_path: Path
) -> None:
    store.put("k", b"as it was")
    flips = first_only()
    proxy.flip_down = lambda asked: asked.startswith("GET") and next(flips)
    assert through(proxy, store).get("k", sha256(b"as it was")) == b"as it was"
    proxy.flip_down = lambda asked: asked.startswith("GET")
    with pytest.raises(StoreError, match="k: damaged"):
        through(proxy, store).get("k", sha256(b"as it was"))
    with pytest.raises(StoreError, match="k: damaged"):
        through(proxy, store).fetch("k", tmp_path / "got", sha256(b"as it was"), 9)
    assert list(tmp_path.iterdir()) == []


def test_an_upload_ends_well_when_the_answer_to_a_part_or_to_its_end_is_lost(
    store: Store, proxy: Proxy, large: Path
) -> None:
    for request in ("partNumber=2&", "POST /"):
        lost = first_only()
        proxy.lose = lambda asked, request=request, lost=lost: (  # type: ignore[misc]
            request in asked and "uploadId=" in asked and next(lost)
        )
        through(proxy, store).put_file("f", large, sha256(LARGE))
        assert store.get("f") == LARGE
        assert not next(lost)
        store.delete("f")


@once
def test_an_answer_that_ends_early_is_asked_for_again(store: Store, proxy: Proxy) -> None:
    store.put("k", LARGE)
    cuts = first_only()
    proxy.cut = lambda asked: 1_000_000 if asked.startswith("GET") and next(cuts) else None
    assert through(proxy, store).get("k") == LARGE


@once
def test_a_store_that_is_away_is_waited_for(store: Store, proxy: Proxy) -> None:
    store.put("k", b"x")
    away = through(proxy, store, 30)
    proxy.down()
    threading.Timer(1.5, proxy.up).start()
    begun = time.monotonic()
    with ThreadPoolExecutor(4) as pool:
        got, listed, made, _ = pool.map(
            lambda use: use(),
            (
                lambda: away.get("k"),
                lambda: list(away.list("k")),
                lambda: away.ensure("new", b"1"),
                lambda: away.put_file("file", Path(__file__)),
            ),
        )
    assert (got, listed, made) == (b"x", [("k", 1)] if listed else [], True)
    assert 1.4 < time.monotonic() - begun < 20
    assert store.get("file") == Path(__file__).read_bytes()


@once
def test_patience_has_an_end_and_the_message_says_what_to_do(store: Store, proxy: Proxy) -> None:
    away = through(proxy, store, 1)
    proxy.down()
    begun = time.monotonic()
    with pytest.raises(StoreError, match=r"k: cannot be read: the store at http\S+ does not work: .*tried for 1 s"):
        away.get("k")
    assert 0.9 < time.monotonic() - begun < 6


@once
def test_a_download_goes_on_where_the_store_went_away(store: Store, proxy: Proxy, large: Path, tmp_path: Path) -> None:
    sha, path = sha256(LARGE), tmp_path / "got"
    store.put_file("f", large, sha)
    away = through(proxy, store, 0.5)

    third = f"bytes={2 * PIECE_BYTES}-"
    proxy.cut = lambda asked: 1000 if third in asked else None
    with pytest.raises(StoreError, match="f: cannot be read"):
        away.fetch("f", path, sha, len(LARGE))
    part = path.with_name("got.part")
    assert not path.exists()
    kept = part.stat().st_size
    assert kept == 2 * PIECE_BYTES
    proxy.cut, proxy.bytes_down = (lambda _: None), 0
    came: list[int] = []
    away.fetch("f", path, sha, len(LARGE), came.append)
    assert path.read_bytes() == LARGE
    assert came[0] == kept
    assert proxy.bytes_down < len(LARGE) - kept + 100_000
    assert not part.exists()


FETCH = """
import os, signal, sys
from pathlib import Path
from data_contracts.catalog.store import Store
url, path, sha, size, sent = sys.argv[1:]
def progress(arrived):
    if sent:
        os.kill(os.getpid(), getattr(signal, sent))
Store.open(url).fetch("f", Path(path), sha, int(size), progress)
"""


@once
def test_a_download_goes_on_after_its_process_was_killed(store: Store, large: Path, tmp_path: Path) -> None:
    sha, path = sha256(LARGE), tmp_path / "got"
    store.put_file("f", large, sha)
    command = [sys.executable, "-c", FETCH, store.url, path, sha, str(len(LARGE))]
    assert subprocess.run([*command, "SIGKILL"], check=False).returncode == -signal.SIGKILL
    assert not path.exists()
    assert path.with_name("got.part").exists()
    assert subprocess.run([*command, ""], check=False).returncode == 0
    assert path.read_bytes() == LARGE


@once
def test_a_part_that_is_wrong_is_thrown_away(store: Store, large: Path, tmp_path: Path) -> None:
    sha = sha256(LARGE)
    store.put_file("f", large, sha)
    for wrong in (b"wrong" * 1000, LARGE[:100_000] + b"!" + LARGE[100_001:], LARGE + b"more"):
        path = tmp_path / secrets.token_hex(4)
        path.with_name(f"{path.name}.part").write_bytes(wrong)
        store.fetch("f", path, sha, len(LARGE))
        assert path.read_bytes() == LARGE


@once
def test_two_that_download_into_one_path_do_it_once(store: Store, proxy: Proxy, large: Path, tmp_path: Path) -> None:
    sha, path = sha256(LARGE), tmp_path / "got"
    store.put_file("f", large, sha)
    asked = through(proxy, store)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: asked.fetch("f", path, sha, len(LARGE)), range(3)))
    assert path.read_bytes() == LARGE
    assert len(proxy.requests) == 3
    assert [p.name for p in tmp_path.iterdir() if p.name != "large"] == ["got"]


@once
def test_ctrl_c_ends_a_wait_for_a_store_at_once(store: Store, proxy: Proxy) -> None:
    away = proxy.url(store.url)
    proxy.down()
    program = (
        "import sys; from data_contracts.catalog.store import Store; print(flush=True);"
        " Store.open(sys.argv[1]).get('k')"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, away], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as waiting:
        assert waiting.stdout is not None
        waiting.stdout.readline()
        time.sleep(0.5)
        begun = time.monotonic()
        waiting.send_signal(signal.SIGINT)
        _, said = waiting.communicate(timeout=30)
    assert b"KeyboardInterrupt" in said
    assert time.monotonic() - begun < 3


FORK = """
import os, sys
from data_contracts.catalog.store import Store
from data_contracts.errors import StoreError
store = Store.open(sys.argv[1])
store.put("k", b"x")
if os.fork() == 0:
    try:
        store.get("k")
    except StoreError as error:
        print(error, flush=True)
    os._exit(0)
os.wait()
print(store.get("k"), flush=True)
"""


@once
def test_a_forked_process_is_told_so_and_does_not_wait_for_ever(store: Store) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORK, store.url], capture_output=True, text=True, timeout=60, check=True
    )
    child, parent = done.stdout.splitlines()
    assert "k: this process was forked from one that had used a store" in child
    assert parent == "b'x'"


# What a person has to put right


def test_a_wrong_key_is_named_by_its_variables_and_never_shown(
    access: Access, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAUSEWAY_OTHER_AWS_ACCESS_KEY_ID", access.access_key)
    monkeypatch.setenv("CAUSEWAY_OTHER_AWS_SECRET_ACCESS_KEY", "hunter2")
    other = Store.open(store.url.replace(f"credentials={access.name}", "credentials=other"), 5)
    for use in (
        lambda: other.get("k"),
        lambda: other.exists("k"),
        lambda: other.put("k", b"x"),
        lambda: other.put("k", LARGE),
        lambda: other.create("k", b"x"),
        lambda: other.delete("k"),
        lambda: list(other.list()),
        lambda: other.folders(""),
    ):
        with pytest.raises(
            StoreError, match="refuses the credentials .*CAUSEWAY_OTHER_AWS_SECRET_ACCESS_KEY"
        ) as caught:
            use()
        # Swift's answer quotes the key and the signature; neither may go on.
        chain = f"{caught.value} {caught.value.__cause__}"
        assert not any(secret in chain for secret in ("hunter2", access.access_key, "StringToSign"))


def test_a_bucket_that_is_not_there_is_no_missing_object(access: Access, url: str) -> None:
    bucket, _, query = url.partition("?")
    for use in ("get", "exists", "size", "delete", "folders"):
        none = Store.open(f"{bucket}x/below?{query}", 5)
        with pytest.raises(StoreError, match=f"no such bucket at {access.endpoint}; make it") as caught:
            getattr(none, use)("k")
        assert not isinstance(caught.value, ObjectMissing)
    with pytest.raises(StoreError, match="no such bucket"):
        none.put("k", b"x")
    with pytest.raises(StoreError, match="no such bucket"):
        list(none.list())


@once
def test_a_store_without_credentials_is_named_when_it_is_opened(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    base, _, query = url.partition("?")
    for name in [n for n in os.environ if n.startswith("AWS_")]:
        monkeypatch.delenv(name)
    with pytest.raises(StoreError, match="no credentials: CAUSEWAY_NO_ONE_AWS_ACCESS_KEY_ID and .* are not set"):
        Store.open(f"{base}?endpoint=http://127.0.0.1:1&credentials=no-one")
    with pytest.raises(StoreError, match="no credentials: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set"):
        Store.open(f"{base}?endpoint=http://127.0.0.1:1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "half")
    with pytest.raises(StoreError, match="no credentials: AWS_SECRET_ACCESS_KEY is not set"):
        Store.open(f"{base}?endpoint=http://127.0.0.1:1")


def test_plain_variables_open_a_store_too_and_a_token_of_another_does_not_join_a_named_key(
    access: Access, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SESSION_TOKEN", "of another key")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    store = Store.open(store.url)
    store.put("k", b"x")
    monkeypatch.delenv("AWS_SESSION_TOKEN")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", access.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", access.secret_key)
    plain = Store.open(store.url.replace(f"&credentials={access.name}", ""))
    assert plain.get("k") == b"x"


@once
@pytest.mark.parametrize("seconds", ["soon", "-1", "nan"])
def test_a_patience_that_is_no_number_is_named(url: str, seconds: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAUSEWAY_STORE_RETRY_S", seconds)
    with pytest.raises(StoreError, match="CAUSEWAY_STORE_RETRY_S"):
        Store.open(url)
