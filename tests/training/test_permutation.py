from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.shards.order import Stream
from training.shards.permutation import NEWEST_ORDER, permutation

ORDERS = (1, 2)
# Evenly over the magnitudes: a plain integers(1, 10**12) draws hardly anything below a billion.
SIZES = st.integers(0, 39).flatmap(lambda bits: st.integers(1 << bits, min(10**12, 2 << bits)))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("n", [*range(1, 70), 255, 256, 257, 1023, 1024, 1025, 4097, 8192, 20_001])
def test_every_window_is_visited_once(order: int, n: int) -> None:
    found = permutation(order, n, 7, "set", 0)
    visited = found(np.arange(n))
    assert np.array_equal(np.sort(visited), np.arange(n))
    assert np.array_equal(found.inverse(visited), np.arange(n))


@pytest.mark.long
@pytest.mark.parametrize("order", ORDERS)
def test_every_window_is_visited_once_for_every_size_to_three_thousand(order: int) -> None:
    for n in range(1, 3001):
        assert np.array_equal(np.sort(permutation(order, n, n)(np.arange(n))), np.arange(n))


def invert(order: int, n: int, seed: int, positions: list[int]) -> None:
    found = permutation(order, n, seed, "stream")
    asked = np.array(positions)
    windows = found(asked)
    assert windows.min() >= 0
    assert windows.max() < n
    assert found.inverse(windows).tolist() == positions
    assert found(found.inverse(asked)).tolist() == positions
    assert [int(found(asked[k : k + 1])[0]) for k in range(len(positions))] == windows.tolist()


@settings(max_examples=60)
@given(st.sampled_from(ORDERS), SIZES, st.integers(0, 2**32), st.data())
def test_position_to_window_inverts_for_any_number_of_windows(
    order: int, n: int, seed: int, data: st.DataObject
) -> None:
    invert(order, n, seed, data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=20)))


@pytest.mark.long
@settings(max_examples=5000)
@given(st.sampled_from(ORDERS), st.integers(1, 1 << 62), st.integers(0, 2**32), st.data())
def test_position_to_window_inverts_up_to_the_largest_size(order: int, n: int, seed: int, data: st.DataObject) -> None:
    invert(order, n, seed, data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=200)))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("n", [10**12, (1 << 61) + 1, (1 << 62) - 1, 1 << 62])
