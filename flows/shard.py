"""Shard: a tokenizer, a placement that the policy permits, Arrow shards with manifests at the sites, a plan."""

# No postponed annotations here: a Prefect worker that loads a flow could not resolve the names in them.

import asyncio
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import acreate_markdown_artifact

from flows.credentials import load_where_deployed
from flows.progress import report
from flows.retries import is_transient
from training.planning import RunConfig
from training.rounds.plan import Plan
from training.shards.sharding import Sharded
from training.steps import make_shards, make_tokenizer, plan_run, read_sets
from training.workspace import Workspace


@task(retries=2, retry_delay_seconds=1, retry_condition_fn=is_transient, task_run_name="tokenize, place and write")
async def shard_task(home: str, config: RunConfig) -> tuple[Sharded, Plan, bool]:
    """Train or bring the tokenizer, write missing shards, freeze the plan."""

    def work() -> tuple[Sharded, Plan, bool]:
        workspace = Workspace.open(Path(home))
        sets = read_sets(workspace, config.datasets)
        record = make_tokenizer(workspace, config, sets)
        report("tokenizer", 1, 1, f"{record.tokenizer.vocab_size} tokens")
        made = make_shards(workspace, config, sets, record, lambda done, total: report("shard", done, total))
        return made, plan_run(workspace, config, made, record.tokenizer.vocab_size), record.new

    return await asyncio.to_thread(work)


@flow(name="shard", flow_run_name="shard for {config.name}")
async def shard(home: str, config: RunConfig) -> tuple[Sharded, Plan]:
    """Place and write the shards of a run, and freeze its plan.

    Args:
        home: The --home folder.
        config: What to train on, for which purpose; as in run.toml.
    """
    await load_where_deployed("home")
    made, plan, _ = await shard_task(home, config)
    counts = (made.written, made.moved, len(made.removals), len(made.manifests))
    get_run_logger().info("%s: %d shards written, %d of them moved, %d removed; %d in all", plan.run, *counts)
    await acreate_markdown_artifact(markdown=placement_table(made), key="placement", description="Where shards lie")
    return made, plan


def placement_table(made: Sharded) -> str:
    """Return shards and tokens by data set and region as a markdown table, with what has no place."""
    sums: dict[tuple[str, str, str], list[int]] = {}
    for m in made.manifests:
        entry = sums.setdefault((m.dataset, m.region, m.split), [0, 0])
        entry[0] += 1
        entry[1] += m.tokens
    lines = [f"| {d} | {s} | {split} | {n} | {t:,} |" for (d, s, split), (n, t) in sorted(sums.items())]
    lines += [f"\n{a.unit.name}: no place: {' '.join(a.reasons)}" for a in made.homeless]
    lines += [f"\nremoved {r.key} from {r.region}: {' '.join(r.reasons)}" for r in made.removals]
    return "| data set | region | split | shards | tokens |\n|---|---|---|--:|--:|\n" + "\n".join(lines)


def placed(made: Sharded) -> dict[str, Any]:
    """Return tokens by data set and region."""
    sums: dict[str, dict[str, int]] = {}
    for m in made.manifests:
        by_region = sums.setdefault(m.dataset, {})
        by_region[m.region] = by_region.get(m.region, 0) + m.tokens
    return sums
