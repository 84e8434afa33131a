"""The loader of one site: lane indices in, token windows out, at memory speed, from mapped shards of its own region.

The order is looked up for thousands of windows at once and the windows of a batch are copied by one gather, whatever
number of shards they lie in. Bytes are checked against the manifests before they are handed out (`cache`). The state
of a loader is nothing: what comes next is one integer a lane, which the caller has.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from data_contracts.catalog.store import Store
from training.shards.ahead import Ahead
from training.shards.blocks import UnreadableShard
from training.shards.cache import ShardCache
from training.shards.mapping import RegionMap
from training.shards.region import RegionOrder as RegionOrder
from training.shards.region import region_order as region_order

Array = np.ndarray[Any, Any]
IGNORE = -100


@dataclass(frozen=True)
class Places:
    """Where windows lie: `table` is int64 [9, k], a row for each of the properties."""

    table: Array

    @property
    def lanes(self) -> Array:
        """The lanes that hand the windows out."""
        return self._row(0)

    @property
    def indices(self) -> Array:
        """Their lane indices."""
        return self._row(1)

    @property
    def streams(self) -> Array:
        """The streams, as the region's order numbers them."""
        return self._row(2)

    @property
    def epochs(self) -> Array:
        """The epochs of those streams."""
        return self._row(3)

    @property
    def windows(self) -> Array:
        """The windows, as each stream numbers its own."""
        return self._row(4)

    @property
    def shards(self) -> Array:
        """The shards, counted through all streams of the region."""
        return self._row(5)

    @property
    def inner(self) -> Array:
        """The windows, as each shard numbers its own."""
        return self._row(6)

    @property
    def first(self) -> Array:
        """The first token of each, in its shard."""
        return self._row(7)

    @property
    def length(self) -> Array:
        """How many targets each has: the window's, or less at the end of a shard."""
        return self._row(8)

    def _row(self, number: int) -> Array:
        row: Array = self.table[number]
        return row

    def part(self, start: int, end: int) -> Places:
        """Return the places `start`..`end` - 1; nothing is copied."""
        return Places(self.table[:, start:end])


@dataclass(frozen=True)
class Batch:
    """Windows as they lie in the shards.

    `tokens`: uint16 or uint32 [k, window + 1], zero after `lengths` + 1 of them. `mask`: bool, of the same shape: the
    token may be a target; None: all may. `unread`: bool [k], rows that could not be read, whose length is 0; None: all
    were.
    """

    tokens: Array
    mask: Array | None
    places: Places
    unread: Array | None = None

    @property
    def lengths(self) -> Array:
        """How many targets each row has, int64 [k]."""
        return self.places.length

    @property
    def skipped(self) -> tuple[tuple[int, int], ...]:
        """The (lane, lane index) of rows that could not be read."""
        if self.unread is None:
            return ()
        lanes, indices = self.places.table[:2, self.unread].tolist()
        return tuple(zip(lanes, indices, strict=True))

    def part(self, start: int, end: int) -> Batch:
        """Return the rows `start`..`end` - 1; nothing is copied."""
        mask = None if self.mask is None else self.mask[start:end]
        unread = None if self.unread is None else self.unread[start:end]
        return Batch(self.tokens[start:end], mask, self.places.part(start, end), unread)


