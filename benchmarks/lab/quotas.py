"""CPU quotas: one control group a site, so that what one site does not use does not make another faster."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.lab import Skipped

PERIOD_US = 20_000  # a step takes longer: the quota then is an even slowness, not work and rest in turn
_V1 = Path("/sys/fs/cgroup/cpu")
_V2 = Path("/sys/fs/cgroup")
_NAME = "causeway-lab-"


class Quotas:
    """Groups of processes by name, each with so many cores; all of them end with the block."""

    def __init__(self) -> None:
        """Find the cpu controller, of version 1 or 2; raises Skipped where there is none."""
        self._root = _hierarchy()
        self._v1 = self._root == _V1
        self._mine = self._root / f"{_NAME}{os.getpid()}"

    def __enter__(self) -> Self:
        sweep(self._root)
        try:
            self._mine.mkdir()
            if not self._v1:
                (self._mine / "cgroup.subtree_control").write_text("+cpu")
        except OSError as error:
            raise Skipped(f"{self._mine}: no control group can be made here: {error.strerror}") from error
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        _remove(self._mine)

    def set(self, name: str, cores: float | None) -> None:
        """Give a group so many cores from now on; None: no bound."""
        group = self._mine / name
        group.mkdir(exist_ok=True)
        quota = None if cores is None else round(cores * PERIOD_US)
        if self._v1:
            (group / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(-1 if quota is None else quota))
        else:
            (group / "cpu.max").write_text(f"{'max' if quota is None else quota} {PERIOD_US}")

    def wrapped(self, name: str, command: Sequence[str]) -> list[str]:
        """Return a command that enters the group, then becomes the one given: the process id stays."""
        return ["/bin/sh", "-c", 'echo $$ > "$0/cgroup.procs" && exec "$@"', str(self._mine / name), *command]


def sweep(root: Path) -> None:
    """Remove the groups of labs whose process is gone, and what still runs in them."""
    for group in root.glob(f"{_NAME}*"):
        if not Path(f"/proc/{group.name.removeprefix(_NAME)}").exists():
            _remove(group)


def _hierarchy() -> Path:
    if (_V1 / "cgroup.procs").exists():
        return _V1
    controllers = _V2 / "cgroup.controllers"
    if controllers.exists() and "cpu" in controllers.read_text().split():
        return _V2
    raise Skipped("no cpu controller of control groups is mounted at /sys/fs/cgroup")


def _remove(group: Path) -> None:
    for inner in (*group.glob("*/cgroup.procs"), group / "cgroup.procs"):
        until = time.monotonic() + 10
        while time.monotonic() < until:
            found = [int(line) for line in inner.read_text().split()] if inner.exists() else []
            if not found:
                break
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
        with contextlib.suppress(OSError):
            inner.parent.rmdir()
