"""A PostgreSQL 15 and a Redis 7 of Debian's, each of a test's own on a loopback port."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.api import free_port
from tests.acceptance.conftest import wait_for

POSTGRES = Path("/usr/lib/postgresql/15/bin")
PASSWORD, REDIS_PASSWORD = "pg-planted-4711", "redis-planted-4711"


def require_databases() -> None:
    """Skip where Debian's packages are not there; with CI=true their absence is a failure."""
    missing = [str(p) for p in (POSTGRES / "initdb", Path("/usr/bin/redis-server")) if not p.exists()]
    if missing and os.environ.get("CI") != "true":
        pytest.skip(f"needs Debian's postgresql and redis-server: {', '.join(missing)} not there")
    assert not missing, f"{missing}: .ci/run must install postgresql and redis-server"


class Postgres:
    """A PostgreSQL cluster in a folder; it refuses root, so it runs as the user Debian made for it."""

    def __init__(self) -> None:
        # Not below pytest's folders: it closes them to other users whenever another pytest starts.
        self.folder, self.port = Path(tempfile.mkdtemp(prefix="causeway-postgres-")), free_port()

    def _as_postgres(self, *command: str | Path, **more: Any) -> list[str]:
        user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        return [*user, *map(str, command)]

    def __enter__(self) -> str:
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
        shutil.rmtree(self.folder, ignore_errors=True)


class Redis:
    """A Redis server in a folder."""

    def __init__(self) -> None:
        self.folder, self.port = Path(tempfile.mkdtemp(prefix="causeway-redis-")), free_port()

    def __enter__(self) -> str:
        conf = self.folder / "redis.conf"
        lines = [f"port {self.port}", "bind 127.0.0.1", f"dir {self.folder}", 'save ""', "appendonly no"]
        conf.write_text("\n".join([*lines, f"requirepass {REDIS_PASSWORD}", ""]))
        self.process = subprocess.Popen(["/usr/bin/redis-server", str(conf)], stdout=subprocess.DEVNULL)
        return f"redis://:{REDIS_PASSWORD}@127.0.0.1:{self.port}/0"

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(timeout=30)
        shutil.rmtree(self.folder, ignore_errors=True)
