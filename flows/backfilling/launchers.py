"""Two ways to run items as Prefect flow runs: in this process, or by the workers of the data set's place."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.deployments import arun_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed

from data_contracts.backfill.plan import Item
from data_contracts.backfill.record import Outcome, Record
from data_contracts.catalog.leases import holder_of
from data_contracts.errors import CausewayError
from flows.ended import SUBMITTED
from flows.ingest import ingest_partition_flow
from flows.remote import TERMINAL, tolerated
from training.steps import partition_lease
from training.workspace import Workspace

POLL_S = 0.5
LISTED = 200


@dataclass
class Subflows:
    """Runs items as subflows of this process."""

    workspace: Workspace
    record: Record
    survives: bool = False

    async def run(self, item: Item, attempt: int) -> Outcome:
        """Run one attempt as a flow run of its own."""
        home, plan = str(self.workspace.root), self.record.plan
        why = ""
        try:
            await ingest_partition_flow(
                home, plan.dataset, item.partition, backfill=plan.id, item=item.number, attempt=attempt
            )
        except CausewayError as error:
            why = str(error)
        except Exception as error:
            why = type(error).__name__
        found = await asyncio.to_thread(self.record.ended, item.number, attempt)
        return found or self.record.lose(item, attempt, why or "its flow run ended without an outcome")

    async def cancel(self) -> None:
        """Subflows end with their flow."""


@dataclass
class _Watched:
    item: Item
    attempt: int
    run: FlowRun
    since: float = field(default_factory=time.monotonic)
    pending_since: float | None = None


@dataclass
class Deployed:
    """Runs items by the deployment `ingest-partition/<place>`; they go on when this process dies.

    One request a poll asks for the state of all runs that are under way. A server that cannot be reached is asked
    again: the outcome that counts is the one in the store, which an item's own process writes.
    """

    workspace: Workspace
    record: Record
    place: str
    logger: Any
    queue: str = "backfill"
    survives: bool = True
    _watched: dict[UUID, _Watched] = field(default_factory=dict)
    _states: dict[UUID, FlowRun] = field(default_factory=dict)
    _asked: float = 0.0
    _asking: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def run(self, item: Item, attempt: int) -> Outcome:
        """Start one attempt, or find the run that was started for it, and wait for its outcome."""
        found = await asyncio.to_thread(self.record.ended, item.number, attempt)
        if found is not None:
            return found
        await asyncio.to_thread(self.record.begin, item, attempt, f"deployment ingest-partition/{self.place}")
        watched = _Watched(item, attempt, await self._start(item, attempt))
        self._watched[watched.run.id] = watched
        try:
            while True:
                found = await asyncio.to_thread(self.record.ended, item.number, attempt)
                if found is not None:
                    return found
                why = await self._gone(watched)
                if why:
                    # It may have written its outcome and then ended: that is what counts.
                    found = await asyncio.to_thread(self.record.ended, item.number, attempt)
                    return self.record.lose(item, attempt, why) if found is None else found
                await asyncio.sleep(POLL_S)
        finally:
            self._watched.pop(watched.run.id, None)

    async def cancel(self) -> None:
        """Ask the server to cancel what has not ended."""
        from prefect.states import Cancelling

        async with get_client() as client:
            for watched in list(self._watched.values()):
                with tolerated("cancel", self.logger):
                    await client.set_flow_run_state(watched.run.id, Cancelling())

    async def _start(self, item: Item, attempt: int) -> FlowRun:
        plan = self.record.plan
        while True:
            with tolerated(f"start {item.name}", self.logger):
                return await arun_deployment(
                    f"ingest-partition/{self.place}",
                    parameters={
                        "dataset": plan.dataset,
                        "partition": item.partition,
                        "backfill": plan.id,
                        "item": item.number,
                        "attempt": attempt,
                    },
                    flow_run_name=f"ingest {plan.dataset} {item.name}"
                    + (f", attempt {attempt}" if attempt > 1 else ""),
                    timeout=0,
                    as_subflow=False,
                    work_queue_name=self.queue,
                    tags=["causeway", f"dataset:{plan.dataset}", f"backfill:{plan.id}"],
                    idempotency_key=item.key(plan.id, attempt),
                )
            await asyncio.sleep(2.0)

    async def _gone(self, watched: _Watched) -> str:
        """Say why an attempt will never have an outcome; '' while it may."""
        await self._ask()
        run = self._states.get(watched.run.id, watched.run)
        kind = run.state.type if run.state else None
        if kind in TERMINAL and run.state is not None:
            return f"its flow run ended {run.state.name}" + (f": {run.state.message}" if run.state.message else "")
        if kind == StateType.PENDING:
            watched.pending_since = watched.pending_since or time.monotonic()
            if time.monotonic() - watched.pending_since > SUBMITTED.total_seconds():
                return await self._crash(watched, "its worker died before it began")
        else:
            watched.pending_since = None
        if kind == StateType.RUNNING and await asyncio.to_thread(self._dead, watched):
            return await self._crash(watched, "its process was killed")
        return ""

    def _dead(self, watched: _Watched) -> bool:
        """Whether the process that held the partition for this attempt is known to be no more."""
        holder = holder_of(self.record.store, partition_lease(self.record.plan.dataset, watched.item.partition))
        mine = f"backfill {self.record.plan.id}, item {watched.item.number}"
        return holder is not None and holder.holder == mine and holder.dead

    async def _crash(self, watched: _Watched, why: str) -> str:
        with tolerated(f"crash {watched.item.name}", self.logger):
            async with get_client() as client:
                await client.set_flow_run_state(watched.run.id, Crashed(message=why), force=True)
            return why
        return ""

    async def _ask(self) -> None:
        """Read the states of all runs under way, at most once a poll, whoever of the waiting tasks asks."""
        async with self._asking:
            if time.monotonic() - self._asked < POLL_S:
                return
            with tolerated("runs of the backfill", self.logger):
                async with get_client() as client:
                    ids = list(self._watched)
                    for first in range(0, len(ids), LISTED):
                        found = await _read(client, ids[first : first + LISTED])
                        self._states.update({run.id: run for run in found})
            self._asked = time.monotonic()


async def _read(client: PrefectClient, ids: list[UUID]) -> list[FlowRun]:
    wanted = FlowRunFilter(id=FlowRunFilterId(any_=ids))
    return await client.read_flow_runs(flow_run_filter=wanted, sort=FlowRunSort.ID_DESC, limit=LISTED)


async def deployment_exists(place: str) -> bool:
    """Say whether the server has the deployment that runs a place's partitions."""
    async with get_client() as client:
        try:
            await client.read_deployment_by_name(f"ingest-partition/{place}")
        except ObjectNotFound:
            return False
    return True
