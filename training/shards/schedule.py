"""How a region's lanes mix its streams, and how a stretch of that order begins where another one ended.

A region has 64 lanes. A stream's positions are dealt to them (position mod 64), and each lane mixes its streams by one
periodic schedule with prefix counts, so (lane, lane index) <-> (stream, position) is O(1) both ways. A `Segment` is a
stretch under one set of streams and weights; it knows each lane's index and each stream's count at its start.
`Segments` are all stretches of a region, one behind the other; each position of a stream lies in exactly one of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

LANES = 64
PERIOD = 256
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Schedule:
    """A period of stream numbers, and how often each stands before each slot.

    `slots`: the stream of each slot; `before[s][j]`: slots of stream s before slot j; `where[s][r]`: the slot of
    the r-th occurrence of s.
    """

    slots: tuple[int, ...]
    before: tuple[tuple[int, ...], ...] = field(repr=False)
    where: tuple[tuple[int, ...], ...] = field(repr=False)

    @classmethod
    def of(cls, weights: Sequence[float]) -> Schedule:
        """Spread streams over a period in proportion to their weights, each with one slot at least.

        A stream of weight 0 rests: it has no slot, and no other stream's slots depend on it being there.
        Each stream's r-th slot lies in its own P-fair interval, and slots are dealt by earliest deadline (ties to the
        lower stream), so every prefix is within one slot of its share (Baruah et al. 1996).
        """
        if not weights or min(weights) < 0 or max(weights) == 0:
            raise ValueError(f"streams need weights of 0 or more and one above 0, not {list(weights)}")
        total = sum(weights)
        counts = [max(1, int(PERIOD * w / total)) if w else 0 for w in weights]
        period = sum(counts)
        given = [0] * len(counts)
        slots = []
        for j in range(period):
            due = [s for s in range(len(counts)) if given[s] * period < counts[s] * (j + 1)]
            stream = min(due, key=lambda s: (-(-(given[s] + 1) * period // counts[s]), s))
            given[stream] += 1
            slots.append(stream)
        before, where = [], []
        for s in range(len(counts)):
            prefix, seen = [], 0
            for slot in slots:
                prefix.append(seen)
                seen += slot == s
            before.append(tuple(prefix))
            where.append(tuple(j for j, slot in enumerate(slots) if slot == s))
        return cls(tuple(slots), tuple(before), tuple(where))

    @classmethod
    def idle(cls, streams: int) -> Schedule:
        """Return a schedule in which every stream rests: nothing can be handed out under it."""
        return cls((), ((),) * streams, ((),) * streams)

    @cached_property
    def own(self) -> Array:
        """How often each slot's stream stands before it, int64 [period]."""
        return np.array([self.before[s][j] for j, s in enumerate(self.slots)], dtype=np.int64)

    @cached_property
    def often(self) -> Array:
        """How many slots a stream has, int64 [streams]."""
        return np.array([len(w) for w in self.where], dtype=np.int64)


