"""How a region's lanes mix its streams, and how a stretch of that order begins where another one ended.

A region has 64 lanes. A stream's positions are dealt to them (position mod 64), and each lane mixes its streams by one
periodic schedule with prefix counts, so (lane, lane index) <-> (stream, position) is O(1) both ways. A `Segment` is a
stretch under one set of streams and weights; it stores each lane's index and each stream's count at its start.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

LANES = 64
PERIOD = 256


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

        Each stream's r-th slot lies in its own P-fair interval, and slots are dealt by earliest deadline (ties to the
        lower stream), so every prefix is within one slot of its share (Baruah et al. 1996).
        """
        if not weights or min(weights) <= 0:
            raise ValueError(f"every stream needs a weight above 0, not {list(weights)}")
        total = sum(weights)
        counts = [max(1, int(PERIOD * w / total)) for w in weights]
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


@dataclass(frozen=True)
class Segment:
    """A stretch of a region's order under one set of streams and weights.

    `start[lane]` is the lane index at which it begins; `counts[s][lane]` is how many positions of stream s that lane
    had handed out before. The first segment of a run starts at zero.
    """

    schedule: Schedule
    start: tuple[int, ...] = (0,) * LANES
    counts: tuple[tuple[int, ...], ...] = ()

    def locate(self, lane: int, index: int) -> tuple[int, int]:
        """Return (stream, position) of a lane index."""
        slots = self.schedule.slots
        period, slot = divmod(index - self.start[lane], len(slots))
        if index < self.start[lane]:
            raise IndexError(f"lane {lane}: index {index} lies before this segment's start {self.start[lane]}")
        stream = slots[slot]
        taken = period * len(self.schedule.where[stream]) + self.schedule.before[stream][slot]
        return stream, (self._base(stream, lane) + taken) * LANES + lane

    def find(self, stream: int, position: int) -> tuple[int, int] | None:
        """Return (lane, lane index) of a stream's position; None when an earlier segment handed it out."""
        nth, lane = divmod(position, LANES)
        taken = nth - self._base(stream, lane)
        if taken < 0:
            return None
        period, rest = divmod(taken, len(self.schedule.where[stream]))
        return lane, self.start[lane] + period * len(self.schedule.slots) + self.schedule.where[stream][rest]

    def _base(self, stream: int, lane: int) -> int:
        return self.counts[stream][lane] if self.counts else 0


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
