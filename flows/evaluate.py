"""Evaluate: held-out bits per byte, each data set at a site that may hold it; only figures leave."""

# No postponed annotations here: a Prefect worker that loads a flow could not resolve the names in them.

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import acreate_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRunPolicy, State
from prefect.context import get_run_context
from prefect.states import Completed, Failed

from data_contracts.catalog.lineage import Node
from data_contracts.errors import PolicyRefused, StoreError
from flows.credentials import load_where_deployed
from flows.progress import report
from flows.remote import REFUSED, run_to_end, tags
from flows.retries import FINAL, is_transient
from flows.site_process import cache_arguments
from training.admission import EXIT_REFUSED
from training.evaluate_site import summary_folder
from training.rounds.plan import Plan, read_plan
from training.rounds.run import newest_state, read_run_data
from training.steps import model_node
from training.workspace import Workspace


@task(retries=3, retry_delay_seconds=[1, 5, 15], retry_condition_fn=is_transient, task_run_name="evaluate at {site}")
async def evaluate_at(home: str, run: str, site: str, max_bytes: int) -> list[dict[str, Any]]:
    """Evaluate at one site, in a process of its own that opens no other site's store."""
    workspace = Workspace.open(Path(home))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "training.evaluate_site", "--home-store", workspace.home.url, "--run", run),
        *("--site", site, "--store", workspace.store(site).url, "--max-bytes", str(max_bytes)),
        *cache_arguments(workspace, workspace.sites.site(site).region),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        out, said = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode == EXIT_REFUSED:
        raise PolicyRefused(said.decode(errors="replace").strip())
    if process.returncode != 0:
        raise StoreError(f"evaluation at {site} failed: {said.decode(errors='replace').strip()[-2000:]}")
    summaries: list[dict[str, Any]] = json.loads(out)
    return summaries


@task(retries=1, retry_delay_seconds=5, retry_condition_fn=is_transient, task_run_name="evaluate at {site}")
async def evaluate_by_deployment(home: str, run: str, site: str, max_bytes: int) -> list[dict[str, Any]]:
    """Evaluate at one site by a run of its deployment; what it found is read where it wrote it, in the home store."""
    workspace = Workspace.open(Path(home))
    given = {"run": run, "site": site, "max_bytes": max_bytes}
    name = f"evaluate {run} at {site}"
    state = await run_to_end(f"evaluate-site/{site}", given, tags(run, site), name, get_run_logger())
    if state.name == REFUSED:
        raise PolicyRefused(str(state.message))
    if not state.is_completed():
        raise StoreError(f"evaluation at {site} ended {state.name}: {state.message}")
    return await asyncio.to_thread(_on_record, workspace, read_plan(workspace.home, run), site, max_bytes)


@flow(name="evaluate-site", flow_run_name="evaluate {run} at {site}")
async def evaluate_site(home: str, run: str, site: str, max_bytes: int = 200_000) -> State[Any]:
    """Evaluate a run's newest model on the held-out records of one site, by that site's own worker.

    Args:
        home: The --home folder, as this site sees it.
        run: The run's id.
        site: The site.
        max_bytes: Text scored per data set, in UTF-8 bytes.
    """
    await load_where_deployed(site)
    try:
        summaries = await evaluate_at(home, run, site, max_bytes)
    except PolicyRefused as error:
        return Failed(name=REFUSED, message=str(error))
    return Completed(message=f"{len(summaries)} data sets evaluated at {site}")


@flow(name="evaluate", flow_run_name="evaluate {run}", retries=2, retry_delay_seconds=10)
async def evaluate(home: str, run: str, max_bytes: int = 200_000, deployed: bool = False) -> list[dict[str, Any]]:
    """Evaluate a run's newest model on held-out records, beside the model before training and a unigram.

    Args:
        home: The --home folder.
        run: The run's id.
        max_bytes: Text scored per data set and site, in UTF-8 bytes.
        deployed: Evaluate each site in a run of the deployment evaluate-site/<site>, not in a process of this machine.
    """
    await load_where_deployed("home")
    try:
        return await _evaluate(Workspace.open(Path(home)), run, max_bytes, deployed)
    except FINAL:
        await _retry_no_more()
        raise