class Loader:
    """Hands out windows of a region's shards; each hand-out may be written to an independent log.

    `unreadable`: what a window of a missing or damaged shard means: `stop` raises, `skip` hands out a row without
    targets and lists it. A store that does not answer stops either way: its windows are not lost.
    """

    def __init__(
        self,
        cache: ShardCache | Store,
        order: RegionOrder,
        window: int,
        log: Path | None = None,
        unreadable: Literal["stop", "skip"] = "stop",
    ) -> None:
        self.order = order
        self.window = window
        self.unreadable = unreadable
        self._log = log.open("a", buffering=1) if log else None
        self._lock = threading.RLock()
        self._refs = [ref for held in order.shards for ref in held]
        self._base = np.cumsum([0, *(len(held) for held in order.shards)])
        self._tokens = np.array([ref.tokens for ref in self._refs], dtype=np.int64)
        self._map = RegionMap(cache if isinstance(cache, ShardCache) else ShardCache(cache), self._refs)

    @property
    def remote(self) -> bool:
        """Whether bytes come from a store that is no local directory."""
        return self._map.cache.folder is not None

    def gather(self, lanes: Array, indices: Array) -> Batch:
        """Return the windows of lanes and lane indices, int64 [k], in this order.

        Raises:
            UnreadableShard: a shard is missing, or its bytes are not those its manifest names, and `unreadable` is
                `stop`; names it and the positions.
            StoreError: the store failed.
        """
        return self.read(self.places(lanes, indices))

    def ahead(self, batches: Iterable[tuple[Array, Array]], depth: int = 4) -> Ahead:
        """Return the batches of (lanes, indices) in turn, assembled in the background.

        At most `depth` batches wait, or so many times 2 MiB of small ones. Close it, or use it in a `with`. What
        `gather` raises is raised where the batch would have come.
        """
        return Ahead(self, batches, depth)

    def batch(self, places: Sequence[tuple[int, int]], note: dict[str, Any]) -> tuple[Array, Array, list[str]]:
        """Return inputs and targets, int64 [len(places), window], and each row's data set.

        Targets are shifted by one, padding is -100.

        `places` are (lane, lane index) pairs; `note` goes into the log with what was handed out.
        """
        lanes, indices = np.array(places, dtype=np.int64).reshape(-1, 2).T
        found = self.gather(lanes, indices)
        self.record(found, note)
        return *inputs_targets(found), self.owners(found)

    def owners(self, batch: Batch) -> list[str]:
        """Return each row's data set."""
        return [self.order.streams[s].dataset for s in batch.places.streams.tolist()]

    def record(self, batch: Batch, note: dict[str, Any]) -> None:
        """Write what was handed out to the log, if there is one, with `note`."""
        if self._log is None:
            return
        p = batch.places
        handed = [
            [self.order.streams[s].dataset, epoch, window, self._refs[shard].arrow_sha256, inner]
            for s, epoch, window, shard, inner in zip(
                *(column.tolist() for column in (p.streams, p.epochs, p.windows, p.shards, p.inner)), strict=True
            )
        ]
        skipped = {"skipped": batch.skipped} if batch.skipped else {}
        self._log.write(json.dumps({**note, "handed": handed, **skipped}) + "\n")

    def places(self, lanes: Array, indices: Array) -> Places:
        """Look up where the windows of lanes and lane indices, int64 [k], lie; reads no shard."""
        lanes, indices = np.asarray(lanes, dtype=np.int64), np.asarray(indices, dtype=np.int64)
        streams, positions = self.order.locate_many(lanes, indices)
        found = Places(np.empty((9, len(lanes)), dtype=np.int64))
        found.lanes[:], found.indices[:], found.streams[:] = lanes, indices, streams
        for number in range(len(self.order.streams)):
            mine = np.flatnonzero(streams == number)
            if not len(mine):
                continue
            stream = self.order.streams[number]
            rows = slice(None) if len(mine) == len(streams) else mine
            found.epochs[rows], windows = stream.visits(positions[rows])
            numbers, found.inner[rows] = stream.shards(windows)
            found.windows[rows], found.shards[rows] = windows, numbers + self._base[number]
        np.multiply(found.inner, self.window, out=found.first)
        np.minimum(self.window, self._tokens[found.shards] - 1 - found.first, out=found.length)
        return found

    def ask(self, places: Places) -> int | None:
        """Begin to fetch and check what these windows need, in the background.

        Return what `read` takes as `checked` when all of it is here already.
        """
        with self._lock:
            needs = self._map.needs(places.shards, places.first, places.length)
            self._map.cache.ask(needs)
            return None if needs or not self._map.holds(places.shards) else self._map.version

    def read(self, places: Places, checked: int | None = None) -> Batch:
        """Return the windows of places; raises what `gather` does."""
        where = (places.shards, places.first, places.length)
        with self._lock:
            unread: Array | None = None
            if checked != self._map.version:
                readable, wrong = self._map.bring(*where)
                if wrong is not None:
                    unread = ~readable
                    if self.unreadable == "stop":
                        raise _at(wrong, places.table[:2, unread].T.tolist()) from wrong
                    places = Places(places.table.copy())
                    places.length[unread] = 0
                self._map.cache.touch(self._map.files)
            tokens, mask = self._map.copy(places.shards, places.first, places.length, self.window)
            return Batch(tokens, mask, places, unread)


def inputs_targets(batch: Batch) -> tuple[Array, Array]:
    """Return inputs and targets, int64 [k, window]: targets shifted by one, -100 where padded or masked."""
    beyond = np.arange(batch.tokens.shape[1] - 1) >= batch.lengths[:, None]
    inputs = batch.tokens[:, :-1].astype(np.int64)
    targets = batch.tokens[:, 1:].astype(np.int64)
    inputs[beyond] = 0
    targets[beyond if batch.mask is None else beyond | ~batch.mask[:, 1:]] = IGNORE
    return inputs, targets


def _at(error: UnreadableShard, lost: Sequence[Sequence[int]]) -> UnreadableShard:
    named = ", ".join(f"{lane}:{index}" for lane, index in lost[:8])
    more = f" and {len(lost) - 8} more" if len(lost) > 8 else ""
    return UnreadableShard(f"{error}. Windows of this batch that it holds (lane:index): {named}{more}")
