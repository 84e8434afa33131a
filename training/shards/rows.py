"""The rows of a data set that may be trained on or evaluated with: current, curated, redacted."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.catalog.tables import PartitionVersion, Tables
from data_contracts.catalog.terms_chain import TermsHead
from data_contracts.contract import Contract
from data_contracts.curation import curation_id, curation_rows, training_rows
from data_contracts.errors import DataRefused, PolicyRefused
from data_contracts.policy import retained
from data_contracts.terms import TrainingTerms


@dataclass(frozen=True)
class CuratedRows:
    """`rows`: record_id, ingest_id, partition, split, text. `versions` are the current ones with accepted rows.

    `others` are current partitions that were accepted under other terms than those in force, `expired` those whose
    retention is over: their rows are not used.
    """

    contract: Contract
    curation_id: str
    rows: pa.Table
    versions: dict[str, PartitionVersion]
    others: tuple[str, ...] = ()
    expired: tuple[str, ...] = ()

    def batches(self, partition: str, split: str) -> Iterator[pa.RecordBatch]:
        """Yield the records of one unit in the order of their ids: record_id, text."""
        asked = pc.and_(pc.equal(self.rows.column("partition"), partition), pc.equal(self.rows.column("split"), split))
        yield from self.rows.filter(asked).select(["record_id", "text"]).sort_by("record_id").to_batches()

    def of(self, split: str) -> pa.Table:
        """Return the rows of one split."""
        return self.rows.filter(pc.equal(self.rows.column("split"), split))


def curated_rows(
    contract: Contract, tables: Tables, secret: bytes | None = None, on_date: dt.date | None = None
) -> CuratedRows:
    """Read a data set's curated rows as they may be used on a day, by default today in UTC.

    `secret` is the data set's, needed where its terms pseudonymise a column.

    Raises:
        DataRefused: nothing was accepted, or the current partitions have not been curated, or the curation's log is
            damaged; says what to do.
    """
    versions = {p: v for p, v in tables.current().items() if v.rows_accepted}
    if not versions:
        raise DataRefused(f"{contract.id}: no partition has accepted rows; run: causeway ingest CONTRACT SOURCE")
    rows = curation_rows(contract, tables, secret)
    name = curation_id(contract, rows)
    if not tables.store.exists(curation_key(contract, name)):
        raise DataRefused(f"{contract.id}: its current partitions are not curated; run: causeway curate {contract.id}")
    log = read_log(tables, name, rows.num_rows)
    # Rows are used under the terms that they were accepted under, and only while those are in force.
    used = {p: v for p, v in versions.items() if v.terms_sha == contract.terms.sha}
    others = tuple(sorted(versions.keys() - used.keys()))
    if not used:
        raise DataRefused(
            f"{contract.id}: every partition was accepted under other terms than those of contract {contract.version};"
            f" run: causeway backfill {contract.id} --only stale-contract"
        )
    day = on_date or dt.datetime.now(dt.UTC).date()
    expired = tuple(sorted(p for p, v in used.items() if not retained(contract.terms, ingested_on(v), day).allowed))
    used = {p: v for p, v in used.items() if p not in expired}
    if not used:
        raise DataRefused(
            f"{contract.id}: the retention of every partition is over ({expired[-1]} was the last); "
            "ingest a newer delivery, or give the data set other terms"
        )
    kept = training_rows(rows, log)
    if others or expired:
        kept = kept.filter(pc.is_in(kept.column("partition"), pa.array(sorted(used), pa.string())))
    return CuratedRows(contract, name, kept, used, others, expired)


def ingested_on(version: PartitionVersion) -> dt.date:
    """Return the day, in UTC, on which a partition version was published: its retention begins then."""
    return dt.datetime.fromisoformat(version.published_at).astimezone(dt.UTC).date()


def curation_key(owner: Contract | Tables, name: str) -> str:
    """Key of the summary that marks a curation as whole (its log may be empty)."""
    return f"curations/{owner.slug}/{name}.json"


def read_log(tables: Tables, name: str, rows: int | None = None) -> pa.Table:
    """Read the log of a curation, its counts compared with the summary: a log that lost entries would undo them.

    `rows` is how many rows were curated, when the caller has read them.

    Raises:
        ObjectMissing: there is no summary: the curation was never whole.
        DataRefused: the counts differ.
    """
    key = curation_key(tables, name)
    summary: Any = tables.store.get_json(key)
    log = tables.read_curation(name)
    touched: dict[str, set[tuple[str, str]]] = {"remove": set(), "redact": set()}
    for record, ingest, action in zip(
        *(log.column(column).to_pylist() for column in ("record_id", "ingest_id", "action")), strict=True
    ):
        touched.setdefault(action, set()).add((record, ingest))
    found = {"removed": len(touched["remove"]), "redacted": len(touched["redact"])}
    if rows is not None:
        found["kept"] = rows - found["removed"]
    recorded = {count: summary.get(count) if isinstance(summary, dict) else None for count in found}
    if found != recorded:
        raise DataRefused(
            f"{tables.uri('curation')}: the curation log is damaged: curation {name[:12]} counts {_words(found)}, "
            f"its summary {tables.store.url}/{key} {_words(recorded)}; restore the table"
        )
    return log


def terms_in_force(head: TermsHead, sets: Sequence[CuratedRows]) -> dict[str, TrainingTerms]:
    """Return the terms in force of each data set: what may be done with rows is asked of them, not of a contract.

    Raises:
        PolicyRefused: the terms in force are not those that the rows were ingested under.
    """
    terms = {one.contract.id: head.of(one.contract.id) for one in sets}
    for one in sets:
        if terms[one.contract.id].sha != one.contract.terms.sha:
            raise PolicyRefused(
                f"{one.contract.id}: the terms in force are not those of the contract it was ingested under; "
                "run: causeway ingest with the new contract"
            )
    return terms


def _words(counts: dict[str, Any]) -> str:
    return ", ".join(f"{number} {name}" for name, number in sorted(counts.items()))
