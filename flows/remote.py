"""Runs of other deployments: started once however often they are asked for, found again, waited for.

What a deployment may use of the folder, it knows itself: nothing here sends a `home`.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from uuid import UUID, uuid4

import httpx
from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterName,
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterParentFlowRunId,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
    LogFilter,
    LogFilterFlowRunId,
    LogFilterTimestamp,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.deployments import arun_deployment
from prefect.exceptions import ObjectNotFound
from prefect.types import DateTime

from data_contracts.errors import StoreError

REFUSED = "Refused"  # name of the Failed state of a run that policy stopped: it is never started again
LEFT = "Left"  # name of the Completed state of a site's run that ended because it is no member of the run now
PAUSED = "Paused"  # name of the Completed state of a run that ended because its run of training is paused
POLL_S = 2.0
TERMINAL = (StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED)
PAGE = 200  # the most runs that the API lists at once


@contextmanager
def tolerated(what: str, logger: Any) -> Iterator[None]:
    """Let an API that cannot be reached pass with a line in the log: whoever asked asks again later."""
    try:
        yield
    except httpx.HTTPStatusError as error:
        if error.response.status_code < 500:
            raise
        logger.warning("%s: the Prefect API answers %d; trying again", what, error.response.status_code)
    except httpx.TransportError as error:
        logger.warning("%s: the Prefect API cannot be reached (%s); trying again", what, type(error).__name__)


def tags(run: str, site: str | None = None) -> list[str]:
    """Return the tags of a flow run that works for a run of training, at one site or for all of them."""
    return ["causeway", f"run:{run}"] + ([f"site:{site}"] if site else [])


def state_of(run: FlowRun) -> State[Any]:
    """Return a run's state.

    Raises:
        StoreError: the server holds none, which no run of a deployment should show.
    """
    if run.state is None:
        raise StoreError(f"flow run {run.name} has no state on the Prefect server; delete it there")
    return run.state


async def runs_of(
    client: PrefectClient, deployment: str, parameters: dict[str, Any], tagged: Sequence[str] = (), live: bool = False
) -> list[FlowRun]:
    """Return the runs of a deployment (`flow/deployment`) that have these parameters, the newest first.

    `live` leaves out those that have ended.
    """
    flow, _, name = deployment.partition("/")
    ended = FlowRunFilterStateType(not_any_=list(TERMINAL))
    found = await client.read_flow_runs(
        flow_filter=FlowFilter(name=FlowFilterName(any_=[flow])),
        deployment_filter=DeploymentFilter(name=DeploymentFilterName(any_=[name])),
        flow_run_filter=FlowRunFilter(
            tags=FlowRunFilterTags(all_=list(tagged)) if tagged else None,
            state=FlowRunFilterState(type=ended) if live else None,
        ),
        sort=FlowRunSort.EXPECTED_START_TIME_DESC,
        limit=PAGE,
    )
    return [r for r in found if all(r.parameters.get(name) == value for name, value in parameters.items())]


async def start_run(
    deployment: str, parameters: dict[str, Any], tagged: Sequence[str], name: str, key: str, known: int
) -> FlowRun:
    """Start a run of a deployment; two that start it at the same moment get the same one.

    `known` runs with this `key` were seen to have ended. Prefect returns the old run of an idempotency key whatever
    its state, so the key ends with a number, and the next number is tried when that run has ended too.
    """
    while True:
        run = await arun_deployment(
            deployment,
            parameters=parameters,
            timeout=0,
            as_subflow=False,
            tags=list(tagged),
            idempotency_key=f"{key} {known}",
            flow_run_name=name,
        )
        if not state_of(run).is_final():
            return run
        known += 1


async def run_to_end(
    deployment: str, parameters: dict[str, Any], tagged: Sequence[str], name: str, logger: Any
) -> State[Any]:
    """Start a run of a deployment, or find the live one with these parameters; return the state it ends in.

    A run that no worker takes is waited for; an API that cannot be reached is asked again.
    """
    async with get_client() as client:
        run: FlowRun | None = None
        said = ""
        while True:
            with tolerated(name, logger):
                if run is None:
                    runs = await runs_of(client, deployment, parameters, tagged)
                    alive = [r for r in runs if not state_of(r).is_final()]
                    key = f"{name} {sorted(parameters.items())}"
                    run = alive[0] if alive else await start_run(deployment, parameters, tagged, name, key, len(runs))
                run = await client.read_flow_run(run.id)
                state = state_of(run)
                if state.is_final():
                    return state
                if state.name != said:
                    said = str(state.name)
                    logger.info("%s: %s%s", name, said, waiting_words(run) if said == "Late" else "")
            await asyncio.sleep(POLL_S)


async def follow(deployment: str, parameters: dict[str, Any], name: str) -> State[Any]:
    """Start a run of a deployment, or find the live one, and print to stderr what it and its subflows log."""
    async with get_client() as client:
        alive = await runs_of(client, deployment, parameters, live=True)
    run = alive[0] if alive else await start_run(deployment, parameters, ["causeway"], name, f"{name} {uuid4()}", 0)
    seen: set[UUID | None] = set()
    since: DateTime | None = None
    while True:
        await asyncio.sleep(POLL_S)
        try:
            async with get_client() as client:
                state = state_of(await client.read_flow_run(run.id))
                parents = FlowRunFilterParentFlowRunId(any_=[run.id])
                parts = await client.read_flow_runs(
                    flow_run_filter=FlowRunFilter(parent_flow_run_id=parents), sort=FlowRunSort.ID_DESC, limit=PAGE
                )
                ids = LogFilterFlowRunId(any_=[run.id, *(part.id for part in parts)])
                after = LogFilterTimestamp(after_=since) if since else None
                lines = await client.read_logs(LogFilter(flow_run_id=ids, timestamp=after), limit=PAGE, offset=0)
        except httpx.TransportError:
            continue
        for line in (one for one in lines if one.id not in seen):
            sys.stderr.write(f"{line.timestamp:%H:%M:%S} {line.message}\n")
            seen.add(line.id)
            since = line.timestamp
        if state.is_final():
            return state


def waiting_words(run: FlowRun) -> str:
    """What to do about a run that no worker has taken."""
    pool = run.work_pool_name or "its work pool"
    return f": no worker takes it; start one: prefect worker start --pool {pool}"


async def continue_training(run: str) -> tuple[FlowRun, bool] | None:
    """Start the train deployment for a run, unless a run of it lives; None when there is no such deployment.

    Returns the flow run, and whether it is new.
    """
    parameters = {"run": run}
    async with get_client() as client:
        try:
            await client.read_deployment_by_name("train/train")
        except ObjectNotFound:
            return None
        for _ in range(5):
            # One that saw the pause may be about to end: look again before it is left to go on.
            alive = await runs_of(client, "train/train", parameters, live=True)
            if not alive:
                break
            await asyncio.sleep(POLL_S)
        else:
            return alive[0], False
        ended = await runs_of(client, "train/train", parameters)
    given = {**parameters, "deployed": True}
    return await start_run("train/train", given, tags(run), f"train {run}", f"train {run}", len(ended)), True
