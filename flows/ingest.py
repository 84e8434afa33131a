"""Ingest: one async flow run per partition, each published by one row."""

# No postponed annotations here: a Prefect worker that loads a flow could not resolve the names in them.

import asyncio
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from prefect import flow, get_run_logger, runtime, task
from prefect.artifacts import acreate_markdown_artifact, acreate_table_artifact
from prefect.events import emit_event

from data_contracts.contract import Contract, load_contract
from data_contracts.errors import CausewayError, DataRefused
from data_contracts.ingest import IngestResult
from data_contracts.moments import moment_of
from data_contracts.oracle import ask_oracle
from data_contracts.sources import Source, open_source
from flows.credentials import load_where_deployed
from flows.progress import report
from flows.retries import is_transient
from training.backfilling import open_backfill, run_item
from training.steps import Only, admit, beside, ingest_one, outstanding, quarantine_examples
from training.workspace import Workspace

_LOG = logging.getLogger(__name__)
_WHY = 40  # characters; the partition's own artifact has all of it
P = ParamSpec("P")
T = TypeVar("T")


@dataclass
class Ingested:
    """What one ingest did, over its partitions. `rows` are one dict a partition, as the artifact shows them."""

    dataset: str
    partitions: int = 0
    unchanged: int = 0
    rows_in: int = 0
    accepted: int = 0
    quarantined: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    oracle: dict[str, Any] = field(default_factory=dict)


@lru_cache(maxsize=16)
def _source(contract_path: str, location: str) -> tuple[Contract, Source]:
    # Listing a source may mean hashing it: the runs of one process share the listing.
    contract = load_contract(Path(contract_path))
    return contract, open_source(contract, location)


def forget_sources() -> None:
    """Forget listings, so that the next ingest of a long-lived process sees what has changed."""
    _source.cache_clear()


def _registered(home: str, contract: str, source: str, published: str) -> tuple[str, str, str]:
    """Return contract path, source and publication; a data set's id stands for what is registered for it."""
    if contract.endswith((".yaml", ".yml", ".json")):
        if not source:
            raise DataRefused(f"{contract}: give the source too; without one, give the id of a registered data set")
        return contract, source, published
    workspace = Workspace.open(Path(home))
    _, known = workspace.registered(contract)
    path, place = workspace.source(contract)
    return path, source or place, published or known.current.published


