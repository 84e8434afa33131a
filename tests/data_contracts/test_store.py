from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.canonical import sha256
from data_contracts.catalog.store import Store
from data_contracts.errors import ObjectExists, ObjectMissing, StoreError


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def test_of_racing_creators_exactly_one_wins_each_key(store: Store) -> None:
    keys = [f"runs/r/commits/{n:06d}.json" for n in range(50)]
    together = threading.Barrier(8)

    def race(writer: int) -> list[str]:
        won = []
        together.wait()
        for key in keys:
            try:
                store.create(key, f"{writer} wrote {key}".encode() * 50)
                won.append(key)
            except ObjectExists:
                pass
        return won

    with ThreadPoolExecutor(8) as pool:
        wins = list(pool.map(race, range(8)))
    assert sorted(key for won in wins for key in won) == keys
    for writer, won in enumerate(wins):
        assert all(store.get(key) == f"{writer} wrote {key}".encode() * 50 for key in won)
    assert [key for key, _ in store.list("runs")] == keys


def test_a_create_over_an_object_changes_nothing_and_names_it(store: Store) -> None:
    store.create("a/b", b"first")
    with pytest.raises(ObjectExists, match="a/b: an object is already there"):
        store.create("a/b", b"second")
    assert store.get("a/b") == b"first"


def test_an_immutable_object_may_be_put_again_but_not_changed(store: Store) -> None:
    assert store.ensure("k", b"x")
    assert not store.ensure("k", b"x")
    with pytest.raises(ObjectExists, match="k: "):
        store.ensure("k", b"y")


def test_a_replaceable_object_is_replaced(store: Store) -> None:
    store.put("lease", b"1")
    store.put("lease", b"22")
    assert store.get("lease") == b"22"
    assert list(store.list()) == [("lease", 2)]


@settings(max_examples=40)
@given(st.binary(max_size=300))
def test_bytes_come_back_as_they_were(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    made = Store.open(tmp_path_factory.mktemp("bytes"))
    made.create("k", data)
    assert made.get("k", sha256(data)) == data


def test_a_damaged_object_is_named_with_both_hashes(store: Store) -> None:
    store.put("a/b", b"changed")
    with pytest.raises(StoreError, match="a/b: damaged") as caught:
        store.get("a/b", sha256(b"as it was"))
    assert sha256(b"changed") in str(caught.value)
    assert sha256(b"as it was") in str(caught.value)


def test_a_missing_object_is_named(store: Store) -> None:
    for key in ("none", "folder/none"):
        with pytest.raises(ObjectMissing, match=f"{store.url}/{key}: no such object"):
            store.get(key)
        assert not store.exists(key)
    store.create("folder/one", b"")
    with pytest.raises(ObjectMissing, match="folder: no such object"):
        store.get("folder")
    assert not store.exists("folder")


def test_deleting_what_is_not_there_is_no_error(store: Store) -> None:
    store.put("k", b"x")
    store.delete("k")
    store.delete("k")
    assert not store.exists("k")


ESCAPES = (
    "..",
    "../x",
    "a/../../x",
    "a/..",
    "/etc/passwd",
    ".",
    "./a",
    "a/./b",
    "",
    "/",
    "a//b",
    "a/",
    "a\\..\\b",
    "a\0b",
    "x\n/../../y",
    "..\n",
    "a\x7f",
)


@pytest.mark.parametrize("key", ESCAPES)
def test_a_key_never_leaves_the_store(store: Store, tmp_path: Path, key: str) -> None:
    for use in (store.get, store.path, store.uri, store.exists, store.delete):
        with pytest.raises(StoreError, match="is not a key"):
            use(key)
    for write in (store.create, store.put, store.ensure):
        with pytest.raises(StoreError, match="is not a key"):
            write(key, b"x")
    assert [p.name for p in tmp_path.iterdir()] == ["store"]


@given(st.text(max_size=20))
def test_a_key_is_refused_or_lies_under_the_root(tmp_path_factory: pytest.TempPathFactory, key: str) -> None:
    made = Store.open(tmp_path_factory.getbasetemp() / "fuzz")
    try:
        path = made.path(key)
    except StoreError:
        return
    assert made.root is not None
    assert made.root in path.parents
    assert ".." not in path.parts


@pytest.mark.parametrize("key", ["a b.txt", "å/%41#x.json", "a...b", "..a", "~", "deep/er/still", "x:y?z*"])
def test_a_key_with_odd_letters_is_one_object_and_one_path(store: Store, key: str) -> None:
    store.create(key, b"x")
    assert store.path(key).read_bytes() == store.get(key) == b"x"
    assert [k for k, _ in store.list()] == [key]


def test_a_list_is_sorted_has_sizes_and_stops_at_its_folder(store: Store) -> None:
    for key in ("b/2", "b/10", "bb/1", "a"):
        store.put(key, key.encode())
    assert list(store.list("b")) == [("b/10", 4), ("b/2", 3)]
    assert list(store.list("b/")) == list(store.list("b"))
    assert [k for k, _ in store.list()] == ["a", "b/10", "b/2", "bb/1"]
    assert list(store.list("none")) == []


def test_json_that_is_not_json_is_named(store: Store) -> None:
    store.put("k.json", b"{")
    with pytest.raises(StoreError, match=r"k\.json: damaged: not JSON"):
        store.get_json("k.json")
    sha = store.ensure_json("good.json", {"b": 1, "a": 2})
    assert store.get("good.json", sha) == b'{"a":2,"b":1}'
    assert store.get_json("good.json", sha) == {"a": 2, "b": 1}


def test_a_store_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for url in (tmp_path / "file" / "below", "nonsense://somewhere"):
        with pytest.raises(StoreError, match="this store cannot be opened"):
            Store.open(url)


def test_a_url_has_no_paths() -> None:
    made = Store.open("memory:///")
    made.create("k", b"x")
    assert made.get("k") == b"x"
    with pytest.raises(StoreError, match="k cannot be mapped into memory"):
        made.path("k")
