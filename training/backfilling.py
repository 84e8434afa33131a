"""Backfills over a workspace: plan one from the registered sources, open it again, run one of its items.

Plain functions without a server: the flow and the command line call them, and so may a notebook.
"""

from __future__ import annotations

import datetime as dt
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from data_contracts.backfill import record as records
from data_contracts.backfill.plan import BackfillPlan, Skipped, Through, name_of
from data_contracts.backfill.record import Outcome, Record
from data_contracts.backfill.selection import Known, Offer, Request, select
from data_contracts.backfill.state import state_of
from data_contracts.canonical import sha256
from data_contracts.catalog.leases import Busy, holder_of
from data_contracts.catalog.registry import kept_contract
from data_contracts.contract import Contract
from data_contracts.errors import CausewayError, DataRefused, StoreError
from data_contracts.schedule import expected
from data_contracts.sources import Source, SourcePartition, open_source
from training.steps import ingest_one, partition_lease
from training.workspace import Workspace

# How long an item waits for another process that works on its partition before its attempt counts as failed.
BUSY_S = 900.0


@dataclass(frozen=True)
class Planned:
    """A plan, and the backfill that already does all of it, if there is one."""

    plan: BackfillPlan
    existing: Record | None


def plan_backfill(
    workspace: Workspace,
    dataset: str,
    request: Request,
    *,
    through: Through = "ingest",
    max_active: int = 4,
    breaker: int = 5,
    reason: str = "",
    asked_by: str = "",
    run: Mapping[str, Any] | None = None,
) -> Planned:
    """Compare a data set's sources with its tables and say what a backfill would do, item by item; nothing is stored.

    Raises:
        DataRefused: the data set or a named partition is unknown, or a source is gone.
        PolicyRefused: the terms no longer permit the data set at any place.
    """
    store, registered = workspace.registered(dataset)
    contract = workspace.contract(dataset)
    offers = [
        Offer(entry, partition)
        for entry in registered.entries
        for partition in _source(kept_contract(store, registered.slug, entry.sha), entry.source).partitions()
    ]
    tables = workspace.tables(contract)
    values = {o.partition.value for o in offers}
    until = dt.datetime.now(dt.UTC).date()
    others = _others(workspace, dataset)
    known = Known(
        versions=tables.versions(),
        failed=_failed(others),
        in_flight={},
        expected=expected(contract, values, until) if request.only in ("missing", "all") else (),
    )
    wanted, _ = select(dataset, offers, request, known)
    active = [r for r in others if not state_of(r.plan, r.progress()).ended]
    doing = {r.plan.id: {(i.partition, i.published, i.source_sha) for i in r.plan.items} for r in active}
    whole = {(i.partition, i.published, i.source_sha) for i in wanted}
    existing = next((r for r in active if whole and whole <= doing[r.plan.id] and r.plan.through == through), None)
    flying = _in_flight(contract, values, active, tables.store)
    items, skipped = select(dataset, offers, request, Known(known.versions, known.failed, flying, known.expected))
    facts = dict(run or {})
    plan = BackfillPlan(
        id=name_of(dataset, through, items, facts),
        dataset=dataset,
        only=request.only,
        start=request.start,
        end=request.end,
        partitions=request.partitions,
        order=request.order,
        through=through,
        max_active=max_active,
        breaker=breaker,
        reason=reason,
        asked_by=asked_by,
        asked_at=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
        items=items,
        skipped=_in_runs(skipped),
        run=facts,
    )
    return Planned(plan, existing)


def start_backfill(workspace: Workspace, plan: BackfillPlan) -> tuple[Record, bool]:
    """Store a plan beside the data set's tables; return it, and False when the same work is already being done."""
    store, _ = workspace.registered(plan.dataset)
    return records.create(store, plan)


def backfills(workspace: Workspace, dataset: str | None = None) -> list[Record]:
    """Return every stored backfill, newest first."""
    return records.stored((store for _, store in workspace.table_stores()), dataset)


def open_backfill(workspace: Workspace, name: str) -> Record:
    """Return a stored backfill by its id, or by the beginning of it.

    Raises:
        DataRefused: none or several are so named.
    """
    hits = []
    for _, store in workspace.table_stores():
        hits += [(store, slug, found) for slug, found in records.names(store) if found.startswith(name)]
    exact = [hit for hit in hits if hit[2] == name] or hits
    if len(exact) != 1:
        said = f"{len(exact)} begin with it: {', '.join(h[2] for h in exact)}" if exact else "there is none"
        raise DataRefused(f"no backfill {name!r}: {said}; causeway backfill list shows them")
    store, slug, found = exact[0]
    return records.read(store, slug, found)


@dataclass
class Opened:
    """Sources that this process has listed; an executor that runs many items lists each source once."""

    known: dict[tuple[str, str], tuple[Contract, Source, dict[str, SourcePartition]]] = field(default_factory=dict)

    def of(self, record: Record, sha: str, location: str) -> tuple[Contract, Source, dict[str, SourcePartition]]:
        """Return the contract, the source, and its partitions by value."""
        if (sha, location) not in self.known:
            contract = kept_contract(record.store, record.plan.slug, sha)
            source = _source(contract, location)
            self.known[sha, location] = (contract, source, {p.value: p for p in source.partitions()})
        return self.known[sha, location]


