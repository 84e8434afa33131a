"""Override: a person accepts a partition that its batch rules refused; one more row of `versions` publishes it.

The rows were written when it was refused, under its attempt_id, and are not written again. What was quarantined stays
there. A version that policy forbids is never in the table, so it cannot be overridden.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, replace

from data_contracts.batchchecks import BatchResult
from data_contracts.catalog.tables import PartitionVersion, Tables
from data_contracts.contract import Contract
from data_contracts.errors import DataRefused
from data_contracts.referencing import context_of
from data_contracts.rules import batch_rules
from data_contracts.validation import judge

EXAMPLES = 3


def override_partition(
    contract: Contract,
    tables: Tables,
    partition: str,
    ingest_id: str,
    by: str,
    why: str,
    now: dt.datetime,
) -> PartitionVersion:
    """Publish a refused version as `overridden`, with who accepted it and why; what is published already is returned.

    `ingest_id` may be shortened; empty is the newest refused version. Where arrival decides, the new row comes last
    and so is current. Where publication decides it has the sequence of the refused one: a newer publication stays
    current (`would_be_current` tells). `now` must carry a time zone.

    Raises:
        DataRefused: no such refused version, nobody or no reason named, or none of its rows was accepted.
        StoreError: its accepted rows are not all there.
    """
    by, why = by.strip(), why.strip()
    if not by or not why:
        raise DataRefused(
            f"{contract.id}: partition {partition}: an override needs {'a reason' if by else 'a name'}; "
            "say who accepts it and why"
        )
    if now.tzinfo is None:
        raise ValueError(f"{now}: a moment without a time zone; give one in UTC")
    refused = refused_version(tables, partition, ingest_id)
    done = overridden_version(tables, refused)
    if done is not None:
        return done
    if not refused.rows_accepted:
        raise DataRefused(
            f"{contract.id}: partition {partition}, ingest {refused.ingest_id[:12]}: none of its {refused.rows_in} "
            "rows was accepted, so there is nothing to publish; mend the source and ingest again"
        )
    tables.read_accepted(_readable(refused), ["record_id"])
    version = replace(
        refused,
        verdict="overridden",
        sequence=_sequence(contract, tables, refused),
        published_at=now.astimezone(dt.UTC).isoformat(timespec="microseconds"),
        approved_by=by,
        approved_why=why,
        format=PartitionVersion.format,
    )
    tables.publish(version)
    return version


def refused_version(tables: Tables, partition: str, ingest_id: str = "") -> PartitionVersion:
    """Return the refused version of a partition whose ingest_id begins so; of several attempts, or for '', the newest.

    Raises:
        DataRefused: there is none, or the beginning fits several; names those that there are.
    """
    history = tables.versions(partition)
    refused = [version for version in history if version.verdict == "refused"]
    fitting = [version for version in refused if version.ingest_id.startswith(ingest_id)]
    names = list(dict.fromkeys(version.ingest_id[:12] for version in refused))
    where = f"{tables.slug.replace('--', '/')}: partition {partition}"
    if not history:
        raise DataRefused(f"{where}: never ingested, so nothing of it was refused; check its value")
    if not refused:
        raise DataRefused(f"{where}: none of its {len(history)} versions was refused; there is nothing to override")
    if not fitting:
        raise DataRefused(f"{where}: {ingest_id} is no refused version; refused were: {', '.join(names)}")
    if ingest_id and len({version.ingest_id for version in fitting}) > 1:
        raise DataRefused(f"{where}: {ingest_id} begins several refused versions: {', '.join(names)}; give more of it")
    return fitting[-1]


def overridden_version(tables: Tables, refused: PartitionVersion) -> PartitionVersion | None:
    """Return the version that overrides a refused one, or None: both name one attempt."""
    same = [
        version
        for version in tables.versions(refused.partition)
        if version.verdict == "overridden" and version.attempt_id == refused.attempt_id
    ]
    return same[-1] if same else None


def would_be_current(contract: Contract, tables: Tables, refused: PartitionVersion) -> bool:
    """Say whether a refused version, once overridden, is what readers of its partition get."""
    current = tables.current().get(refused.partition)
    return current is None or replace(refused, sequence=_sequence(contract, tables, refused)).rank > current.rank


@dataclass(frozen=True)
class Refusal:
    """Why a version was refused: the batch rules that fail, and a few quarantined rows by row rule.

    `examples` are places in the source and record ids, never values. `judged` are all batch rules.
    """

    judged: tuple[BatchResult, ...]
    examples: Mapping[str, tuple[str, ...]]

    @property
    def failed(self) -> tuple[BatchResult, ...]:
        """The rules that refuse the version; a failed warning does not."""
        return tuple(r for r in self.judged if not r.passed and r.rule.severity == "error")


def refusal(contract: Contract, tables: Tables, refused: PartitionVersion) -> Refusal:
    """Judge a refused version's rows once more: the tables keep its counts, not what each batch rule said.

    `contract` must be the one that refused it.

    Raises:
        StoreError: its accepted rows are not all there.
    """
    columns = [name for rule in batch_rules(contract) for name in rule.arguments.get("columns", ())]
    order = ["source_file", "source_line"]  # some rules are about it
    accepted = tables.read_accepted(_readable(refused), [*dict.fromkeys([*columns, *order])])
    accepted = accepted.sort_by([(name, "ascending") for name in order]) if accepted.num_rows else accepted
    context = context_of(contract, tables, refused.partition)
    return Refusal(judge(contract, accepted, refused.rows_in, context), _examples(tables, refused))


def _examples(tables: Tables, refused: PartitionVersion) -> dict[str, tuple[str, ...]]:
    found: dict[str, list[str]] = {reason: [] for reason in refused.reasons}
    rows = tables.read_quarantine(refused).select(["record_id", "reasons", "source_file", "source_line"])
    for batch in rows.to_batches(max_chunksize=1024):
        for row in batch.to_pylist():
            for reason in row["reasons"]:
                if len(found.setdefault(reason, [])) < EXAMPLES:
                    found[reason].append(f"{row['source_file']}:{row['source_line']} ({row['record_id'] or 'no id'})")
        if all(len(places) == EXAMPLES for places in found.values()):
            break
    return {reason: tuple(places) for reason, places in found.items()}


def _readable(refused: PartitionVersion) -> PartitionVersion:
    # Readers must not get at refused rows; here the person who decides is served.
    return replace(refused, verdict="overridden")


def _sequence(contract: Contract, tables: Tables, refused: PartitionVersion) -> int:
    if contract.sequence == "publication":
        return refused.sequence
    return 1 + max(version.sequence for version in tables.versions(refused.partition))
