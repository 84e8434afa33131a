"""Up and down: a home's server, and a worker for each of its pools, in the background of this machine."""

from __future__ import annotations

import asyncio
import datetime as dt
import fcntl
import os
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from data_contracts.errors import CausewayError
from flows.processes import Process, end, launch, marked, session
from flows.server import (
    authorise,
    healthy,
    read_state,
    record,
    running,
    server_environment,
    state_file,
    wait_healthy,
    write_state,
)
from flows.settings import configure
from training.workspace import Workspace

if TYPE_CHECKING:
    from flows.deploying.compare import Change

ONLINE_TIMEOUT_S = 120
GRACE_S = 15.0
# Flow runs that one worker works on at once. Many of them only wait for others, so this bounds memory, not the work.
WORKER_LIMIT = 16
# Prefect's 10 s are made for hundreds of workers; with a few a run may start three seconds after it was asked for.
WORKER_SETTINGS = {
    "PREFECT_WORKER_QUERY_SECONDS": "3",
    # A run's process needs about this long until it can begin.
    "PREFECT_WORKER_PREFETCH_SECONDS": "5",
}
_REDIS = {
    "PREFECT_MESSAGING_BROKER": "prefect_redis.messaging",
    "PREFECT_MESSAGING_CACHE": "prefect_redis.messaging",
    "PREFECT_SERVER_EVENTS_CAUSAL_ORDERING": "prefect_redis.ordering",
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect_redis.lease_storage",
    "PREFECT_SERVER_WORKER_CHANNEL_CLEANUP_QUEUE_STORAGE": "prefect_redis.cleanup_queue",
}
_REDIS_URLS = ("PREFECT_REDIS_MESSAGING_URL", "PREFECT_REDIS_WORKER_CLEANUP_QUEUE_URL", "PREFECT_SERVER_DOCKET_URL")


@dataclass
class Up:
    """What runs. `started` are the names of what this call started; `elsewhere` pools whose workers are not ours."""

    url: str
    database: str
    processes: tuple[Process, ...] = ()
    started: list[str] = field(default_factory=list)
    elsewhere: dict[str, str] = field(default_factory=dict)
    changes: tuple[Change, ...] = ()

    @property
    def ui(self) -> str:
        """Where a person looks."""
        return self.url.removesuffix("/api")


@dataclass(frozen=True)
class Scale:
    """What the processes of one server share. Both URLs may hold a password: they go into environments only."""

    postgres: str
    redis: str

    def environment(self) -> dict[str, str]:
        """Return the settings of the server's processes. Source: Prefect 3, "How to scale self-hosted Prefect"."""
        rest = self.postgres.partition("://")[2]
        return {
            **_REDIS,
            **dict.fromkeys(_REDIS_URLS, self.redis),
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"postgresql+asyncpg://{rest}",
            # Once, before they start: flows/database.py.
            "PREFECT_SERVER_DATABASE_MIGRATE_ON_START": "false",
            "PREFECT_API_BLOCKS_REGISTER_ON_START": "false",
        }


def scale_of(postgres: str | None, redis: str | None) -> Scale | None:
    """Check the two URLs.

    Raises:
        CausewayError: one without the other, or of another kind; the message holds neither.
    """
    if postgres is None and redis is None:
        return None
    if postgres is None or redis is None:
        raise CausewayError("--postgres and --redis go together: several processes share their events through Redis")
    if urlsplit(postgres).scheme not in ("postgresql", "postgres", "postgresql+asyncpg"):
        raise CausewayError("--postgres takes a URL as postgresql://user:password@host:5432/database")
    if urlsplit(redis).scheme not in ("redis", "rediss"):
        raise CausewayError("--redis takes a URL as redis://user:password@host:6379/0")
    return Scale(postgres, redis)


