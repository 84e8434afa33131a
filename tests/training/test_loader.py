from __future__ import annotations

import json
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.catalog.store import Store
from data_contracts.errors import StoreError
from tests.training.making import TOKENIZER, version_of, write_shard_of
from tests.training.numbered import Array, everything, numbered, order_over, plain
from training.shards.blocks import UnreadableShard
from training.shards.loader import IGNORE, Batch, Loader, inputs_targets, region_order
from training.shards.manifest import BLOCK_BYTES
from training.shards.region import RegionOrder


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "north")


def check(store: Store, order: RegionOrder, batch: Batch, window: int) -> None:
    """Compare every row with the Arrow files, read without the loader."""
    p = batch.places
    inputs, targets = inputs_targets(batch)
    for row in range(len(p.shards)):
        tokens, mask = plain(store, order, int(p.shards[row]), int(p.first[row]), window)
        pad = window + 1 - len(tokens)
        assert batch.tokens[row].tolist() == tokens.tolist() + [0] * pad
        assert inputs[row].tolist() == tokens[:-1].tolist() + [0] * pad
        wanted = [t if m else IGNORE for t, m in zip(tokens[1:].tolist(), mask[1:], strict=True)]
        assert targets[row].tolist() == wanted + [IGNORE] * pad
        assert batch.lengths[row] == len(tokens) - 1


