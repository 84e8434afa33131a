"""Check the stores of home and the sites: reached, deciding who creates a key, how fast, how far off their clocks.

What is measured is what this machine sees; run it at each site. All that is written lies under `sites-check/` and is
removed again, also after Ctrl-C.
"""

from __future__ import annotations

import datetime as dt
import secrets
import shutil
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TypeVar

from data_contracts.catalog.store import Store
from data_contracts.errors import CausewayError, ObjectExists, StoreError
from training.sites import Site, Sites

T = TypeVar("T")
FOLDER = "sites-check"
WRITERS, KEYS, QUICK_KEYS = 8, 50, 10
_SIZE_BYTES, _QUICK_BYTES, _RANGE_BYTES = 8 << 20, 1 << 20, 4096
# Long enough for a store that is slow, short enough for a person who waits.
_RETRY_S, _STALE_S = 5.0, 3600.0
_SKEW_S = 60.0


@dataclass
class StoreCheck:
    """What a check found out about one store; None is: not measured, or (`free_bytes`) not known."""

    places: list[str]
    store: str
    must_decide: str = ""  # why: "the chain", "tables", "the chain and tables"
    error: str = ""
    decides: bool | None = None
    split_keys: int = 0  # keys that several writers, or none, were told to have created
    keys: int = 0
    skew_s: float | None = None
    rtt_ms: float | None = None
    range_ms: float | None = None
    put_mb_s: float | None = None
    get_mb_s: float | None = None
    free_bytes: int | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether it can be reached, and decides if it has to."""
        return not self.error and not (self.must_decide and self.decides is False)

    @property
    def may_hold(self) -> str:
        """What may lie there; shards and contributions may in any store: their keys name their content."""
        if self.decides is None:
            return "not known"
        return "anything" if self.decides else "no chain, no tables"


@dataclass
class _Target:
    url: str
    places: list[str] = field(default_factory=list)
    must_decide: list[str] = field(default_factory=list)
    stated: bool = True  # sites.toml says that it decides


def check_stores(
    sites: Sites, names: Sequence[str] = (), quick: bool = False, progress: Callable[[str], None] = lambda _: None
) -> Iterator[StoreCheck]:
    """Check the stores of home and all sites, or those of the places named; each as soon as it is done.

    Raises:
        CausewayError: sites.toml has no such place.
    """
    chosen = [sites.home if name == "home" else sites.site(name) for name in names] or list(sites.places)
    for target in _targets(sites, chosen):
        progress(f"{', '.join(target.places)}: {target.url}")
        yield _check(sites, target, QUICK_KEYS if quick else KEYS, _QUICK_BYTES if quick else _SIZE_BYTES, progress)


def _targets(sites: Sites, chosen: Sequence[Site]) -> list[_Target]:
    """Every store once, whoever shares it."""
    found: dict[str, _Target] = {}
    for site in chosen:
        target = found.setdefault(site.store_url, _Target(site.store_url))
        target.places.append(site.name)
        target.stated = target.stated and site.decides_creates
        if site is sites.home:
            target.must_decide.append("the chain")
        if site.tables_url is not None:
            target = found.setdefault(site.tables_url, _Target(site.tables_url))
            target.places.append(f"{site.name} (tables)")
            target.must_decide.append("tables")
    return list(found.values())


def _check(sites: Sites, target: _Target, keys: int, size: int, progress: Callable[[str], None]) -> StoreCheck:
    found = StoreCheck(target.places, target.url)

    def opened() -> Store:
        return Store.open(target.url if "://" in target.url else sites.root / target.url, _RETRY_S)

    try:
        store = opened()
        if store.remote is not None and store.remote.endpoint.startswith("http://"):
            found.notes.append("http: keys and data travel unencrypted")
        with _scratch(store) as folder:
            progress("  round trips and throughput")
            _measure(store, folder, size, found)
            progress(f"  {WRITERS} writers race for {keys} keys")
            found.keys, found.split_keys = keys, race(opened, f"{folder}/race", keys)
        found.decides = found.split_keys == 0
        if store.folders("tables"):
            target.must_decide.append("tables")
        if store.root is not None:
            found.free_bytes = shutil.disk_usage(store.root).free
    except (CausewayError, OSError) as error:
        found.error = str(error)
    found.must_decide = " and ".join(dict.fromkeys(target.must_decide))
    _judge(found, target.stated)
    return found


def _judge(found: StoreCheck, stated: bool) -> None:
    if found.decides is False:
        told = f"{found.split_keys} of {found.keys} keys were created by several writers, or by none"
        what = f"it must not hold {found.must_decide}: move them to a store that decides" if found.must_decide else ""
        found.notes.append("; ".join(filter(None, (told, what))))
        if not found.must_decide and stated:
            found.notes.append("write decides_creates = false for it in sites.toml, so that no table comes here")
    if found.skew_s is not None and abs(found.skew_s) >= _SKEW_S:
        found.notes.append(f"clocks differ by {found.skew_s:+.0f} s: set this machine's, or the store's")


def race(opened: Callable[[], Store], folder: str, keys: int, writers: int = WRITERS) -> int:
    """Let writers, each with a client of its own, create the same keys at the same moment.

    Returns how many keys were not decided: several writers, or none, were told that they had created one, or other
    bytes than the winner's lie there. A store decides creates when it is 0; that it was 0 once proves nothing of a
    store whose maker does not promise it.
    """
    together = threading.Barrier(writers)
    clients = [opened() for _ in range(writers)]
    won: list[list[int]] = [[] for _ in range(keys)]

    def write(writer: int) -> None:
        client = clients[writer]
        # The first request of a client makes its connection; a race starts when all have theirs.
        client.exists(f"{folder}/none")
        try:
            for k in range(keys):
                together.wait()
                with suppress(ObjectExists):
                    client.create(f"{folder}/{k}", b"writer %d" % writer)
                    won[k].append(writer)
        except StoreError:
            together.abort()
            raise

    pool = ThreadPoolExecutor(writers)
    try:
        futures = [pool.submit(write, writer) for writer in range(writers)]
        errors = [future.exception() for future in futures]
    finally:
        together.abort()
        pool.shutdown(wait=True)
    for error in errors:
        if isinstance(error, CausewayError):
            raise error
    for error in errors:
        if error is not None:
            raise error
    kept = [clients[0].get(f"{folder}/{k}") for k in range(keys)]
    return sum(len(w) != 1 or data != b"writer %d" % w[0] for w, data in zip(won, kept, strict=True))


def _measure(store: Store, folder: str, size: int, found: StoreCheck) -> None:
    small, large = f"{folder}/small", f"{folder}/large"
    before = dt.datetime.now(dt.UTC)
    store.put(small, b"x")
    found.skew_s = _skew(store.modified(small), before, dt.datetime.now(dt.UTC))
    found.rtt_ms = _median_ms(lambda: store.size(small))
    body = secrets.token_bytes(size)
    put_s, _ = _timed(lambda: store.put(large, body))
    get_s, data = _timed(lambda: store.get(large))
    if data != body:
        raise StoreError(f"{store.uri(large)}: what was read is not what was written; do not use this store")
    found.put_mb_s, found.get_mb_s = size / 1e6 / put_s, size / 1e6 / get_s
    found.range_ms = _median_ms(lambda: store.get_range(large, secrets.randbelow(size - _RANGE_BYTES), _RANGE_BYTES))


def _skew(modified: dt.datetime, before: dt.datetime, after: dt.datetime) -> float:
    """Return the seconds by which the store's clock is ahead; 0 when it agrees to what can be seen.

    HTTP tells the time of an object in whole seconds, which Ceph rounds down and Swift up, and it was written at some
    moment between two of ours.
    """
    least, most = (modified - after).total_seconds() - 1, (modified - before).total_seconds() + 1
    return 0.0 if least <= 0 <= most else min(least, most, key=abs)


def _timed(call: Callable[[], T]) -> tuple[float, T]:
    begun = time.perf_counter()
    done = call()
    return max(time.perf_counter() - begun, 1e-9), done


def _median_ms(call: Callable[[], object], times: int = 9) -> float:
    return statistics.median(_timed(call)[0] for _ in range(times)) * 1000


@contextmanager
def _scratch(store: Store) -> Iterator[str]:
    """A folder that is removed at the end, and with it what a check that was killed has left."""
    folder = f"{FOLDER}/{int(time.time())}-{secrets.token_hex(4)}"
    store.folders(FOLDER)  # a store that cannot be reached has nothing to be removed
    try:
        yield folder
    finally:
        with ThreadPoolExecutor(8) as pool:
            for name in store.folders(FOLDER):
                begun = name.partition("-")[0]
                old = begun.isdigit() and time.time() - int(begun) > _STALE_S
                if old or f"{FOLDER}/{name}" == folder:
                    list(pool.map(store.delete, [key for key, _ in store.list(f"{FOLDER}/{name}")]))
        if store.root is not None:
            for path in sorted((store.root / FOLDER).rglob("*"), reverse=True):
                with suppress(OSError):
                    path.rmdir()
            with suppress(OSError):
                (store.root / FOLDER).rmdir()
