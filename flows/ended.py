"""How deployed runs ended: which failed and were not made good since, which have died, which never began."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from itertools import takewhile

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterEndTime,
    FlowRunFilterName,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.states import Crashed

from flows.backfilling.starting import EXECUTOR
from flows.deploying.thing import TAG
from flows.remote import PAGE, runs_of, state_of
from flows.site_process import MAX_RESTARTS

TRAIN = "train/train"
# A look a minute; more of them, for a machine that was busy.
LOOK_BACK = dt.timedelta(minutes=10)
# From when a worker took a run to when its process begins: seconds, on a busy machine half a minute.
SUBMITTED = dt.timedelta(seconds=180)


async def failures(known: Mapping[str, dt.datetime], now: dt.datetime) -> tuple[dict[str, str], set[str]]:
    """Return the runs that failed lately, with what they said, and those of `known` that were made good since.

    Runs are told apart by name; `known` says since when one is known to have failed. One is made good when another of
    its name has come to its end. The automation that tells of failures is faster, but a server on SQLite may lose the
    event that it waits for.
    """
    async with get_client() as client:
        lately = FlowRunFilter(
            tags=FlowRunFilterTags(all_=[TAG]),
            end_time=FlowRunFilterEndTime.model_validate({"after_": now - LOOK_BACK}),
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.FAILED, StateType.CRASHED])),
        )
        found = await client.read_flow_runs(flow_run_filter=lately, sort=FlowRunSort.END_TIME_DESC, limit=PAGE)
        failed = {run.name: run for run in reversed(found) if _tells(run)}
        if not failed and not known:
            return {}, set()
        good = FlowRunFilter(
            name=FlowRunFilterName(any_=sorted({*failed, *known})),
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.COMPLETED])),
        )
        completed = await client.read_flow_runs(flow_run_filter=good, sort=FlowRunSort.END_TIME_DESC, limit=PAGE)
    last = {run.name: run.end_time for run in reversed(completed) if run.end_time}
    fresh = {
        name: f"{state_of(run).name}: {state_of(run).message}"
        for name, run in failed.items()
        if name not in known and run.end_time and (name not in last or last[name] < run.end_time)
    }
    return fresh, {name for name, since in known.items() if name in last and last[name] > since}


def _tells(run: FlowRun) -> bool:
    """Say whether a run is one that a person is told of: a backfill tells of its partitions itself."""
    of_backfill = any(tag.startswith("backfill:") for tag in run.tags) and "partition" in run.parameters
    return run.deployment_id is not None and not of_backfill and not run.name.startswith("notice ")


async def died() -> list[str]:
    """Return the runs of training of which the last thing known is that their flow run crashed.

    Also those whose rounds are all made: what is left is to record them. One that failed or that a person cancelled
    stays where it is, and so does one that has crashed too often in a row.
    """
    async with get_client() as client:
        found = await runs_of(client, TRAIN, {})
    by_run: dict[str, list[FlowRun]] = {}
    for one in found:
        by_run.setdefault(str(one.parameters.get("run")), []).append(one)
    return _crashed_last(by_run)


async def left() -> list[str]:
    """Return the backfills (ids) of which the last thing known is that the run which executed them crashed.

    Its worker or the server was killed, or the server did not answer as it began. One that has crashed too often in a
    row stays where it is.
    """
    async with get_client() as client:
        executing = FlowRunFilter(tags=FlowRunFilterTags(all_=[TAG, EXECUTOR]))
        found = await client.read_flow_runs(
            flow_run_filter=executing, sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=PAGE
        )
    by_backfill: dict[str, list[FlowRun]] = {}
    for one in found:
        for tag in one.tags:
            if tag.startswith("backfill:"):
                by_backfill.setdefault(tag.removeprefix("backfill:"), []).append(one)
    return _crashed_last(by_backfill)


def _crashed_last(newest_first: Mapping[str, list[FlowRun]]) -> list[str]:
    crashed = {name: list(takewhile(lambda r: state_of(r).is_crashed(), runs)) for name, runs in newest_first.items()}
    return [name for name, times in crashed.items() if 0 < len(times) <= MAX_RESTARTS]


async def stuck(now: dt.datetime) -> list[FlowRun]:
    """End the deployed runs that a worker took and whose process never began, and return them.

    A worker that is killed between the two leaves its run Pending: no other worker takes it, and no heartbeat is
    missed, so the automation on zombies does not see it. As it is Crashed, a process that begins after all is refused.
    """
    async with get_client() as client:
        pending = FlowRunFilter(
            tags=FlowRunFilterTags(all_=[TAG]),
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PENDING])),
        )
        found = await client.read_flow_runs(flow_run_filter=pending, sort=FlowRunSort.ID_DESC, limit=PAGE)
        # Where a container is started an image may be fetched first; what runs it tells what becomes of it.
        processes = {pool.name for pool in await client.read_work_pools(limit=PAGE) if pool.type == "process"}
        old = [run for run in found if run.work_pool_name in processes and now - state_of(run).timestamp > SUBMITTED]
        for run in old:
            message = f"No process began within {SUBMITTED.seconds} s: the worker that took the run is gone"
            await client.set_flow_run_state(run.id, Crashed(message=message), force=True)
    return old
