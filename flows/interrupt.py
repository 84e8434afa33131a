"""Ctrl-C: the run is cancelled, its processes end; and when something will not let go, the process leaves all the same.

A terminal sends the interrupt to the whole process group, the embedded Prefect server among it. Prefect then tries for
minutes to report the cancellation to a server that is gone. What must last is in the stores by then, so nothing is
lost by leaving.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType

PATIENCE_S = 6.0


def install() -> None:
    """Raise KeyboardInterrupt on the first SIGINT, as usual, and leave for good if that has not ended us in time."""

    def interrupted(_number: int, _frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        watchdog = threading.Timer(PATIENCE_S, _leave)
        watchdog.daemon = True
        watchdog.start()
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupted)


def _leave() -> None:
    for pid in children(os.getpid()):
        try:
            os.kill(pid, signal.SIGTERM)
        except ProcessLookupError:
            continue
    sys.stderr.write("stopped; run the same command again to go on\n")
    sys.stderr.flush()
    os._exit(130)


def children(parent: int) -> list[int]:
    """Return the process ids of a process's children, from /proc; empty where there is none."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            # The name in parentheses may hold anything; the parent is the second field after it.
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == parent:
            found.append(int(entry.parent.name))
    return found
