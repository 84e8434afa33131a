from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from data_contracts.canonical import canonical_json, document_sha, sha256
from data_contracts.catalog.store import Store
from data_contracts.errors import StoreError
from tests.training.making import TOKENIZER, version_of, write_shard_of
from training.shards.loader import region_order
from training.shards.manifest import ShardRef, read_manifest, read_version, version_key
from training.shards.view import as_dataset
from training.shards.writer import open_shard

TEXTS = ["one two three", "", "four", "five six seven eight nine ten", "å→字"]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "north")


class Wide:
    """A tokenizer of one token a character, with more tokens than 16 bits hold."""

    sha, vocab_size, end_id = "w" * 64, 1 << 20, 0

    def encode_batch(self, texts: list[str]) -> list[np.ndarray[Any, Any]]:
        return [np.array([ord(c) for c in t], dtype=np.uint32) for t in texts]

    def encode_offsets(self, texts: list[str]) -> list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
        return [
            (ids, np.stack([np.arange(len(ids)), np.arange(len(ids)) + 1], axis=1)) for ids in self.encode_batch(texts)
        ]


def test_a_shard_is_mapped_and_its_parts_are_what_was_written(store: Store) -> None:
    manifest = write_shard_of(store, TEXTS)
    shard = open_shard(store.path(manifest.arrow_key))
    assert shard.record_ids == [f"p-{i:03d}" for i in range(5)]
    assert shard.text_bytes.tolist() == [len(t.encode()) for t in TEXTS]
    for row, text in enumerate(TEXTS):
        own = shard.tokens[shard.offsets[row] : shard.offsets[row + 1]]
        assert own[-1] == TOKENIZER.end_id
        assert TOKENIZER.decode(own[:-1]) == text
    assert shard.tokens.dtype == np.uint16
    assert not shard.tokens.flags.owndata
    assert not shard.tokens.flags.writeable


def test_a_large_vocabulary_is_held_in_32_bits(store: Store) -> None:
    manifest = write_shard_of(store, ["a\U0001f600"], tokenizer=Wide())
    shard = open_shard(store.path(manifest.arrow_key))
    assert manifest.token_dtype == "uint32"
    assert shard.tokens.tolist() == [97, 0x1F600, 0]


def test_an_empty_shard_can_be_opened(store: Store) -> None:
    shard = open_shard(store.path(write_shard_of(store, []).arrow_key))
    assert (len(shard.tokens), shard.record_ids, shard.offsets.tolist()) == (0, [], [0])


def test_a_manifest_is_read_back_and_names_the_bytes(store: Store) -> None:
    manifest = write_shard_of(store, TEXTS)
    assert read_manifest(store, manifest.key, manifest.sha) == manifest
    data = store.get(manifest.arrow_key)
    assert (len(data), sha256(data)) == (manifest.arrow_bytes, manifest.arrow_sha256)
    assert write_shard_of(store, TEXTS) == manifest
    assert len(list(store.list("shards"))) == 2


def test_a_decision_that_differs_is_another_manifest_over_the_same_bytes(store: Store) -> None:
    manifest = write_shard_of(store, TEXTS)
    other = replace(manifest, decision=("another reason",))
    assert other.key != manifest.key
    assert other.arrow_key == manifest.arrow_key


@pytest.mark.parametrize(("tokens", "windows"), [(0, 0), (1, 0), (2, 1), (9, 1), (10, 2), (17, 2), (18, 3)])
def test_windows_are_counted_over_the_inputs(store: Store, tokens: int, windows: int) -> None:
    manifest = write_shard_of(store, TEXTS)
    assert replace(manifest, tokens=tokens).windows(8) == windows


def test_a_damaged_manifest_is_named(store: Store) -> None:
    manifest = write_shard_of(store, TEXTS)
    for document, why in (
        ({**manifest.document(), "tokens": 3}, "damaged: sha256"),
        ({**manifest.document(), "format": 9}, "manifest format 9"),
        ({"format": 1}, "damaged: not a shard manifest"),
        ([1], "damaged: not a shard manifest"),
        ({**manifest.document(), "extra": 1}, "damaged: not a shard manifest"),
        ({**manifest.document(), "dataset": 5}, "dataset is no text"),
        ({**manifest.document(), "tokens": True}, "tokens is no whole number"),
        ({**manifest.document(), "blocks": [1]}, "not what it may be"),
    ):
        store.put(manifest.key, canonical_json(document))
        sha = manifest.sha if "sha256" in why else None
        with pytest.raises(StoreError, match=why) as caught:
            read_manifest(store, manifest.key, sha)
        assert manifest.key in str(caught.value)