def test_large_sizes_still_invert(order: int, n: int) -> None:
    invert(order, n, 1, [0, 1, n // 2, n - 2, n - 1])


@pytest.mark.parametrize("n", [0, (1 << 62) + 1])
def test_a_size_outside_its_range_is_refused(n: int) -> None:
    with pytest.raises(ValueError, match=str(n)):
        permutation(1, n, 1)


def test_an_unknown_algorithm_is_refused() -> None:
    with pytest.raises(ValueError, match="order 3 is none of 1, 2"):
        permutation(3, 10, 1)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("value", [10, -1])
def test_a_position_outside_the_stream_is_refused(order: int, value: int) -> None:
    with pytest.raises(IndexError, match=f"^{value} is outside 0..9"):
        permutation(order, 10, 1)(np.array([3, value]))


@pytest.mark.parametrize("order", ORDERS)
def test_the_order_depends_on_every_part_of_its_context(order: int) -> None:
    contexts = ((1, "a", 0), (2, "a", 0), (1, "b", 0), (1, "a", 1))
    orders = [permutation(order, 500, *context)(np.arange(500)).tolist() for context in contexts]
    assert len({tuple(o) for o in orders}) == 4


def test_no_algorithm_ever_changes_its_order() -> None:
    # Plans name an algorithm by its number: these values are what old chains were trained in.
    first = [permutation(order, 1000, 5, "set", "v", "europe", 0)(np.arange(6)).tolist() for order in ORDERS]
    assert first == [[110, 620, 362, 261, 298, 526], [774, 289, 478, 633, 988, 727]]
    assert ORDERS[-1] == NEWEST_ORDER


@pytest.mark.parametrize("order", ORDERS)
def test_where_a_window_lands_is_uniform_over_seeds(order: int) -> None:
    # 20 windows, 2000 keys: chi-square with 19 degrees of freedom stays below 43.8 but once in a thousand draws.
    for window in (0, 7, 19):
        landed = [int(permutation(order, 20, seed).inverse(np.array([window]))[0]) for seed in range(2000)]
        counts = np.bincount(landed, minlength=20)
        assert float(((counts - 100) ** 2 / 100).sum()) < 43.8


@pytest.mark.parametrize("order", ORDERS)
def test_every_order_of_a_few_windows_is_as_likely(order: int) -> None:
    # 24 orders of 4 windows, 4800 keys: chi-square with 23 degrees of freedom stays below 49.7 but once in a thousand.
    seen = Counter(tuple(permutation(order, 4, "few", seed)(np.arange(4)).tolist()) for seed in range(4800))
    assert sum((seen[p] - 200) ** 2 / 200 for p in itertools.permutations(range(4))) < 49.7


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("n", [1000, 65_536, 100_003, 1_000_000])
def test_neighbouring_positions_are_not_correlated(order: int, n: int) -> None:
    windows = permutation(order, n, 3, "set")(np.arange(n)).astype(float)
    for lag in (1, 2, 64, 1000 if n > 1000 else 3):
        r = float(np.corrcoef(windows[:-lag], windows[lag:])[0, 1])
        assert abs(r) < 4.5 / np.sqrt(n)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("n", [65_536, 100_003, 10**12])
def test_a_stretch_of_the_order_covers_the_stream_evenly(order: int, n: int) -> None:
    # 16384 consecutive positions over 64 equal parts: mean 256 each; chi-square with 63 degrees of freedom < 103.4.
    for start in (0, n // 2):
        windows = permutation(order, n, 11, "set")(np.arange(start, start + 16_384))
        counts = np.bincount(windows * 64 // n, minlength=64)
        expected = np.diff([-(-k * n // 64) for k in range(65)]) * 16_384 / n
        assert float(((counts - expected) ** 2 / expected).sum()) < 103.4


@pytest.mark.parametrize("order", ORDERS)
def test_the_gaps_between_neighbours_are_those_of_a_random_order(order: int) -> None:
    # Of a random order, each pair (w, w + d) is visited in this order half of the time, and successive windows are
    # adjacent twice in n; a weak shuffle shows in both. Bounds: 4.5 standard deviations.
    n = 100_000
    found = permutation(order, n, 2, "gaps")
    windows, places = found(np.arange(n)), found.inverse(np.arange(n))
    for d in (1, 2, 316, 512):
        rising = int((places[d:] > places[:-d]).sum())
        assert abs(rising - (n - d) / 2) < 4.5 * np.sqrt(n / 4)
    assert int((np.abs(np.diff(windows)) == 1).sum()) < 2 + 4.5 * np.sqrt(2) + 1


@settings(max_examples=40)
@given(
    st.lists(st.integers(0, 50), min_size=1, max_size=8).filter(any),
    st.sampled_from(ORDERS),
    st.integers(0, 99),
    st.data(),
)
def test_plural_and_scalar_forms_agree_and_invert(sizes: list[int], order: int, seed: int, data: st.DataObject) -> None:
    stream = Stream("set", "v", "europe", seed, tuple(itertools.accumulate(sizes)), order)
    positions = np.array(data.draw(st.lists(st.integers(0, 5 * stream.windows), max_size=30)), dtype=np.int64)
    epochs, windows = stream.visits(positions)
    assert [(int(e), int(w)) for e, w in zip(epochs, windows, strict=True)] == [
        stream.window(int(p)) for p in positions
    ]
    assert np.array_equal(stream.positions(epochs, windows), positions)
    numbers, inner = stream.shards(windows)
    assert [(int(n), int(i)) for n, i in zip(numbers, inner, strict=True)] == [stream.shard(int(w)) for w in windows]
    assert all(0 <= i < sizes[n] for n, i in zip(numbers, inner, strict=True))


@settings(max_examples=30)
@given(st.integers(1, 3000), st.sampled_from(ORDERS), st.integers(0, 4000))
def test_an_order_resumed_anywhere_goes_on_as_if_never_stopped(windows: int, order: int, stop: int) -> None:
    stream = Stream("set", "v", "europe", 3, (windows,), order)
    whole = np.stack(stream.visits(np.arange(stop + 500)))
    rest = np.stack(stream.visits(np.arange(stop, stop + 500)))
    assert np.array_equal(whole[:, stop:], rest)
    epochs, visited = whole
    for epoch in np.unique(epochs):
        own = visited[epochs == epoch]
        assert len(np.unique(own)) == len(own)
