from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.shards.order import Permutation, Stream
from training.shards.schedule import LANES, Schedule, Segment

SIZES = st.integers(1, 10**12)


@pytest.mark.parametrize("n", [*range(1, 70), 255, 256, 257, 1023, 1024, 1025, 4097])
def test_every_window_is_visited_once(n: int) -> None:
    order = Permutation.keyed(n, 7, "set", 0)
    visited = order(np.arange(n))
    assert sorted(visited.tolist()) == list(range(n))
    assert order.inverse(visited).tolist() == list(range(n))


@settings(deadline=None)
@given(SIZES, st.integers(0, 2**32), st.data())
def test_position_to_window_inverts_for_any_number_of_windows(n: int, seed: int, data: st.DataObject) -> None:
    positions = np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=20)))
    order = Permutation.keyed(n, seed, "stream")
    windows = order(positions)
    assert windows.min() >= 0
    assert windows.max() < n
    assert order.inverse(windows).tolist() == positions.tolist()
    assert order(order.inverse(positions)).tolist() == positions.tolist()


@pytest.mark.parametrize("n", [0, (1 << 62) + 1])
def test_a_size_outside_its_range_is_refused(n: int) -> None:
    with pytest.raises(ValueError, match=str(n)):
        Permutation.keyed(n, 1)


def test_the_largest_size_still_inverts() -> None:
    order = Permutation.keyed(1 << 62, 1)
    positions = np.array([0, 1, (1 << 62) - 1])
    assert order.inverse(order(positions)).tolist() == positions.tolist()


@pytest.mark.parametrize("value", [10, -1])
def test_a_position_outside_the_stream_is_refused(value: int) -> None:
    with pytest.raises(IndexError, match="outside"):
        Permutation.keyed(10, 1)(np.array([value]))


def test_the_order_depends_on_every_part_of_its_context() -> None:
    orders = [Permutation.keyed(500, *c)(np.arange(500)).tolist() for c in ((1, "a", 0), (2, "a", 0), (1, "b", 0))]
    orders += [Permutation.keyed(500, 1, "a", 1)(np.arange(500)).tolist()]
    assert len({tuple(o) for o in orders}) == 4
    assert orders[0] == Permutation.keyed(500, 1, "a", 0)(np.arange(500)).tolist()


def test_where_a_window_lands_is_uniform_over_seeds() -> None:
    # 20 windows, 2000 keys: chi-square with 19 degrees of freedom stays below 43.8 but once in a thousand seeds.
    for window in (0, 7, 19):
        landed = [int(Permutation.keyed(20, seed).inverse(np.array([window]))[0]) for seed in range(2000)]
        counts = np.bincount(landed, minlength=20)
        assert float(((counts - 100) ** 2 / 100).sum()) < 43.8


@pytest.mark.parametrize("n", [1000, 65_536, 100_003])
def test_neighbouring_positions_are_not_correlated(n: int) -> None:
    windows = Permutation.keyed(n, 3, "set").__call__(np.arange(n)).astype(float)
    for lag in (1, 2, 64):
        r = float(np.corrcoef(windows[:-lag], windows[lag:])[0, 1])
        assert abs(r) < 4.5 / np.sqrt(n)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 300), st.integers(0, 99))
def test_an_epoch_visits_each_window_once_over_all_lanes(windows: int, seed: int) -> None:
    stream = Stream("set", "v", "europe", seed, (windows,))
    segment = Segment(Schedule.of([1.0]))
    depth = 2 * (-(-windows // LANES)) + 1
    seen = [stream.window(segment.locate(lane, i)[1]) for lane in range(LANES) for i in range(depth)]
    assert len(set(seen)) == len(seen)
    assert {w for epoch, w in seen if epoch == 0} == set(range(windows))
    assert all(stream.window(stream.position(e, w)) == (e, w) for e, w in seen[:20])


def test_a_window_lies_in_the_shard_that_its_number_falls_into() -> None:
    stream = Stream("set", "v", "europe", 1, (3, 4, 9))
    assert [stream.shard(w) for w in range(9)] == [
        *((0, i) for i in range(3)),
        (1, 0),
        *((2, i) for i in range(5)),
    ]