def up(
    home: Path,
    *,
    port: int | None = None,
    host: str = "127.0.0.1",
    scale: Scale | None = None,
    workers: bool = True,
    sites: Collection[str] | None = None,
) -> Up:
    """Start what of a home does not run yet, and deploy; wait until the server answers and every worker is online.

    Without `port` the server comes back where it was before, so that workers that outlived it find it; else at 4200.

    Raises:
        CausewayError: something did not come up; says where its log is.
    """
    workspace = Workspace.open(home)
    pools = _pools(workspace, sites)
    with _alone(home):
        authorise(home)
        configure(home)
        url, started = _server(home, host, port, scale)
        given = os.environ.setdefault("PREFECT_API_URL", url)
        if given != url:
            raise CausewayError(
                f"PREFECT_API_URL is {given}, this folder's server is {url}; unset it, or start workers for your own"
                " server yourself: prefect worker start --pool POOL"
            )
        from flows.deploying.deploy import deploy

        done = asyncio.run(deploy(workspace))
        state = record(home, url)
        elsewhere: dict[str, str] = {p.pool: p.pool_type for p in done.home.places if p.pool_type != "process"}
        fresh = [
            _worker(home, url, pool)
            for pool in (pools if workers else ())
            if pool not in elsewhere and state.alive(f"worker {pool}") is None
        ]
        state = record(home, url, *fresh)
        asyncio.run(_online(home, fresh))
        names = [*started, *(p.name for p in fresh)]
        return Up(url, state.database, state.processes, names, elsewhere, done.changes)


def down(home: Path) -> list[Process]:
    """End everything that `up` started and what that started; return the processes, the servers last.

    Workers go first, so that what they tell of their runs still reaches the server.
    """
    with _alone(home):
        state = read_state(home)
        known = [p for p in state.processes if p.alive] if state else []
        servers = [p.pid for p in known if not p.pool]
        end([p.pid for p in known if p.pool], GRACE_S)
        end([pid for pid in marked(home) if session(pid) not in servers], GRACE_S)
        end(servers, GRACE_S)
        # The processes of a server that had to be killed, and what was started in between.
        end(marked(home), 1.0)
        if state:
            # Where it was, and which database has its history, for the next time.
            write_state(home, replace(state, processes=()))
    return [p for p in known if p.pool] + [p for p in known if not p.pool]


def _pools(workspace: Workspace, sites: Collection[str] | None) -> list[str]:
    """Return the pools of home and of the sites that are asked for."""
    chosen = [workspace.sites.site(name) for name in sites] if sites is not None else list(workspace.sites.sites)
    return list(dict.fromkeys([workspace.sites.home.work_pool, *(s.work_pool for s in chosen)]))


@contextmanager
def _alone(home: Path) -> Iterator[None]:
    """Hold the folder's lock: of two `up` at the same moment the second finds what the first has started."""
    folder = home / "prefect"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "up.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _server(home: Path, host: str, port: int | None, scale: Scale | None) -> tuple[str, list[str]]:
    """Return the URL of the folder's server, and the names of the processes that were started for it."""
    url, state = running(home), read_state(home)
    if port is None:
        port = urlsplit(state.url).port or 4200 if state else 4200
    if url is not None and state is not None:
        if scale is not None and state.database == "sqlite":
            raise CausewayError("this folder's server runs with SQLite; run causeway down, then up with --postgres")
        if state.database == "sqlite" or state.alive("services"):
            return url, []
        if scale is None:
            raise CausewayError("the server's services have ended; run up again with --postgres and --redis")
        services = _services(home, {**server_environment(home, host, port), **scale.environment()})
        record(home, url, services)
        return url, [services.name]
    if scale is None and state is not None and state.database != "sqlite":
        raise CausewayError(
            "this folder's server has its runs in PostgreSQL; give --postgres and --redis (to begin anew with SQLite,"
            f" remove {state_file(home)})"
        )
    if host not in ("127.0.0.1", "localhost", "::1") and not os.environ.get("PREFECT_SERVER_API_AUTH_STRING"):
        raise CausewayError(
            f"--host {host} without a password: who reaches the port can start runs; run causeway secrets auth first"
        )
    reached = "127.0.0.1" if host in ("0.0.0.0", "::") else host
    url = f"http://{reached}:{port}/api"
    # Processes of a server that was killed would hold the port, and with --postgres answer on it; workers that know
    # another address are of no use.
    known = state.processes if state else ()
    lost = {p.pid for p in known if not p.pool or (state and state.url != url)}
    end([pid for pid in marked(home) if session(pid) in lost], GRACE_S)
    if healthy(url):
        raise CausewayError(f"port {port} is taken by another Prefect server; give --port another number")
    environment = server_environment(home, reached, port)
    arguments = ["prefect", "server", "start", "--host", host, "--port", str(port)]
    logs = home / "prefect" / "logs"
    if scale is None:
        process = launch("server", arguments, environment, home, logs / "server.log")
        wait_healthy(url, process, logs / "server.log")
        record(home, url, process, database="sqlite")
        return url, [process.name]
    environment |= scale.environment()
    _prepare(home, environment)
    process = launch("server", [*arguments, "--no-services", "--workers", "2"], environment, home, logs / "server.log")
    services = _services(home, environment)
    wait_healthy(url, process, logs / "server.log")
    record(home, url, process, services, database="postgresql")
    return url, [process.name, services.name]