def test_a_data_set_version_is_read_back_sorted_and_its_damage_is_named(store: Store) -> None:
    manifests = [write_shard_of(store, [f"text {p}"], partition=p) for p in "cab"]
    version = version_of(manifests)
    version.write(store)
    version.write(store)
    assert version.sha == version_of(manifests[::-1]).sha
    read = read_version(store, "test/notes", version.sha)
    assert read.document() == version.document()
    assert [s.key for s in read.of("europe", "train")] == sorted(m.key for m in manifests)
    assert read.of("asia", "train") == read.of("europe", "held-out") == ()
    store.put(version.key(), canonical_json({**version.document(), "contract_version": "2.0.0"}))
    with pytest.raises(StoreError, match=f"{version.key()}: damaged"):
        read_version(store, "test/notes", version.sha)


def test_manifests_and_versions_of_older_formats_are_read_and_keep_their_names(store: Store) -> None:
    manifest = write_shard_of(store, TEXTS)
    later = ("part", "parts", "block_bytes", "blocks", "token_offset", "loss_mask", "mask_offset")
    old = {n: v for n, v in manifest.document().items() if n not in later} | {"format": 1, "site": "north"}
    key = f"{manifest.folder}/{document_sha(old)}.json"
    store.create(key, canonical_json(old))
    read = read_manifest(store, key, document_sha(old))
    assert (read.format, read.region, read.blocks, read.token_offset) == (1, "europe", (), -1)
    assert (read.key, read.arrow_key) == (key, manifest.arrow_key)

    version = version_of([manifest]).document()
    shards = [{n: v for n, v in s.items() if n != "arrow_bytes"} | {"site": "north"} for s in version["shards"]]
    for form in (1, 2):
        before = {**version, "format": form, "shards": shards}
        sha = document_sha(before)
        store.create(version_key("test/notes", sha), canonical_json(before))
        found = read_version(store, "test/notes", sha)
        # The order of a run is drawn from the name of its versions.
        assert (found.sha, found.format) == (sha, form)
        (ref,) = found.of("europe", "train")
        assert (ref.arrow_bytes, ref.arrow_key) == (0, manifest.arrow_key)


@pytest.mark.parametrize("damage", ["cut", "empty", "other", "missing", "plain arrow"])
def test_a_file_that_is_no_shard_is_named(store: Store, damage: str) -> None:
    manifest = write_shard_of(store, TEXTS)
    path = store.path(manifest.arrow_key)
    data = path.read_bytes()
    path.unlink()
    if damage == "plain arrow":
        with pa.ipc.new_file(str(path), pa.schema([("a", pa.int64())])):
            pass
    elif damage != "missing":
        path.write_bytes({"cut": data[:-40], "empty": b"", "other": b"no shard at all, but long enough"}[damage])
    with pytest.raises(StoreError, match=manifest.arrow_sha256):
        open_shard(path)


def test_a_mixture_follows_its_weights_and_without_them_the_windows(store: Store) -> None:
    a = version_of([write_shard_of(store, ["one two three four five six"] * 9, dataset="test/a")])
    b = version_of([write_shard_of(store, ["one two three four five six"] * 3, dataset="test/b")])
    for weights, share in (({}, 0.75), ({"test/a": 1.0, "test/b": 1.0}, 0.5)):
        order = region_order([b, a], "europe", 4, 0, weights)
        assert order is not None
        assert [s.dataset for s in order.streams] == ["test/a", "test/b"]
        assert order.segments.schedule.slots.count(0) / len(order.segments.schedule.slots) == pytest.approx(
            share, abs=0.01
        )


def test_a_region_that_holds_nothing_to_train_on_has_no_order(store: Store) -> None:
    held_out = version_of([write_shard_of(store, TEXTS, split="held-out")])
    empty = version_of([write_shard_of(store, [""])])
    assert region_order([held_out, empty], "europe", 8, 0, {}) is None
    assert region_order([version_of([write_shard_of(store, TEXTS)])], "asia", 8, 0, {}) is None


def test_a_region_is_a_hugging_face_dataset(store: Store) -> None:
    manifests = [write_shard_of(store, TEXTS), write_shard_of(store, ["two"], partition="q")]
    shards = [ShardRef.of(m) for m in manifests]
    found = as_dataset(store, shards)
    assert found.column_names == ["record_id", "tokens", "text_bytes"]
    assert found["record_id"][:] == [*(f"p-{i:03d}" for i in range(5)), "q-000"]
    assert TOKENIZER.decode(found[3]["tokens"][:-1]) == TEXTS[3]
    with pytest.raises(StoreError, match="no shards to open"):
        as_dataset(store, [])
