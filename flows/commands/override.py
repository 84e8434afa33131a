"""Commands on overrides: ask a person for a decision on a refused partition, see what waits, decide."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from flows.commands import DEFAULT_HOME, Home, Json, print_json, print_table

if TYPE_CHECKING:
    from prefect.client.orchestration import PrefectClient
    from prefect.client.schemas.objects import FlowRun

T = TypeVar("T")
DEPLOYMENT = "override/override"
# From the decision to the end of the run: it looks every 5 s, then publishes one row.
DECIDED_TIMEOUT_S = 180


def request(dataset: str, partition: str, *, ingest_id: str = "", home: Home = DEFAULT_HOME) -> int:
    """Ask a person whether a refused partition is published all the same: starts a run that waits for the answer.

    Needs the Prefect server of this folder and its workers (causeway up). A partition has one request at a time.

    Examples:
        causeway override request healthcare/covid19-daily-reports 2020-03-22

    Parameters
    ----------
    ingest_id:
        The refused version, or how its ingest_id begins; by default the newest refused one.
    """
    from data_contracts.overriding import overridden_version, refused_version
    from training.workspace import Workspace

    workspace = Workspace.open(home)
    tables = workspace.tables(workspace.contract(dataset))
    refused = refused_version(tables, partition, ingest_id)
    done = overridden_version(tables, refused)
    if done is not None:
        print(f"{dataset} {partition}: already overridden by {done.approved_by} at {done.published_at}")
        return 0
    known, run = _ask(home, _request(str(home.absolute()), dataset, partition, refused.ingest_id))
    print(f"{dataset} {partition}: {'waits already' if known else 'asked'}, run {run.id}")
    print(f"Decide in the Prefect UI, or: causeway override approve|reject {run.id} --by NAME --why TEXT")
    return 0


def waiting(*, home: Home = DEFAULT_HOME, json: Json = False) -> int:
    """List the override runs that wait for a person, with what is decided.

    Examples:
        causeway override list
        causeway override list --json
    """
    rows = _ask(home, _waiting(str(home.absolute())))
    if json:
        print_json(rows)
    elif rows:
        columns = ["run", "dataset", "partition", "since", "question"]
        print_table("waiting for a person", columns, [[row[c] for c in columns] for row in rows])
    else:
        print("no override waits for a person")
    return 0


def approve(run_id: str, *, by: str, why: str, home: Home = DEFAULT_HOME) -> int:
    """Publish the refused partition that a run asks about; your name and reason are recorded with the version.

    Examples:
        causeway override approve 0197a1b2-6f0e-7c3d-9a57-2f1d6c0e4b11 --by "Ann Berg" --why "a holiday, few reports"

    Parameters
    ----------
    run_id:
        The run, as `causeway override list` shows it.
    by:
        Your name.
    why:
        Why this is right, at least 10 characters.
    """
    return _decide(home, run_id, True, by, why)


def reject(run_id: str, *, by: str, why: str, home: Home = DEFAULT_HOME) -> int:
    """Leave the partition that a run asks about refused; your name and reason are recorded with the run.

    Examples:
        causeway override reject 0197a1b2-6f0e-7c3d-9a57-2f1d6c0e4b11 --by "Ann Berg" --why "the file is cut off"

    Parameters
    ----------
    run_id:
        The run, as `causeway override list` shows it.
    by:
        Your name.
    why:
        Why this is right, at least 10 characters.
    """
    return _decide(home, run_id, False, by, why)


def _decide(home: Path, run_id: str, yes: bool, by: str, why: str) -> int:
    print(_ask(home, _resume(str(home.absolute()), run_id, {"approve": yes, "name": by, "why": why})))
    return 0


def _ask(home: Path, work: Coroutine[Any, Any, T]) -> T:
    """Run work against the folder's server."""
    from data_contracts.errors import CausewayError
    from flows.server import read_state, use_running

    use_running(home)
    state = read_state(home)
    if state is not None and state.alive("server"):
        # A busy server may be slower than `use_running` waits; there is no use for an embedded one here.
        os.environ.setdefault("PREFECT_API_URL", state.url)
    if "PREFECT_API_URL" not in os.environ:
        work.close()
        raise CausewayError(f"no Prefect server is up for {home.absolute()}; start it with its workers: causeway up")
    import httpx

    try:
        return asyncio.run(work)
    except httpx.TransportError as error:
        url = os.environ["PREFECT_API_URL"]
        raise CausewayError(f"the Prefect server at {url} does not answer: {type(error).__name__}") from error


