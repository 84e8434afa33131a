"""A person overrides a refused partition: a real server, a real worker, the command line."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId
from prefect.utilities.callables import parameter_schema

from data_contracts.catalog.lineage_index import rebuild_index, walk_back
from data_contracts.notices import notices
from flows.override import override
from tests.acceptance.api import free_port
from tests.acceptance.conftest import run, run_json, start, wait_for
from tests.data_contracts.making import make_contract, write_lines
from training.workspace import Workspace

pytestmark = pytest.mark.acceptance
READER = {"format": "jsonl", "partition": {"from": "path", "pattern": r"([^/]+)\.jsonl$"}}
RULE = {"metric": "rowCount", "mustBeGreaterOrEqualTo": 3}
ROWS = [
    {"key": "a", "content": "apple"},
    {"key": "b", "content": "banana"},
    {"key": "c", "content": "no", "note": "secret-value-of-c"},
]
WHY = "a holiday: two reports are all there are"


@dataclass(frozen=True)
class Place:
    """A home with refused partitions, its server and one worker."""

    home: Path
    contract: Path
    source: Path
    client: SyncPrefectClient

    def versions(self, partition: str) -> list[Any]:
        workspace = Workspace.open(self.home)
        return workspace.tables(workspace.contract("test/notes")).versions(partition)


def stop(process: subprocess.Popen[Any]) -> None:
    process.terminate()
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("override")
    home, source = folder / "home", folder / "in"
    contract = make_contract(folder, reader=READER, quality=[RULE]).path
    for day in ("monday", "tuesday"):
        write_lines(source / f"{day}.jsonl", ROWS)
    port = free_port()
    server = start("ui", "--home", home, "--port", str(port))
    url = f"http://127.0.0.1:{port}/api"
    worker = None
    try:
        line = server.stdout.readline() if server.stdout else ""
        assert str(port) in line, server.stderr.read() if server.stderr else ""
        done = run("ingest", contract, source, "--home", home)
        assert "2 of them refused" in done.stdout, done.stderr
        with SyncPrefectClient(url) as client:
            client.create_work_pool(WorkPoolCreate(name="home", type="process"))
            client.create_deployment(
                client.create_flow_from_name("override"),
                "override",
                entrypoint="flows.override.override",
                pull_steps=[],
                work_pool_name="home",
                parameters={"home": str(home)},
                parameter_openapi_schema=parameter_schema(override).model_dump_for_openapi(),
            )
            environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
            environment |= {"PREFECT_API_URL": url, "PREFECT_HOME": str(folder / "worker")}
            unserved = run("override", "request", "test/notes", "monday", "--home", home)
            assert unserved.returncode == 2
            assert "no worker serves the work pool 'home'" in unserved.stderr
            with (folder / "worker.log").open("wb") as log:
                worker = subprocess.Popen(
                    [sys.executable, "-m", "prefect", "worker", "start", "--pool", "home", "--type", "process"],
                    env=environment,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                )
            wait_for(
                lambda: client.request("POST", "/work_pools/home/workers/filter", json={}).json(),
                120,
                "the worker did not come up",
            )
            yield Place(home, contract, source, client)
    finally:
        if worker is not None:
            stop(worker)
        stop(server)


def ask(place: Place, partition: str) -> dict[str, Any]:
    """Request an override and wait until its run waits for a person."""
    asked = run("override", "request", "test/notes", partition, "--home", place.home)
    assert asked.returncode == 0, asked.stderr

    def waits() -> list[dict[str, Any]]:
        listed = run_json("override", "list", "--home", place.home)
        return [row for row in listed if row["partition"] == partition and row["question"]]

    (row,) = wait_for(waits, 180, "no run waits for a person")
    assert row["run"] in asked.stdout
    return dict(row)


def told(place: Place, run_id: str) -> str:
    """What Prefect keeps of a run: its artifacts and its state's message."""
    artifacts = place.client.request(
        "POST",
        "/artifacts/filter",
        json={"artifacts": ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run_id])).model_dump(mode="json")},
    ).json()
    assert len(artifacts) == 2
    assert {a["key"] for a in artifacts} <= {"override-test-notes-monday", "override-test-notes-tuesday"}
    state = place.client.read_flow_run(run_id).state  # type: ignore[arg-type]
    assert state is not None
    return "\n".join([*(str(a["data"]) for a in artifacts), str(state.message)])


def decide(place: Place, what: str, run_id: str, why: str) -> subprocess.CompletedProcess[str]:
    return run("override", what, run_id, "--by", "Ann Berg", "--why", why, "--home", place.home)


