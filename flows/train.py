"""Train: start the sites, follow the chain, start again a site that dies. The flow decides nothing: the chain does."""

# No postponed annotations here: a Prefect worker that loads a flow could not resolve the names in them.

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import (
    acreate_link_artifact,
    acreate_progress_artifact,
    acreate_table_artifact,
    aupdate_progress_artifact,
)
from prefect.states import Completed

from data_contracts.errors import ObjectMissing, StoreError
from flows.credentials import load_where_deployed
from flows.progress import report
from flows.remote import PAUSED, tolerated
from flows.site_process import SiteProcesses
from flows.site_run import SiteRuns
from training.rounds.commit import ChainState
from training.rounds.contribution import Contribution, Header
from training.rounds.control import read_control, require_not_cancelled
from training.rounds.plan import Plan, read_plan
from training.rounds.run import replay, start_state
from training.steps import record_round
from training.workspace import Workspace

POLL_S = 0.4
SHOWN_FIGURES = (
    "grad_norm",
    "compute_s",
    "wait_s",
    "encode_s",
    "transfer_s",
    "utilisation",
    "mfu",
    "energy_j",
    "energy",
)


@dataclass
class Trained:
    """What the flow saw: rounds committed, restarts by site, one row a round and site for the artifact.

    `ended` says how: `whole`, or `paused` or `cancelled` with rounds left to make.
    """

    run: str
    rounds: int = 0
    state: str = ""
    ended: str = "whole"
    restarts: dict[str, int] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)


@flow(name="train", flow_run_name="train {run}")
async def train(home: str, run: str, loader_log: str | None = None, deployed: bool = False) -> Trained:
    """Train a planned run to its last round; started again, it goes on from the chain.

    Args:
        home: The --home folder.
        run: The run's id.
        loader_log: Folder for an independent log of what each site's loader handed out.
        deployed: Train each site in a run of the deployment train-site/<site>, not in a process of this machine.
    """
    await load_where_deployed("home")
    workspace = Workspace.open(Path(home))
    plan = await asyncio.to_thread(read_plan, workspace.home, run)
    logger = get_run_logger()
    done = Trained(run)
    state = await asyncio.to_thread(start_state, workspace.home, plan)
    shown = _Shown(run, logger)
    sites = (
        SiteRuns(workspace, plan, loader_log, logger)
        if deployed
        else SiteProcesses(workspace, plan, Path(loader_log) if loader_log else None, logger)
    )
    begun = False
    waiting: list[dict[str, Any]] = []
    await shown.progress(0.0)
    try:
        while True:
            control = await asyncio.to_thread(read_control, workspace.home, run)
            ended = control.state != "running" and not (begun and await sites.busy())
            # A chain that is whole already starts no site: the look at the chain comes before the first start, and
            # after the last site has ended.
            for after, document, inputs in await asyncio.to_thread(_news, workspace, plan, state):
                await asyncio.to_thread(record_round, workspace, plan, after.round, after.state_sha, inputs)
                state = after
                losses = {c.header.site: c.header.loss for c in inputs}
                # What the sites keep of a round is there once they are in the next one.
                await _show_rounds(workspace, shown, waiting)
                waiting = [_row(document, c.header, after.round) for c in inputs]
                done.rows += waiting
                logger.info(
                    "round %d of %d: %s, result %s", after.round, plan.rounds, _sites(losses), after.state_sha[:12]
                )
                await shown.progress(after.round / plan.rounds)
            _report(workspace, plan, state.round)
            if state.round >= plan.rounds:
                await sites.settle()
                break
            if not begun:
                require_not_cancelled(plan, control)
            if ended:
                done.ended = control.state
                logger.info("run %s is %s, %d of %d rounds made", run, control.words, state.round, plan.rounds)
                break
            if control.state == "running":
                begun = True
                await sites.keep(state)
            await asyncio.sleep(POLL_S)
    finally:
        await sites.close()
    done.rounds, done.state, done.restarts = state.round, state.state_sha, sites.restarts
    await _show_rounds(workspace, shown, waiting)
    await shown.table(done.rows)
    await shown.link(workspace.root / "reports" / f"{run}.html")
    if done.ended != "whole":
        # Not a failure: somebody wanted it so. The caller gets `done`, the UI shows the name.
        name = PAUSED if done.ended == "paused" else "Stopped"
        return Completed(name=name, message=f"{control.words}; {state.round} of {plan.rounds} rounds made", data=done)  # type: ignore[return-value]
    return done


