from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.shards.schedule import LANES, Schedule, Segment, next_claims, unroll

WEIGHTS = st.lists(st.floats(0.01, 1000), min_size=1, max_size=8)


@st.composite
def segments(draw: st.DrawFn) -> tuple[Segment, int]:
    """A first or a later segment, and its number of streams."""
    weights = draw(WEIGHTS)
    schedule = Schedule.of(weights)
    if draw(st.booleans()):
        return Segment(schedule), len(weights)
    lane = st.lists(st.integers(0, 10**6), min_size=LANES, max_size=LANES).map(tuple)
    counts = tuple(draw(lane) for _ in weights)
    return Segment(schedule, draw(lane), counts), len(weights)


@settings(deadline=None)
@given(WEIGHTS)
def test_a_schedules_prefix_counts_and_slots_are_those_of_a_plain_count(weights: list[float]) -> None:
    schedule = Schedule.of(weights)
    for stream in range(len(weights)):
        assert schedule.where[stream] == tuple(j for j, s in enumerate(schedule.slots) if s == stream)
        assert schedule.before[stream] == tuple(schedule.slots[:j].count(stream) for j in range(len(schedule.slots)))


@settings(deadline=None)
@given(WEIGHTS)
def test_every_prefix_of_a_schedule_is_within_one_slot_of_each_streams_share(weights: list[float]) -> None:
    schedule = Schedule.of(weights)
    period = len(schedule.slots)
    for stream in range(len(weights)):
        share = len(schedule.where[stream]) / period
        assert share > 0
        assert all(abs(n - share * j) < 1 for j, n in enumerate(schedule.before[stream]))


@given(WEIGHTS)
def test_a_streams_share_of_the_slots_is_its_weight_within_one_slot(weights: list[float]) -> None:
    schedule = Schedule.of(weights)
    for stream, weight in enumerate(weights):
        wanted = 256 * weight / sum(weights)
        assert len(schedule.where[stream]) == max(1, int(wanted))


@pytest.mark.parametrize("weights", [[], [0.0], [1.0, -1.0]])
def test_weights_that_give_no_stream_a_slot_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="one above 0"):
        Schedule.of(weights)


def test_a_stream_of_weight_0_rests_and_the_others_have_the_slots_they_would_have_without_it() -> None:
    resting, without = Schedule.of([3.0, 0.0, 1.0]), Schedule.of([3.0, 1.0])
    assert [s for s in resting.slots if s == 1] == []
    assert [{0: 0, 2: 1}[s] for s in resting.slots] == list(without.slots)


@settings(deadline=None)
@given(segments(), st.integers(0, LANES - 1), st.integers(0, 10**9))
def test_lane_index_to_position_inverts_in_every_segment(made: tuple[Segment, int], lane: int, ahead: int) -> None:
    segment, _ = made
    index = segment.start[lane] + ahead
    stream, position = segment.locate(lane, index)
    assert position % LANES == lane
    assert segment.find(stream, position) == (lane, index)


@settings(deadline=None)
@given(segments(), st.integers(0, 10**9), st.data())
def test_position_to_lane_index_inverts_in_every_segment(
    made: tuple[Segment, int], position: int, data: st.DataObject
) -> None:
    segment, streams = made
    stream = data.draw(st.integers(0, streams - 1))
    found = segment.find(stream, position)
    handed_out = segment.counts[stream][position % LANES] if segment.counts else 0
    if position // LANES < handed_out:
        assert found is None
    else:
        assert found is not None
        assert segment.locate(*found) == (stream, position)


@given(segments(), st.integers(0, LANES - 1))
def test_an_index_before_the_segment_is_refused(made: tuple[Segment, int], lane: int) -> None:
    segment, _ = made
    with pytest.raises(IndexError, match="before this segment"):
        segment.locate(lane, segment.start[lane] - 1)


def test_a_later_segment_goes_on_where_the_first_stopped_and_gives_no_position_twice() -> None:
    first = Segment(Schedule.of([3.0, 1.0]))
    stop = [17 + lane % 3 for lane in range(LANES)]
    seen = [first.locate(lane, i) for lane in range(LANES) for i in range(stop[lane])]
    counts = tuple(
        tuple(sum(s == stream and p % LANES == k for s, p in seen) for k in range(LANES)) for stream in (0, 1)
    )
    later = Segment(Schedule.of([1.0, 5.0]), tuple(stop), counts)
    seen += [later.locate(lane, stop[lane] + i) for lane in range(LANES) for i in range(40)]
    assert len(set(seen)) == len(seen)
    for stream in (0, 1):
        for lane in range(LANES):
            nth = sorted(p // LANES for s, p in seen if s == stream and p % LANES == lane)
            assert nth == list(range(len(nth)))


INDEX = st.lists(st.integers(0, 50), min_size=LANES, max_size=LANES)


@given(INDEX, st.sets(st.integers(0, LANES - 1), min_size=1), st.integers(1, 300))
def test_claims_begin_where_the_chain_stands_and_make_the_windows_asked_for(
    index: list[int], lanes: set[int], windows: int
) -> None:
    claims = next_claims(index, sorted(lanes), windows)
    assert claims == next_claims(index, sorted(lanes, reverse=True), windows)
    assert sum(end - start for _, start, end in claims) == windows
    assert all(lane in lanes and start == index[lane] and end > start for lane, start, end in claims)
    assert len({lane for lane, _, _ in claims}) == len(claims)
    given_out = {lane: end - start for lane, start, end in claims}
    sizes = [given_out.get(lane, 0) for lane in lanes]
    assert max(sizes) - min(sizes) <= 1
    most = max(index[lane] for lane in lanes if given_out.get(lane, 0) == max(sizes))
    assert all(index[lane] >= most for lane in lanes if given_out.get(lane, 0) < max(sizes))


@given(INDEX, st.sets(st.integers(0, LANES - 1), min_size=1), st.integers(1, 300))
def test_unrolled_claims_are_their_indices_once_in_training_order(
    index: list[int], lanes: set[int], windows: int
) -> None:
    claims = next_claims(index, sorted(lanes), windows)
    places = unroll(claims)
    assert sorted(places) == sorted((lane, i) for lane, start, end in claims for i in range(start, end))
    assert [(i, lane) for lane, i in places] == sorted((i, lane) for lane, i in places)