@settings(max_examples=25)
@given(
    st.lists(st.lists(st.integers(0, 40), min_size=1, max_size=4), min_size=1, max_size=4),
    st.integers(2, 24),
    st.sampled_from([(65536,), (1 << 20,), (65536, 1 << 20)]),
    st.booleans(),
    st.sampled_from([1, 2]),
)
def test_each_window_of_each_shard_is_handed_out_once_an_epoch_as_it_lies_there(
    tmp_path_factory: pytest.TempPathFactory,
    shards: list[list[int]],
    window: int,
    sizes: tuple[int, ...],
    masked: bool,
    algorithm: int,
) -> None:
    store = Store.open(tmp_path_factory.mktemp("loader"))
    manifests = []
    for k, lengths in enumerate(shards):
        spans = [[0, n // 2] for n in lengths] if masked and k % 2 == 0 else None
        size = sizes[k % len(sizes)]
        manifests.append(numbered(store, lengths, chr(97 + k), size, spans, dataset=f"test/{k % 2}"))
    if not any(m.tokens > 1 for m in manifests):
        return
    order = order_over(manifests, window, algorithm)
    batch = Loader(store, order, window).gather(*everything(order))
    assert len(set(zip(batch.places.shards.tolist(), batch.places.first.tolist(), strict=True))) == len(batch.lengths)
    # Every token but each shard's first is a target exactly once.
    assert int(batch.lengths.sum()) == sum(max(0, m.tokens - 1) for m in manifests)
    check(store, order, batch, window)


def test_a_batch_of_the_worker_is_shifted_and_names_its_data_sets_and_the_log_says_what_it_was(
    store: Store, tmp_path: Path
) -> None:
    texts = [["one two three four five six"] * 9, ["one two three four five"]]
    manifests = [write_shard_of(store, t, partition=chr(97 + k), dataset=f"test/{k}") for k, t in enumerate(texts)]
    order = region_order([version_of([m]) for m in manifests], "europe", 4, 4, {})
    assert order is not None
    loader = Loader(store, order, 4, tmp_path / "log.ndjson")
    places = [(lane, 0) for lane in range(6)] + [(3, 5)]
    inputs, targets, owners = loader.batch(places, {"site": "north", "step": 7})
    assert (inputs.dtype, inputs.shape, targets.shape) == (np.int64, (7, 4), (7, 4))
    assert "one" in TOKENIZER.decode(inputs.reshape(-1))
    (line,) = (tmp_path / "log.ndjson").read_text().splitlines()
    entry = json.loads(line)
    assert (entry["site"], entry["step"], len(entry["handed"])) == ("north", 7, 7)
    assert [h[0] for h in entry["handed"]] == owners
    for row, (place, (dataset, epoch, window, shard, inner)) in enumerate(zip(places, entry["handed"], strict=True)):
        number, position = order.locate(*place)
        stream = order.streams[number]
        assert (stream.dataset, stream.window(position)) == (dataset, (epoch, window))
        held, within = stream.shard(window)
        assert (order.shards[number][held].arrow_sha256, within) == (shard, inner)
        tokens, _ = plain(store, order, sum(len(s) for s in order.shards[:number]) + held, 4 * inner, 4)
        assert inputs[row, : len(tokens) - 1].tolist() == tokens[:-1].tolist()


def test_opening_touches_no_shard_and_a_gather_checks_only_the_blocks_it_reads(store: Store) -> None:
    manifest = numbered(store, [BLOCK_BYTES * 2], "a")
    order = order_over([manifest], 512)
    path = store.path(manifest.arrow_key)
    data = bytearray(path.read_bytes())
    data[manifest.token_offset + 3 * BLOCK_BYTES + 7] ^= 1
    path.write_bytes(data)
    loader = Loader(store, order, 512)
    lanes, indices = everything(order)
    places = loader.places(lanes, indices)
    start = manifest.token_offset + 2 * places.first
    bad = (start + 2 * 512 >= 3 * BLOCK_BYTES) & (start < 4 * BLOCK_BYTES)
    assert 0 < bad.sum() < len(bad) / 2
    batch = loader.gather(lanes[~bad], indices[~bad])
    check(store, order, loader.gather(lanes[~bad][:50], indices[~bad][:50]), 512)
    assert len(batch.lengths) == int((~bad).sum())
    with pytest.raises(UnreadableShard, match=f"{manifest.arrow_sha256}.arrow: damaged: bytes {3 * BLOCK_BYTES} to"):
        loader.gather(lanes[bad][:1], indices[bad][:1])


@pytest.mark.parametrize("damage", ["flipped", "cut", "file missing", "manifest missing", "manifest changed"])
def test_what_is_missing_or_damaged_stops_or_is_skipped_row_by_row(store: Store, damage: str) -> None:
    manifests = [numbered(store, [900], c) for c in "ab"]
    order = order_over(manifests, 64)
    bad = manifests[0]
    path, beside = store.path(bad.arrow_key), store.path(bad.key)
    data = path.read_bytes()
    if damage == "flipped":
        path.write_bytes(data[:900] + bytes([data[900] ^ 1]) + data[901:])
    elif damage == "cut":
        path.write_bytes(data[:-8])
    elif damage == "manifest changed":
        beside.write_bytes(beside.read_bytes().replace(b'"tokens":901', b'"tokens":900'))
    else:
        (path if damage == "file missing" else beside).unlink()
    lanes, indices = everything(order)
    with pytest.raises(UnreadableShard) as caught:
        Loader(store, order, 64).gather(lanes, indices)
    assert (bad.key if "manifest" in damage else bad.arrow_sha256) in str(caught.value)
    loader = Loader(store, order, 64, unreadable="skip")
    batch = loader.gather(lanes, indices)
    refs = [ref for held in order.shards for ref in held]
    lost = np.array([refs[s].arrow_sha256 == bad.arrow_sha256 for s in batch.places.shards.tolist()])
    assert int(lost.sum()) == bad.windows(64)
    assert batch.skipped == tuple(zip(lanes[lost].tolist(), indices[lost].tolist(), strict=True))
    assert f"{batch.skipped[0][0]}:{batch.skipped[0][1]}" in str(caught.value)
    inputs, targets = inputs_targets(batch)
    assert (targets[lost] == IGNORE).all()
    assert (inputs[lost] == 0).all()
    whole = loader.gather(lanes[~lost], indices[~lost])
    assert whole.skipped == ()
    assert np.array_equal(inputs[~lost], inputs_targets(whole)[0])
    check(store, order, whole, 64)


def batches(order: RegionOrder, size: int, epochs: int = 1) -> list[tuple[Array, Array]]:
    lanes, indices = everything(order, epochs)
    return [(lanes[k : k + size], indices[k : k + size]) for k in range(0, len(lanes), size)]


@pytest.mark.parametrize("size", [1, 7, 64, 5000])
def test_batches_come_from_the_background_in_turn_and_are_those_of_gather(store: Store, size: int) -> None:
    order = order_over([numbered(store, [3000, 500], c) for c in "abc"], 16)
    wanted = batches(order, size, epochs=2)
    loader = Loader(store, order, 16)
    with loader.ahead(wanted) as ahead:
        found = list(ahead)
    assert len(found) == len(wanted)
    for (lanes, indices), batch in zip(wanted, found, strict=True):
        assert np.array_equal(batch.places.lanes, lanes)
        assert np.array_equal(batch.tokens, loader.gather(lanes, indices).tokens)
    assert list(ahead) == []


def test_closing_ends_the_thread_whatever_waits(store: Store) -> None:
    order = order_over([numbered(store, [3000])], 16)
    loader = Loader(store, order, 16)
    before = threading.active_count()
    ahead = loader.ahead(batches(order, 2), depth=2)
    next(ahead)
    ahead.close()
    ahead.close()
    assert [t for t in threading.enumerate() if t.name == "loader"] == []
    assert threading.active_count() <= before + 2
    with pytest.raises(StopIteration):
        next(ahead)


def test_an_error_of_the_background_comes_where_its_batch_would_have(store: Store) -> None:
    manifests = [numbered(store, [640], c) for c in "ab"]
    order = order_over(manifests, 64)
    lanes, indices = everything(order)
    loader = Loader(store, order, 64)
    refs = [ref for held in order.shards for ref in held]
    store.path(manifests[0].arrow_key).unlink()
    good = [refs[s].arrow_sha256 == manifests[1].arrow_sha256 for s in loader.places(lanes, indices).shards.tolist()]
    wanted = [(lanes[good][:4], indices[good][:4])] * 3 + [(lanes, indices)]
    with loader.ahead(wanted) as ahead:
        assert [len(next(ahead).lengths) for _ in range(3)] == [4, 4, 4]
        with pytest.raises(UnreadableShard, match="shard is missing"):
            next(ahead)
        with pytest.raises(StopIteration):
            next(ahead)


def test_an_error_of_who_names_the_batches_is_not_lost(store: Store) -> None:
    order = order_over([numbered(store, [640])], 64)

    def failing() -> object:
        yield np.zeros(1, np.int64), np.zeros(1, np.int64)
        raise KeyError("the plan")

    with Loader(store, order, 64).ahead(failing()) as ahead, pytest.raises(KeyError, match="the plan"):  # type: ignore[arg-type]
        list(ahead)


def test_a_store_that_is_no_directory_needs_a_cache_folder(store: Store) -> None:
    order = order_over([numbered(store, [640])], 64)
    with pytest.raises(StoreError, match="need a cache folder: --cache DIR"):
        Loader(replace(store, root=None), order, 64)