def _services(home: Path, environment: dict[str, str]) -> Process:
    command = ["prefect", "server", "services", "start"]
    return launch("services", command, environment, home, home / "prefect" / "logs" / "services.log")


def _prepare(home: Path, environment: dict[str, str]) -> None:
    """Prepare PostgreSQL before several processes would at once.

    Raises:
        CausewayError: it cannot be reached or used; says where the log is.
    """
    log = home / "prefect" / "logs" / "database.log"
    process = launch("database", ["flows.database"], environment, home, log)
    _, status = os.waitpid(process.pid, 0)
    if status:
        raise CausewayError(f"PostgreSQL cannot be used by the server; its log: {log}")


def _worker(home: Path, url: str, pool: str) -> Process:
    environment = {**os.environ, **WORKER_SETTINGS, "PREFECT_API_URL": url, "CAUSEWAY_HOME": str(home)}
    environment["PREFECT_HOME"] = str(home / "prefect")
    # Runs are started as `python`, so that one job template serves every machine: here it is this Python.
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment.get('PATH', os.defpath)}"
    for name in list(environment):
        # Nothing that a server alone must know, and the worker's log holds what its runs say.
        if name.startswith(("PREFECT_SERVER_", "PREFECT_LOGGING_HANDLERS_CONSOLE")):
            del environment[name]
    command = ["prefect", "worker", "start", "--pool", pool, "--type", "process", "--limit", str(WORKER_LIMIT)]
    command += ["--name", f"causeway-{pool}"]
    return launch(f"worker {pool}", command, environment, home, _log(home, pool), pool)


def _log(home: Path, pool: str) -> Path:
    return home / "prefect" / "logs" / f"worker-{pool}.log"


async def _online(home: Path, workers: Sequence[Process]) -> None:
    """Wait until workers that were just started have said so to the server.

    Raises:
        CausewayError: one ended or took too long; says where its log is.
    """
    from prefect.client.orchestration import get_client

    began, deadline = dt.datetime.now(dt.UTC), time.monotonic() + ONLINE_TIMEOUT_S
    waiting = list(workers)
    async with get_client() as client:
        while waiting:
            for process in list(waiting):
                for worker in await client.read_workers_for_work_pool(process.pool, limit=200, offset=0):
                    # One that was killed is called online for a while.
                    if worker.last_heartbeat_time and worker.last_heartbeat_time > began:
                        waiting.remove(process)
                        break
                else:
                    if not process.alive or time.monotonic() > deadline:
                        raise CausewayError(f"{process.name} did not come online; its log: {_log(home, process.pool)}")
            await asyncio.sleep(0.5)
