"""Backfill: take in again what is missing, failed, restated or stale, as one stored and resumable piece of work."""

# No postponed annotations here: a Prefect worker that loads a flow could not resolve the names in them.

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import flow, get_run_logger, runtime
from prefect.artifacts import acreate_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactUpdate

from data_contracts.backfill.plan import Only, Order, Through
from data_contracts.backfill.record import Record
from data_contracts.backfill.selection import Request
from data_contracts.backfill.state import State, state_of
from data_contracts.errors import DataRefused
from flows.backfilling.executor import Executor, Launcher
from flows.backfilling.launchers import Deployed, Subflows, deployment_exists
from flows.backfilling.page import line, plan_page, progress_page
from flows.credentials import load_where_deployed
from flows.curate import curate
from flows.progress import report
from flows.remote import tolerated
from flows.shard import shard
from flows.who import user
from training.backfilling import open_backfill, plan_backfill, start_backfill
from training.planning import RunConfig, load_run_config
from training.workspace import Workspace


def _run_name() -> str:
    given = runtime.flow_run.parameters
    return f"backfill {given.get('resume') or given.get('dataset')}"


@flow(name="backfill", flow_run_name=_run_name)
async def backfill(
    home: str,
    dataset: str = "",
    only: Only = "missing",
    start: str = "",
    end: str = "",
    partitions: Sequence[str] = (),
    max_active: int = 4,
    order: Order = "oldest",
    through: Through = "ingest",
    run_file: str = "",
    reason: str = "",
    resume: str = "",
    breaker: int = 5,
    deployed: bool | None = None,
) -> dict[str, Any]:
    """Backfill a data set, or go on with a backfill.

    Args:
        home: The --home folder.
        dataset: The data set's id; with resume it is not needed.
        only: missing (never taken in), failed, restated (other bytes), stale-contract (an older contract), or all.
        start: The first partition, included; empty for no bound.
        end: The last partition, included; empty for no bound.
        partitions: Only these partitions; empty for every one.
        max_active: How many partitions are worked on at once.
        order: Which are taken first.
        through: How far: ingest, then curate, then shard.
        run_file: The run.toml to shard for; needed with through = shard.
        reason: Why; it is kept with the backfill.
        resume: The id of a backfill to go on with; all else is then as it was planned.
        breaker: So many failures in a row stop it.
        deployed: Run each partition on the workers of its place; None: where this run itself is on a worker.
    """
    await load_where_deployed("home")
    workspace = Workspace.open(Path(home))
    logger = get_run_logger()
    if resume:
        record = await asyncio.to_thread(open_backfill, workspace, resume)
    else:
        config = load_run_config(Path(run_file)) if run_file else None
        if through == "shard" and config is None:
            raise DataRefused("through = shard needs run_file: what to shard for, and for which purpose")
        planned = await asyncio.to_thread(
            plan_backfill,
            workspace,
            dataset,
            Request(only, start, end, tuple(partitions), order),
            through=through,
            max_active=max_active,
            breaker=breaker,
            reason=reason,
            asked_by=user(),
            run=config.model_dump(mode="json") if config else None,
        )
        if planned.existing is not None:
            record = planned.existing
            logger.info("%s does all of this already: going on with it", record.plan.id)
        elif not planned.plan.items:
            logger.info("nothing to backfill; %d partitions are left alone", len(planned.plan.skipped))
            await acreate_markdown_artifact(
                markdown=plan_page(planned.plan),
                key="backfill-nothing",
                description=f"Nothing to backfill of {dataset}",
            )
            return {"id": "", "word": "done", "items": 0}
        else:
            record, _ = await asyncio.to_thread(start_backfill, workspace, planned.plan)
    plan = record.plan
    logger.info("%s: %d partitions of %s, %d left alone", plan.id, len(plan.items), plan.dataset, len(plan.skipped))
    key = f"backfill-{plan.slug}".replace("--", "-")
    await acreate_markdown_artifact(markdown=plan_page(plan), key=f"{key}-plan", description=f"Plan of {plan.id}")
    state = await _execute(workspace, record, key, await _launcher(workspace, record, deployed))
    if state.settled and state.word == "running":
        state = await finish(workspace, record)
    logger.info("%s: %s", plan.id, line(state))
    if state.word in ("failed", "stopped"):
        causes = "\n".join(f"  {c.count} x {c.example}" for c in state.causes[:5])
        then = "causeway backfill retry" if state.word == "failed" else "causeway backfill resume"
        raise DataRefused(f"backfill {plan.id} {line(state)}; {state.said}; then: {then} {plan.id}\n{causes}")
    return {"id": plan.id, "word": state.word, "items": len(state.items), **state.counts}


async def finish(workspace: Workspace, record: Record) -> State:
    """Do the stages that follow the items, each once; they are idempotent themselves."""
    home, plan = str(workspace.root), record.plan
    state = state_of(plan, record.progress())
    if "curate" in state.stages_left:
        await curate(home, [plan.dataset])
        record.finish_stage("curate")
    if "shard" in state.stages_left:
        await shard(home, RunConfig.model_validate(plan.run))
        record.finish_stage("shard")
    return state_of(plan, record.progress())


async def _launcher(workspace: Workspace, record: Record, deployed: bool | None) -> Launcher:
    if deployed is None:
        deployed = bool(runtime.deployment.id)
    if not deployed:
        return Subflows(workspace, record)
    place = await asyncio.to_thread(lambda: workspace.table_place(workspace.contract(record.plan.dataset)).name)
    if not await deployment_exists(place):
        raise DataRefused(f"the server has no deployment ingest-partition/{place}; run: causeway deploy")
    return Deployed(workspace, record, place, get_run_logger())


async def _execute(workspace: Workspace, record: Record, key: str, launcher: Launcher) -> State:
    """Run the items while one artifact shows where they stand."""
    latest: list[State] = [state_of(record.plan, record.progress())]
    made = await acreate_markdown_artifact(
        markdown=progress_page(latest[-1]), key=key, description=f"Backfill {record.plan.id}"
    )
    logger = get_run_logger()
    ended = asyncio.Event()

    def heard(state: State) -> None:
        latest.append(state)
        del latest[:-1]
        done = sum(state.counts[s] for s in ("done", "refused", "failed"))
        report("ingest", done, len(state.items), line(state))

    async def show() -> None:
        shown: State | None = None
        while not ended.is_set():
            if latest[-1] is not shown:
                shown = latest[-1]
                with tolerated("progress page", logger):
                    await _update(made, progress_page(shown))
                logger.info("%s: %s", record.plan.id, line(shown))
            try:
                await asyncio.wait_for(ended.wait(), timeout=3.0)
            except TimeoutError:
                continue

    showing = asyncio.create_task(show())
    try:
        state = await Executor(record, launcher, heard).run()
    finally:
        ended.set()
        await showing
    with tolerated("progress page", logger):
        await _update(made, progress_page(state))
    return state


async def _update(artifact: UUID, text: str) -> None:
    async with get_client() as client:
        await client.update_artifact(artifact_id=artifact, artifact=ArtifactUpdate(data=text))
