"""The main job, top to bottom: ingest -> curate -> shard -> train -> evaluate -> export -> verify, check, report."""

# No postponed annotations here: a Prefect worker that loads a flow could not resolve the names in them.

import asyncio
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import acreate_markdown_artifact
from pydantic import BaseModel, Field

from data_contracts.errors import RoundError
from flows.credentials import load_where_deployed
from flows.curate import curate
from flows.evaluate import by_dataset, evaluate
from flows.ingest import Ingested, ingest
from flows.progress import report
from flows.report.collect import collect
from flows.report.render import render
from flows.shard import placed, shard
from flows.train import Trained, train
from training.checker import Checked, check_policy
from training.planning import RunConfig
from training.release import export_run
from training.rounds.plan import read_plan
from training.verify import Verification, verify_run
from training.workspace import Workspace


class Input(BaseModel):
    """One data set of the job."""

    contract: str = Field(title="Contract", description="Path of its ODCS contract")
    source: str = Field(title="Source", description="A path, or env: for the packages of a Python environment")
    oracle: bool = Field(default=False, title="Oracle", description="Let Great Expectations run the same rules")


@dataclass(frozen=True)
class Outcome:
    """What the job did and where the proof lies; `document` is what `causeway demo --json` prints."""

    document: dict[str, Any]
    verification: Verification
    policy: Checked


@task(task_run_name="export")
async def export_task(home: str, run: str) -> tuple[str, bool]:
    """Write the Hugging Face directory."""
    path, new = await asyncio.to_thread(export_run, Workspace.open(Path(home)), run)
    return str(path), new


@task(task_run_name="verify and check")
async def prove(home: str, run: str) -> tuple[Verification, Checked]:
    """Recompute the chain, and re-read every store for violations of policy."""
    workspace = Workspace.open(Path(home))
    verification = await asyncio.to_thread(verify_run, workspace, run)
    report("verify", 1, 2, f"{verification.objects} objects verified")
    policy = await asyncio.to_thread(check_policy, workspace)
    report("verify", 2, 2, f"{policy.objects} objects checked against their terms")
    return verification, policy


@task(task_run_name="report")
async def write_report(home: str, run: str, verification: Verification, policy: Checked) -> str:
    """Write the run's HTML report, one self-contained file."""
    workspace = Workspace.open(Path(home))

    def work() -> str:
        page = render(collect(workspace, run, policy, verification))
        path = workspace.root / "reports" / f"{run}.html"
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".draft")
        draft.write_text(page, encoding="utf-8")
        draft.replace(path)
        return str(path)

    path = await asyncio.to_thread(work)
    report("report", 1, 1, path)
    return path


@flow(name="pipeline", flow_run_name="pipeline {config.name}")
async def pipeline(
    home: str, inputs: list[Input], config: RunConfig, loader_log: str | None = None, deployed: bool = False
) -> Outcome:
    """Run the whole job; what is there already is not made again.

    Args:
        home: The --home folder.
        inputs: The data sets: contract and source of each.
        config: The run, as in run.toml.
        loader_log: Folder for an independent log of what each site's loader handed out.
        deployed: Train and evaluate each site in a run of its own deployment, by the workers of its pool.
    """
    await load_where_deployed("home")
    began = time.monotonic()
    ingested: list[Ingested] = []
    for number, one in enumerate(inputs):
        ingested.append(await ingest(home, one.contract, one.source, oracle=one.oracle))
        report("ingest", number + 1, len(inputs), ingested[-1].dataset)
    curated = await curate(home, [i.dataset for i in ingested])
    report("curate", 1, 1, "")
    made, plan = await shard(home, config)
    trained = await train(home, plan.run, loader_log, deployed=deployed)
    if trained.ended != "whole":
        raise RoundError(f"run {plan.run} is {trained.ended}: causeway train resume {plan.run}, then this again")
    summaries = await evaluate(home, plan.run, deployed=deployed)
    model, _ = await export_task(home, plan.run)
    report("export", 1, 1, model)
    verification, policy = await prove(home, plan.run)
    path = await write_report(home, plan.run, verification, policy)
    document = _document(home, ingested, curated, plan.run, trained, summaries, verification, policy)
    document |= {
        "shards": len(made.manifests),
        "shards_written": made.written,
        "tokens_placed": placed(made),
        "report": path,
        "model": model,
        "seconds": round(time.monotonic() - began, 1),
    }
    await acreate_markdown_artifact(
        markdown="\n".join(f"- {name}: {value}" for name, value in document.items()),
        key="run-summary",
        description=f"Run {plan.run}; report: {path}",
    )
    await asyncio.to_thread(keep_outcome, home, document)
    get_run_logger().info("%s: report at %s", plan.run, path)
    return Outcome(document, verification, policy)


def outcome_file(home: Path, name: str) -> Path:
    """Return where the figures of the last job of a run.toml's name are kept, beside the reports."""
    return home / "reports" / f"{name}.json"


def keep_outcome(home: str, document: dict[str, Any]) -> None:
    """Keep what the job printed, for whoever did not run it in their own process."""
    path = outcome_file(Path(home), str(document["run"]).rpartition("-")[0])
    draft = path.with_suffix(".draft")
    draft.write_text(json.dumps(document, default=str), encoding="utf-8")
    draft.replace(path)


def _document(
    home: str,
    ingested: list[Ingested],
    curated: dict[str, Any],
    run: str,
    trained: Trained,
    summaries: list[dict[str, Any]],
    verification: Verification,
    policy: Checked,
) -> dict[str, Any]:
    workspace = Workspace.open(Path(home))
    plan = read_plan(workspace.home, run)
    tables = {i.dataset: workspace.tables(workspace.contract(i.dataset)) for i in ingested}
    current = {name: t.current() for name, t in tables.items()}
    refused = sum(len({v.partition for v in t.versions()} - current[name].keys()) for name, t in tables.items())
    versions = [v for by_partition in current.values() for v in by_partition.values()]
    contributions = [size for s in plan.sites for _, size in workspace.store(s.name).list(f"runs/{run}/contributions")]
    return {
        "run": run,
        "records_in": sum(v.rows_in for v in versions),
        "records_accepted": sum(v.rows_accepted for v in versions),
        "records_quarantined": sum(v.rows_quarantined for v in versions),
        "records_deduplicated": sum(s["removed"] for s in curated.values()),
        "partitions": len(versions) + refused,
        "partitions_refused": refused,
        "partitions_ingested": sum(i.partitions for i in ingested),
        "sites": len(plan.sites),
        "rounds": verification.rounds,
        "restarts": trained.restarts,
        "bytes_between_sites": sum(contributions),
        "tokens": verification.tokens,
        "bits_per_byte_before": by_dataset(summaries, "before"),
        "bits_per_byte_after": by_dataset(summaries, "after"),
        "bits_per_byte_unigram": by_dataset(summaries, "unigram"),
        "violations_of_policy": len(policy.violations),
        "chain_verified": verification.ok,
        "model_sha": verification.state_sha,
    }