@dataclass(frozen=True)
class Segment:
    """A stretch of a region's order under one set of streams and weights.

    `start[lane]` is the lane index at which it begins; `counts[s][lane]` is how many positions of stream s that lane
    had handed out before. The first segment of a run starts at zero. Streams are numbered through all segments of a
    region; one that has ended, or waits, has no slot in the schedule.
    """

    schedule: Schedule
    start: tuple[int, ...] = (0,) * LANES
    counts: tuple[tuple[int, ...], ...] = ()

    def locate(self, lane: int, index: int) -> tuple[int, int]:
        """Return (stream, position) of a lane index.

        Raises:
            IndexError: it lies before the segment, or every stream rests.
        """
        slots = self.schedule.slots
        if index < self.start[lane]:
            raise IndexError(f"lane {lane}: index {index} lies before this segment's start {self.start[lane]}")
        if not slots:
            raise IndexError(f"lane {lane}: index {index}: no stream has a weight above 0 there")
        period, slot = divmod(index - self.start[lane], len(slots))
        stream = slots[slot]
        taken = period * len(self.schedule.where[stream]) + self.schedule.before[stream][slot]
        return stream, (self.base(stream, lane) + taken) * LANES + lane

    def find(self, stream: int, position: int) -> tuple[int, int] | None:
        """Return (lane, lane index) of a stream's position.

        None when an earlier segment handed it out, or the stream rests in this one.
        """
        nth, lane = divmod(position, LANES)
        taken = nth - self.base(stream, lane)
        slots = self.schedule.where[stream] if stream < len(self.schedule.where) else ()
        if taken < 0 or not slots:
            return None
        period, rest = divmod(taken, len(slots))
        return lane, self.start[lane] + period * len(self.schedule.slots) + slots[rest]

    def handed(self, index: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        """Return how many positions of each stream each lane has handed out when it stands at `index`, 64 numbers."""
        found = []
        for stream, (before, where) in enumerate(zip(self.schedule.before, self.schedule.where, strict=True)):
            row = []
            for lane in range(LANES):
                done = index[lane] - self.start[lane]
                period, slot = divmod(done, len(self.schedule.slots)) if before else (0, 0)
                row.append(self.base(stream, lane) + period * len(where) + (before[slot] if before else 0))
            found.append(tuple(row))
        return tuple(found)

    def base(self, stream: int, lane: int) -> int:
        """Return how many positions of a stream the lane had handed out before this segment."""
        return self.counts[stream][lane] if stream < len(self.counts) else 0

    @cached_property
    def _starts(self) -> Array:
        return np.array(self.start, dtype=np.int64)

    @cached_property
    def _bases(self) -> Array:
        rows = [[self.base(s, lane) for lane in range(LANES)] for s in range(len(self.schedule.where))]
        return np.array(rows, dtype=np.int64).reshape(-1, LANES)

    def locate_many(self, lanes: Array, indices: Array) -> tuple[Array, Array]:
        """Return streams and positions, int64 [k], of lanes and lane indices, int64 [k], of this segment."""
        slots = np.array(self.schedule.slots, dtype=np.int64)
        ahead = indices - self._starts[lanes]
        if ahead.size and (int(ahead.min()) < 0 or not slots.size):
            self.locate(int(lanes[ahead.argmin()]), int(indices[ahead.argmin()]))  # raises, and says why
        if not ahead.size:
            return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
        period, slot = np.divmod(ahead, len(slots))
        streams = slots[slot]
        taken = period * self.schedule.often[streams] + self.schedule.own[slot]
        return streams, (self._bases[streams, lanes] + taken) * LANES + lanes


@dataclass(frozen=True)
class Segments:
    """All segments of a region in their order: each lane index, and each position handed out, lies in one of them."""

    parts: tuple[Segment, ...]

    @property
    def schedule(self) -> Schedule:
        """The schedule in force: that of the last segment."""
        return self.parts[-1].schedule

    def locate(self, lane: int, index: int) -> tuple[int, int]:
        """Return (stream, position) of a lane index.

        Raises:
            IndexError: the index is negative, or every stream rests there.
        """
        part = next((p for p in reversed(self.parts) if p.start[lane] <= index), self.parts[0])
        return part.locate(lane, index)

    def locate_many(self, lanes: Array, indices: Array) -> tuple[Array, Array]:
        """Return streams and positions, int64 [k], of lanes and lane indices, int64 [k]: `locate` of each, at once.

        Raises:
            IndexError: an index is negative, or every stream rests there.
        """
        lanes, indices = np.asarray(lanes, dtype=np.int64), np.asarray(indices, dtype=np.int64)
        if len(self.parts) == 1:
            return self.parts[0].locate_many(lanes, indices)
        streams, positions = np.empty(len(lanes), np.int64), np.empty(len(lanes), np.int64)
        part = np.maximum((self._starts[:, lanes] <= indices).sum(axis=0) - 1, 0)
        for number in np.unique(part):
            here = np.flatnonzero(part == number)
            streams[here], positions[here] = self.parts[number].locate_many(lanes[here], indices[here])
        return streams, positions

    def find(self, stream: int, position: int) -> tuple[int, int] | None:
        """Return (lane, lane index) of a stream's position; None when no segment hands it out."""
        nth, lane = divmod(position, LANES)
        for part in reversed(self.parts):
            # What an earlier segment handed out is below this one's count; the rest is this one's or, if it rests, no
            # segment's so far.
            if nth >= part.base(stream, lane):
                return part.find(stream, position)
        return None

    def handed(self, index: Sequence[int]) -> tuple[tuple[int, ...], ...]:
        """Return how many positions of each stream each lane has handed out when it stands at `index`, 64 numbers.

        The lanes stand in the last segment or at its start.
        """
        return self.parts[-1].handed(index)

    def then(self, weights: Sequence[float], index: Sequence[int]) -> Segments:
        """Return the order that goes on from `index`, 64 numbers, under other weights, one a stream.

        Streams may be more than before; one of weight 0 rests, and goes on later where it stopped.
        """
        handed = self.handed(index)
        new = ((0,) * LANES,) * (len(weights) - len(handed))
        schedule = Schedule.of(weights) if any(weights) else Schedule.idle(len(weights))
        return Segments((*self.parts, Segment(schedule, tuple(index), handed + new)))

    @cached_property
    def _starts(self) -> Array:
        return np.array([part.start for part in self.parts], dtype=np.int64)


def next_claims(index: Sequence[int], lanes: Sequence[int], windows: int) -> list[tuple[int, int, int]]:
    """Deal `windows` samples to a site's lanes: (lane, from, to) with `to` exclusive, lanes of lowest index first.

    `index[lane]` is the committed lane index. The ranges depend on nothing else, so a site that starts again claims
    the same ones.
    """
    order = sorted(lanes, key=lambda lane: (index[lane], lane))
    share, extra = divmod(windows, len(order))
    claims = [(lane, index[lane], index[lane] + share + (k < extra)) for k, lane in enumerate(order)]
    return sorted(claim for claim in claims if claim[2] > claim[1])


def unroll(claims: Sequence[tuple[int, int, int]]) -> list[tuple[int, int]]:
    """Return the (lane, lane index) pairs of claims in training order: by lane index, then lane."""
    return sorted(((lane, i) for lane, start, end in claims for i in range(start, end)), key=lambda p: (p[1], p[0]))


def in_batches(claims: Sequence[tuple[int, int, int]], windows: int) -> list[list[tuple[int, int]]]:
    """Return claims as batches of `windows` (lane, lane index), in training order."""
    places = unroll(claims)
    return [places[k : k + windows] for k in range(0, len(places), windows)]


def ranges(places: Iterable[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """Return (lane, lane index) pairs as ranges (lane, from, to), `to` exclusive, in order."""
    found: list[tuple[int, int, int]] = []
    for lane, index in sorted(places):
        if found and found[-1][0] == lane and found[-1][2] == index:
            found[-1] = (lane, found[-1][1], index + 1)
        else:
            found.append((lane, index, index + 1))
    return found
