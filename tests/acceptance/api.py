"""Ask a real Prefect server what a person at the UI asks it, with the patience of Prefect's own clients."""

from __future__ import annotations

import socket
import time
from dataclasses import dataclass
from typing import Any

import httpx

PATIENCE = 240.0
"""Seconds. A SQLite that servers, workers and other tests write at once may be slow to answer; it is never wrong."""


def free_port() -> int:
    """Return a TCP port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Api:
    """The API of a server on this machine."""

    port: int

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}/api"

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """Return the answer's JSON; a busy server (503, or a read that takes too long) is asked again.

        Raises:
            httpx.HTTPError: refused, not there, or busy for all of `PATIENCE`.
        """
        # What is only looked up may be asked twice; what is created may not, unless the server said that it was not.
        harmless = method == "GET" or path.endswith("/filter")
        deadline = time.monotonic() + PATIENCE
        while True:
            late = time.monotonic() > deadline
            try:
                answer = httpx.request(method, f"{self.url}/{path}", json=body, timeout=60 if harmless else PATIENCE)
            except httpx.ReadTimeout:
                if late or not harmless:
                    raise
                continue
            if answer.status_code != 503 or late:
                answer.raise_for_status()
                return answer.json() if answer.content else None
            time.sleep(0.5)

    def runs(self, **filters: Any) -> list[dict[str, Any]]:
        """Return the flow runs that Prefect's filters (`flows`, `flow_runs`, ...) choose, newest first."""
        found: list[dict[str, Any]] = self.ask("POST", "flow_runs/filter", {"sort": "ID_DESC", **filters})
        return found

    def run(self, number: str) -> dict[str, Any]:
        """Return one flow run."""
        found: dict[str, Any] = self.ask("GET", f"flow_runs/{number}")
        return found

    def deployment(self, name: str) -> dict[str, Any]:
        """Return a deployment by its `flow/name`."""
        found: dict[str, Any] = self.ask("GET", f"deployments/name/{name}")
        return found

    def start(self, deployment: str, **parameters: Any) -> dict[str, Any]:
        """Start a run of a deployment now, as the UI's button does."""
        body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
        made: dict[str, Any] = self.ask(
            "POST", f"deployments/{self.deployment(deployment)['id']}/create_flow_run", body
        )
        return made
