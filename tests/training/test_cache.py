from __future__ import annotations

import multiprocessing
import os
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.canonical import sha256
from data_contracts.catalog.store import Store
from data_contracts.errors import StoreError
from tests.training.numbered import Array, everything, numbered, order_over
from training.shards.blocks import UnreadableShard
from training.shards.cache import ShardCache
from training.shards.loader import Loader
from training.shards.manifest import BLOCK_BYTES, Manifest, ShardRef
from training.shards.stretches import LONGEST, STRETCH, runs
from training.shards.writer import open_shard

WINDOW = 1024
TOKENS = 3 * BLOCK_BYTES  # six blocks and a little of uint16


@pytest.fixture
def near(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "region")


def far(store: Store) -> Store:
    """The same store by its object interface alone, as a remote one is reached."""
    return replace(store, root=None)


def on_disk(folder: Path) -> int:
    return sum(f.stat().st_blocks * 512 for f in folder.glob("*.arrow"))


def shards(near: Store, count: int = 3) -> list[Manifest]:
    return [numbered(near, [TOKENS], chr(97 + k)) for k in range(count)]


def test_a_local_stores_shard_is_its_own_file_and_is_checked_once(near: Store) -> None:
    (manifest,) = shards(near, 1)
    cache = ShardCache(near)
    path = near.path(manifest.arrow_key)
    assert cache.path(ShardRef.of(manifest)) == path
    data = path.read_bytes()
    path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    assert cache.path(ShardRef.of(manifest)) == path
    with pytest.raises(UnreadableShard, match="damaged: bytes 0 to"):
        ShardCache(near).path(ShardRef.of(manifest))


def test_a_remote_stores_shard_is_fetched_whole_and_again_only_where_it_is_wrong(near: Store, tmp_path: Path) -> None:
    manifests = shards(near)
    for _ in range(2):
        cache = ShardCache(far(near), tmp_path / "cache")
        for manifest in manifests:
            path = cache.path(ShardRef.of(manifest))
            assert path.parent == tmp_path / "cache"
            assert sha256(path.read_bytes()) == manifest.arrow_sha256
            assert len(open_shard(path).tokens) == manifest.tokens
        cache.close()
    # A crash, another program, a bad disk: whatever lies in the folder is compared before it is used.
    (one, two, three) = (tmp_path / "cache" / f"{m.arrow_sha256}.arrow" for m in manifests)
    data = one.read_bytes()
    one.write_bytes(data[:400_000] + bytes(1000) + data[401_000:])
    two.write_bytes(b"short")
    three.unlink()
    cache = ShardCache(far(near), tmp_path / "cache")
    for manifest in manifests:
        assert sha256(cache.path(ShardRef.of(manifest)).read_bytes()) == manifest.arrow_sha256


def test_a_shard_that_is_damaged_or_missing_in_the_store_is_named_and_not_kept(near: Store, tmp_path: Path) -> None:
    bad, gone = shards(near, 2)
    path = near.path(bad.arrow_key)
    data = path.read_bytes()
    at = 2 * BLOCK_BYTES + 5
    path.write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    near.path(gone.arrow_key).unlink()
    cache = ShardCache(far(near), tmp_path / "cache")
    file = cache.open(ShardRef.of(bad))
    with pytest.raises(UnreadableShard, match=f"damaged: bytes {2 * BLOCK_BYTES} to {3 * BLOCK_BYTES}"):
        cache.path(ShardRef.of(bad))
    assert file.checked.tolist() == [k != 2 for k in range(file.blocks)]
    with pytest.raises(UnreadableShard, match=f"{gone.arrow_sha256}.arrow: no such object"):
        cache.path(ShardRef.of(gone))
    # Restored, it is read.
    path.write_bytes(data)
    assert sha256(cache.path(ShardRef.of(bad)).read_bytes()) == bad.arrow_sha256


def test_a_store_that_does_not_answer_is_not_a_shard_that_is_unreadable(near: Store, tmp_path: Path) -> None:
    (manifest,) = shards(near, 1)
    order = order_over([manifest], WINDOW)
    asked: list[int] = []

    class Down(Store):
        def get_range(self, key: str, start: int, length: int) -> bytes:
            asked.append(start)
            raise StoreError(f"{key}: no answer")

    down = Down(near.url, near.inner, None)
    loader = Loader(ShardCache(down, tmp_path / "cache"), order, WINDOW, unreadable="skip")
    lanes, indices = everything(order)
    with pytest.raises(StoreError, match="no answer") as caught:
        loader.gather(lanes[:1], indices[:1])
    assert not isinstance(caught.value, UnreadableShard)
    assert asked


def test_a_small_region_comes_as_a_whole_with_its_first_windows(near: Store, tmp_path: Path) -> None:
    order = order_over(shards(near, 4), WINDOW)
    cache = ShardCache(far(near), tmp_path / "cache")
    lanes, indices = everything(order)
    Loader(cache, order, WINDOW).gather(lanes[:64], indices[:64])  # windows of each of the shards
    cache.close(wait=True)
    for file in map(cache.open, order.shards[0]):
        assert len(file.missing(np.arange(file.blocks))) == 0


