"""The Prefect server of one `--home` folder, when the user wants one that stays: for the UI and for schedules."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from data_contracts.errors import CausewayError
from flows.settings import configure

START_TIMEOUT_S = 120


def healthy(url: str) -> bool:
    """Say whether a Prefect API answers at this URL."""
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError, ValueError):
        return False


def running(home: Path) -> str | None:
    """Return the API URL of this folder's server, if one is up."""
    try:
        url = str(json.loads((home / "prefect" / "server.json").read_text())["url"])
    except (OSError, ValueError, KeyError):
        return None
    return url if healthy(url) else None


def use_running(home: Path) -> None:
    """Let this process use the folder's server if one is up, else the embedded one: never two on one SQLite file."""
    url = running(home)
    if url is not None:
        os.environ.setdefault("PREFECT_API_URL", url)
    configure(home)


@contextmanager
def server(home: Path, port: int) -> Iterator[str]:
    """Start the folder's server, or use the one that is up; yield its API URL; stop only what was started here.

    Raises:
        CausewayError: the port is taken, or the server did not come up; says where its log is.
    """
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
    environment = {
        **os.environ,
        "PREFECT_HOME": str(folder),
        "PREFECT_UI_API_URL": url,
        "PREFECT_SERVER_API_PORT": str(port),
    }
    environment.pop("PREFECT_API_URL", None)
    log = folder / "server.log"
    with log.open("ab") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)],
            env=environment,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + START_TIMEOUT_S
        while not healthy(url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise CausewayError(f"the Prefect server did not come up on port {port}; its log: {log}")
            time.sleep(0.3)
        (folder / "server.json").write_text(json.dumps({"url": url, "pid": process.pid}))
        yield url
    finally:
        process.terminate()
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
