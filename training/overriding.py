"""Override over a workspace: what a person is shown of a refused partition, and the step that publishes it."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from data_contracts.catalog.leases import hold
from data_contracts.catalog.lineage import Node
from data_contracts.catalog.registry import kept_contract
from data_contracts.catalog.tables import PartitionVersion
from data_contracts.contract import Contract
from data_contracts.errors import DataRefused
from data_contracts.overriding import (
    Refusal,
    overridden_version,
    override_partition,
    refusal,
    refused_version,
    would_be_current,
)
from training.steps import partition_lease, partition_node
from training.workspace import Workspace


@dataclass(frozen=True)
class Case:
    """A refused version before a person decides: why it was refused, and what publishing it would change.

    `current` is the version in force, if any; `replaces` says whether the overridden one would take its place.
    `overridden` is the version that overrides it already: then there is nothing to decide.
    """

    refused: PartitionVersion
    refusal: Refusal
    current: PartitionVersion | None
    replaces: bool
    overridden: PartitionVersion | None


def case_of(workspace: Workspace, contract: Contract, partition: str, ingest_id: str = "") -> Case:
    """Gather what a person must see to decide on a refused version; '' is the newest refused one.

    Raises:
        DataRefused: no such refused version, or the contract that refused it is kept no more.
        PolicyRefused: no place may hold the data set today.
    """
    tables = workspace.tables(contract)
    refused = refused_version(tables, partition, ingest_id)
    judging = kept_contract(tables.store, contract.slug, refused.contract_sha)
    return Case(
        refused,
        refusal(judging, tables, refused),
        tables.current().get(partition),
        would_be_current(contract, tables, refused),
        overridden_version(tables, refused),
    )


@dataclass(frozen=True)
class Overridden:
    """The version that an override published, and whether it is the current one of its partition."""

    version: PartitionVersion
    current: bool

    @property
    def words(self) -> str:
        """Who, when and why, and what readers get now."""
        v = self.version
        state = "it is current" if self.current else "a newer version of the partition stays current"
        return (
            f"{v.dataset} {v.partition}: {v.rows_accepted} rows published by {v.approved_by} at {v.published_at}, "
            f"{state}; why: {v.approved_why}"
        )


def override_one(
    workspace: Workspace,
    contract: Contract,
    partition: str,
    ingest_id: str,
    by: str,
    why: str,
    shown: Case | None = None,
) -> Overridden:
    """Override a refused version and record in the lineage who did it and why; repeating it adds nothing.

    With `shown`, what the person saw, the version in force must still be the one of then.

    Raises:
        DataRefused: as `override_partition`; or another version came into force since the person was asked.
        PolicyRefused: no place may hold the data set today.
        Busy: another process works on this partition.
    """
    place = workspace.table_place(contract).name
    tables = workspace.tables(contract)
    with hold(tables.store, partition_lease(contract.id, partition), f"override by {by}"):
        if shown is not None:
            _check_unchanged(shown, tables.current().get(partition))
        version = override_partition(contract, tables, partition, ingest_id, by, why, dt.datetime.now(dt.UTC))
        current = tables.current()[partition].attempt_id == version.attempt_id
    # One node: a version is named by its ingest, whatever its verdict. The facts of the output say what it became.
    name = partition_node(version.dataset, version.partition, version.ingest_id)
    facts = {
        "verdict": version.verdict,
        "accepted": version.rows_accepted,
        "approved_by": version.approved_by,
        "approved_why": version.approved_why,
        "approved_at": version.published_at,
    }
    key = f"{version.dataset}/{version.partition}/{version.attempt_id}"
    workspace.lineage(place).emit_once("override", key, [Node(name, {"verdict": "refused"})], [Node(name, facts)])
    return Overridden(version, current)


def _check_unchanged(shown: Case, now: PartitionVersion | None) -> None:
    done = now is not None and now.verdict == "overridden" and now.attempt_id == shown.refused.attempt_id
    if done or now == shown.current:
        return
    was = "no version" if shown.current is None else f"ingest {shown.current.ingest_id[:12]}"
    found = "no version" if now is None else f"ingest {now.ingest_id[:12]}"
    raise DataRefused(
        f"{shown.refused.dataset}: partition {shown.refused.partition}: when approval was asked for, {was} was in "
        f"force, now it is {found}; nothing was published: look at it, and request the override again if it is needed"
    )
