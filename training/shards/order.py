"""The order of the samples: no shuffle file, and every arrow inverts.

A *stream* is the windows 0..N-1 of one data set version's shards in one region. Epoch e visits them in the order of
a keyed Feistel permutation. A region has 64 lanes: a stream's positions are dealt to them (position mod 64), and each
lane mixes its streams by one periodic schedule with prefix counts. So

    (lane, lane index) <-> (stream, position) <-> (stream, epoch, window)

are all O(1) both ways, for any number of windows, from any point.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from training.shards.permutation import Permutation, permutation
from training.shards.schedule import LANES as LANES
from training.shards.schedule import Schedule as Schedule
from training.shards.schedule import Segment as Segment
from training.shards.schedule import next_claims as next_claims
from training.shards.schedule import unroll as unroll

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Stream:
    """The windows of one data set version in one region, numbered through its shards in order.

    `ends[k]` is the number of windows in shards 0..k. `order` is the plan's permutation algorithm. The plural forms
    take and return int64 arrays [k], at about 20 ns a value in batches of some thousands.
    """

    dataset: str
    version: str
    region: str
    seed: int
    ends: tuple[int, ...]
    order: int = 1

    @property
    def windows(self) -> int:
        """N, the number of windows."""
        return self.ends[-1] if self.ends else 0

    @cached_property
    def _bounds(self) -> Array:
        return np.array([0, *self.ends], dtype=np.int64)

    def permutation(self, epoch: int) -> Permutation:
        """Return the order of one epoch."""
        return permutation(self.order, self.windows, self.seed, self.dataset, self.version, self.region, epoch)

    def visits(self, positions: Array) -> tuple[Array, Array]:
        """Return (epochs, windows) of positions."""
        epochs, offsets = np.divmod(np.asarray(positions, dtype=np.int64), self.windows)
        return epochs, self._by_epoch(epochs, offsets, lambda order, values: order(values))

    def positions(self, epochs: Array, windows: Array) -> Array:
        """Return the positions at which epochs visit windows."""
        epochs = np.asarray(epochs, dtype=np.int64)
        within = self._by_epoch(epochs, np.asarray(windows), lambda order, values: order.inverse(values))
        return epochs * self.windows + within

    def _by_epoch(self, epochs: Array, values: Array, step: Callable[[Permutation, Array], Array]) -> Array:
        if epochs.size and epochs[0] == epochs.min() == epochs.max():
            return step(self.permutation(int(epochs[0])), values)
        out = np.empty(values.shape, dtype=np.int64)
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            out[chosen] = step(self.permutation(int(epoch)), values[chosen])
        return out

    def shards(self, windows: Array) -> tuple[Array, Array]:
        """Return (shard numbers, windows within their shards) of windows."""
        numbers = np.searchsorted(self._bounds, windows, side="right") - 1
        return numbers, windows - self._bounds[numbers]

    def window(self, position: int) -> tuple[int, int]:
        """Return (epoch, window) of a position."""
        epoch, offset = divmod(position, self.windows)
        return epoch, int(self.permutation(epoch)(np.array([offset]))[0])

    def position(self, epoch: int, window: int) -> int:
        """Return the position at which an epoch visits a window."""
        return epoch * self.windows + int(self.permutation(epoch).inverse(np.array([window]))[0])

    def shard(self, window: int) -> tuple[int, int]:
        """Return (shard number, window within that shard)."""
        numbers, inner = self.shards(np.array([window]))
        return int(numbers[0]), int(inner[0])
