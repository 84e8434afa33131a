"""A run under faults: what is done to its sites, when each of them was live, and how long it took to recover."""

from __future__ import annotations

import contextlib
import itertools
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.lab.processes import SiteProcesses
from benchmarks.lab.ways import Way, Ways
from data_contracts.canonical import canonical_json, document_sha
from data_contracts.catalog.store import Store
from data_contracts.errors import ObjectExists, ObjectMissing, StoreError
from data_contracts.signing import sign
from training.rounds import contribution as contributions
from training.rounds.amendment import write_amendment
from training.rounds.chain import commit_key

STOP_S = 10.0
AWAY_S = 8.0
SLOW = (0.3, 50_000.0)  # seconds a piece, bytes a second


@dataclass
class Life:
    """When a site was live: its process there and not stopped, in monotonic seconds; the end of the last may be open.

    `ready` has for each interval when the process took its first step.
    """

    began: list[float] = field(default_factory=list)
    ready: list[float | None] = field(default_factory=list)
    ended: list[float] = field(default_factory=list)

    @property
    def open(self) -> bool:
        """Whether it is live now."""
        return len(self.began) > len(self.ended)

    def begin(self, at: float, ready: float | None = None) -> None:
        """The process was started, or goes on."""
        if not self.open:
            self.began.append(at)
            self.ready.append(ready)

    def end(self, at: float) -> None:
        """The process is gone, or stopped."""
        if self.open:
            self.ended.append(at)

    def seconds(self, start: float, stop: float, starting: bool) -> float:
        """Return its live seconds from `start` to `stop`; `starting`: those before its first step as well."""
        total = 0.0
        for began, ready, ended in itertools.zip_longest(self.began, self.ready, self.ended, fillvalue=None):
            low = began if starting else ready
            if low is not None:
                total += max(0.0, min(stop, stop if ended is None else ended) - max(start, low))
        return total


@dataclass(frozen=True)
class Fault:
    """One thing that was done: to which site (empty: to the chain), when, and when the run had recovered."""

    kind: str
    site: str
    at: float
    recovered: float | None = None


