"""A region's shards in a real Swift region, and what goes wrong on the way from it."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from data_contracts.catalog.store import Store
from data_contracts.errors import StoreError
from tests.data_contracts.faulty import Proxy
from tests.stores import Access
from tests.training.numbered import Array, everything, numbered, order_over
from training.shards.blocks import UnreadableShard
from training.shards.cache import ShardCache
from training.shards.loader import Loader
from training.shards.region import RegionOrder

WINDOW = 1024


@pytest.fixture(scope="module")
def near(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store.open(tmp_path_factory.mktemp("near"))


@pytest.fixture(scope="module")
def order(near: Store) -> RegionOrder:
    return order_over([numbered(near, [5_000_000 + k], chr(97 + k)) for k in range(2)], WINDOW)


@pytest.fixture(scope="module")
def url(near: Store, order: RegionOrder, north: Access) -> str:
    found = north.bucket("region")
    store = Store.open(found)
    for key, _ in near.list("shards"):
        store.put_file(key, near.path(key))
    return found


@pytest.fixture
def proxy(north: Access) -> Iterator[Proxy]:
    with Proxy(north.endpoint) as made:
        yield made


def asked(order: RegionOrder, size: int = 128) -> list[tuple[Array, Array]]:
    lanes, indices = everything(order)
    return [(lanes[k : k + size], indices[k : k + size]) for k in range(0, len(lanes), size)]


def check(near: Store, order: RegionOrder, cache: ShardCache) -> None:
    """Take an epoch through a cache and compare each batch with what the shards' own folder gives."""
    plain = Loader(near, order, WINDOW)
    with Loader(cache, order, WINDOW).ahead(asked(order)) as ahead:
        for (lanes, indices), batch in zip(asked(order), ahead, strict=True):
            assert np.array_equal(batch.tokens, plain.gather(lanes, indices).tokens)
    cache.close()


def test_an_epoch_comes_from_the_region_with_few_requests_and_a_second_one_with_none(
    near: Store, order: RegionOrder, url: str, proxy: Proxy, tmp_path: Path
) -> None:
    store = Store.open(proxy.url(url))
    check(near, order, ShardCache(store, tmp_path / "cache"))
    size = sum(ref.arrow_bytes for ref in order.shards[0])
    assert proxy.bytes_down < 1.3 * size
    assert len(proxy.requests) < 30
    before = len(proxy.requests)
    check(near, order, ShardCache(store, tmp_path / "cache"))
    assert len(proxy.requests) == before + len(order.shards[0])  # the manifests


def test_answers_that_break_off_or_turn_a_bit_over_are_asked_again(
    near: Store, order: RegionOrder, url: str, proxy: Proxy, tmp_path: Path
) -> None:
    cut, flip = itertools.count(), itertools.count()
    proxy.cut = lambda line: 5_000_000 if ".arrow" in line and next(cut) % 3 == 0 else None
    proxy.flip_down = lambda line: ".arrow" in line and next(flip) % 4 == 1
    check(near, order, ShardCache(Store.open(proxy.url(url), retry_s=10), tmp_path / "cache"))


def test_a_region_that_is_away_for_a_while_is_waited_for(
    near: Store, order: RegionOrder, url: str, proxy: Proxy, tmp_path: Path
) -> None:
    away = itertools.count()

    def leave(line: str) -> bool:
        if ".arrow" in line and next(away) == 1:
            proxy.down()
            threading.Timer(2.0, proxy.up).start()
            return True
        return False

    proxy.lose = leave
    check(near, order, ShardCache(Store.open(proxy.url(url), retry_s=30), tmp_path / "cache"))
    assert next(away) > 2


def test_a_region_that_stays_away_ends_the_epoch_even_where_unreadable_windows_are_skipped(
    order: RegionOrder, url: str, proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.shards.cache.SMALL", 0)  # else all of it is on its way before the region goes
    cache = ShardCache(Store.open(proxy.url(url), retry_s=1), tmp_path / "cache")
    loader = Loader(cache, order, WINDOW, unreadable="skip")
    first, *rest = asked(order, 2)
    loader.gather(*first)
    proxy.down()
    with pytest.raises(StoreError) as caught, loader.ahead(rest) as ahead:
        list(ahead)
    assert not isinstance(caught.value, UnreadableShard)
