"""What a Prefect server holds of ours, in the same words as what should be."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar
from uuid import UUID

from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.filters import WorkQueueFilter
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule
from prefect.client.schemas.sorting import AutomationSort, DeploymentSort
from prefect.events.schemas.automations import Automation, EventTrigger

from flows.deploying.thing import PREFIX, TAG, Thing

T = TypeVar("T")
PAGE = 200  # the most that the API lists at once


@dataclass
class Server:
    """The Things of a server, and what is needed to change them. Deployments are keyed `flow/deployment`."""

    things: list[Thing] = field(default_factory=list)
    queues: dict[str, UUID] = field(default_factory=dict)
    deployments: dict[str, UUID] = field(default_factory=dict)
    automations: dict[str, Automation] = field(default_factory=dict)


async def read_server(client: PrefectClient) -> Server:
    """Read the server: all pools and queues, and the deployments and automations that are ours."""
    server = Server()
    for pool in await _all(client.read_work_pools):
        fields = {"type": pool.type, "description": pool.description, "base_job_template": pool.base_job_template}
        server.things.append(Thing("pool", pool.name, fields))
        read = partial(client.read_work_queues, work_pool_name=pool.name, work_queue_filter=WorkQueueFilter())
        for queue in await _all(read):
            name = f"{pool.name}/{queue.name}"
            server.queues[name] = queue.id
            said = {k: getattr(queue, k) for k in ("priority", "description", "concurrency_limit")}
            server.things.append(Thing("queue", name, said))
    deployments = await _all(partial(client.read_deployments, sort=DeploymentSort.NAME_ASC))
    flows = {number: (await client.read_flow(number)).name for number in {d.flow_id for d in deployments}}
    for deployment in deployments:
        name = f"{flows[deployment.flow_id]}/{deployment.name}"
        server.deployments[name] = deployment.id
        if TAG in deployment.tags:
            server.things.append(Thing("deployment", name, _deployment(deployment)))
    names = {str(found): name for name, found in server.deployments.items()}
    for automation in await _all(partial(client.read_automations, sort=AutomationSort.NAME_ASC)):
        if automation.name.startswith(PREFIX):
            server.automations[automation.name] = automation
            server.things.append(Thing("automation", automation.name, _automation(automation, names)))
    return server


async def _all(read: Callable[..., Awaitable[list[T]]]) -> list[T]:
    found: list[T] = []
    while len(page := await read(limit=PAGE, offset=len(found))) == PAGE:
        found += page
    return found + page


def _deployment(found: DeploymentResponse) -> dict[str, Any]:
    limit, options = found.global_concurrency_limit, found.concurrency_options
    return {
        "entrypoint": found.entrypoint,
        "description": found.description,
        "tags": sorted(found.tags),
        "work_pool_name": found.work_pool_name,
        "work_queue_name": found.work_queue_name,
        "job_variables": found.job_variables,
        "parameters": found.parameters,
        "parameter_openapi_schema": found.parameter_openapi_schema,
        "enforce_parameter_schema": found.enforce_parameter_schema,
        "concurrency_limit": limit.limit if limit else None,
        "collision_strategy": options.collision_strategy.value if options else None,
        "schedules": [_schedule(s) for s in sorted(found.schedules, key=lambda s: s.slug or "")],
    }


def _schedule(found: DeploymentSchedule) -> dict[str, Any]:
    schedule = found.schedule
    if isinstance(schedule, CronSchedule):
        return {"cron": schedule.cron, "timezone": schedule.timezone, "slug": found.slug}
    if isinstance(schedule, IntervalSchedule):
        anchor = schedule.anchor_date.isoformat().replace("+00:00", "Z")
        every = schedule.interval.total_seconds()
        return {"interval_s": every, "anchor_date": anchor, "timezone": schedule.timezone, "slug": found.slug}
    # Of another kind: not one of ours.
    return {**schedule.model_dump(mode="json"), "slug": found.slug}


def _automation(found: Automation, names: dict[str, str]) -> dict[str, Any]:
    document = found.model_dump(mode="json")
    trigger = document["trigger"]
    if isinstance(found.trigger, EventTrigger):
        kept = ("type", "posture", "match", "match_related", "for_each", "threshold")
        said = {name: trigger[name] for name in kept}
        said["after"], said["expect"] = sorted(trigger["after"]), sorted(trigger["expect"])
        said["for_each"] = sorted(said["for_each"])
        said["within"] = int(found.trigger.within.total_seconds())
        related = said["match_related"]
        said["match_related"] = related if isinstance(related, list) else [related] if related else []
        trigger = said
    actions = [_action(action, names) for action in document["actions"]]
    return {
        "description": found.description,
        "tags": found.tags,
        "trigger": trigger,
        "actions": actions,
    }


def _action(action: dict[str, Any], names: dict[str, str]) -> dict[str, Any]:
    if action["type"] != "run-deployment":
        return action
    target = action["deployment_id"]
    return {
        "type": action["type"],
        "deployment": names.get(str(target), str(target)),
        "parameters": action["parameters"],
    }
