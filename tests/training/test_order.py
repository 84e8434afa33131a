from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from training.shards.order import Stream
from training.shards.schedule import LANES, Schedule, Segment


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
