"""The Prefect server of one `--home` folder, when the user wants one that stays: for the UI and for schedules.

`<home>/prefect/server.json` says where it is and which processes stand behind it; `keys/prefect-auth` holds its
`user:password`, if it has one.
"""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from data_contracts.errors import CausewayError
from flows.credentials import auth_file
from flows.processes import Process, born
from flows.settings import QUIET, configure

START_TIMEOUT_S = 120
ANSWER_S = 20


@dataclass(frozen=True)
class ServerState:
    """server.json: the API's URL, what holds its data (`sqlite`, `postgresql`), and its processes. No secrets."""

    url: str
    database: str = "sqlite"
    processes: tuple[Process, ...] = ()

    def alive(self, name: str) -> Process | None:
        """Return a process of this name that runs."""
        return next((p for p in self.processes if p.name == name and p.alive), None)


def state_file(home: Path) -> Path:
    """Return where a home says which server is its own."""
    return home / "prefect" / "server.json"


def read_state(home: Path) -> ServerState | None:
    """Return what is recorded of a home's server, running or not."""
    try:
        document = json.loads(state_file(home).read_text())
        # Format 1 knew one process, by its number alone.
        if "processes" not in document:
            document["processes"] = [{"name": "server", "pid": document["pid"], "born": ""}]
        known = tuple(Process(**p) for p in document["processes"])
        return ServerState(str(document["url"]), document.get("database", "sqlite"), known)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_state(home: Path, state: ServerState) -> None:
    """Record a home's server; readers see the old file or the new."""
    document = {"format": 2, **asdict(state)}
    path = state_file(home)
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(document, indent=1))
    draft.replace(path)


def healthy(url: str) -> bool:
    """Say whether a Prefect API answers at this URL."""
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError, ValueError):
        return False


def running(home: Path) -> str | None:
    """Return the API URL of this folder's server, if one is up."""
    state = read_state(home)
    # The port of a server that ended may be another folder's by now.
    if state is None or not state.alive("server"):
        return None
    # A server at work on a busy machine may take seconds to answer; an embedded one beside it would share its SQLite.
    deadline = time.monotonic() + ANSWER_S
    while not healthy(state.url):
        if time.monotonic() > deadline or not state.alive("server"):
            return None
        time.sleep(0.3)
    return state.url


def deployed(home: Path) -> bool:
    """Say whether this folder runs through deployments: its server is up, and workers are."""
    state = read_state(home)
    return running(home) is not None and state is not None and any(p.pool and p.alive for p in state.processes)


def authorise(home: Path) -> None:
    """Let this process, and what it starts, show the password of the home's server; the environment's own goes first.

    Raises:
        CausewayError: others may read the file, or it holds no `user:password`.
    """
    path = auth_file(home)
    known = os.environ.get("PREFECT_SERVER_API_AUTH_STRING") or os.environ.get("PREFECT_API_AUTH_STRING")
    state, named = read_state(home), os.environ.get("PREFECT_API_URL")
    # Another server that the user has named is not shown this folder's password.
    own = named is None or (state is not None and state.url == named)
    if known is None and own and path.exists():
        if stat.S_IMODE(path.stat().st_mode) & 0o077:
            raise CausewayError(f"{path}: others may read this password; run: chmod 600 {path}")
        known = path.read_text().strip()
        if ":" not in known:
            raise CausewayError(f"{path}: holds no user:password; remove it and run: causeway secrets auth")
    if known:
        os.environ.setdefault("PREFECT_SERVER_API_AUTH_STRING", known)
        os.environ.setdefault("PREFECT_API_AUTH_STRING", known)


def use_running(home: Path) -> None:
    """Let this process use the folder's server if one is up, else the embedded one: never two on one SQLite file."""
    authorise(home)
    url = running(home)
    if url is not None:
        os.environ.setdefault("PREFECT_API_URL", url)
    configure(home)


def server_environment(home: Path, host: str, port: int) -> dict[str, str]:
    """Return the environment of a home's server: its own folder, its own port, quiet."""
    environment = {
        **os.environ,
        **{name: os.environ.get(name, value) for name, value in QUIET.items()},
        "PREFECT_HOME": str(home / "prefect"),
        "PREFECT_UI_API_URL": os.environ.get("PREFECT_UI_API_URL", f"http://{host}:{port}/api"),
        "PREFECT_SERVER_API_HOST": host,
        "PREFECT_SERVER_API_PORT": str(port),
        # In files: slots of a concurrency limit that are held when the server is killed are given back later, instead
        # of never.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    }
    for name in ("PREFECT_API_URL", "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"):
        environment.pop(name, None)
    return environment


@contextmanager
def server(home: Path, port: int) -> Iterator[str]:
    """Start the folder's server, or use the one that is up; yield its API URL; stop only what was started here.

    Raises:
        CausewayError: the port is taken, or the server did not come up; says where its log is.
    """
    authorise(home)
    known = running(home)
    if known is not None:
        yield known
        return
    configure(home)
    folder = home / "prefect"
    folder.mkdir(parents=True, exist_ok=True)
    url = f"http://127.0.0.1:{port}/api"
    if healthy(url):
        raise CausewayError(f"port {port} is taken by another Prefect server; give --port another number")
    log = folder / "server.log"
    with log.open("ab") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)],
            env=server_environment(home, "127.0.0.1", port),
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        wait_healthy(url, Process("server", process.pid, born(process.pid)), log)
        record(home, url, Process("server", process.pid, born(process.pid)))
        yield url
    finally:
        process.terminate()
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()


def wait_healthy(url: str, process: Process, log: Path) -> None:
    """Wait until a server that was just started answers.

    Raises:
        CausewayError: it ended or took too long; says where its log is.
    """
    deadline = time.monotonic() + START_TIMEOUT_S
    while not healthy(url):
        if not process.alive or time.monotonic() > deadline:
            port = url.removesuffix("/api").rpartition(":")[2]
            raise CausewayError(f"the Prefect server did not come up on port {port}; its log: {log}")
        time.sleep(0.3)


def record(home: Path, url: str, *started: Process, **changes: Any) -> ServerState:
    """Record processes that were started, in the place of those of the same name; the dead are forgotten."""
    known = read_state(home) or ServerState(url)
    names = {p.name for p in started}
    kept = tuple(p for p in known.processes if p.alive and p.name not in names)
    state = replace(known, url=url, processes=(*kept, *started), **changes)
    write_state(home, state)
    return state
