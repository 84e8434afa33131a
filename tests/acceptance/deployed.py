"""A Prefect server, a worker for each of two sites, and the deployments of training and evaluation: for tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectAlreadyExists
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.settings import QUIET
from tests.acceptance.api import free_port
from tests.acceptance.conftest import start, wait_for

POOLS = ("home", "east", "north")


def deployments(pools: Sequence[str]) -> list[tuple[str, str, str]]:
    """Return deployment, its module's function and its pool: home's, and those of each site."""
    sites = pools[1:]
    return [
        ("train/train", "flows.train.train", "home"),
        ("evaluate/evaluate", "flows.evaluate.evaluate", "home"),
        *((f"train-site/{site}", "flows.train_site.train_site", site) for site in sites),
        *((f"evaluate-site/{site}", "flows.evaluate.evaluate_site", site) for site in sites),
    ]


class Server:
    """A real Prefect server that can be killed and started again on the same port, and a worker a pool."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.url = f"http://127.0.0.1:{self.port}/api"
        self.workers: dict[str, subprocess.Popen[bytes]] = {}
        self.up()

    def up(self) -> None:
        self.process = start("ui", "--home", self.folder, "--port", str(self.port))
        line = self.process.stdout.readline() if self.process.stdout else ""
        assert str(self.port) in line, self.process.stderr.read() if self.process.stderr else ""

    def kill(self) -> None:
        """kill -9 of the whole server."""
        for group in {os.getpgid(self.process.pid), *self._groups("server", "start", str(self.port))}:
            os.killpg(group, signal.SIGKILL)
        self.process.wait()

    def _groups(self, *words: str) -> set[int]:
        found = set()
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                said = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
                if all(w in said for w in words):
                    found.add(os.getpgid(int(folder.name)))
            except OSError:
                continue
        return found

    @contextmanager
    def client(self) -> Iterator[SyncPrefectClient]:
        with temporary_settings({PREFECT_API_URL: self.url}), get_client(sync_client=True) as client:
            yield client

    def start_worker(self, pool: str) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
        environment |= {**QUIET, "PREFECT_API_URL": self.url, "PREFECT_HOME": str(self.folder / "worker")}
        environment |= {"PREFECT_WORKER_QUERY_SECONDS": "2"}
        with (self.folder / f"worker-{pool}.log").open("ab") as log:
            self.workers[pool] = subprocess.Popen(
                [sys.executable, "-m", "prefect", "worker", "start", "--pool", pool, "--type", "process"],
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def deploy(self, home: Path, pools: Sequence[str] = POOLS) -> None:
        """Make pools and deployments, with this home as their default; earlier runs are forgotten."""
        self.since = datetime.now(UTC)
        with self.client() as client:
            for pool in pools:
                try:
                    client.create_work_pool(WorkPoolCreate(name=pool, type="process"))
                except ObjectAlreadyExists:
                    continue
            for name, entrypoint, pool in deployments(pools):
                flow, _, short = name.partition("/")
                client.create_deployment(
                    client.create_flow_from_name(flow),
                    short,
                    parameters={"home": str(home)},
                    tags=["causeway"],
                    work_pool_name=pool,
                    entrypoint=entrypoint,
                    pull_steps=[],
                )
        # The home's commands find the server as if it were the home's own.
        (home / "prefect").mkdir(exist_ok=True)
        (home / "prefect" / "server.json").write_bytes((self.folder / "prefect" / "server.json").read_bytes())

    def start(self, deployment: str, **parameters: Any) -> FlowRun:
        with self.client() as client:
            found = client.read_deployment_by_name(deployment)
            return client.create_flow_run_from_deployment(found.id, parameters=parameters, tags=["causeway"])

    def state(self, run: FlowRun) -> str:
        with self.client() as client:
            state = client.read_flow_run(run.id).state
        return str(state.name) if state else ""

    def runs(self, deployment: str, **parameters: Any) -> list[FlowRun]:
        """The runs of a deployment with these parameters, in the order in which they were made."""
        with self.client() as client:
            found = client.read_flow_runs(sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=200)
            wanted = client.read_deployment_by_name(deployment).id
        mine = [r for r in found if r.deployment_id == wanted and parameters.items() <= r.parameters.items()]
        return sorted((r for r in mine if r.created and r.created > self.since), key=lambda r: str(r.created))

    def close(self) -> None:
        for worker in self.workers.values():
            os.killpg(worker.pid, signal.SIGTERM)
        for worker in self.workers.values():
            try:
                worker.wait(timeout=20)
            except subprocess.TimeoutExpired:
                os.killpg(worker.pid, signal.SIGKILL)
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.kill()


def processes_of(run: FlowRun) -> list[int]:
    """Return the processes in which a flow run runs, its own children among them."""
    mark = f"PREFECT__FLOW_RUN_ID={run.id}".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def kill_run(run: FlowRun) -> None:
    """kill -9 of a flow run's own processes (not of what they started: that must end by itself)."""
    pids = wait_for(lambda: processes_of(run), 60, f"no process of {run.name}")
    for pid in pids:
        try:
            words = Path(f"/proc/{pid}/cmdline").read_bytes()
            if b"training.worker" not in words:
                os.kill(pid, signal.SIGKILL)
        except OSError:
            continue
    time.sleep(0.1)
