"""What a home folder holds at this moment, and what of it needs a person. Reads each table once, and no records.

Each section of the answer is one function. A data set or run that cannot be read needs a person, and hides no other.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from data_contracts.backfill.record import stored
from data_contracts.backfill.state import state_of
from data_contracts.catalog.registry import kept_contract, read_registered
from data_contracts.catalog.store import Store
from data_contracts.catalog.tables import Tables
from data_contracts.catalog.versions import newest_and_in_force, version_rows
from data_contracts.contract import Contract
from data_contracts.errors import CausewayError, PolicyRefused
from data_contracts.notices import Notice, notices
from data_contracts.schedule import Freshness, freshness_of
from training.workspace import Workspace

# The flow `tend` puts notices of this kind; here the same is worked out from the tables, newer by up to a minute.
_LATE = "partition-late"
# So many partitions are named in a sentence; the others are counted.
_NAMED = 3
# The newest backfills are shown; of one with more items the names are counted, not the outcomes read.
_BACKFILLS = 3
_READ_ITEMS = 500


@dataclass(frozen=True)
class DatasetState:
    """One data set. Rows are those of the partitions in force; `refused` are those whose newest version was refused.

    `contract_version` is that of the contract in force; `contract_versions` counts the partitions in force by the
    version that took them in.
    """

    dataset: str
    tables_at: str
    partitions: int
    versions: int
    refused: tuple[str, ...]
    accepted: int
    quarantined: int
    contract_version: str
    contract_versions: dict[str, int]
    published_at: str | None
    freshness: Freshness


@dataclass(frozen=True)
class ShardState:
    """The shards at one site and their size in bytes."""

    site: str
    region: str
    shards: int
    arrow_bytes: int


@dataclass(frozen=True)
class BackfillState:
    """One backfill: items with an outcome of those planned; `stands` is empty where there are too many to read."""

    id: str
    dataset: str
    only: str
    items: int
    settled: int
    stands: str
    asked_by: str
    asked_at: str
    said: str = ""


@dataclass(frozen=True)
class RunState:
    """One run: rounds committed of those planned.

    `state` is open, finished, paused or cancelled; `why` says who paused or cancelled it, when and why; `codecs` is the
    codec of each site's updates.
    """

    run: str
    purpose: str
    rounds: int
    planned: int
    state: str
    why: str = ""
    codecs: Mapping[str, str] = field(default_factory=dict)


def dataset_states(workspace: Workspace, now: datetime) -> tuple[list[DatasetState], list[Notice]]:
    """Return the data sets by name, and what of them needs a person: late, refused, unreadable, not permitted."""
    found: list[DatasetState] = []
    needs: list[Notice] = []
    for place, store in workspace.table_stores():
        for slug in store.folders("contracts"):
            dataset = slug.replace("--", "/")
            try:
                known = read_registered(store, slug)
                if known is None:
                    continue
                contract = kept_contract(store, slug, known.current.sha)
                state, refused_at = _dataset_state(contract, Tables(store, slug), place.name, now)
                found.append(state)
                needs.extend(_needs(state, refused_at))
                workspace.table_place(contract)
            except PolicyRefused as error:
                needs.append(Notice("not-permitted", dataset, str(error), ""))
            except CausewayError as error:
                needs.append(Notice("unreadable", dataset, str(error), ""))
    return sorted(found, key=lambda state: state.dataset), needs


def _dataset_state(contract: Contract, tables: Tables, place: str, now: datetime) -> tuple[DatasetState, str]:
    """Return the state, and when the oldest refusal that still stands was published ('' without one)."""
    rows = version_rows(tables)
    newest, in_force = newest_and_in_force(rows)
    refused = [row for row in newest.values() if row.verdict == "refused"]
    published = {row.partition: row.published_at for row in in_force.values()}
    state = DatasetState(
        dataset=contract.id,
        tables_at=place,
        partitions=len(in_force),
        versions=len(rows),
        refused=tuple(row.partition for row in refused),
        accepted=sum(row.rows_accepted for row in in_force.values()),
        quarantined=sum(row.rows_quarantined for row in in_force.values()),
        contract_version=contract.version,
        contract_versions=dict(sorted(Counter(row.contract_version for row in in_force.values()).items())),
        published_at=max(published.values(), default=None),
        freshness=freshness_of(contract, newest, published, now),
    )
    return state, min((row.published_at for row in refused), default="")


def _needs(state: DatasetState, refused_at: str) -> list[Notice]:
    found = []
    if state.refused:
        text = (
            f"{_listed(state.refused)} refused; see causeway quarantine {state.dataset}, then mend and ingest again, "
            f"or causeway override request {state.dataset} PARTITION"
        )
        found.append(Notice("partition-refused", state.dataset, text, refused_at))
    if state.freshness.late:
        newest = f"the newest is {state.freshness.newest}" if state.freshness.newest else "nothing is accepted yet"
        text = (
            f"{state.freshness.words}; {newest}. Ask its owner, or bring the source here and run: "
            f"causeway backfill {state.dataset}"
        )
        found.append(Notice(_LATE, state.dataset, text, state.freshness.due or ""))
    return found


def _listed(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def shard_states(workspace: Workspace) -> list[ShardState]:
    """Return how many shards lie at each site."""
    found = []
    for region in workspace.sites.regions:
        site = region.sites[0]
        sizes = _arrow_sizes(workspace.store(site.name))
        found.append(ShardState(site.name, site.region, len(sizes), sum(sizes)))
    return found


def _arrow_sizes(store: Store) -> list[int]:
    if store.root is None:
        return [size for key, size in store.list("shards") if key.endswith(".arrow")]
    # Half of the objects are manifests; asking only for the sizes of the others takes a quarter of a listing's time.
    found: list[int] = []
    for slug in store.folders("shards"):
        with os.scandir(store.path(f"shards/{slug}")) as entries:
            found.extend(entry.stat().st_size for entry in entries if entry.name.endswith(".arrow"))
    return found


def run_states(workspace: Workspace) -> tuple[list[RunState], list[Notice]]:
    """Return the runs by name, and a notice for each that cannot be read."""
    found: list[RunState] = []
    needs: list[Notice] = []
    for run in workspace.home.folders("runs"):
        try:
            if workspace.home.exists(f"runs/{run}/plan.json"):
                found.append(_run_state(workspace.home, run))
        except CausewayError as error:
            needs.append(Notice("unreadable", run, str(error), ""))
    return found, needs


def _run_state(home: Store, run: str) -> RunState:
    # Imported where there are runs: the plan's pydantic models cost a sixth of a second.
    from training.rounds.control import read_control
    from training.rounds.plan import read_plan

    plan, control = read_plan(home, run), read_control(home, run)
    # A round that was superseded has several commits: 000003.json, 000003.1.json.
    rounds = len({key.rsplit("/", 1)[1][:6] for key, _ in home.list(f"runs/{run}/commits")})
    codecs = {site.name: plan.codec_of(site.name) for site in plan.sites}
    state, why = (control.state, control.words) if control.state != "running" else ("open", "")
    if rounds >= plan.rounds:
        state, why = "finished", ""
    return RunState(run, plan.purpose, rounds, plan.rounds, state, why, codecs)


def noticed(workspace: Workspace) -> list[Notice]:
    """Return the notices that were put and not cleared, but for late data sets; one more if they cannot be read."""
    try:
        return [notice for notice in notices(workspace.home) if notice.kind != _LATE]
    except CausewayError as error:
        return [Notice("unreadable", "notices", str(error), "")]


def backfill_states(workspace: Workspace) -> tuple[list[BackfillState], list[Notice]]:
    """Return the newest backfills, and those that stand stopped or failed as what needs a person."""
    found: list[BackfillState] = []
    needs: list[Notice] = []
    # The list itself: what plans and runs backfills costs a third of a second to import.
    stores = (store for _, store in workspace.table_stores())
    for record in stored(stores)[:_BACKFILLS]:
        plan = record.plan
        stands = said = ""
        if len(plan.items) <= _READ_ITEMS:
            state = state_of(plan, record.progress())
            stands, said = state.word, state.said
            if state.word in ("stopped", "failed"):
                then = "resume" if state.word == "stopped" else "retry"
                cause = f": {state.causes[0].example}" if state.causes else ""
                message = f"{state.counts['failed']} failed{cause}; causeway backfill {then} {plan.id}"
                needs.append(Notice(f"backfill-{state.word}", f"{plan.dataset} {plan.id}", message, plan.asked_at))
        found.append(
            BackfillState(
                plan.id,
                plan.dataset,
                plan.only,
                len(plan.items),
                record.settled(),
                stands,
                plan.asked_by,
                plan.asked_at,
                said,
            )
        )
    return found, needs
