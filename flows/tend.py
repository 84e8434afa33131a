"""Tend: once a minute, what nobody would notice. Notice: what needs a person, kept and told."""

# No postponed annotations here: a Prefect worker that loads a flow could not resolve the names in them.

import asyncio
import datetime as dt
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.blocks.abstract import NotificationBlock
from prefect.blocks.core import Block
from prefect.client.orchestration import get_client
from prefect.events import emit_event

from data_contracts.backfill.state import state_of
from data_contracts.errors import CausewayError
from data_contracts.notices import clear_notice, notices, put_notice
from flows.backfilling.starting import start_deployed
from flows.ended import died, failures, left, stuck
from flows.overdue import LATE, READY, late, waiting_bytes
from flows.remote import continue_training
from training.backfilling import open_backfill
from training.rounds.control import read_control
from training.workspace import Workspace

NOTIFY = "causeway-notify"
FAILED = "run-failed"


@dataclass
class Tended:
    """What one look found: subjects that became late, bytes that wait by data set, runs that were started again.

    Started again are runs of training, and backfills whose executing run crashed or never began.
    """

    late: list[str] = field(default_factory=list)
    waiting: dict[str, int] = field(default_factory=dict)
    started: list[str] = field(default_factory=list)


@flow(name="tend", flow_run_name="tend")
async def tend(home: str, tokens_ready_bytes: int = 5_000_000, datasets: list[str] = []) -> Tended:  # noqa: B006
    """Look for late partitions, text that waits for a run of training, runs that failed, and training that died.

    Args:
        home: The --home folder.
        tokens_ready_bytes: From how many bytes of text on, that no run has used, a run is worth it.
        datasets: Data sets whose text counts besides those that a run uses already.
    """
    workspace = Workspace.open(Path(home))
    now = dt.datetime.now(dt.UTC)
    done = Tended()
    done.late = await _late(workspace, now)
    done.started = await resumed(workspace, now)
    for name in done.started:
        get_run_logger().warning("backfill %s: the run that executed it has crashed; started again", name)
    await _failed(workspace, now)
    done.waiting = await asyncio.to_thread(waiting_bytes, workspace, datasets)
    await _ready(workspace, done.waiting, tokens_ready_bytes, now)
    for run in await died():
        if (
            read_control(workspace.home, run).state == "running"
            and (again := await continue_training(run))
            and again[1]
        ):
            done.started.append(run)
    get_run_logger().info(
        "%d data sets became late, %d bytes wait for a run, %d runs started again",
        *(len(done.late), sum(done.waiting.values()), len(done.started)),
    )
    return done


async def resumed(workspace: Workspace, now: dt.datetime) -> list[str]:
    """Start again the backfills whose executing run crashed, or never began though a worker took it; return them."""
    await stuck(now)
    started = []
    for name in await left():
        try:
            record = open_backfill(workspace, name)
        except CausewayError:
            continue  # of another home folder on the same server
        # One that was paused, cancelled or has ended meanwhile stays so.
        if state_of(record.plan, record.progress()).word == "running":
            await start_deployed(record)
            started.append(name)
    return started


async def _late(workspace: Workspace, now: dt.datetime) -> list[str]:
    """Tell of each data set that became late, once; forget those that came."""
    found = {one.subject: one for one in await asyncio.to_thread(late, workspace, now)}
    known = {n.subject for n in notices(workspace.home) if n.kind == LATE}
    for subject in known - found.keys():
        clear_notice(workspace.home, LATE, subject)
    fresh = [one for subject, one in found.items() if subject not in known]
    for one in fresh:
        # Told first, remembered after: killed in between it is told twice, not never.
        _emit("causeway.partition.late", f"causeway.dataset.{one.slug}", one.subject, one.message)
        put_notice(workspace.home, LATE, one.subject, one.message, now)
        get_run_logger().warning("%s", one.message)
    return [one.subject for one in fresh]


async def _failed(workspace: Workspace, now: dt.datetime) -> None:
    """Put deployed runs that failed on the list, and take off those that were made good."""
    known = {n.subject: dt.datetime.fromisoformat(n.since) for n in notices(workspace.home) if n.kind == FAILED}
    fresh, mended = await failures(known, now)
    for subject in mended:
        clear_notice(workspace.home, FAILED, subject)
    for subject, message in fresh.items():
        put_notice(workspace.home, FAILED, subject, message, now)


async def _ready(workspace: Workspace, waiting: dict[str, int], enough: int, now: dt.datetime) -> None:
    """Tell when enough text waits, once until a run has taken it."""
    known = [n for n in notices(workspace.home) if n.kind == READY]
    total = sum(waiting.values())
    if total < enough:
        for notice in known:
            clear_notice(workspace.home, READY, notice.subject)
    elif not known:
        message = (
            f"{total:,} bytes of text that no run has used, of {', '.join(waiting)}: shard and train a run on them"
        )
        _emit("causeway.tokens.ready", "causeway.home", "home", message, bytes=total, datasets=sorted(waiting))
        put_notice(workspace.home, READY, "home", message, now)
        get_run_logger().info("%s", message)


def _emit(event: str, resource: str, subject: str, message: str, **more: Any) -> None:
    emit_event(
        event, resource={"prefect.resource.id": resource}, payload={"subject": subject, "message": message, **more}
    )


@flow(name="notice", flow_run_name="notice {kind} {subject}")
async def notice(home: str, kind: str, subject: str, message: str) -> None:
    """Put something that needs a person on the home's list, and tell the notification block, if there is one.

    Args:
        home: The --home folder.
        kind: What sort of thing, such as run-failed or partition-late.
        subject: What it is about, such as a data set or a run.
        message: What is wrong, and what to do.
    """
    put_notice(Workspace.open(Path(home)).home, kind, subject, message, dt.datetime.now(dt.UTC))
    get_run_logger().warning("%s: %s: %s", kind, subject, message)
    block = await _block()
    if block is not None:
        await block.notify(f"{subject}: {message}", f"Causeway: {kind}")


async def _block() -> NotificationBlock | None:
    """Return the notification block of the name, of whatever type it is."""
    async with get_client() as client:
        documents = await client.read_block_documents(limit=200, offset=0, include_secrets=False)
    for document in documents:
        if document.name == NOTIFY and document.block_type is not None:
            block = await Block.aload(f"{document.block_type.slug}/{NOTIFY}")
            if isinstance(block, NotificationBlock):
                return block
    return None
