"""Read ahead in a thread: what comes next is made while the last is worked on. Arrow's work holds no lock of Python."""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class _End:
    error: BaseException | None


class _Reader(Generic[T]):
    def __init__(self, items: Iterable[T], depth: int) -> None:
        self._items = items
        self._queue: queue.Queue[T | _End] = queue.Queue(depth)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="read-ahead", daemon=True)

    def __iter__(self) -> Iterator[T]:
        self._thread.start()
        try:
            while not isinstance(item := self._queue.get(), _End):
                yield item
            if item.error is not None:
                raise item.error
        finally:
            self._stop.set()
            while self._thread.is_alive():
                # The thread may wait for room; what it still puts is dropped.
                with contextlib.suppress(queue.Empty):
                    self._queue.get_nowait()
                self._thread.join(0.01)

    def _run(self) -> None:
        iterator, error = iter(self._items), None
        try:
            for item in iterator:
                self._queue.put(item)
                if self._stop.is_set():
                    break
        except BaseException as raised:
            error = raised
        finally:
            close = getattr(iterator, "close", None)
            if close is not None:
                close()
            self._queue.put(_End(error))


def read_ahead(items: Iterable[T], depth: int = 1) -> Iterator[T]:
    """Yield the items in their order, at most `depth` of them made in advance by a thread.

    What making them raises is raised here, after the items before it. When the caller stops, by an error or Ctrl-C
    too, the thread ends and a generator is closed in it.
    """
    yield from _Reader(items, depth)
