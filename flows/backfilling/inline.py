"""Items run in this process, without Prefect: nothing to start, nothing to wait for."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from data_contracts.backfill.plan import Item
from data_contracts.backfill.record import Outcome, Record
from data_contracts.backfill.state import state_of
from training.backfilling import Opened, run_item
from training.planning import RunConfig
from training.steps import curate_set, make_shards, make_tokenizer, plan_run, read_sets
from training.workspace import Workspace


@dataclass
class Inline:
    """Runs items in threads of this process."""

    workspace: Workspace
    record: Record
    survives: bool = False
    opened: Opened = field(default_factory=Opened)

    async def run(self, item: Item, attempt: int) -> Outcome:
        """Run one attempt."""
        return await asyncio.to_thread(
            run_item, self.workspace, self.record, item.number, attempt, executor="inline", opened=self.opened
        )

    async def cancel(self) -> None:
        """Threads cannot be ended: what runs is awaited, and publishes whole or not at all."""


def finish(workspace: Workspace, record: Record) -> None:
    """Do the stages that follow the items as plain functions."""
    plan = record.plan
    left = state_of(plan, record.progress()).stages_left
    if "curate" in left:
        curate_set(workspace, workspace.contract(plan.dataset))
        record.finish_stage("curate")
    if "shard" in left:
        config = RunConfig.model_validate(plan.run)
        sets = read_sets(workspace, config.datasets)
        tokenizer = make_tokenizer(workspace, config, sets)
        made = make_shards(workspace, config, sets, tokenizer)
        plan_run(workspace, config, made, tokenizer.tokenizer.vocab_size)
        record.finish_stage("shard")
