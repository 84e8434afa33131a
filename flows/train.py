"""Train: start the sites, follow the chain, start again a site that dies. The flow decides nothing: the chain does."""

# No postponed annotations here: a Prefect worker that loads a flow could not resolve the names in them.

import asyncio
import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.artifacts import acreate_progress_artifact, acreate_table_artifact, aupdate_progress_artifact

from data_contracts.errors import ObjectMissing, PolicyRefused, RoundError, StoreError
from flows.progress import report
from training.admission import EXIT_REFUSED
from training.rounds.commit import ChainState
from training.rounds.contribution import Contribution, Header
from training.rounds.plan import Plan, read_plan
from training.rounds.run import replay, start_state
from training.steps import record_round
from training.workspace import Workspace

POLL_S = 0.4
MAX_RESTARTS = 8


@dataclass
class Trained:
    """What the flow saw: rounds committed, restarts by site, one row a round and site for the artifact."""

    run: str
    rounds: int = 0
    state: str = ""
    restarts: dict[str, int] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)


def site_command(workspace: Workspace, plan: Plan, site: str, log_dir: Path | None) -> list[str]:
    """Return the command line of a site's process. It is told its own store, home's, and where peers contribute."""
    stores = {s.name: workspace.store(s.name).url for s in plan.sites}
    command = [sys.executable, "-m", "training.worker", "--home-store", workspace.home.url, "--run", plan.run]
    command += ["--site", site, "--store", stores.pop(site), "--keys", str(workspace.keys.directory)]
    for name, url in sorted(stores.items()):
        command += ["--peer", f"{name}={url}"]
    return command + (["--loader-log", str(log_dir)] if log_dir else [])


@dataclass
class _Process:
    site: str
    process: asyncio.subprocess.Process
    started: float
    restarts: int = 0


async def _start(workspace: Workspace, plan: Plan, site: str, log_dir: Path | None) -> _Process:
    process = await asyncio.create_subprocess_exec(
        *site_command(workspace, plan, site, log_dir),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    return _Process(site, process, time.monotonic())


async def _revive(workspace: Workspace, plan: Plan, dead: _Process, log_dir: Path | None, logger: Any) -> _Process:
    """Start a dead site again, after a pause that grows with each death.

    Raises:
        RoundError: it died too often; carries what it said last.
        PolicyRefused: the terms in force no longer permit its work.
    """
    said = (await dead.process.stderr.read()).decode(errors="replace").strip() if dead.process.stderr else ""
    if dead.process.returncode == EXIT_REFUSED:
        raise PolicyRefused(said)
    last = said.splitlines()[-1] if said else f"no message, exit {dead.process.returncode}"
    if dead.restarts >= MAX_RESTARTS:
        raise RoundError(
            f"site {dead.site} ended {dead.restarts + 1} times, the last time with: {said[-2000:] or last}"
        )
    pause = min(10.0, 0.5 * 2**dead.restarts)
    logger.warning("site %s ended (%s); starting it again in %.1f s", dead.site, last, pause)
    report("train", -1, plan.rounds, f"site {dead.site} ended; starting it again")
    await asyncio.sleep(pause)
    again = await _start(workspace, plan, dead.site, log_dir)
    again.restarts = dead.restarts + 1
    return again


@flow(name="train", flow_run_name="train {run}")
async def train(home: str, run: str, loader_log: str | None = None) -> Trained:
    """Train a planned run to its last round; started again, it goes on from the chain.

    Args:
        home: The --home folder.
        run: The run's id.
        loader_log: Folder for an independent log of what each site's loader handed out.
    """
    workspace = Workspace.open(Path(home))
    plan = await asyncio.to_thread(read_plan, workspace.home, run)
    logger = get_run_logger()
    log_dir = Path(loader_log) if loader_log else None
    done = Trained(run)
    state = await asyncio.to_thread(start_state, workspace.home, plan)
    artifact = await acreate_progress_artifact(progress=0.0, key="train-progress", description=f"Rounds of {run}")
    processes: dict[str, _Process] = {}
    try:
        while state.round < plan.rounds:
            # A chain that is whole already starts no site: the first look comes before the first process.
            for after, document, inputs in await asyncio.to_thread(_news, workspace, plan, state):
                await asyncio.to_thread(record_round, workspace, plan, after.round, after.state_sha, inputs)
                state = after
                losses = {c.header.site: c.header.loss for c in inputs}
                done.rows += [_row(document, c.header, after.round) for c in inputs]
                logger.info(
                    "round %d of %d: %s, result %s", after.round, plan.rounds, _sites(losses), after.state_sha[:12]
                )
                await aupdate_progress_artifact(artifact_id=artifact, progress=100.0 * after.round / plan.rounds)
            _report(workspace, plan, state.round)
            if state.round >= plan.rounds:
                break
            for site in state.members:
                current = processes.get(site)
                if current is None:
                    processes[site] = await _start(workspace, plan, site, log_dir)
                elif current.process.returncode is not None:
                    processes[site] = await _revive(workspace, plan, current, log_dir, logger)
                    done.restarts[site] = processes[site].restarts
            await asyncio.sleep(POLL_S)
        for one in processes.values():
            await asyncio.wait_for(one.process.wait(), timeout=60)
    finally:
        await _end(processes)
    done.rounds, done.state = state.round, state.state_sha
    if done.rows:
        await acreate_table_artifact(table=done.rows, key="train-rounds", description=f"Rounds of {run}")
    return done


def _news(
    workspace: Workspace, plan: Plan, state: ChainState
) -> list[tuple[ChainState, dict[str, Any], list[Contribution]]]:
    """Return the rounds committed since a state."""
    return list(replay(workspace.home, plan, state))


async def _end(processes: dict[str, _Process]) -> None:
    """End the sites that still run: they publish nothing half, and go on from the chain when started again."""
    alive = [p.process for p in processes.values() if p.process.returncode is None]
    for process in alive:
        process.terminate()
    for process in alive:
        try:
            await asyncio.wait_for(process.wait(), timeout=10)
        except TimeoutError:
            process.kill()


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
        "committer": document["committer"],
    }


def _sites(losses: dict[str, float]) -> str:
    return ", ".join(f"{site} {loss:.3f}" for site, loss in sorted(losses.items()))


def _report(workspace: Workspace, plan: Plan, committed: int) -> None:
    """Tell the display how far the sites are, from their leases."""
    steps, losses = 0.0, []
    for site in plan.sites:
        try:
            lease = json.loads(workspace.store(site.name).get(f"runs/{plan.run}/leases/{site.name}.json"))
        except (ObjectMissing, StoreError, ValueError):
            continue
        if lease.get("round") == committed + 1:
            steps += lease["step"] / lease["steps"]
        if lease.get("loss") is not None:
            losses.append(f"{site.name} {lease['loss']:.2f}")
    detail = f"round {min(committed + 1, plan.rounds)} of {plan.rounds}" + (
        f", loss {', '.join(losses)}" if losses else ""
    )
    report("train", committed + steps / len(plan.sites), plan.rounds, detail)