async def _evaluate(workspace: Workspace, run: str, max_bytes: int, deployed: bool) -> list[dict[str, Any]]:
    plan = read_plan(workspace.home, run)
    data = read_run_data(workspace.home, plan, newest_state(workspace.home, plan))
    # One site of a region evaluates what the region holds.
    region_sites = {s.region: s.name for s in sorted(plan.sites, key=lambda s: s.name, reverse=True)}
    held = [(d, region) for d in data.in_force.datasets for region in region_sites]
    regions = {r for d, r in held if any(s.records for s in data.shards(d, r, "held-out"))}
    sites = sorted(region_sites[region] for region in regions)
    done: list[list[dict[str, Any]]] = []
    at_site = evaluate_by_deployment if deployed else evaluate_at

    async def one(site: str) -> None:
        done.append(await at_site(str(workspace.root), run, site, max_bytes))
        report("evaluate", len(done), len(sites), site)

    await asyncio.gather(*(one(site) for site in sites))
    summaries = sorted((s for found in done for s in found), key=lambda s: (s["dataset"], s["site"]))
    for s in summaries:
        key = f"{run}/{s['round']}-{max_bytes}/{s['dataset']}/{s['site']}"
        facts = {name: figure["bits_per_byte"] for name, figure in s["figures"].items()}
        inputs = [Node(model_node(run, s["round"]), {})]
        workspace.lineage().emit_once("evaluate", key, inputs, [Node(f"evaluation/{key}", facts)])
        get_run_logger().info("%s at %s: %s", s["dataset"], s["site"], facts)
    await acreate_markdown_artifact(markdown=_table(summaries), key="evaluation", description=f"Held-out, {run}")
    return summaries


def _on_record(workspace: Workspace, plan: Plan, site: str, max_bytes: int) -> list[dict[str, Any]]:
    """Return a site's summaries of the newest model.

    Raises:
        StoreError: there are none: a round was committed since; another try evaluates its model.
    """
    state = newest_state(workspace.home, plan)
    folder = summary_folder(plan.run, state.round, max_bytes)
    keys = [key for key, _ in workspace.home.list(folder) if key.endswith(f".{site}.json")]
    found = [s for s in map(workspace.home.get_json, keys) if s["state"] == state.state_sha]
    if not found:
        raise StoreError(f"{workspace.home.url}/{folder}: no summary of site {site}: its run evaluated an older round")
    return found


async def _retry_no_more() -> None:
    """Take the retries that are left from this flow run: what was refused is refused again."""
    context = get_run_context()
    flow_run = getattr(context, "flow_run", None)
    if flow_run is not None:
        async with get_client() as client:
            await client.update_flow_run(flow_run.id, empirical_policy=FlowRunPolicy(retries=0))


def by_dataset(summaries: list[dict[str, Any]], name: str) -> dict[str, float]:
    """Return bits per byte by data set over all its sites: total bits over total bytes."""
    sums: dict[str, list[float]] = {}
    for s in summaries:
        figure = s["figures"][name]
        entry = sums.setdefault(s["dataset"], [0.0, 0.0])
        entry[0] += figure["bits_per_byte"] * figure["bytes"]
        entry[1] += figure["bytes"]
    return {dataset: bits / size for dataset, (bits, size) in sorted(sums.items())}


def _table(summaries: list[dict[str, Any]]) -> str:
    lines = ["| data set | site | before | after | unigram | documents |", "|---|---|--:|--:|--:|--:|"]
    for s in summaries:
        f = s["figures"]
        figures = " | ".join(f"{f[name]['bits_per_byte']:.3f}" for name in ("before", "after", "unigram"))
        lines.append(f"| {s['dataset']} | {s['site']} | {figures} | {f['after']['documents']} |")
    return "\n".join(lines)
