"""The scale-out server on a real PostgreSQL 15 and a real Redis 7, both of this test's own on loopback ports."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from flows.processes import marked
from tests.acceptance.api import free_port
from tests.acceptance.conftest import run, run_json, wait_for
from tests.acceptance.databases import PASSWORD, REDIS_PASSWORD, Postgres, Redis, require_databases
from tests.acceptance.test_deploy import Home, take_in, write_day

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(900)]


@dataclass(frozen=True)
class Databases:
    postgres: str
    redis: str


@pytest.fixture(scope="module")
def databases() -> Iterator[Databases]:
    require_databases()
    with Postgres() as url, Redis() as other:
        yield Databases(url, other)


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
        made = home.api.start("ingest/test--notes")
        done = wait_for(lambda: ended(home, made["id"]), 300, "the ingest did not end")
        assert done == "COMPLETED"
        assert home.partitions("test/notes") == {"2024-03-07", "2024-03-08"}
        # Events travel from the processes of the API through Redis to the services: only then a notice is run.
        home.api.start("curate/curate", datasets=["test/nowhere"])
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
