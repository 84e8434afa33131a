"""The order of one region: its streams, the shards that each runs through, and the segments that mix them.

Pure: the same versions, weights and lane indices give the same order at every site.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from training.shards.manifest import DatasetVersion, ShardRef
from training.shards.order import Stream
from training.shards.schedule import Array, Schedule, Segment, Segments


@dataclass(frozen=True)
class Mixture:
    """How much of each data set: `weights` by data set; one without weighs its windows there to the 1/`temperature`.

    A data set's weight is shared among its streams by their windows. Weight 0: it rests.
    """

    weights: Mapping[str, float]
    temperature: float = 1.0

    def shares(self, streams: Sequence[Stream], live: Sequence[bool]) -> list[float]:
        """Return each stream's weight; a stream that is not live has none."""
        totals: dict[str, int] = {}
        for stream, is_live in zip(streams, live, strict=True):
            if is_live:
                totals[stream.dataset] = totals.get(stream.dataset, 0) + stream.windows
        weights = {d: self.weights.get(d, float(n) ** (1.0 / self.temperature)) for d, n in totals.items()}
        return [
            weights[s.dataset] * (s.windows / totals[s.dataset]) if is_live else 0.0
            for s, is_live in zip(streams, live, strict=True)
        ]


@dataclass(frozen=True)
class RegionOrder:
    """All streams that a region ever had, their shards, and the segments that mix them.

    `live[s]`: stream s is of a version in force; `mixed[s]` is its weight in the last segment.
    """

    region: str
    streams: tuple[Stream, ...]
    shards: tuple[tuple[ShardRef, ...], ...]
    segments: Segments
    live: tuple[bool, ...]
    mixed: tuple[float, ...]

    def locate(self, lane: int, index: int) -> tuple[int, int]:
        """Return (stream, position) of a lane index."""
        return self.segments.locate(lane, index)

    def locate_many(self, lanes: Array, indices: Array) -> tuple[Array, Array]:
        """Return streams and positions, int64 [k], of lanes and lane indices, int64 [k]."""
        return self.segments.locate_many(lanes, indices)

    def find(self, stream: int, position: int) -> tuple[int, int] | None:
        """Return (lane, lane index) of a stream's position; None when no segment hands it out."""
        return self.segments.find(stream, position)

    @property
    def datasets(self) -> tuple[str, ...]:
        """The data sets that the last segment hands out, by name."""
        return tuple(sorted({s.dataset for s, share in zip(self.streams, self.mixed, strict=True) if share > 0}))


def settled(versions: Sequence[DatasetVersion]) -> dict[str, str]:
    """Return the region of each shard of the versions in force, by Arrow sha: that of the first version that names it.

    A shard may have been moved between two versions; while both are in force it is handed out where it was.
    """
    regions: dict[str, str] = {}
    for version in versions:
        for ref in version.shards:
            regions.setdefault(ref.arrow_sha256, ref.region)
    return regions


def region_order(
    versions: Sequence[DatasetVersion],
    region: str,
    window: int,
    seed: int,
    weights: Mapping[str, float],
    temperature: float = 1.0,
    algorithm: int = 1,
) -> RegionOrder | None:
    """Return the order of a region from round 1 on, or None when it holds nothing to train on.

    `window` is in tokens, the inputs of one sample; `algorithm` is the permutation of each stream, the plan's `order`.
    """
    empty = RegionOrder(region, (), (), Segments(()), (), ())
    streams, shards, live = _streams(empty, sorted(versions, key=lambda v: (v.dataset, v.sha)), window, seed, algorithm)
    if not streams:
        return None
    shares = Mixture(weights, temperature).shares(streams, live)
    schedule = Schedule.of(shares) if any(shares) else Schedule.idle(len(shares))
    return RegionOrder(region, streams, shards, Segments((Segment(schedule),)), live, tuple(shares))


def next_segment(
    order: RegionOrder,
    versions: Sequence[DatasetVersion],
    window: int,
    seed: int,
    mixture: Mixture,
    index: Sequence[int],
    algorithm: int = 1,
) -> RegionOrder:
    """Return the order that goes on from `index`, the lanes' committed indices, under other versions or weights.

    `versions` are those in force, in the order in which they came. Each of their shards is handed out by exactly one
    live stream of one region: one that a live stream runs through stays there, the others open a stream of their own;
    a stream whose version is not in force stops, and goes on where it stopped if that version returns. A region where
    nothing changes keeps its segment.
    """
    streams, shards, live = _streams(order, versions, window, seed, algorithm)
    shares = tuple(mixture.shares(streams, live))
    if (live, shares) == (order.live, order.mixed):
        return order
    segments = order.segments.then(shares, index)
    return RegionOrder(order.region, streams, shards, segments, live, shares)


def _streams(
    order: RegionOrder, versions: Sequence[DatasetVersion], window: int, seed: int, algorithm: int
) -> tuple[tuple[Stream, ...], tuple[tuple[ShardRef, ...], ...], tuple[bool, ...]]:
    """Return all streams, their shards, and which of them are live under these versions."""
    in_force = {v.sha for v in versions}
    regions = settled(versions)
    covered: set[tuple[str, str]] = set()
    streams, shards, live = list(order.streams), list(order.shards), []
    for stream, held in zip(order.streams, order.shards, strict=True):
        mine = {(stream.dataset, ref.arrow_sha256) for ref in held}
        # Two versions may share shards: the stream that was first goes on with them.
        here = all(regions.get(ref.arrow_sha256) == order.region for ref in held)
        live.append(stream.version in in_force and here and not mine & covered)
        covered |= mine if live[-1] else set()
    for version in sorted(versions, key=lambda v: (v.dataset, v.sha)):
        new = tuple(
            s
            for s in version.of(order.region, "train")
            if s.tokens > 1
            and regions[s.arrow_sha256] == order.region
            and (version.dataset, s.arrow_sha256) not in covered
        )
        if not new:
            continue
        covered |= {(version.dataset, ref.arrow_sha256) for ref in new}
        ends = np.cumsum([-(-(s.tokens - 1) // window) for s in new])
        streams.append(Stream(version.dataset, version.sha, order.region, seed, tuple(int(e) for e in ends), algorithm))
        shards.append(new)
        live.append(True)
    return tuple(streams), tuple(shards), tuple(live)