def run_item(
    workspace: Workspace,
    record: Record,
    number: int,
    attempt: int,
    *,
    executor: str = "",
    flow_run: str = "",
    opened: Opened | None = None,
) -> Outcome:
    """Make one attempt of one item, and record how it ended; an attempt that has ended is not made again."""
    item = record.plan.item(number)
    known = record.ended(number, attempt)
    if known is not None:
        return known
    record.begin(item, attempt, executor, flow_run)
    began = time.monotonic()

    def ended(**facts: Any) -> Outcome:
        seconds = round(time.monotonic() - began, 3)
        now = dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
        return record.end(Outcome(number, attempt, at=now, seconds=seconds, flow_run=flow_run, **facts))

    try:
        contract, source, partitions = (opened or Opened()).of(record, item.contract_sha, item.source)
        partition = partitions.get(item.partition)
        if partition is None:
            raise DataRefused(f"{item.source}: partition {item.partition} is gone since the backfill was planned")
        if partition.source_sha != item.source_sha:
            raise DataRefused(
                f"{item.source}: partition {item.partition} has other bytes than when the backfill was planned; "
                "plan another: causeway backfill --only restated"
            )
        published = dt.datetime.fromisoformat(item.published) if item.published else None
        holder = f"backfill {record.plan.id}, item {number}"
        while True:
            try:
                result = ingest_one(workspace, contract, source, partition, published, holder)
                break
            except Busy:
                if time.monotonic() - began > BUSY_S:
                    raise
                time.sleep(0.5)
    except CausewayError as error:
        final = not isinstance(error, StoreError | Busy)
        return ended(ended="failed", message=str(error), cause=cause_of(error), final=final)
    except Exception as error:
        # Another library's words may quote a row: its type alone is kept.
        kind = f"{type(error).__name__} while {item.partition} was taken in; the process' own log has the message"
        _log(error, record, number)
        return ended(ended="failed", message=kind, cause=type(error).__name__, final=False)
    v = result.version
    rules = ", ".join(f"{name} {count}" for name, count in sorted(v.reasons.items()))
    refused = result.outcome == "refused"
    broken = [r for r in result.report.batch_results if not r.passed and r.rule.severity == "error"]
    why = "; ".join([*(r.detail for r in broken), *([f"rows: {rules}"] if rules else [])]) or "a rule of the whole"
    return ended(
        ended=result.outcome,
        rows_in=v.rows_in,
        accepted=v.rows_accepted,
        quarantined=v.rows_quarantined,
        message=f"refused: {why}" if refused else "",
        cause=f"refused: {', '.join([*(r.rule.name for r in broken), *sorted(v.reasons)]) or why}" if refused else "",
    )


def cause_of(error: Exception) -> str:
    """Return an error without what is particular to one partition, so that equal causes can be counted."""
    first = (str(error).splitlines() or [""])[0]
    text = re.sub(r"'[^']*'|\"[^\"]*\"|(?:/[^\s:,;]+)+|[0-9a-f]{8,}|\d[\d.:T-]*", "...", first)
    return f"{type(error).__name__}: {text}"[:200]


def _log(error: Exception, record: Record, number: int) -> None:
    import logging

    logging.getLogger(__name__).error("backfill %s, item %d", record.plan.id, number, exc_info=error)


def _source(contract: Contract, location: str) -> Source:
    if not location:
        raise DataRefused(
            f"{contract.id}: nothing says where its data is; run: causeway sources add {contract.path} SOURCE"
        )
    return open_source(contract, location)


def _others(workspace: Workspace, dataset: str) -> list[Record]:
    """Return the stored backfills of a data set, oldest first."""
    return backfills(workspace, dataset)[::-1]


def _failed(others: Sequence[Record]) -> dict[tuple[str, str], str]:
    """Return how each slot failed last, by the newest backfill that had it."""
    failed: dict[tuple[str, str], str] = {}
    for record in others:
        for one in state_of(record.plan, record.progress()).items:
            slot = (one.item.partition, one.item.published)
            if one.status == "failed" and one.outcome is not None:
                failed[slot] = one.outcome.message.splitlines()[0]
            elif one.status in ("done", "refused"):
                failed.pop(slot, None)
    return failed


def _in_flight(contract: Contract, values: set[str], active: Sequence[Record], store: Any) -> dict[str, str]:
    """Return why a partition must not be taken in now: another backfill will, or a process is at it."""
    found: dict[str, str] = {}
    held = {key.split("/")[3] for key, _ in store.list(f"leases/ingest/{contract.slug}")}
    for value in values:
        name = partition_lease(contract.id, value)
        if sha256(value.encode())[:16] in held:
            holder = holder_of(store, name)
            if holder is not None and not holder.dead:
                found[value] = f"in flight: {holder.holder} works on it (process {holder.pid} on {holder.host})"
    for record in active:
        for one in state_of(record.plan, record.progress()).items:
            if one.status in ("waiting", "running"):
                found[one.item.partition] = f"in flight: item {one.item.number} of backfill {record.plan.id}"
    return found


def _in_runs(skipped: Sequence[Skipped]) -> tuple[Skipped, ...]:
    """Join neighbours that are left alone for one reason: a source that ended long ago lacks thousands of days."""
    joined: list[tuple[Skipped, Skipped, int]] = []
    for one in skipped:
        if joined and "no source has it" in one.reason and joined[-1][1].reason == one.reason:
            first, _, count = joined[-1]
            joined[-1] = (first, one, count + 1)
        else:
            joined.append((one, one, 1))
    return tuple(
        first if count == 1 else Skipped(f"{first.partition} to {last.partition}", "", f"{count}: {first.reason}")
        for first, last, count in joined
    )