class Trial:
    """The sites of a run, kept running as Prefect keeps them, and the faults that hit them."""

    def __init__(
        self,
        sites: SiteProcesses,
        ways: Ways,
        home_ways: Mapping[str, Way],
        store_ways: Mapping[str, Way],
        cores: float,
    ) -> None:
        self.sites, self.plan, self.workspace = sites, sites.plan, sites.workspace
        self.names = sorted(s.name for s in self.plan.sites)
        self.life = {name: Life() for name in self.names}
        self.faults: list[Fault] = []
        self.unplanned: list[str] = []
        self._ways, self._home_ways, self._store_ways, self._cores = ways, home_ways, store_ways, cores
        self._attempts: dict[str, str] = {}
        self._out: set[str] = set()  # removed by an amendment
        self._timers: list[threading.Timer] = []
        self._lock = threading.RLock()

    def start(self) -> None:
        """Start every site without a bound; it is bound when all have taken a step."""
        for name in self.names:
            self.sites.quotas.set(name, None)
            self._start(name)
        self.sites.await_begun(180)
        for name in self.names:
            self.sites.quotas.set(name, self._cores)

    def fit(self) -> list[str]:
        """Return the sites that may be hit: live, up, and members."""
        return [
            n for n in self.names if self.life[n].open and self.life[n].ready[-1] is not None and n not in self._out
        ]

    def end(self) -> None:
        """Wait until every fault is taken back."""
        for timer in self._timers:
            timer.join()

    def tend(self) -> None:
        """Start again what ended, and note which processes are up. To be called often."""
        for name in self.names:
            with self._lock:
                process = self.sites.running[name]
                code = process.poll()
                if code is not None and self.life[name].open:
                    self.life[name].end(time.monotonic())
                    if code != 0 and not self._removed(name):
                        self.unplanned.append(f"{name} ended with {code}")
                if code not in (None, 0) and not self._removed(name):
                    self._start(name)
                if self.life[name].open and self.life[name].ready[-1] is None:
                    self._note_ready(name)

    def hit(self, kind: str, site: str) -> None:
        """Let a fault happen; what takes a while goes on in the background."""
        at = time.monotonic()
        job: Callable[[str], str | None] = getattr(self, f"_{kind}")
        struck = job(site)
        if struck is not None:
            self.faults.append(Fault(kind, struck, at))

    def recovered(self) -> list[Fault]:
        """Return the faults with when the next commit applied work of the site that was hit (or any commit came)."""
        found = []
        for fault in self.faults:
            after = sorted(
                at
                for number, at in self.sites.seen.items()
                if at > fault.at and (not fault.site or fault.site in self.sites.counted[number])
            )
            found.append(Fault(fault.kind, fault.site, fault.at, after[0] if after else None))
        return found

    def _kill(self, site: str) -> str | None:
        with self._lock:
            self.sites.running[site].kill()
            self.life[site].end(time.monotonic())
        return site

    def _stop(self, site: str) -> str | None:
        process = self.sites.running[site]
        with self._lock:
            ready = self.life[site].ready[-1]
            process.send_signal(signal.SIGSTOP)
            self.life[site].end(time.monotonic())

        def go_on() -> None:
            with self._lock:
                process.send_signal(signal.SIGCONT)
                if process.poll() is None:
                    now = time.monotonic()
                    self.life[site].begin(now, now if ready is not None else None)

        self._later(STOP_S, go_on)
        return site

    def _store_away(self, site: str) -> str | None:
        way = self._store_ways[site]
        self._ways.cut(way)
        self._later(AWAY_S, lambda: setattr(way, "cut", False))
        return site

    def _store_slow(self, site: str) -> str | None:
        way = self._store_ways[site]
        way.delay_s, way.bytes_per_s = SLOW

        def mend() -> None:
            way.delay_s, way.bytes_per_s = 0.0, 0.0

        self._later(AWAY_S, mend)
        return site

    def _committer_killed(self, site: str) -> str | None:
        """Kill whichever site is first to put the next commit, with the put on its way: it is never answered."""
        told = {name: way.arm(b"/commits/", "hold") for name, way in self._home_ways.items()}
        try:
            until = time.monotonic() + 60
            while time.monotonic() < until:
                for name, event in told.items():
                    if event.is_set():
                        return self._kill(name)
                time.sleep(0.005)
                self.tend()
            return None
        finally:
            for way in self._home_ways.values():
                way.disarm()

    def _answer_lost(self, site: str) -> str | None:
        """The store takes the put of a contribution, and its site never hears of it."""
        way = self._store_ways[site]
        return site if self._armed([(way, way.arm(b"/contributions/", "lose the answer"))]) else None

    def _commit_answer_lost(self, site: str) -> str | None:
        """The home store takes a commit, and the committer never hears of it."""
        ways = self._home_ways.values()
        return "" if self._armed([(way, way.arm(b"/commits/", "lose the answer")) for way in ways]) else None

    def _armed(self, waited: list[tuple[Way, threading.Event]]) -> bool:
        until = time.monotonic() + 60
        try:
            while time.monotonic() < until:
                if any(event.is_set() for _, event in waited):
                    return True
                time.sleep(0.01)
                self.tend()
            return False
        finally:
            for way, _ in waited:
                way.disarm()

    def _duplicate(self, site: str) -> str | None:
        """Put the site's contribution of the round before once more, under the next round."""
        number, store = max(self.sites.seen), self.workspace.store(site)
        for key in contributions.find(store, self.plan.run, number, site):
            header = store.get(key)
            old, new = contributions.folder(self.plan.run, number), contributions.folder(self.plan.run, number + 1)
            payload = f"{site}-{store.get_json(key)['payload']}.safetensors"
            store.ensure(f"{new}/{payload}", store.get(f"{old}/{payload}"))
            store.ensure(key.replace(old, new), header)
            return site
        return None

    def _corrupt(self, site: str) -> str | None:
        """Put a contribution that is none: signed by nobody, of the name that a good one would have."""
        number, store = max(self.sites.seen), self.workspace.store(site)
        for key in contributions.find(store, self.plan.run, number, site):
            document = {**store.get_json(key), "round": number + 1, "tokens": 10**9}
            name = f"{contributions.folder(self.plan.run, number + 1)}/{site}-{document_sha(document)}.json"
            store.ensure(name, canonical_json(document))
            return site
        return None

    def _invalid_commit(self, site: str) -> str | None:
        """A member signs a commit of the next round that books the inputs of the last one again."""
        home: Store = self.workspace.home
        for _ in range(5):
            number = max(self.sites.seen) + 1
            before: dict[str, Any] = home.get_json(
                commit_key(self.plan.run, number - 1, int(number - 1 in self.sites.planted))
            )
            body = {k: v for k, v in before.items() if k != "signature"}
            body |= {"round": number, "previous": document_sha(before), "committer": site, "supersedes": None}
            try:
                self.sites.planted.add(number)
                home.create(
                    commit_key(self.plan.run, number), canonical_json(sign(body, self.workspace.site_key(site)))
                )
                return site
            except ObjectExists:
                self.sites.planted.discard(number)
                time.sleep(0.2)
        return None

    def _leave(self, site: str) -> str | None:
        write_amendment(self.workspace.home, self.plan, "remove-site", site, "a fault trial", self.workspace.owner)
        self._out.add(site)
        return site

    def _join(self, site: str) -> str | None:
        """Let a site that left come back; none did: None."""
        for name in sorted(self._out):
            write_amendment(self.workspace.home, self.plan, "add-site", name, "a fault trial", self.workspace.owner)
            self._out.discard(name)
            return name
        return None

    def _start(self, site: str) -> None:
        self.sites.start(site)
        self.life[site].begin(time.monotonic())

    def _removed(self, site: str) -> bool:
        """Say whether a site is out by amendment: one that was taken back joins with the commit that says so."""
        if site in self._out:
            return True
        try:
            number = max(self.sites.seen)
            commit = self.workspace.home.get_json(commit_key(self.plan.run, number, int(number in self.sites.planted)))
        except (StoreError, ValueError):
            return False
        return site not in commit["members"]

    def _note_ready(self, site: str) -> None:
        with contextlib.suppress(StoreError, ObjectMissing):
            lease = self.workspace.store(site).get_json(f"runs/{self.plan.run}/leases/{site}.json")
            if lease["attempt"] != self._attempts.get(site):
                self._attempts[site] = lease["attempt"]
                self.life[site].ready[-1] = time.monotonic()

    def _later(self, after_s: float, job: Callable[[], None]) -> None:
        timer = threading.Timer(after_s, job)
        timer.start()
        self._timers.append(timer)
