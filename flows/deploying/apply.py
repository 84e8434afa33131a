"""Changes, made on a Prefect server."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.actions import (
    DeploymentScheduleCreate,
    DeploymentScheduleUpdate,
    DeploymentUpdate,
    WorkPoolCreate,
    WorkPoolUpdate,
)
from prefect.client.schemas.objects import ConcurrencyLimitStrategy, ConcurrencyOptions
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
from prefect.events.schemas.automations import AutomationCore

from data_contracts.errors import CausewayError
from flows.deploying.actual import Server
from flows.deploying.compare import Change

# A new pool has the queue `default` at priority 1, and two queues cannot share a number: it moves before the others
# come, and these come from the last to the first.
_QUEUE_ORDER = ("default", "backfill", "scheduled")


async def apply(client: PrefectClient, changes: Sequence[Change], server: Server) -> None:
    """Make the changes, in their order; made again, they are harmless.

    Raises:
        CausewayError: a pool is there with another type.
    """
    for change in [c for c in changes if c.kind == "pool"]:
        await _pool(client, change)
    queues = [c for c in changes if c.kind == "queue"]
    for change in sorted(queues, key=lambda c: _QUEUE_ORDER.index(c.thing.name.rpartition("/")[2])):
        await _queue(client, change, server)
    for change in [c for c in changes if c.kind == "deployment"]:
        await _deployment(client, change, server)
    for change in [c for c in changes if c.kind == "automation"]:
        await _automation(client, change, server)


async def _pool(client: PrefectClient, change: Change) -> None:
    name, fields = change.thing.name, change.thing.fields
    if change.action == "add":
        await client.create_work_pool(WorkPoolCreate(name=name, **fields))
        return
    update = change.fields()
    if "type" in update:
        old = next(d.old for d in change.differences if d.field == "type")
        raise CausewayError(
            f"work pool {name!r} is of type {old}, sites.toml and --pool-type say {fields['type']}; delete the pool in"
            " the UI when nothing of it runs, or give the place another work_pool"
        )
    await client.update_work_pool(name, WorkPoolUpdate(**update))


async def _queue(client: PrefectClient, change: Change, server: Server) -> None:
    pool, _, name = change.thing.name.rpartition("/")
    known = server.queues.get(change.thing.name)
    if known is None and name == "default":
        # It came with the pool.
        known = (await client.read_work_queue_by_name("default", work_pool_name=pool)).id
    if known is None:
        await client.create_work_queue(name, work_pool_name=pool, **change.thing.fields)
    else:
        await client.update_work_queue(known, **change.thing.fields)


async def _deployment(client: PrefectClient, change: Change, server: Server) -> None:
    flow, _, name = change.thing.name.partition("/")
    if change.action == "remove":
        await client.delete_deployment(server.deployments.pop(change.thing.name))
    elif change.action == "add":
        fields = _prefect_words(change.thing.fields)
        fields["schedules"] = [DeploymentScheduleCreate(**s) for s in fields["schedules"]]
        found = await client.create_flow_from_name(flow)
        server.deployments[change.thing.name] = await client.create_deployment(found, name, pull_steps=[], **fields)
    else:
        known = next(t.fields for t in server.things if t.key == change.thing.key)
        # What the operator added of his own stays.
        whole = {k: {**known[k], **v} if isinstance(v, Mapping) else v for k, v in change.fields().items()}
        if "parameter_openapi_schema" in whole:
            whole["parameter_openapi_schema"] = change.thing.fields["parameter_openapi_schema"]
        if {"work_pool_name", "work_queue_name"} & set(whole):
            whole |= {k: change.thing.fields[k] for k in ("work_pool_name", "work_queue_name")}
        if {"concurrency_limit", "collision_strategy"} & set(whole):
            whole |= {k: change.thing.fields[k] for k in ("concurrency_limit", "collision_strategy")}
        fields = _prefect_words(whole)
        if "schedules" in fields:
            fields["schedules"] = [DeploymentScheduleUpdate(**s) for s in fields["schedules"]]
        await client.update_deployment(server.deployments[change.thing.name], DeploymentUpdate(**fields))


def _prefect_words(fields: Mapping[str, Any]) -> dict[str, Any]:
    made = dict(fields)
    strategy = made.pop("collision_strategy", None)
    if strategy is not None:
        made["concurrency_options"] = ConcurrencyOptions(collision_strategy=ConcurrencyLimitStrategy(strategy))
    if "schedules" in made:
        made["schedules"] = [{"schedule": _schedule(s), "slug": s["slug"], "active": True} for s in made["schedules"]]
    return made


def _schedule(said: Mapping[str, Any]) -> CronSchedule | IntervalSchedule:
    if "cron" in said:
        return CronSchedule(cron=said["cron"], timezone=said["timezone"])
    anchor = dt.datetime.fromisoformat(said["anchor_date"])
    every = dt.timedelta(seconds=said["interval_s"])
    return IntervalSchedule(interval=every, anchor_date=anchor, timezone=said["timezone"])


async def _automation(client: PrefectClient, change: Change, server: Server) -> None:
    known = server.automations.get(change.thing.name)
    if change.action == "remove":
        if known is not None:
            await client.delete_automation(known.id)
        return
    actions = [_action(action, server) for action in change.thing.fields["actions"]]
    core = AutomationCore(name=change.thing.name, **{**change.thing.fields, "actions": actions})
    if known is None:
        await client.create_automation(core)
    else:
        # One that a person has switched off stays off.
        await client.update_automation(known.id, core.model_copy(update={"enabled": known.enabled}))


def _action(action: Mapping[str, Any], server: Server) -> dict[str, Any]:
    if "deployment" not in action:
        return dict(action)
    rest = {k: v for k, v in action.items() if k != "deployment"}
    return {**rest, "source": "selected", "deployment_id": str(server.deployments[action["deployment"]])}
