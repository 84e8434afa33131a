"""A site's process on its machine: the only one of its site, and never alive without the process that started it."""

from __future__ import annotations

import ctypes
import fcntl
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from data_contracts.catalog.store import Store

PR_SET_PDEATHSIG = 1  # prctl(2)
LOCK_POLL_S = 0.1


class Stopped(Exception):
    """The process was told to end (SIGTERM or SIGINT); what is whole has been published."""


def end_with(parent: int) -> bool:
    """Let the kernel kill this process when its parent dies (Linux only); False when the parent is dead already.

    SIGKILL, since a process that hangs takes no other signal: killed at any point, a site goes on from the chain.
    """
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    # It may have died while this process started, and then no signal ever comes.
    return os.getppid() == parent


@contextmanager
def only_worker(
    store: Store, run: str, site: str, stop: Callable[[], bool], folder: Path | None = None
) -> Iterator[None]:
    """Hold the site's lock: a second worker of the same site waits until the first is gone.

    The lock lies in the store when that is a local directory, else in `folder`, so it holds on one machine; without a
    folder there is none. Two workers on two machines cost work, never correctness: the chain takes one contribution.

    Raises:
        Stopped: told to end while it waited.
    """
    where = folder if store.root is None else store.root
    if where is None:
        yield
        return
    where.mkdir(parents=True, exist_ok=True)
    path = where / f".{run}-{site}.lock"
    with path.open("a") as stream:
        while True:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                # Not a wait in the kernel: that would go on after a signal.
                if stop():
                    raise Stopped from None
                time.sleep(LOCK_POLL_S)
        yield
