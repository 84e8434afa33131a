"""Tend and notice on a real Prefect server: told once, forgotten when it is mended, and told elsewhere too."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from uuid import UUID

import pytest
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import StateType
from prefect.states import Completed, Crashed, Failed, Pending

from data_contracts.backfill.selection import Request
from data_contracts.notices import Notice, notices
from flows.backfilling.starting import start_deployed
from flows.ended import stuck
from flows.overdue import waiting_bytes
from flows.tend import notice, resumed, tend
from tests.data_contracts.making import write_lines
from tests.flows.test_overdue import promising, take_in
from tests.training.ingested import make
from training.backfilling import plan_backfill, start_backfill
from training.workspace import Workspace

pytestmark = pytest.mark.usefixtures("prefect_server")


def told(workspace: Workspace, kind: str) -> list[Notice]:
    return [n for n in notices(workspace.home) if n.kind == kind]


async def test_text_that_waits_is_told_once_and_again_only_after_a_run_has_taken_it(tmp_path: Path) -> None:
    workspace = make(tmp_path)
    home = str(workspace.root)
    size = waiting_bytes(workspace, ["test/notes"])["test/notes"]
    assert (await tend(home, size + 1, ["test/notes"])).waiting == {"test/notes": size}
    assert told(workspace, "tokens-ready") == []
    await tend(home, size, ["test/notes"])
    (first,) = told(workspace, "tokens-ready")
    assert "test/notes" in first.message and f"{size:,} bytes" in first.message
    await tend(home, size, ["test/notes"])
    assert told(workspace, "tokens-ready") == [first]
    # As when a run has used it: nothing waits any more.
    await tend(home, size + 1, ["test/notes"])
    assert told(workspace, "tokens-ready") == []


async def test_a_late_data_set_is_told_once_and_forgotten_when_what_was_missing_came(tmp_path: Path) -> None:
    workspace, data = Workspace.open(tmp_path / "home"), tmp_path / "data"
    contract = promising(tmp_path / "in", "daily")
    days = [(dt.datetime.now(dt.UTC).date() - dt.timedelta(days=n)).isoformat() for n in range(4)]
    take_in(workspace, contract, data, days[3])
    assert (await tend(str(workspace.root))).late == [f"test/notes {days[2]}"]
    assert (await tend(str(workspace.root))).late == []
    take_in(workspace, contract, data, days[2], days[1], days[0])
    await tend(str(workspace.root))
    assert told(workspace, "partition-late") == []


@pytest.fixture
def webhook() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """An address that keeps what is posted to it."""
    got: list[dict[str, Any]] = []

    class Keeps(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Keeps) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/", got
        server.shutdown()


async def test_a_notice_is_kept_and_goes_to_the_notification_block_if_there_is_one(
    tmp_path: Path, webhook: tuple[str, list[dict[str, Any]]]
) -> None:
    url, got = webhook
    workspace = Workspace.open(tmp_path / "home")
    await notice(str(workspace.root), "run-failed", "train small-1", "Failed: the disk is full")
    (kept,) = notices(workspace.home)
    assert (kept.kind, kept.subject, kept.message) == ("run-failed", "train small-1", "Failed: the disk is full")
    assert got == []
    form = {"subject": "{{subject}}", "body": "{{body}}"}
    block = CustomWebhookNotificationBlock(name="here", url=url, json_data=form)
    await block.save("causeway-notify", overwrite=True)
    await notice(str(workspace.root), "run-failed", "train small-1", "Failed: the disk is full")
    assert got == [{"subject": "Causeway: run-failed", "body": "train small-1: Failed: the disk is full"}]


async def test_a_deployed_run_that_failed_is_put_on_the_list_even_if_no_automation_has_told(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "home")
    async with get_client() as client:
        number = await client.create_flow_from_name("curate")
        deployment = await client.create_deployment(number, "tended", tags=["tended"])
        plain = await client.create_flow_run_from_deployment(deployment, name="curate a", tags=["causeway"])
        of_backfill = await client.create_flow_run_from_deployment(
            deployment, name="ingest b", tags=["causeway", "backfill:bf-1"], parameters={"partition": "b"}
        )
        for run in (plain, of_backfill):
            await client.set_flow_run_state(run.id, Failed(message="no data set 'a'"), force=True)
        await tend(str(workspace.root))
        (kept,) = told(workspace, "run-failed")
        assert (kept.subject, kept.message) == ("curate a", "Failed: no data set 'a'")
        again = await client.create_flow_run_from_deployment(deployment, name="curate a", tags=["causeway"])
        # Notices count whole seconds.
        await asyncio.sleep(1)
        await client.set_flow_run_state(again.id, Completed(), force=True)
    await tend(str(workspace.root))
    assert told(workspace, "run-failed") == []
    await tend(str(workspace.root))
    assert told(workspace, "run-failed") == [], "what was made good is told again"


async def test_a_backfill_whose_run_crashed_or_was_taken_by_a_worker_that_then_died_is_started_again(
    tmp_path: Path,
) -> None:
    workspace, data = Workspace.open(tmp_path / "home"), tmp_path / "data"
    take_in(workspace, promising(tmp_path / "in", "daily"), data, "2026-01-01")
    write_lines(data / "2026-01-02.jsonl", [{"key": "2026-01-02-1", "content": "a note of the second day"}])
    record, _ = start_backfill(workspace, plan_backfill(workspace, "test/notes", Request()).plan)
    async with get_client() as client:
        await client.create_work_pool(WorkPoolCreate(name="stuck", type="process"), overwrite=True)
        number = await client.create_flow_from_name("backfill")
        await client.create_deployment(number, "backfill", work_pool_name="stuck")
        first = UUID(await start_deployed(record))
        await client.set_flow_run_state(first, Pending(name="Submitting"), force=True)
        assert await start_deployed(record) == str(first), "a run that may yet begin is taken for dead"
        now = dt.datetime.now(dt.UTC)
        assert await stuck(now + dt.timedelta(seconds=120)) == []
        await tend(str(workspace.root))
        assert (await client.read_flow_run(first)).state.type == StateType.PENDING
        again = await resumed(workspace, now + dt.timedelta(seconds=240))
        assert again == [record.plan.id]
        ended = (await client.read_flow_run(first)).state
        assert (ended.type, ended.message) == (
            StateType.CRASHED,
            "No process began within 180 s: the worker that took the run is gone",
        )
        second = UUID(await start_deployed(record))
        assert second != first
        assert await resumed(workspace, now) == [], "one that waits for a worker is left to it"
        # As when the worker, or the server for longer than its clients wait, was killed under it.
        await client.set_flow_run_state(second, Crashed(message="Process exited with code -9"), force=True)
        assert (await tend(str(workspace.root))).started == [record.plan.id]
        third = UUID(await start_deployed(record))
        assert third not in (first, second)
        await client.set_flow_run_state(third, Failed(message="the disk is full"), force=True)
        assert await resumed(workspace, now) == [], "what failed waits for a person"
