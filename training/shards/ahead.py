"""Batches assembled in the background: the order looked up and the bytes fetched before a training step asks."""

from __future__ import annotations

import itertools
import queue
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from training.shards.loader import Array, Batch, Loader, Places

_WINDOWS = 8192  # looked up at once when their bytes are here: the order costs 20 ns each then
_FETCHED = 512  # asked of the cache at once while bytes are still to come
_COPIED = 1 << 20  # tokens copied at once: what a batch costs beside its bytes is shared by several small ones


class Ahead:
    """An iterator of batches that a thread prepares. State of its own: none; it ends with its batches or at `close`."""

    def __init__(self, loader: Loader, batches: Iterable[tuple[Array, Array]], depth: int) -> None:
        self._loader = loader
        self._ready: queue.Queue[list[Batch] | BaseException | None] = queue.Queue(max(1, depth))
        self._now: deque[Batch] = deque()
        self._closed = threading.Event()
        self._over = False
        self._thread = threading.Thread(target=self._work, args=(iter(batches),), name="loader", daemon=True)
        self._thread.start()

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        while not self._now:
            if self._over:
                raise StopIteration
            found = self._ready.get()
            if found is None or isinstance(found, BaseException):
                self.close()
                raise StopIteration if found is None else found
            self._now.extend(found)
        return self._now.popleft()

    def close(self) -> None:
        """End the thread; batches that wait are forgotten. Closing again is harmless."""
        self._over = True
        self._now.clear()
        self._closed.set()
        while self._thread.is_alive():
            try:
                self._ready.get_nowait()
            except queue.Empty:
                self._thread.join(0.01)

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def _work(self, batches: Iterator[tuple[Array, Array]]) -> None:
        try:
            groups: deque[tuple[Places, list[int], int | None]] = deque()
            # One group is read while the bytes of the next are on their way. Not so the first, which is waited for,
            # where files are only opened and checked.
            size, most = 1, 1 + self._loader.remote
            while True:
                while len(groups) < most and (group := list(itertools.islice(batches, size))):
                    groups.append(self._asked(group))
                    windows = groups[-1][1][-1] / len(group)
                    limit = _FETCHED if groups[-1][2] is None else _WINDOWS
                    size = max(1, min(2 * size, int(limit / max(1, windows))))
                most = 2
                if not groups:
                    break
                places, ends, here = groups.popleft()
                for bounds in self._shares(ends):
                    for made in self._read(places, bounds, here):
                        if not self._put(made):
                            return
            self._put(None)
        except BaseException as error:
            self._put(error)

    def _shares(self, ends: list[int]) -> Iterator[list[int]]:
        """Cut a group into runs of whole batches that are copied at once; yield the bounds of each run's batches."""
        run = [0]
        for end in ends:
            if len(run) > 1 and (end - run[0]) * (self._loader.window + 1) > _COPIED:
                yield run
                run = run[-1:]
            run.append(end)
        yield run

    def _read(self, places: Places, bounds: list[int], here: int | None) -> Iterator[list[Batch]]:
        first = bounds[0]
        if here is not None or len(bounds) == 2:
            whole = self._loader.read(places.part(first, bounds[-1]), here)
            yield [whole.part(start - first, end - first) for start, end in itertools.pairwise(bounds)]
            return
        # What comes late, or not at all, holds up no batch before its own.
        for start, end in itertools.pairwise(bounds):
            yield [self._loader.read(places.part(start, end))]

    def _asked(self, group: list[tuple[Array, Array]]) -> tuple[Places, list[int], int | None]:
        lanes, indices = (np.concatenate([np.asarray(pair[side], dtype=np.int64) for pair in group]) for side in (0, 1))
        places = self._loader.places(lanes, indices)
        ends = np.cumsum([len(pair[0]) for pair in group]).tolist()
        return places, ends, self._loader.ask(places)

    def _put(self, item: list[Batch] | BaseException | None) -> bool:
        while not self._closed.is_set():
            try:
                self._ready.put(item, timeout=0.05)
                return True
            except queue.Full:
                continue
        return False
