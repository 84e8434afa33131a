"""The processes that `causeway up` leaves in the background: started apart from the terminal, found again, ended.

Each carries `CAUSEWAY_UP=<home>` in its environment, and so does whatever it starts: a flow run whose worker was
killed, or the site process of a killed flow run, is found by it. Needs the /proc of Linux.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MARK = "CAUSEWAY_UP"


@dataclass(frozen=True)
class Process:
    """A process of a home: `server`, `services`, or the worker of a pool.

    `born` is its start in clock ticks since boot, because numbers of processes are used again; '' where not recorded.
    """

    name: str
    pid: int
    born: str
    pool: str = ""

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return bool(born(self.pid)) and self.born in ("", born(self.pid))


def born(pid: int) -> str:
    """Return when a process was started, in clock ticks since boot; '' when it is no more, or is a zombie."""
    fields = _stat(pid)
    return "" if not fields or fields[0] == "Z" else fields[19]


def session(pid: int) -> int:
    """Return the session of a process: the number of the process that `launch` made, for all that it started; or 0."""
    fields = _stat(pid)
    return int(fields[3]) if fields else 0


def _stat(pid: int) -> list[str]:
    try:
        # The name in parentheses may hold anything; after it come fields 3 (state), 6 (session), 22 (start) and others.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def launch(
    name: str, command: Sequence[str], environment: Mapping[str, str], home: Path, log: Path, pool: str = ""
) -> Process:
    """Start a Python module in the background, in a session of its own; what it says goes to the log."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            env={**environment, MARK: str(home.resolve())},
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=home,
        )
    return Process(name, process.pid, born(process.pid), pool)


def marked(home: Path) -> list[int]:
    """Return the processes that `up` of this home started, and theirs."""
    wanted = f"{MARK}={home.resolve()}".encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            pid = int(entry.name)
            if wanted in (entry / "environ").read_bytes().split(b"\0") and pid != os.getpid() and born(pid):
                found.append(pid)
    return sorted(found)


def end(pids: Iterable[int], grace_s: float) -> list[int]:
    """Ask processes to end, and kill those that have not within the grace; return those that had to be killed."""
    alive = _signalled(pids, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    while alive and time.monotonic() < deadline:
        time.sleep(0.1)
        alive = [pid for pid in alive if born(pid)]
    killed = _signalled(alive, signal.SIGKILL)
    deadline = time.monotonic() + 5
    while any(born(pid) for pid in killed) and time.monotonic() < deadline:
        time.sleep(0.05)
    return killed


def _signalled(pids: Iterable[int], number: signal.Signals) -> list[int]:
    sent = []
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
            sent.append(pid)
    return sent