def test_only_the_blocks_of_the_windows_are_fetched_then_ever_longer_stretches(
    near: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.shards.cache.SMALL", 0)
    manifests = shards(near, 4)
    order = order_over(manifests, WINDOW)
    loader = Loader(ShardCache(far(near), tmp_path / "cache"), order, WINDOW)
    lanes, indices = everything(order)
    loader.gather(lanes[:1], indices[:1])
    assert BLOCK_BYTES <= on_disk(tmp_path / "cache") <= 2 * BLOCK_BYTES + 4096
    for k in range(1, 12):
        loader.gather(lanes[k : k + 1], indices[k : k + 1])
    assert on_disk(tmp_path / "cache") >= 12 * BLOCK_BYTES


def whole_epoch(loader: Loader, batches: list[tuple[Array, Array]]) -> list[Array]:
    with loader.ahead(batches) as ahead:
        return [batch.tokens.copy() for batch in ahead]


@pytest.mark.parametrize("limit", [None, 12, 2])
def test_a_bounded_cache_hands_out_what_a_local_store_does_within_its_limit(
    near: Store, tmp_path: Path, limit: int | None
) -> None:
    order = order_over(shards(near), WINDOW)
    lanes, indices = everything(order)
    batches = [(lanes[k : k + 24], indices[k : k + 24]) for k in range(0, len(lanes), 24)]
    wanted = whole_epoch(Loader(near, order, WINDOW), batches)
    bytes_ = None if limit is None else limit * BLOCK_BYTES
    cache = ShardCache(far(near), tmp_path / "cache", bytes_)
    loader = Loader(cache, order, WINDOW)
    for _ in range(2):
        assert all(np.array_equal(a, b) for a, b in zip(whole_epoch(loader, batches), wanted, strict=True))
        if bytes_ is not None:
            # What one look ahead asked for is under way when room is made.
            assert on_disk(tmp_path / "cache") <= max(bytes_, 0) + 32 * BLOCK_BYTES
    cache.close()


def test_the_least_recently_used_shards_leave_first(near: Store, tmp_path: Path) -> None:
    manifests = shards(near, 4)
    refs = [ShardRef.of(m) for m in manifests]
    cache = ShardCache(far(near), tmp_path / "cache", 3 * manifests[0].arrow_bytes + BLOCK_BYTES)
    paths = [cache.path(ref) for ref in refs[:3]]
    for age, path in zip((30, 10, 20), paths, strict=True):
        os.utime(path, (time.time() - age,) * 2)
    paths.append(cache.path(refs[3]))
    assert [path.exists() for path in paths] == [False, True, True, True]
    assert sha256(cache.path(refs[0]).read_bytes()) == refs[0].arrow_sha256
    assert [path.exists() for path in paths] == [True, True, False, True]


def test_a_shard_larger_than_the_cache_cannot_be_had_whole(near: Store, tmp_path: Path) -> None:
    (manifest,) = shards(near, 1)
    with pytest.raises(StoreError, match="are needed whole, and the cache may hold 300000; give it more: --cache-gb"):
        ShardCache(far(near), tmp_path / "cache", 300_000).path(ShardRef.of(manifest))


def epoch_in_process(folder: Path, cache: Path, limit: int, wanted: str) -> None:
    near = Store.open(folder)
    manifests = shards(near)
    order = order_over(manifests, WINDOW)
    lanes, indices = everything(order)
    loader = Loader(ShardCache(far(near), cache, limit), order, WINDOW)
    batches = [(lanes[k : k + 24], indices[k : k + 24]) for k in range(0, len(lanes), 24)]
    for _ in range(2):
        assert sha256(b"".join(t.tobytes() for t in whole_epoch(loader, batches))) == wanted


def test_processes_share_a_folder_that_is_too_small_for_them(near: Store, tmp_path: Path) -> None:
    order = order_over(shards(near), WINDOW)
    lanes, indices = everything(order)
    wanted = sha256(Loader(near, order, WINDOW).gather(lanes, indices).tokens.tobytes())
    context = multiprocessing.get_context("spawn")  # obstore does not outlive a fork
    arguments = (tmp_path / "region", tmp_path / "cache", 8 * BLOCK_BYTES, wanted)
    processes = [context.Process(target=epoch_in_process, args=arguments) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0, 0]


def test_a_process_killed_while_it_fills_the_cache_leaves_one_that_can_be_used(near: Store, tmp_path: Path) -> None:
    order = order_over(shards(near), WINDOW)
    lanes, indices = everything(order)
    wanted = Loader(near, order, WINDOW).gather(lanes, indices).tokens
    context = multiprocessing.get_context("spawn")  # obstore does not outlive a fork
    arguments = (tmp_path / "region", tmp_path / "cache", 1 << 30, "never")
    for _ in range(3):
        process = context.Process(target=epoch_in_process, args=arguments)
        process.start()
        deadline = time.monotonic() + 10
        before = on_disk(tmp_path / "cache")
        while on_disk(tmp_path / "cache") <= before and process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.001)
        process.kill()
        process.join()
    loader = Loader(ShardCache(far(near), tmp_path / "cache"), order, WINDOW)
    assert np.array_equal(loader.gather(lanes, indices).tokens, wanted)


def test_threads_share_a_cache(near: Store, tmp_path: Path) -> None:
    manifests = shards(near)
    cache = ShardCache(far(near), tmp_path / "cache")
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda k: cache.path(ShardRef.of(manifests[k % 3])), range(24)))
    assert len(set(paths)) == 3
    assert {sha256(path.read_bytes()) for path in paths} == {m.arrow_sha256 for m in manifests}


@settings(max_examples=60)
@given(st.sets(st.integers(0, 599), min_size=1), st.sampled_from([1, 2, 8, 32]), st.sampled_from([5, STRETCH + 1]))
def test_runs_hold_every_block_once_and_are_no_longer_than_a_request(blocks: set[int], reach: int, dense: int) -> None:
    found = list(runs(np.array(sorted(blocks)), reach, dense, 600))
    covered = [b for start, end in found for b in range(start, end)]
    assert covered == sorted(set(covered))
    assert blocks <= set(covered) <= set(range(600))
    assert all(0 < end - start <= LONGEST + STRETCH // 4 for start, end in found)
    assert len(covered) <= max(reach, 1.25 * STRETCH / dense) * len(blocks)
