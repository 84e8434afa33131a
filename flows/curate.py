"""Curate: duplicates out, personal data redacted, each change with its reason."""

# No postponed annotations here: a Prefect worker that loads a flow could not resolve the names in them.

import asyncio
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import acreate_markdown_artifact

from flows.credentials import load_where_deployed
from flows.retries import is_transient
from training.steps import curate_set
from training.workspace import Workspace


@task(retries=2, retry_delay_seconds=1, retry_condition_fn=is_transient, task_run_name="curate {dataset}")
async def curate_task(home: str, dataset: str) -> tuple[dict[str, Any], bool]:
    """Curate the current partitions of one data set."""
    workspace = Workspace.open(Path(home))
    return await asyncio.to_thread(curate_set, workspace, workspace.contract(dataset))


@flow(name="curate", flow_run_name="curate {datasets}")
async def curate(home: str, datasets: list[str]) -> dict[str, Any]:
    """Curate data sets.

    Args:
        home: The --home folder.
        datasets: Ids of the data sets.
    """
    await load_where_deployed("home")
    done: dict[str, Any] = {}
    for dataset in sorted(datasets):
        summary, new = await curate_task(home, dataset)
        done[dataset] = {**summary, "new": new}
        get_run_logger().info(
            "%s: %d kept, %d removed, %d redacted", dataset, summary["kept"], summary["removed"], summary["redacted"]
        )
    lines = [
        f"| {d} | {s['kept']:,} | {s['removed']:,} | {s['redacted']:,} | {', '.join(s['reasons'])} |"
        for d, s in done.items()
    ]
    head = "| data set | kept | removed | redacted | reasons |\n|---|--:|--:|--:|---|\n"
    await acreate_markdown_artifact(markdown=head + "\n".join(lines), key="curation", description="What curation did")
    return done
