"""Start the flow that executes a backfill on the workers of home."""

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterTags
from prefect.client.schemas.sorting import FlowRunSort
from prefect.deployments import arun_deployment

from data_contracts.backfill.record import Record

EXECUTOR = "executor"  # tag of the runs that execute a backfill; those of its partitions lack it


async def start_deployed(record: Record) -> str:
    """Start a run of `backfill/backfill` that goes on with a backfill, or find the one that does; return its id.

    Of several who start it at one moment all get the same run: the key counts the runs that have ended.
    """
    plan = record.plan
    tags = ["causeway", f"dataset:{plan.dataset}", f"backfill:{plan.id}", EXECUTOR]
    async with get_client() as client:
        known = await client.read_flow_runs(
            flow_run_filter=FlowRunFilter(tags=FlowRunFilterTags(all_=tags)), sort=FlowRunSort.ID_DESC, limit=200
        )
    alive = [run for run in known if run.state is not None and not run.state.is_final()]
    if alive:
        return str(alive[0].id)
    run = await arun_deployment(
        "backfill/backfill",
        parameters={"dataset": plan.dataset, "resume": plan.id},
        flow_run_name=f"backfill {plan.dataset} {plan.id}",
        timeout=0,
        as_subflow=False,
        tags=tags,
        idempotency_key=f"{plan.id}/executor/{len(known)}",
    )
    return str(run.id)
