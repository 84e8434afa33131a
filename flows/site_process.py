"""The sites of a run as processes of this machine: started, started again when they end, ended with the flow."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_contracts.errors import PolicyRefused, RoundError
from flows.progress import report
from training.admission import EXIT_REFUSED
from training.rounds.commit import ChainState
from training.rounds.control import EXIT_LEFT, EXIT_PAUSED
from training.rounds.plan import Plan
from training.workspace import Workspace, cache_bytes

MAX_RESTARTS = 8


def site_command(workspace: Workspace, plan: Plan, site: str, log_dir: Path | None) -> list[str]:
    """Return the command line of a site's process. It is told its own store, home's, and where peers contribute."""
    stores = {s.name: workspace.store(s.name).url for s in plan.sites}
    command = [sys.executable, "-m", "training.worker", "--home-store", workspace.home.url, "--run", plan.run]
    command += ["--site", site, "--store", stores.pop(site), "--keys", str(workspace.keys.directory)]
    command += ["--parent", str(os.getpid()), *cache_arguments(workspace, plan.site(site).region)]
    command += workspace.sites.site(site).inside.arguments
    for name, url in sorted(stores.items()):
        command += ["--peer", f"{name}={url}"]
    return command + (["--loader-log", str(log_dir)] if log_dir else [])


def cache_arguments(workspace: Workspace, region: str) -> list[str]:
    """Return where a process keeps shards of a region whose store is no local directory, and how much of them."""
    folder, limit = workspace.cache_folder(region), cache_bytes()
    if folder is None:
        return []
    return ["--cache", str(folder), *([] if limit is None else ["--cache-gb", str(limit / 1e9)])]


def pause_s(failures: int) -> float:
    """Seconds to wait before a site is started again, after so many ends before this one."""
    return min(10.0, 0.5 * 2.0**failures)


@dataclass
class _Process:
    site: str
    process: asyncio.subprocess.Process
    started: float
    restarts: int = 0


class SiteProcesses:
    """The processes of a run's sites on this machine. `restarts` counts by site how often it was started again."""

    def __init__(self, workspace: Workspace, plan: Plan, log_dir: Path | None, logger: Any) -> None:
        self.workspace, self.plan, self.log_dir, self.logger = workspace, plan, log_dir, logger
        self.restarts: dict[str, int] = {}
        self._processes: dict[str, _Process] = {}

    async def keep(self, state: ChainState) -> None:
        """Start every member that does not run.

        Raises:
            RoundError: one died too often; carries what it said last.
            PolicyRefused: the terms in force no longer permit its work.
        """
        for site in state.members:
            current = self._processes.get(site)
            if current is None:
                self._processes[site] = await self._start(site)
            elif current.process.returncode in (EXIT_PAUSED, EXIT_LEFT):
                # Paused, and resumed before this flow had ended; or taken out, and taken back: no failure.
                self._processes[site] = await self._start(site, current.restarts)
            elif current.process.returncode is not None:
                self._processes[site] = await self._revive(current)
                self.restarts[site] = self._processes[site].restarts

    async def busy(self) -> bool:
        """Say whether a site still works: a paused run ends when none does."""
        return any(p.process.returncode is None for p in self._processes.values())

    async def settle(self) -> None:
        """Wait for the sites of a whole run to end by themselves."""
        for one in self._processes.values():
            await asyncio.wait_for(one.process.wait(), timeout=60)

    async def close(self) -> None:
        """End the sites that still run: they publish nothing half, and go on from the chain when started again."""
        alive = [p.process for p in self._processes.values() if p.process.returncode is None]
        for process in alive:
            process.terminate()
        for process in alive:
            try:
                await asyncio.wait_for(process.wait(), timeout=10)
            except TimeoutError:
                process.kill()

    async def _start(self, site: str, restarts: int = 0) -> _Process:
        process = await asyncio.create_subprocess_exec(
            *site_command(self.workspace, self.plan, site, self.log_dir),
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        return _Process(site, process, time.monotonic(), restarts)

    async def _revive(self, dead: _Process) -> _Process:
        """Start a dead site again, after a pause that grows with each death."""
        said = (await dead.process.stderr.read()).decode(errors="replace").strip() if dead.process.stderr else ""
        if dead.process.returncode == EXIT_REFUSED:
            raise PolicyRefused(said)
        last = said.splitlines()[-1] if said else f"no message, exit {dead.process.returncode}"
        if dead.restarts >= MAX_RESTARTS:
            raise RoundError(
                f"site {dead.site} ended {dead.restarts + 1} times, the last time with: {said[-2000:] or last}"
            )
        pause = pause_s(dead.restarts)
        self.logger.warning("site %s ended (%s); starting it again in %.1f s", dead.site, last, pause)
        report("train", -1, self.plan.rounds, f"site {dead.site} ended; starting it again")
        await asyncio.sleep(pause)
        return await self._start(dead.site, dead.restarts + 1)
