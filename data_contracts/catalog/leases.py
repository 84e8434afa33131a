"""Leases: one process works on a thing, and the others are told who does.

    leases/<name>/000001.json     {format, holder, host, boot, namespace, pid, born, beat}

The highest number is the lease in force. It is taken by creating the next number, so of several takers one wins; its
holder writes it again every second with a higher `beat`. A lease says who works, it does not decide what counts: two
holders at once cost work, never correctness, because every publication is one conditional or idempotent write.

No wall clock decides. A holder that beats while somebody looks is alive; one that is silent for `STALE_S` of the
looker's own monotonic clock is gone; one of this very machine whose process is no more is gone at once.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path

from data_contracts.canonical import canonical_json
from data_contracts.catalog.store import Store
from data_contracts.errors import DataRefused, ObjectExists, ObjectMissing, StoreError

BEAT_S = 1.0
STALE_S = 20.0


class Busy(DataRefused):
    """Somebody else holds the lease; the message names them, `holder` holds their name alone."""

    def __init__(self, name: str, held: Holder) -> None:
        super().__init__(
            f"{name}: {held.holder} works on it (process {held.pid} on {held.host}); wait for it to end, then run again"
        )
        self.holder = held.holder


@dataclass(frozen=True)
class Holder:
    """Who holds a lease; `boot` and `namespace` name the running system in which its `pid`, born at `born`, counts."""

    holder: str
    host: str
    boot: str
    namespace: str
    pid: int
    born: str
    beat: int = 0
    format: int = 1

    @classmethod
    def me(cls, holder: str) -> Holder:
        """Describe this process."""
        return cls(holder, socket.gethostname(), *_system(), os.getpid(), _born(os.getpid()))

    @property
    def dead(self) -> bool:
        """Whether it is certain that the process is no more; False where this machine cannot know."""
        here = bool(self.boot) and (self.boot, self.namespace) == _system()
        return here and (not self.born or _born(self.pid) != self.born)


@dataclass
class Lease:
    """A lease held by this process; `lost` becomes True when another took it because we were silent too long."""

    store: Store
    key: str
    mine: Holder
    lost: bool = False

    def beat(self) -> None:
        """Show that the holder lives."""
        if newest(self.store, self.key.rpartition("/")[0]) != self.key:
            self.lost = True
            return
        self.mine = replace(self.mine, beat=self.mine.beat + 1)
        self.store.put(self.key, canonical_json(asdict(self.mine)))


@contextmanager
def hold(store: Store, name: str, holder: str) -> Iterator[Lease]:
    """Hold the lease `name` (a relative key) while the block runs.

    Raises:
        Busy: another process holds it and lives. It is found out within about a second.
        StoreError: the store failed.
    """
    lease = _take(store, f"leases/{name}", holder)
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(BEAT_S):
            # A store that fails for a moment costs a beat; the work itself will meet the error and report it.
            with suppress(StoreError):
                lease.beat()

    thread = threading.Thread(target=beat, name=f"lease {name}", daemon=True)
    thread.start()
    try:
        yield lease
    finally:
        ended.set()
        thread.join()
        if not lease.lost:
            with suppress(StoreError):
                store.delete(lease.key)


def holder_of(store: Store, name: str) -> Holder | None:
    """Return who holds the lease `name`, dead or alive, or None."""
    key = newest(store, f"leases/{name}")
    return None if key is None else _read(store, key)


def newest(store: Store, folder: str) -> str | None:
    """Return the key of the lease in force in a lease's folder, or None."""
    keys = [key for key, _ in store.list(folder)]
    return keys[-1] if keys else None


def _take(store: Store, folder: str, holder: str) -> Lease:
    mine = Holder.me(holder)
    while True:
        key = newest(store, folder)
        number = 0
        if key is not None:
            held = _read(store, key)
            if held is None:
                continue  # released between the list and the look
            if not held.dead and _alive(store, folder, key, held):
                raise Busy(folder.removeprefix("leases/"), held)
            number = int(key.rpartition("/")[2].removesuffix(".json"))
        taken = f"{folder}/{number + 1:06d}.json"
        try:
            store.create(taken, canonical_json(asdict(mine)))
        except ObjectExists:
            continue  # somebody was first: look again
        if key is not None:
            store.delete(key)
        return Lease(store, taken, mine)


def _alive(store: Store, folder: str, key: str, held: Holder) -> bool:
    """Watch a holder until it beats, ends, or has been silent for STALE_S."""
    began = time.monotonic()
    while time.monotonic() - began < STALE_S:
        time.sleep(BEAT_S / 4)
        if newest(store, folder) != key:
            return False  # released, or taken by another: look again
        now = _read(store, key)
        if now is None or now.dead:
            return False
        if now.beat != held.beat:
            return True
    return False


def _read(store: Store, key: str) -> Holder | None:
    try:
        return Holder(**json.loads(store.get(key)))
    except ObjectMissing:
        return None
    except (ValueError, TypeError) as error:
        raise StoreError(f"{store.url}/{key}: damaged: not a lease ({error}); delete it when nothing runs") from error


@lru_cache(maxsize=1)
def _system() -> tuple[str, str]:
    """Return what tells this boot and this process namespace from others; empty where /proc is not Linux's."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip(), os.readlink("/proc/self/ns/pid")
    except OSError:
        return "", ""


def _born(pid: int) -> str:
    """Return when a process was started, in clock ticks since boot; '' when there is none: numbers are used again."""
    try:
        # The name in parentheses may hold anything; the start time is field 22, the 20th after the name.
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[19]
