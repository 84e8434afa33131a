"""Rows in quarantine tried again: which pass under the contract in force, and what a restated version resolved."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from data_contracts.catalog.tables import Tables, ingest_id
from data_contracts.contract import Contract
from data_contracts.errors import DataRefused
from data_contracts.odcs import nearest
from data_contracts.quarantine import Resolved, judged_again, open_versions, resolve
from data_contracts.referencing import context_of
from data_contracts.sources import open_source
from training.steps import ingest_one
from training.workspace import Workspace

_NONE = Resolved()


@dataclass(frozen=True)
class Retried:
    """One partition: what its open rows would do now, and what was done.

    `passing`, `failing` and `unknown` count the rows that were open before, judged by their stored values; `outcome` is
    that of the ingest, '' where none was needed or wanted; `resolved` what was recorded.
    """

    partition: str
    rows: int
    passing: int
    failing: int
    unknown: int
    outcome: str = ""
    resolved: Resolved = _NONE


def retry_quarantine(
    workspace: Workspace,
    dataset: str,
    partitions: Sequence[str] = (),
    *,
    contract: Contract | None = None,
    dry_run: bool = False,
) -> list[Retried]:
    """Judge the open rows of a data set again and take their partitions in anew where source or contract changed.

    Rows that an ingest since then resolved are recorded too. With `contract` (one that is not in force yet) or
    `dry_run` the rows are judged only.

    Raises:
        DataRefused: there is no such data set or partition, or the source cannot be read.
    """
    in_force = workspace.contract(dataset)
    tables = workspace.tables(in_force)
    known = list(dict.fromkeys(v.partition for v in tables.versions()))
    for name in partitions:
        if name not in known:
            raise DataRefused(f"{dataset}: no partition {name!r}{nearest(name, known)}; it has {len(known)}")
    judged = _judged(workspace, contract or in_force, tables, partitions)
    if dry_run or contract is not None:
        return judged
    done = _ingested(workspace, dataset, tables, [one.partition for one in judged])
    now = dt.datetime.now(dt.UTC)
    touched = {one.partition: one for one in judged}
    result = []
    for name in [partition for partition in known if not partitions or partition in partitions]:
        resolved = resolve(tables, name, now)
        one = touched.get(name, Retried(name, 0, 0, 0, 0))
        if name in touched or resolved != _NONE:
            facts = (one.partition, one.rows, one.passing, one.failing, one.unknown)
            result.append(Retried(*facts, done.get(name, ""), resolved))
    return result


def _judged(workspace: Workspace, contract: Contract, tables: Tables, partitions: Sequence[str]) -> list[Retried]:
    def others(dataset: str) -> Tables:
        return workspace.tables(workspace.contract(dataset))

    counts: dict[str, tuple[int, int, int]] = {}
    for version in open_versions(tables, partitions):
        context = context_of(contract, tables, version.partition, others)
        verdicts = judged_again(contract, tables.read_quarantine(version), context)
        passing, failing, unknown = counts.get(version.partition, (0, 0, 0))
        counts[version.partition] = (
            passing + verdicts.count("passes"),
            failing + verdicts.count("fails"),
            unknown + verdicts.count("unknown"),
        )
    return [Retried(name, sum(found), *found) for name, found in sorted(counts.items())]


def _ingested(workspace: Workspace, dataset: str, tables: Tables, wanted: Sequence[str]) -> dict[str, str]:
    """Take in the wanted partitions whose bytes or contract are not those of their newest version."""
    if not wanted:
        return {}
    contract = workspace.contract(dataset)
    _, known = workspace.registered(dataset)
    source = open_source(contract, known.current.source)
    newest = {v.partition: v for v in tables.versions()}
    outcomes: dict[str, str] = {}
    for part in source.partitions():
        if part.value not in wanted:
            continue
        if newest[part.value].ingest_id == ingest_id(contract.sha, part.value, part.source_sha):
            continue
        moment = known.current.moment
        result = ingest_one(workspace, contract, source, part, moment, holder="causeway quarantine retry")
        outcomes[part.value] = result.outcome
    return outcomes
