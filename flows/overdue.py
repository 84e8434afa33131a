"""What a home waits for: partitions that are late, text that no run has used."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection
from dataclasses import dataclass

from data_contracts.schedule import Freshness, freshness
from training.rounds.plan import Plan, read_plan
from training.rounds.run import every_version
from training.shards.manifest import read_version
from training.workspace import Workspace

LATE = "partition-late"
READY = "tokens-ready"


@dataclass(frozen=True)
class Late:
    """A data set that does not keep its promise. `subject` names it and what it has waited for longest."""

    slug: str
    subject: str
    message: str


def late(workspace: Workspace, now: dt.datetime) -> list[Late]:
    """Return the data sets that are late.

    One that stays late is the same subject until the partition that is missing longest has come.
    """
    found = []
    for name in workspace.datasets():
        contract = workspace.contract(name)
        state = freshness(contract, workspace.tables(contract).versions(), now)
        if state.late:
            first = state.missing[0] if state.missing else f"since {state.due}"
            found.append(Late(contract.slug, f"{name} {first}", _message(name, state)))
    return found


def _message(name: str, state: Freshness) -> str:
    missing = f"; missing: {_few(state.missing)}" if state.missing else ""
    return (
        f"{name}: {state.words}, newest {state.newest or 'none'}{missing}."
        f" Ask its owner, or bring the source here and run: causeway backfill {name}"
    )


def _few(values: tuple[str, ...]) -> str:
    return ", ".join(values[:3]) + (f" and {len(values) - 3:,} more" if len(values) > 3 else "")


def waiting_bytes(workspace: Workspace, more: Collection[str] = ()) -> dict[str, int]:
    """Return, by data set, the bytes of its current partitions that no plan has used.

    Counted are the data sets that a plan uses, and `more`. The bytes are those of the source, in the share of rows that
    was accepted: what the text is exactly is known when it is sharded.
    """
    used: dict[str, set[str]] = {name: set() for name in more}
    for plan in plans(workspace):
        for sha, dataset in every_version(workspace.home, plan).items():
            version = read_version(workspace.home, dataset, sha)
            used.setdefault(dataset, set()).update(str(p["ingest_id"]) for p in version.partitions)
    waiting = {}
    for name in sorted(used.keys() & set(workspace.datasets())):
        current = workspace.tables(workspace.contract(name)).current().values()
        new = [v for v in current if v.ingest_id not in used[name] and v.rows_in]
        waiting[name] = sum(v.bytes_in * v.rows_accepted // v.rows_in for v in new)
    return {name: count for name, count in waiting.items() if count}


def plans(workspace: Workspace) -> list[Plan]:
    """Return the plans of the home, by run."""
    runs = sorted(k.split("/")[1] for k, _ in workspace.home.list("runs") if k.endswith("/plan.json"))
    return [read_plan(workspace.home, run) for run in runs]
