"""The sites of a run as flow runs on their own work pools: found or started, started again when they are lost.

Whoever looks after them keeps nothing that matters: killed and started again, it finds the live runs by their tags.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from prefect.client.orchestration import PrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.states import Cancelling, Crashed

from data_contracts.errors import ObjectMissing, PolicyRefused, RoundError, StoreError
from flows.progress import report
from flows.remote import LEFT, PAUSED, POLL_S, REFUSED, runs_of, start_run, state_of, tags, tolerated, waiting_words
from flows.site_process import MAX_RESTARTS, pause_s
from training.rounds.commit import ChainState
from training.rounds.plan import Plan
from training.workspace import Workspace

LOST_S = 60.0  # a run that says Running and whose site's lease has not moved for so long is lost
PENDING_S = 300.0  # a worker took it and never started it
CANCEL_S = 30.0  # a live worker ends a run that is told to in a few seconds
SETTLE_S = 120.0
WHOLE_S = 10.0
AT_WORK = (StateType.PENDING, StateType.RUNNING, StateType.CANCELLING)


@dataclass
class _Watch:
    """What is known of one site's run; times are of this machine's monotonic clock."""

    run: FlowRun | None = None
    seen: tuple[str, str] = ("", "")  # run id and state when it was last looked at
    since: float = 0.0  # when it was first seen so
    beat: Any = None
    beat_at: float = 0.0
    failures: int = 0  # in a row, without a commit between
    not_before: float = 0.0
    ours: str = ""  # id of the run that was told to end here
    held: str = ""  # id of the run that a person cancelled


class SiteRuns:
    """The flow runs of a run's sites. `restarts` counts by site how often a lost one was started again."""

    def __init__(self, workspace: Workspace, plan: Plan, loader_log: str | None, logger: Any) -> None:
        self.workspace, self.plan, self.loader_log, self.logger = workspace, plan, loader_log, logger
        self.restarts: dict[str, int] = {}
        self._watches = {s.name: _Watch() for s in plan.sites}
        self._round = -1
        self._next_look = 0.0

    async def keep(self, state: ChainState) -> None:
        """See that every member has one live run.

        Raises:
            RoundError: one was lost too often without a commit between; carries what its run said last.
            PolicyRefused: the terms in force no longer permit its work.
        """
        if state.round != self._round:
            self._round = state.round
            for watch in self._watches.values():
                watch.failures = 0
        for site in self._watches:
            self._feel(site)
        if time.monotonic() < self._next_look:
            return
        with tolerated(f"run {self.plan.run}", self.logger):
            async with get_client() as client:
                try:
                    for site in state.members:
                        await self._keep(client, site)
                except (PolicyRefused, RoundError) as error:
                    await self._end_all(client, str(error))
                    raise
        self._next_look = time.monotonic() + POLL_S

    async def busy(self) -> bool:
        """Say whether a site still works: a paused run ends when none does; one that no worker took may wait."""
        for site in self._watches:
            self._feel(site)
        if time.monotonic() >= self._next_look:
            self._next_look = time.monotonic() + POLL_S
            with tolerated(f"run {self.plan.run}", self.logger):
                async with get_client() as client:
                    return any([await self._works(client, site) for site in self._watches])
        return True

    async def settle(self) -> None:
        """Wait for the sites of a whole run to end by themselves; what does not is left to its worker."""
        for _ in range(round(SETTLE_S / POLL_S)):
            if not await self.busy():
                return
            await asyncio.sleep(POLL_S)

    async def close(self) -> None:
        """Nothing: the sites go on without this flow."""

    async def _end_all(self, client: PrefectClient, why: str) -> None:
        """End the sites that live: without the one that cannot go on they would wait for it on their workers."""
        for site in self._watches:
            for run in await self._runs(client, site, live=True):
                await client.set_flow_run_state(run.id, Cancelling(message=why[:500]), force=True)

    def _feel(self, site: str) -> None:
        """Note when the site's lease moved; the clocks of sites are never compared."""
        watch = self._watches[site]
        try:
            lease = self.workspace.store(site).get_json(f"runs/{self.plan.run}/leases/{site}.json")
            beat = (lease.get("attempt"), lease.get("beat"))
        except (ObjectMissing, StoreError, AttributeError):
            return
        if beat != watch.beat:
            watch.beat, watch.beat_at = beat, time.monotonic()

    async def _keep(self, client: PrefectClient, site: str) -> None:
        watch = self._watches[site]
        runs = await self._runs(client, site)
        alive = [r for r in runs if not state_of(r).is_final()]
        if alive:
            if watch.run is None:
                self.logger.info("site %s: its run %s lives; left to go on", site, alive[0].name)
            watch.run = alive[0]
            await self._judge(client, site, alive[0])
            return
        if watch.run is not None:
            ended = next((r for r in runs if watch.run and r.id == watch.run.id), watch.run)
            watch.run = None
            self._account(site, ended)
        if watch.held or time.monotonic() < watch.not_before:
            return
        given = {"run": self.plan.run, "site": site, "loader_log": self.loader_log}
        name = f"train {self.plan.run} at {site}"
        watch.run = await start_run(self._deployment(site), given, tags(self.plan.run, site), name, name, len(runs))
        self.logger.info("site %s: started flow run %s", site, watch.run.id)

    def _account(self, site: str, ended: FlowRun) -> None:
        """Decide what the end of a site's run means."""
        watch, state = self._watches[site], state_of(ended)
        said = f"{state.name}: {state.message or 'no message'}"
        if state.name == REFUSED:
            raise PolicyRefused(str(state.message))
        if state.name in (PAUSED, LEFT):
            return  # and resumed, or taken back, since
        if state.type == StateType.COMPLETED:
            # The run is whole, and the chain that the caller knows is older: it looks before this moment is over.
            watch.not_before = time.monotonic() + WHOLE_S
            return
        if state.type == StateType.CANCELLED and str(ended.id) != watch.ours:
            watch.held = str(ended.id)
            self.logger.warning(
                "site %s: its run was cancelled by a person and is not started again; causeway train pause %s, then "
                "causeway train resume %s",
                *(site, self.plan.run, self.plan.run),
            )
            return
        if watch.failures >= MAX_RESTARTS:
            raise RoundError(
                f"site {site} was lost {watch.failures + 1} times without a commit between, the last time with {said}; "
                f"mend it and start the train deployment of run {self.plan.run} again"
            )
        wait = pause_s(watch.failures)
        watch.failures += 1
        self.restarts[site] = self.restarts.get(site, 0) + 1
        watch.not_before = time.monotonic() + wait
        self.logger.warning("site %s was lost (%s); starting it again in %.1f s", site, said, wait)
        report("train", -1, self.plan.rounds, f"site {site} was lost; starting it again")

    async def _judge(self, client: PrefectClient, site: str, run: FlowRun) -> None:
        """Report a run that waits for a worker, and end one that is lost though it says otherwise."""
        self._feel(site)  # again: the answer of the API may have taken long
        watch, state, now = self._watches[site], state_of(run), time.monotonic()
        if watch.seen != (str(run.id), str(state.name)):
            watch.seen, watch.since = (str(run.id), str(state.name)), now
            if state.name == "Late":
                self.logger.warning("site %s: its run is late%s", site, waiting_words(run))
                report("train", -1, self.plan.rounds, f"site {site} waits for a worker")
        silent = now - max(watch.since, watch.beat_at)
        if state.type == StateType.CANCELLING and now - watch.since > CANCEL_S:
            # No worker is there to end it, so no process either that a worker could have ended.
            await client.set_flow_run_state(run.id, Crashed(message="told to end; nobody answered"), force=True)
        elif (state.type == StateType.RUNNING and silent > LOST_S) or (
            state.type == StateType.PENDING and now - watch.since > PENDING_S
        ):
            why = f"no sign of life of site {site} for {silent:.0f} s"
            self.logger.warning("site %s: %s, though its run is %s; ending it", site, why, state.name)
            watch.ours = str(run.id)
            # Its worker ends the process, should it hang: it would keep the next one from the site's lock.
            await client.set_flow_run_state(run.id, Cancelling(message=why), force=True)

    async def _works(self, client: PrefectClient, site: str) -> bool:
        found = [r for r in await self._runs(client, site, live=True) if state_of(r).type in AT_WORK]
        for run in found:
            await self._judge(client, site, run)
        return bool(found)

    async def _runs(self, client: PrefectClient, site: str, live: bool = False) -> list[FlowRun]:
        parameters = {"run": self.plan.run, "site": site}
        return await runs_of(client, self._deployment(site), parameters, tags(self.plan.run, site), live)

    def _deployment(self, site: str) -> str:
        return f"train-site/{site}"
