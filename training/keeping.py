"""What a site keeps of a run in its own store, beside contributions: optimizer state, heartbeat, where the time went.

runs/<run>/inner/<site>-000042.safetensors        the inner optimizer after a round, what is owed, and with overlap
                                                  the site's own parameters; two stay
runs/<run>/leases/<site>.json                     heartbeat; replaced
runs/<run>/telemetry/000042/<site>.json           spans and figures of a round
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from data_contracts.canonical import canonical_json
from data_contracts.catalog.store import Store
from data_contracts.errors import ObjectMissing, RoundError, StoreError
from training.inner import Loop
from training.rounds.codec import Tensors
from training.rounds.feedback import Feedback
from training.rounds.overlap import Clock, Early

HEARTBEAT_S = 0.5
PATIENCE_S = 1.0
# Before the names of the residual and of the site's own parameters; names of parameters hold no colon.
_OWED, _LOCAL = "owed:", "local:"
_ROUND, _CLOCK, _PLACES = "at:round", "early:clock", "early:places"  # int64 [], [4], [steps, batch windows, 2]
REST_S = 10.0  # after a heartbeat that the store did not take


@dataclass
class Spans:
    """Where a round's wall time went: (kind, start, end) in seconds of this machine's clock, for the report."""

    spans: list[tuple[str, float, float]] = field(default_factory=list)

    @contextmanager
    def span(self, kind: str) -> Iterator[None]:
        """Note how long the block took."""
        start = time.time()
        try:
            yield
        finally:
            self.spans.append((kind, start, time.time()))


@dataclass(frozen=True)
class Local:
    """A site's own parameters once it had trained a round, and the steps that it took after that, if it took some."""

    round: int
    parameters: Tensors = field(repr=False)
    early: Early | None = None


def pack(
    number: int, loop: Loop, feedback: Feedback | None = None, local: Tensors | None = None, early: Early | None = None
) -> bytes:
    """Return what a site keeps after a round: the optimizer's state, what is owed, with overlap its own parameters."""
    arrays = dict(loop.state())
    if feedback is not None:
        arrays |= {f"{_OWED}{name}": residual for name, residual in feedback.state().items()}
    if local is not None:
        arrays |= {f"{_LOCAL}{name}": value for name, value in local.items()} | {_ROUND: np.array(number)}
    if early is not None:
        c = early.clock
        arrays[_CLOCK] = np.array([c.round, c.steps, c.committed, c.windows], dtype=np.int64)
        arrays[_PLACES] = np.array(early.batches, dtype=np.int64)
    packed: bytes = save({k: np.asarray(v, order="C") for k, v in arrays.items()}, metadata={"format": "1"})
    return packed


class Kept:
    """One site's own objects of one run, in its store. `attempt` names the incarnation of its process."""

    def __init__(self, store: Store, run: str, site: str, attempt: str) -> None:
        self.store, self.run, self.site, self.attempt = store, run, site, attempt
        self._beats = Store.open(store.url, retry_s=PATIENCE_S)
        self._beat = 0.0
        self._counter = 0
        self._beating = threading.Thread()

    def keep_inner(self, number: int, loop: Loop, feedback: Feedback | None = None) -> None:
        """Keep the inner optimizer's state after a round, and what is owed by then; that of two rounds before goes."""
        self.put_inner(number, pack(number, loop, feedback))

    def put_inner(self, number: int, packed: bytes, carried: int = 0) -> None:
        """Keep what `pack` made of the state after a round; that of two rounds before goes.

        `carried`: so many rounds more go, where late work was carried over them.
        """
        self.store.put(self._inner_key(number), packed)
        for gone in range(max(1, number - 2 - carried), number - 1):
            self.store.delete(self._inner_key(gone))

    def copy_inner(self, source: int, number: int) -> None:
        """Put the state after one round in the place of that after another; where it is lost, that is too."""
        if source == number:
            return
        if source > 0 and self.store.exists(self._inner_key(source)):
            self.store.put(self._inner_key(number), self.store.get(self._inner_key(source)))
        else:
            self.store.delete(self._inner_key(number))

    def load_inner(self, number: int, loop: Loop) -> bool:
        """Load the inner optimizer's state after a round; False, and nothing loaded, when it is lost or damaged.

        Raises:
            StoreError: the store is out of reach; the state is not lost then.
        """
        try:
            loop.load_state({k: v for k, v in self._inner(number).items() if ":" not in k})
        except (ObjectMissing, RoundError, SafetensorError):
            return False
        return True

    def load_feedback(self, number: int, feedback: Feedback) -> bool:
        """Load what was owed after a round; False, and nothing loaded, when it is lost or damaged.

        Raises:
            StoreError: the store is out of reach; it is not lost then.
        """
        try:
            found = {k.removeprefix(_OWED): v for k, v in self._inner(number).items() if k.startswith(_OWED)}
            feedback.load_state(found)
        except (ObjectMissing, RoundError, SafetensorError):
            return False
        return True

    def load_local(self, number: int) -> Local | None:
        """Return the site's own parameters after a round; None when they are lost or damaged, or were not kept.

        Raises:
            StoreError: the store is out of reach; they are not lost then.
        """
        try:
            found = self._inner(number)
            parameters = {k.removeprefix(_LOCAL): v for k, v in found.items() if k.startswith(_LOCAL)}
            early = None
            if _PLACES in found:
                places = found[_PLACES].tolist()
                clock = Clock(*found[_CLOCK].tolist())
                early = Early(clock, tuple(tuple((lane, index) for lane, index in batch) for batch in places))
            return Local(int(found[_ROUND]), parameters, early) if parameters else None
        except (ObjectMissing, SafetensorError, KeyError, TypeError, ValueError):
            return None

    def _inner(self, number: int) -> dict[str, np.ndarray[Any, Any]]:
        arrays: dict[str, np.ndarray[Any, Any]] = load(self.store.get(self._inner_key(number)))
        return arrays

    def beat(self, facts: Mapping[str, Any], now: bool = False) -> None:
        """Replace the site's lease, at most twice a second unless `now`, which waits until it is replaced.

        Nothing rests on a lease, so a store that is slow or away does not hold up the training.
        """
        at = time.monotonic()
        if not now and (at - self._beat < HEARTBEAT_S or self._beating.is_alive()):
            return
        if self._beating.is_alive():
            self._beating.join()
        self._beat, self._counter = at, self._counter + 1
        lease = {"format": 1, "site": self.site, "attempt": self.attempt, "beat": self._counter, **facts}
        self._beating = threading.Thread(target=self._put_lease, args=(canonical_json(lease),), daemon=True)
        self._beating.start()
        if now:
            self._beating.join()

    def _put_lease(self, lease: bytes) -> None:
        try:
            self._beats.put(f"runs/{self.run}/leases/{self.site}.json", lease)
        except StoreError:
            self._beat = time.monotonic() + REST_S

    def telemetry(self, number: int, spans: Spans, figures: Mapping[str, Any]) -> None:
        """Keep where the time of a round went, and its figures (training/telemetry.py)."""
        facts = {"format": 2, "site": self.site, "round": number, "attempt": self.attempt, "spans": spans.spans}
        facts["figures"] = dict(figures)
        self.store.put(f"runs/{self.run}/telemetry/{number:06d}/{self.site}.json", canonical_json(facts))

    def _inner_key(self, number: int) -> str:
        return f"runs/{self.run}/inner/{self.site}-{number:06d}.safetensors"
