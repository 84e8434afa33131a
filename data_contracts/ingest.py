"""Take in one partition: hash its source, validate it, write its rows, publish one version row."""

from __future__ import annotations

import datetime
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from data_contracts.catalog.tables import PartitionVersion, Tables, ingest_id
from data_contracts.contract import Contract
from data_contracts.errors import DataRefused
from data_contracts.referencing import context_of
from data_contracts.sources import Source, SourcePartition
from data_contracts.validation import Report, validate

Outcome = Literal["published", "unchanged", "restated", "refused", "empty"]


@dataclass(frozen=True)
class IngestResult:
    """What one ingest did. `report` is of this run, or of the run that the version records when nothing was read."""

    version: PartitionVersion
    outcome: Outcome
    report: Report


def ingest_partition(
    contract: Contract,
    source: Source,
    partition: SourcePartition,
    tables: Tables,
    secret: bytes,
    now: datetime.datetime,
    *,
    publication: datetime.datetime | None = None,
    others: Callable[[str], Tables] | None = None,
) -> IngestResult:
    """Validate one partition and publish its version.

    Nothing is done when these bytes under this contract are what is current ('unchanged'), or were refused last time.
    Bytes that return after others (A -> B -> A) add a row that names the old attempt; no row is written again.
    `publication` is when the owner published the partition; contracts with `sequence: publication` need it, and an
    older publication that arrives late is recorded without becoming current. `now` must carry a time zone. `others`
    gives the tables of a data set by id; foreign keys into another data set need it.

    Raises:
        DataRefused: the source is missing or changed while it was read, or `publication` is needed.
    """
    if contract.sequence == "publication" and publication is None:
        raise DataRefused(
            f"{contract.id}: partition {partition.value}: its contract orders versions by publication; "
            "say when it was published"
        )
    name = ingest_id(contract.sha, partition.value, partition.source_sha)
    history = tables.versions(partition.value)
    in_force = [version for version in history if version.verdict != "refused"]
    current = in_force[-1] if in_force else None
    sequence = _sequence(contract, history, publication)
    done = _already_done(contract, name, history, current, sequence)
    if done is not None:
        return IngestResult(done, "refused" if done.verdict == "refused" else "unchanged", _recorded(done))

    known = [version for version in in_force if version.ingest_id == name]
    if known:
        version = replace(known[-1], sequence=sequence, published_at=_iso(now))
        tables.publish(version)
        return IngestResult(version, "restated", _recorded(version))

    attempt, began = uuid.uuid4().hex, time.monotonic()
    with tables.appending("accepted", attempt) as accepted, tables.appending("quarantine", attempt) as quarantined:
        report = validate(
            contract,
            source.read(partition),
            partition.value,
            secret,
            accepted.add,
            quarantined.add,
            ingest_id=name,
            attempt_id=attempt,
            context=context_of(contract, tables, partition.value, others),
        )
    report = replace(report, bytes_in=partition.size)
    version = PartitionVersion(
        dataset=contract.id,
        partition=partition.value,
        ingest_id=name,
        attempt_id=attempt,
        sequence=sequence,
        verdict=report.verdict,
        rows_in=report.rows_in,
        rows_accepted=report.rows_accepted,
        rows_quarantined=report.rows_quarantined,
        source_sha=partition.source_sha,
        contract_sha=contract.sha,
        contract_version=contract.version,
        terms_sha=contract.terms.sha,
        published_at=_iso(now),
        reasons=dict(report.reasons),
        bytes_in=report.bytes_in,
        seconds=round(time.monotonic() - began, 3),
    )
    tables.publish(version)
    if report.verdict != "accepted":
        return IngestResult(version, report.verdict, report)
    return IngestResult(version, "published" if current is None else "restated", report)


def _sequence(contract: Contract, history: list[PartitionVersion], publication: datetime.datetime | None) -> int:
    if contract.sequence == "publication" and publication is not None:
        return int(publication.timestamp() * 1_000_000)
    return 1 + max((version.sequence for version in history), default=0)


def _already_done(
    contract: Contract,
    name: str,
    history: list[PartitionVersion],
    current: PartitionVersion | None,
    sequence: int,
) -> PartitionVersion | None:
    if contract.sequence == "publication":
        same = [version for version in history if version.ingest_id == name and version.sequence == sequence]
        # An override has the rank of what it overrides: it decides.
        same.sort(key=lambda version: version.verdict != "refused")
        return same[-1] if same else None
    newest = history[-1] if history else None
    if newest is not None and newest.ingest_id == name:
        return newest
    return current if current is not None and current.ingest_id == name else None


def _recorded(version: PartitionVersion) -> Report:
    return Report(
        rows_in=version.rows_in,
        rows_accepted=version.rows_accepted,
        rows_quarantined=version.rows_quarantined,
        reasons=dict(version.reasons),
        batch_results=(),
        verdict="refused" if version.verdict == "refused" else "empty" if version.verdict == "empty" else "accepted",
        bytes_in=version.bytes_in,
    )


def _iso(moment: datetime.datetime) -> str:
    if moment.tzinfo is None:
        raise ValueError(f"{moment}: a moment without a time zone; give one in UTC")
    return moment.astimezone(datetime.UTC).isoformat(timespec="microseconds")