class _Shown:
    """What the UI shows of the run. The chain is the record: an API that cannot be reached must not end the flow."""

    def __init__(self, run: str, logger: Any) -> None:
        self.run, self.logger = run, logger
        self._artifact: Any = None

    async def progress(self, share: float) -> None:
        """Show how far the run is."""
        with tolerated("progress artifact", self.logger):
            if self._artifact is None:
                self._artifact = await acreate_progress_artifact(
                    progress=100.0 * share, key="train-progress", description=f"Rounds of {self.run}"
                )
            else:
                await aupdate_progress_artifact(artifact_id=self._artifact, progress=100.0 * share)

    async def round(self, rows: list[dict[str, Any]]) -> None:
        """Show one round: a version of one artifact, so that its history is the run."""
        with tolerated("table artifact", self.logger):
            words = f"Round {rows[0]['round']} of {self.run}"
            await acreate_table_artifact(table=rows, key="train-round", description=words)

    async def link(self, report: Path) -> None:
        """Show where the report is."""
        with tolerated("link artifact", self.logger):
            words = f"Report of {self.run}, once made: causeway report {self.run}"
            await acreate_link_artifact(link=report.absolute().as_uri(), key="train-report", description=words)

    async def table(self, rows: list[dict[str, Any]]) -> None:
        """Show one row a round and site."""
        if rows:
            with tolerated("table artifact", self.logger):
                await acreate_table_artifact(table=rows, key="train-rounds", description=f"Rounds of {self.run}")


def _news(
    workspace: Workspace, plan: Plan, state: ChainState
) -> list[tuple[ChainState, dict[str, Any], list[Contribution]]]:
    """Return the rounds committed since a state."""
    return list(replay(workspace.home, plan, state))


async def _show_rounds(workspace: Workspace, shown: _Shown, rows: list[dict[str, Any]]) -> None:
    """Show the rows of a round, with what the sites measured of it where their stores can be read."""
    if rows:
        for row in rows:
            row |= await asyncio.to_thread(_figures, workspace, shown.run, row["round"], row["site"])
        await shown.round(rows)


def _figures(workspace: Workspace, run: str, number: int, site: str) -> dict[str, Any]:
    try:
        kept = workspace.store(site).get_json(f"runs/{run}/telemetry/{number:06d}/{site}.json").get("figures", {})
    except (ObjectMissing, StoreError):
        return {}
    return {name: kept[name] for name in SHOWN_FIGURES if name in kept}


def _row(document: dict[str, Any], header: Header, number: int) -> dict[str, Any]:
    weight = next(i["weight"] for i in document["inputs"] if i["site"] == header.site)
    return {
        "round": number,
        "site": header.site,
        "tokens": header.tokens,
        "loss": round(header.loss, 4),
        "norm": round(header.norm, 4),
        "weight": round(weight, 4),
        "bytes": header.payload_bytes,
        "device": header.device,
        "committer": document["committer"],
    }


def _sites(losses: dict[str, float]) -> str:
    return ", ".join(f"{site} {loss:.3f}" for site, loss in sorted(losses.items()))


def _report(workspace: Workspace, plan: Plan, committed: int) -> None:
    """Tell the display how far the sites are, from their leases."""
    steps, losses = 0.0, []
    for site in plan.sites:
        try:
            lease = workspace.store(site.name).get_json(f"runs/{plan.run}/leases/{site.name}.json")
        except (ObjectMissing, StoreError):
            continue
        if lease.get("round") == committed + 1:
            steps += lease["step"] / lease["steps"]
        if lease.get("loss") is not None:
            losses.append(f"{site.name} {lease['loss']:.2f}")
    detail = f"round {min(committed + 1, plan.rounds)} of {plan.rounds}" + (
        f", loss {', '.join(losses)}" if losses else ""
    )
    report("train", committed + steps / len(plan.sites), plan.rounds, detail)
