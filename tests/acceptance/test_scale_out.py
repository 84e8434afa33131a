"""The scale-out server on a real PostgreSQL 15 and a real Redis 7, both of this test's own on loopback ports."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flows.processes import marked
from tests.acceptance.conftest import run, run_json, wait_for
from tests.acceptance.test_deploy import Home, free_port, take_in, write_day

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(900)]
POSTGRES = Path("/usr/lib/postgresql/15/bin")
PASSWORD, REDIS_PASSWORD = "pg-planted-4711", "redis-planted-4711"


@dataclass(frozen=True)
class Databases:
    postgres: str
    redis: str


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Databases]:
    missing = [str(p) for p in (POSTGRES / "initdb", Path("/usr/bin/redis-server")) if not p.exists()]
    if missing and os.environ.get("CI") != "true":
        pytest.skip(f"needs Debian's postgresql and redis-server: {', '.join(missing)} not there")
    assert not missing, f"{missing}: .ci/run must install postgresql and redis-server"
    folder = tmp_path_factory.mktemp("databases")
    with Postgres(folder / "postgres") as url, Redis(folder / "redis") as other:
        yield Databases(url, other)


class Postgres:
    """A PostgreSQL cluster in a folder; it refuses root, so it runs as the user Debian made for it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()

    def _as_postgres(self, *command: str | Path, **more: Any) -> list[str]:
        user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        return [*user, *map(str, command)]

    def __enter__(self) -> str:
        self.folder.mkdir()
        for parent in self.folder.parents:
            # pytest's folders are closed to others.
            if parent == Path("/tmp"):
                break
            parent.chmod(parent.stat().st_mode | 0o011)
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres")
            shutil.chown(secret, "postgres")
        data = self.folder / "data"
        made = self._as_postgres(
            POSTGRES / "initdb", "-D", data, "-U", "prefect", "--auth=scram-sha-256", f"--pwfile={secret}", "--no-sync"
        )
        subprocess.run(made, check=True, capture_output=True, cwd="/")
        listen = ["-h", "127.0.0.1", "-p", str(self.port), "-k", str(self.folder), "-F"]
        self.process = subprocess.Popen(
            self._as_postgres(POSTGRES / "postgres", "-D", data, *listen),
            stdout=subprocess.DEVNULL,
            stderr=(self.folder / "log").open("w"),
            cwd="/",
        )
        ready = self._as_postgres(POSTGRES / "pg_isready", "-h", "127.0.0.1", "-p", str(self.port))
        wait_for(lambda: not subprocess.run(ready, capture_output=True, cwd="/").returncode, 60, "PostgreSQL is not up")
        return f"postgresql://prefect:{PASSWORD}@127.0.0.1:{self.port}/postgres"

    def __exit__(self, *_: object) -> None:
        stop = self._as_postgres(POSTGRES / "pg_ctl", "-D", self.folder / "data", "-m", "immediate", "stop")
        subprocess.run(stop, capture_output=True, cwd="/")
        self.process.wait(timeout=30)


class Redis:
    """A Redis server in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()

    def __enter__(self) -> str:
        self.folder.mkdir()
        conf = self.folder / "redis.conf"
        lines = [f"port {self.port}", "bind 127.0.0.1", f"dir {self.folder}", 'save ""', "appendonly no"]
        conf.write_text("\n".join([*lines, f"requirepass {REDIS_PASSWORD}", ""]))
        self.process = subprocess.Popen(["/usr/bin/redis-server", str(conf)], stdout=subprocess.DEVNULL)
        return f"redis://:{REDIS_PASSWORD}@127.0.0.1:{self.port}/0"

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(timeout=30)


def command_lines(home: Path) -> str:
    """Return what everybody on the machine may read of the processes of a home."""
    return "\n".join(Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace") for pid in marked(home))


def test_up_runs_the_server_in_processes_over_postgresql_and_redis_and_an_ingest_to_its_end(
    databases: Databases, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path / "home", take_in(tmp_path / "home", tmp_path, "test/notes", "daily"), free_port())
    # As docs/deployments.md advises: in the environment other users do not see them.
    monkeypatch.setenv("CAUSEWAY_POSTGRES", databases.postgres)
    monkeypatch.setenv("CAUSEWAY_REDIS", databases.redis)
    try:
        up = home.start()
        assert up["database"] == "postgresql"
        assert [p["name"] for p in up["processes"]] == ["server", "services", "worker home", "worker north"]
        assert run("deploy", "--check", "--home", home.root).stdout == "nothing to change\n"
        write_day(home.data, "2024-03-08")
        made = home.start_run("ingest/test--notes")
        done = wait_for(lambda: ended(home, made["id"]), 300, "the ingest did not end")
        assert done == "COMPLETED"
        assert home.partitions("test/notes") == {"2024-03-07", "2024-03-08"}
        # Events travel from the processes of the API through Redis to the services: only then a notice is run.
        home.start_run("curate/curate", datasets=["test/nowhere"])
        wait_for(lambda: home.notices("run-failed"), 300, "the automation of a failed run did not fire")
        again = home.start()
        assert {p["state"] for p in again["processes"]} == {"was up"}
        lines = command_lines(home.root)
        assert "prefect" in lines and PASSWORD not in lines and REDIS_PASSWORD not in lines
    finally:
        began = time.monotonic()
        ended_ = run_json("down", "--home", home.root)["ended"]
    assert [p["name"] for p in ended_][-2:] == ["server", "services"]
    assert time.monotonic() - began < 60
    assert marked(home.root) == []
    assert json.loads((home.root / "prefect" / "server.json").read_text())["database"] == "postgresql"
    for path in (p for p in home.root.rglob("*") if p.is_file()):
        data = path.read_bytes()
        assert PASSWORD.encode() not in data and REDIS_PASSWORD.encode() not in data, path
    monkeypatch.delenv("CAUSEWAY_POSTGRES")
    monkeypatch.delenv("CAUSEWAY_REDIS")
    refused = run("up", "--home", home.root)
    assert refused.returncode == 2 and "has its runs in PostgreSQL" in refused.stderr


def ended(home: Home, number: str) -> str | None:
    """Return the type of a run's state when it has ended."""
    state: str = home.state(number)["type"]
    return state if state in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") else None