async def _request(home: str, dataset: str, partition: str, ingest_id: str) -> tuple[bool, FlowRun]:
    """Start the run, or return (True, the one that waits)."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.objects import WorkerStatus
    from prefect.exceptions import ObjectNotFound

    from data_contracts.canonical import document_sha
    from data_contracts.errors import CausewayError

    name = f"override {dataset} {partition}"
    async with get_client() as client:
        try:
            deployment = await client.read_deployment_by_name(DEPLOYMENT)
        except ObjectNotFound:
            raise CausewayError(f"the server has no deployment {DEPLOYMENT}; make it: causeway up") from None
        pool = deployment.work_pool_name or ""
        workers = await client.read_workers_for_work_pool(pool, offset=0, limit=50) if pool else []
        if not any(worker.status == WorkerStatus.ONLINE for worker in workers):
            raise CausewayError(f"no worker serves the work pool {pool!r}, so nobody would be asked; run: causeway up")
        runs = await _runs(client, home, name=name)
        open_runs = [run for run in runs if run.state is None or not run.state.is_final()]
        if open_runs:
            return True, open_runs[0]
        # Two people who ask at once get one run; after an end, a new one: Prefect knows a key for ever.
        last = str(runs[0].id) if runs else "first"
        run = await client.create_flow_run_from_deployment(
            deployment.id,
            name=name,
            parameters={"home": home, "dataset": dataset, "partition": partition, "ingest_id": ingest_id},
            tags=["causeway", f"dataset:{dataset}"],
            idempotency_key=document_sha([home, dataset, partition, ingest_id, last]),
        )
    return False, run


async def _waiting(home: str) -> list[dict[str, Any]]:
    from prefect.client.orchestration import get_client
    from prefect.input.actions import aread_flow_run_input

    rows = []
    async with get_client() as client:
        for run in await _runs(client, home, paused=True):
            state = run.state
            if state is None or not state.is_paused():
                continue
            question = ""
            keys = state.state_details.run_input_keyset
            if keys:
                question = await aread_flow_run_input(keys["description"], flow_run_id=run.id) or ""
            until = state.state_details.pause_timeout
            rows.append(
                {
                    "run": str(run.id),
                    "dataset": run.parameters.get("dataset"),
                    "partition": run.parameters.get("partition"),
                    "since": state.timestamp.isoformat(timespec="seconds"),
                    "until": until.isoformat(timespec="seconds") if until else None,
                    "question": question,
                }
            )
    return rows


async def _resume(home: str, run_id: str, answer: dict[str, Any]) -> str:
    """Give a run its answer and follow it to its end; return what it says."""
    import time
    from uuid import UUID

    from prefect.client.orchestration import get_client
    from prefect.client.schemas.responses import SetStateStatus

    from data_contracts.errors import CausewayError

    async with get_client() as client:
        runs = {str(run.id): run for run in await _runs(client, home, paused=True)}
        if run_id not in runs:
            waits = ", ".join(runs) or "none"
            raise CausewayError(f"no override {run_id!r} waits for a person; waiting: {waits}")
        result = await client.resume_flow_run(UUID(run_id), run_input=answer)
        if result.status != SetStateStatus.ACCEPT:
            reason = str(getattr(result.details, "reason", result.status)).removeprefix("Reason: ")
            raise CausewayError(
                f"the form of run {run_id} does not take this: {reason}; "
                "give a name of at least 2 characters and a reason of at least 10"
            )
        ends = time.monotonic() + DECIDED_TIMEOUT_S
        while time.monotonic() < ends:
            state = (await client.read_flow_run(UUID(run_id))).state
            if state is not None and state.is_completed():
                return f"{runs[run_id].name}: {state.message}"
            if state is not None and state.is_final():
                raise CausewayError(f"{runs[run_id].name}: {state.name}: {state.message}")
            await asyncio.sleep(1)
    raise CausewayError(
        f"run {run_id} took the answer but did not end in {DECIDED_TIMEOUT_S} s: see it in the Prefect UI; "
        "when its process is gone the answer is lost: cancel the run and request the override again"
    )


async def _runs(client: PrefectClient, home: str, *, name: str | None = None, paused: bool = False) -> list[FlowRun]:
    """Return this folder's override runs, newest first."""
    from prefect.client.schemas import filters
    from prefect.client.schemas.objects import StateType
    from prefect.client.schemas.sorting import FlowRunSort

    wanted = filters.FlowRunFilter(
        name=filters.FlowRunFilterName(any_=[name]) if name else None,
        state=filters.FlowRunFilterState(type=filters.FlowRunFilterStateType(any_=[StateType.PAUSED]))
        if paused
        else None,
    )
    found = await client.read_flow_runs(
        flow_filter=filters.FlowFilter(name=filters.FlowFilterName(any_=["override"])),
        flow_run_filter=wanted,
        sort=FlowRunSort.EXPECTED_START_TIME_DESC,
        limit=200,
    )
    return [run for run in found if run.parameters.get("home") == home]
