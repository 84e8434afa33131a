"""Evaluate: held-out bits per byte, each data set at a site that may hold it; only figures leave."""

# No postponed annotations here: a Prefect worker that loads a flow could not resolve the names in them.

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import acreate_markdown_artifact

from data_contracts.catalog.lineage import Node
from data_contracts.errors import PolicyRefused, StoreError
from flows.progress import report
from flows.retries import is_transient
from training.admission import EXIT_REFUSED
from training.rounds.plan import read_plan
from training.shards.manifest import read_version
from training.steps import model_node
from training.workspace import Workspace


@task(retries=3, retry_delay_seconds=[1, 5, 15], retry_condition_fn=is_transient, task_run_name="evaluate at {site}")
async def evaluate_at(home: str, run: str, site: str, max_bytes: int) -> list[dict[str, Any]]:
    """Evaluate at one site, in a process of its own that opens no other site's store."""
    workspace = Workspace.open(Path(home))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "training.evaluate_site", "--home-store", workspace.home.url, "--run", run),
        *("--site", site, "--store", workspace.store(site).url, "--max-bytes", str(max_bytes)),
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


@flow(name="evaluate", flow_run_name="evaluate {run}")
async def evaluate(home: str, run: str, max_bytes: int = 200_000) -> list[dict[str, Any]]:
    """Evaluate a run's newest model on held-out records, beside the model before training and a unigram.

    Args:
        home: The --home folder.
        run: The run's id.
        max_bytes: Text scored per data set and site, in UTF-8 bytes.
    """
    workspace = Workspace.open(Path(home))
    plan = read_plan(workspace.home, run)
    versions = [read_version(workspace.home, d.dataset, d.version) for d in plan.datasets]
    sites = sorted({s.site for v in versions for s in v.shards if s.split == "held-out" and s.records})
    done: list[list[dict[str, Any]]] = []

    async def one(site: str) -> None:
        done.append(await evaluate_at(home, run, site, max_bytes))
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
