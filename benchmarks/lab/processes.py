"""The processes of a run's sites: started as `python -m training.worker`, watched, and ended whatever happens."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.lab.quotas import Quotas
from data_contracts.errors import ObjectMissing
from training.rounds.chain import commit_key
from training.rounds.plan import Plan
from training.workspace import Workspace

ROOT = Path(__file__).parents[2]
POLL_S = 0.05


class SiteProcesses:
    """The sites of one run as processes in their groups; `inside` is what enters a site's network.

    `home` and `urls` are how a site reaches the home store and how all reach a site's store, where that is not what
    sites.toml says. `seen` has the monotonic second in which each round's commit was first seen in the home store,
    `counted` whose work it applied; the invalid commits of `planted` rounds are not counted.
    """

    def __init__(
        self,
        workspace: Workspace,
        plan: Plan,
        quotas: Quotas,
        *,
        home: Mapping[str, str] | None = None,
        urls: Mapping[str, str] | None = None,
        inside: Mapping[str, Sequence[str]] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.workspace, self.plan, self.quotas = workspace, plan, quotas
        self.folder = workspace.root / "lab" / plan.run
        self.folder.mkdir(parents=True, exist_ok=True)
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.seen: dict[int, float] = {}
        self.counted: dict[int, frozenset[str]] = {}
        self.planted: set[int] = set()
        self._home, self._urls = dict(home or {}), dict(urls or {})
        self._inside = dict(inside or {})
        self._environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **(environment or {})}
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._watch.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._watch.join()
        for process in self.running.values():
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        for process in self.running.values():
            process.wait()

    @property
    def loader_log(self) -> Path:
        """The folder of the loaders' own log."""
        return self.folder / "loader"

    def start(self, site: str) -> None:
        """Start a site's process in its group, which must have been set."""
        command = self.quotas.wrapped(site, [*self._inside.get(site, ()), *self._command(site)])
        with (self.folder / f"{site}.log").open("ab") as log:
            self.running[site] = subprocess.Popen(
                command, cwd=ROOT, env=self._environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )

    def await_round(self, number: int, timeout_s: float, meanwhile: Callable[[], None] = lambda: None) -> float:
        """Wait for a round's commit; return when it was seen.

        Raises:
            RuntimeError: a process ended with an error, or the time is over; carries what it said.
        """
        until = time.monotonic() + timeout_s
        while number not in self.seen:
            meanwhile()
            self._raise_for_ended()
            if time.monotonic() > until:
                raise RuntimeError(
                    f"run {self.plan.run}: round {number} not committed in {timeout_s:.0f} s{self.said()}"
                )
            time.sleep(POLL_S)
        return self.seen[number]

    def await_begun(self, timeout_s: float) -> None:
        """Wait until each site that runs has taken a step, which its lease tells."""
        for site in self.running:
            until = time.monotonic() + timeout_s
            store, key = self.workspace.store(site), f"runs/{self.plan.run}/leases/{site}.json"
            while not store.exists(key):
                self._raise_for_ended()
                if time.monotonic() > until:
                    raise RuntimeError(f"run {self.plan.run}: {site} took no step in {timeout_s:.0f} s{self.said()}")
                time.sleep(POLL_S)

    def _raise_for_ended(self) -> None:
        for site, process in self.running.items():
            if process.poll() not in (None, 0):
                raise RuntimeError(f"run {self.plan.run}: {site} ended with {process.returncode}{self.said()}")

    def said(self) -> str:
        """Return the end of what each process said, for an error."""
        logs = [(p.name, p.read_text(errors="replace")[-1500:]) for p in sorted(self.folder.glob("*.log"))]
        return "".join(f"\n{name}: {text}" for name, text in logs if text)

    def _look(self) -> None:
        number = 1
        while not self._over.wait(POLL_S) and number <= self.plan.rounds:
            try:
                commit = self.workspace.home.get_json(commit_key(self.plan.run, number, int(number in self.planted)))
            except ObjectMissing:
                continue
            self.counted[number] = frozenset(i["site"] for i in commit["inputs"])
            self.seen[number] = time.monotonic()
            number += 1

    def _command(self, site: str) -> list[str]:
        urls = {s.name: self._urls.get(s.name, self.workspace.store(s.name).url) for s in self.plan.sites}
        command = [sys.executable, "-m", "training.worker"]
        command += ["--home-store", self._home.get(site, self.workspace.home.url)]
        command += ["--run", self.plan.run, "--site", site, "--store", urls.pop(site)]
        command += ["--keys", str(self.workspace.keys.directory), "--loader-log", str(self.loader_log)]
        command += ["--parent", str(os.getpid())]
        if self.workspace.cache_folder(self.plan.site(site).region) is not None:
            command += ["--cache", str(self.folder / "cache" / site)]
        for name, url in sorted(urls.items()):
            command += ["--peer", f"{name}={url}"]
        return command