@pytest.mark.long
def test_an_approved_override_makes_the_refused_partition_current(place: Place) -> None:
    row = ask(place, "monday")
    assert "partition monday" in row["question"]
    assert "does not hold, 2 rows" in row["question"]
    (notice,) = notices(Workspace.open(place.home).home)
    assert (notice.kind, notice.subject) == ("approval", "test/notes monday")
    again = run("override", "request", "test/notes", "monday", "--home", place.home)
    assert f"waits already, run {row['run']}" in again.stdout

    short = decide(place, "reject", row["run"], "short")
    assert short.returncode == 2
    assert "'why'. Failure reason: 'short' is too short" in short.stderr
    blank = decide(place, "approve", row["run"], " " * 20)
    assert (blank.returncode, len(place.versions("monday"))) == (2, 1)

    approved = decide(place, "approve", row["run"], WHY)
    assert approved.returncode == 0, approved.stderr
    assert f"approved by Ann Berg: {WHY}" in approved.stdout
    workspace = Workspace.open(place.home)
    tables = workspace.tables(workspace.contract("test/notes"))
    version = tables.current()["monday"]
    assert (version.verdict, version.approved_by, version.approved_why) == ("overridden", "Ann Berg", WHY)
    assert sorted(tables.read_accepted(version, ["content"])["content"].to_pylist()) == ["apple", "banana"]

    kept = told(place, row["run"])
    assert f"approved by Ann Berg: {WHY}" in kept
    assert version.published_at in kept
    assert "monday.jsonl:3" in kept
    assert "secret-value-of-c" not in kept
    assert notices(workspace.home) == []
    assert run_json("override", "list", "--home", place.home) == []

    rebuild_index([workspace.store(p.name) for p in workspace.sites.places], place.home / "lineage.sqlite")
    node = f"partition/test/notes/monday@{version.ingest_id[:12]}"
    facts = walk_back(place.home / "lineage.sqlite", node)[0].facets
    assert (facts["verdict"], facts["approved_by"], facts["approved_why"]) == ("overridden", "Ann Berg", WHY)

    repeated = run("ingest", place.contract, place.source, "--home", place.home, "--only", "all")
    assert repeated.returncode == 0, repeated.stderr
    assert [v.verdict for v in place.versions("monday")] == ["refused", "overridden"]
    counted = run_json("quarantine", "test/notes", "--home", place.home)
    assert counted["content.minLength"]["rows"] == 2  # one of each day
    over = run("override", "request", "test/notes", "monday", "--home", place.home)
    assert "already overridden by Ann Berg" in over.stdout


def test_a_rejected_override_leaves_the_partition_refused_and_is_recorded(place: Place) -> None:
    row = ask(place, "tuesday")
    rejected = decide(place, "reject", row["run"], "the file was cut off in transfer")
    assert rejected.returncode == 0, rejected.stderr
    assert "rejected by Ann Berg: the file was cut off in transfer" in told(place, row["run"])
    state = place.client.read_flow_run(row["run"]).state
    assert state is not None
    assert state.is_completed()
    assert [v.verdict for v in place.versions("tuesday")] == ["refused"]
    workspace = Workspace.open(place.home)
    assert notices(workspace.home) == []
    assert decide(place, "approve", row["run"], "after all it is right").returncode == 2


def test_a_run_killed_while_it_waits_is_asked_again(place: Place) -> None:
    first = ask(place, "tuesday")
    pid = place.client.read_flow_run(first["run"]).infrastructure_pid
    assert pid is not None
    os.kill(int(pid.rpartition(":")[2]), signal.SIGKILL)

    def ended() -> bool:
        state = place.client.read_flow_run(first["run"]).state
        return state is not None and state.is_crashed()

    wait_for(ended, 120, "the worker did not see that the run's process is gone")
    late = decide(place, "approve", first["run"], "it came too late for this")
    assert f"no override '{first['run']}' waits" in late.stderr
    second = ask(place, "tuesday")
    assert second["run"] != first["run"]
    assert second["question"] == first["question"]
    assert decide(place, "reject", second["run"], "the file was cut off").returncode == 0
    assert notices(Workspace.open(place.home).home) == []


def test_without_a_server_a_person_is_told_what_to_start(tmp_path: Path) -> None:
    listed = run("override", "list", "--home", tmp_path / "home")
    assert listed.returncode == 2
    assert "no Prefect server is up" in listed.stderr
    assert "causeway up" in listed.stderr