async def _apart(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run work in a thread. Prefect keeps what is raised, and another library's words may quote a row: only ours pass.

    Raises:
        CausewayError: as the work raised it, without what it came from; or, for any other error, its type's name.
    """
    try:
        return await asyncio.to_thread(work, *args, **kwargs)
    except CausewayError as error:
        raise error from None
    except Exception as error:
        kind = _named(error)
    # Outside the handler: the new error carries no trace of the old one.
    raise CausewayError(kind)


def _named(error: Exception) -> str:
    """Return what Prefect may know of an error; the rest goes to the log of this process."""
    if isinstance(error, CausewayError):
        return str(error)
    _LOG.error("ingest", exc_info=error)
    return f"{type(error).__name__}; the process' own log has the message"


@task(
    retries=2, retry_delay_seconds=1, retry_jitter_factor=0.5, retry_condition_fn=is_transient, task_run_name="publish"
)
async def publish(home: str, contract: str, source: str, partition: str, published: str = "") -> dict[str, Any]:
    """Validate one partition and publish its version."""
    contract, source, published = await _apart(_registered, home, contract, source, published)
    loaded, opened = await _apart(_source, contract, source)
    chosen = next((p for p in await _apart(opened.partitions) if p.value == partition), None)
    if chosen is None:
        raise DataRefused(f"{loaded.id}: the source has no partition {partition!r} any more")
    run = runtime.flow_run.name or "ingest"
    workspace = Workspace.open(Path(home))
    result = await _apart(ingest_one, workspace, loaded, opened, chosen, moment_of(published), f"flow run {run}")
    v = result.version
    return {
        "partition": v.partition,
        "outcome": result.outcome,
        "rows_in": v.rows_in,
        "accepted": v.rows_accepted,
        "quarantined": v.rows_quarantined,
        "reasons": _reasons(result),
        "ingest_id": v.ingest_id[:12],
    }


def _reasons(result: IngestResult) -> str:
    """Return the batch rules that refused the partition, then the row rules with their counts."""
    broken = [r.detail for r in result.report.batch_results if not r.passed and r.rule.severity == "error"]
    if result.outcome == "refused" and not broken:
        broken = ["refused before, the same bytes under the same contract"]
    rows = ", ".join(f"{name} {count}" for name, count in sorted(result.version.reasons.items()))
    return "; ".join([*broken, *([rows] if rows else [])])


@task(task_run_name="great expectations")
async def great_expectations(home: str, contract: str, source: str) -> dict[str, Any]:
    """Run the same rules through Great Expectations, write its Data Docs, and compare the verdicts."""
    loaded, opened = await _apart(_source, contract, source)
    workspace = Workspace.open(Path(home))
    secret = workspace.keys.secret(f"dataset-{loaded.slug}")
    answer, _ = await _apart(ask_oracle, loaded, opened, workspace.tables(loaded), secret, beside(workspace, loaded))
    return {**asdict(answer), "differences": list(answer.differences), "verdicts": dict(answer.verdicts)}


@flow(name="ingest-partition", flow_run_name="ingest {dataset} {partition}")
async def ingest_partition_flow(
    home: str,
    dataset: str,
    partition: str,
    contract: str = "",
    source: str = "",
    published: str = "",
    backfill: str = "",
    item: int = 0,
    attempt: int = 0,
) -> dict[str, Any]:
    """Take in one partition.

    Args:
        home: The --home folder.
        dataset: The data set's id; it names the run.
        partition: The partition's value.
        contract: Path of the contract; empty for the one that is registered.
        source: A path, or env: for the packages of a Python environment; empty for the one that is registered.
        published: When its owner published it, ISO 8601; for data sets that are ordered by publication.
        backfill: The backfill that this is an item of; it then says all of the above.
        item: The item's number.
        attempt: Which attempt this is, counted from 1.
    """
    await _credentials(home, dataset)
    if backfill:
        row = await _item(home, backfill, item, attempt)
    else:
        row = await publish(home, contract or dataset, source, partition, published)
    get_run_logger().info(
        "%s %s: %s, %d in, %d accepted, %d quarantined",
        *(dataset, partition, row["outcome"], row["rows_in"], row["accepted"], row["quarantined"]),
    )
    if row["outcome"] != "unchanged":
        await _show(home, dataset, partition, row)
    return row


async def _credentials(home: str, contract: str) -> None:
    """Let a deployed run have the credentials of the place of the data set's tables; `contract` is a path or an id."""
    if not runtime.deployment.id:
        return  # nothing is opened for nothing

    def place() -> str:
        workspace = Workspace.open(Path(home))
        known = contract.endswith((".yaml", ".yml", ".json"))
        loaded = load_contract(Path(contract)) if known else workspace.contract(contract)
        return workspace.table_place(loaded).name

    await load_where_deployed(await _apart(place))


async def _item(home: str, backfill: str, item: int, attempt: int) -> dict[str, Any]:
    """Make one attempt of a backfill's item; the backfill decides on another, so nothing is retried here."""
    workspace = Workspace.open(Path(home))
    record = await _apart(open_backfill, workspace, backfill)
    run = str(runtime.flow_run.id or "")
    outcome = await asyncio.to_thread(run_item, workspace, record, item, attempt, executor="flow run", flow_run=run)
    if not outcome.done:
        raise DataRefused(f"{outcome.message} (attempt {attempt} of item {item}, backfill {backfill})")
    return {
        "partition": record.plan.item(item).partition,
        "outcome": outcome.ended,
        "rows_in": outcome.rows_in,
        "accepted": outcome.accepted,
        "quarantined": outcome.quarantined,
        "reasons": outcome.message.removeprefix("refused: "),
        "ingest_id": "",
    }


async def _show(home: str, dataset: str, partition: str, row: dict[str, Any]) -> None:
    """Leave an artifact of what came in and what was refused, with examples by id and file, never their values."""
    examples = await _apart(quarantine_examples, Workspace.open(Path(home)), dataset, partition, 3)
    lines = [
        f"## {dataset} {partition}: {row['outcome']}",
        f"{row['rows_in']:,} rows in, {row['accepted']:,} accepted, {row['quarantined']:,} quarantined.",
    ]
    if row["outcome"] == "refused":
        ask = f"`causeway override request {dataset} {partition}`"
        lines += ["", f"Why: {row['reasons']}."]
        lines += ["", f"Mend the source, or let a person publish it all the same: the deployment `override`, or {ask}."]
    if examples:
        lines += ["", "| rule | rows | examples (file:record, id) |", "|---|--:|---|"]
        lines += [f"| {e.rule} | {e.rows:,} | {'<br>'.join(e.examples)} |" for e in examples]
    where = f"`causeway table show {dataset} {partition}`, `causeway quarantine {dataset}`"
    lines += ["", f"Rows: {where}."]
    # One key a data set: its partitions are versions of one artifact, or ten thousand of them would hide all others.
    slug = re.sub(r"[^a-z0-9]+", "-", dataset)
    await acreate_markdown_artifact(
        markdown="\n".join(lines), key=f"partition-{slug}", description=f"{dataset} {partition}"
    )
    if row["outcome"] == "refused":
        emit_event(
            "causeway.partition.refused",
            resource={"prefect.resource.id": f"causeway.dataset.{dataset.replace('/', '--')}"},
            payload={"dataset": dataset, "partition": partition, "reasons": row["reasons"]},
        )


def _columns(row: dict[str, Any]) -> dict[str, Any]:
    """Return a row of the table artifact, as wide as the UI shows without scrolling on a laptop."""
    why = row["reasons"] if len(row["reasons"]) <= _WHY else row["reasons"][: _WHY - 3] + "..."
    shown = {"rows": row["rows_in"], "accepted": row["accepted"], "quarantined": row["quarantined"]}
    return {"partition": row["partition"], "outcome": row["outcome"], **shown, "why": why}


def _run_name() -> str:
    parameters = runtime.flow_run.parameters
    return f"ingest {Path(str(parameters.get('contract', ''))).stem}"


@flow(name="ingest", flow_run_name=_run_name)
async def ingest(
    home: str,
    contract: str,
    source: str = "",
    only: Only = "changed",
    partitions: Sequence[str] = (),
    max_active: int = 2,
    oracle: bool = False,
    published: str = "",
) -> Ingested:
    """Take in the partitions of a source that are new, changed, or named; one flow run each.

    A refused or failing partition does not stop the others; the flow fails at the end when any failed.

    Args:
        home: The --home folder.
        contract: Path of the contract, or the id of a registered data set.
        source: A path, or env: for the packages of a Python environment; empty for the one that is registered.
        only: changed (new bytes or contract), missing (never ingested), or all.
        partitions: Only these partition values; empty for every one.
        max_active: How many partitions are worked on at once.
        oracle: Let Great Expectations run the same rules over the whole source; its verdicts must agree.
        published: When its owner published this source, ISO 8601; for data sets that are ordered by publication.
    """
    workspace = Workspace.open(Path(home))
    forget_sources()
    contract, source, published = await _apart(_registered, home, contract, source, published)
    await _credentials(home, contract)
    loaded, opened = await _apart(_source, contract, source)
    await _apart(admit, workspace, loaded, source, moment_of(published))
    due = await _apart(outstanding, workspace, loaded, opened, only, partitions, moment_of(published))
    done = Ingested(loaded.id, unchanged=due.unchanged)
    gate = asyncio.Semaphore(max_active)

    async def one(value: str) -> None:
        async with gate:
            try:
                row = await ingest_partition_flow(home, loaded.id, value, contract, source, published)
            except Exception as error:
                done.failed[value] = _named(error)
            else:
                done.rows.append(row)
                done.partitions += row["outcome"] != "unchanged"
                done.rows_in += row["rows_in"]
                done.accepted += row["accepted"]
                done.quarantined += row["quarantined"]
            report(f"ingest {loaded.id}", len(done.rows) + len(done.failed), len(due.todo), value)

    await asyncio.gather(*(one(p.value) for p in due.todo))
    done.rows.sort(key=lambda row: str(row["partition"]))
    logger = get_run_logger()
    logger.info(
        "%s: %d partitions ingested, %d unchanged, %d rows in, %d accepted, %d quarantined",
        *(loaded.id, done.partitions, done.unchanged, done.rows_in, done.accepted, done.quarantined),
    )
    if done.rows:
        await acreate_table_artifact(
            table=[_columns(row) for row in done.rows],
            key=f"ingest-{loaded.slug}".replace("--", "-"),
            description=f"## {loaded.id}\n{done.rows_in:,} rows in, {done.accepted:,} accepted,"
            f" {done.quarantined:,} quarantined. `causeway quarantine {loaded.id}` shows why.",
        )
    if done.failed:
        lines = "\n".join(f"  {value}: {why}" for value, why in sorted(done.failed.items()))
        raise DataRefused(f"{loaded.id}: {len(done.failed)} of {len(due.todo)} partitions failed:\n{lines}")
    if oracle:
        done.oracle = await great_expectations(home, contract, source)
        if done.oracle["differences"]:
            raise DataRefused(
                f"{loaded.id}: Great Expectations disagrees:\n  " + "\n  ".join(done.oracle["differences"])
            )
    return done
