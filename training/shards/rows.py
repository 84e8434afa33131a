"""The rows of a data set that may be trained on or evaluated with: current, curated, redacted."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.catalog.tables import PartitionVersion, Tables
from data_contracts.catalog.terms_chain import TermsHead
from data_contracts.contract import Contract
from data_contracts.curation import curation_of, training_rows
from data_contracts.errors import DataRefused, PolicyRefused
from data_contracts.policy import retained
from data_contracts.terms import TrainingTerms
from data_contracts.trained import trained_spans, trained_text
from training.shards.ordering import RUN_BYTES, by_record_id


@dataclass(frozen=True)
class UnitRows:
    """What one split of one partition has: records, and the UTF-8 bytes of their text as it was accepted."""

    partition: str
    split: str
    records: int
    text_bytes: int


@dataclass(frozen=True)
class CuratedRows:
    """The rows stay in their table until they are asked for. `versions` are the current ones with accepted rows.

    `others` are current partitions that were accepted under other terms than those in force, `expired` those whose
    retention is over: their rows are not used. `log` is the curation's: memory grows with the rows that it removes or
    redacts, not with the others.
    """

    contract: Contract
    curation_id: str
    versions: dict[str, PartitionVersion]
    tables: Tables = field(repr=False)
    log: pa.Table = field(repr=False)
    secret: bytes | None = field(default=None, repr=False)
    others: tuple[str, ...] = ()
    expired: tuple[str, ...] = ()

    @cached_property
    def units(self) -> tuple[UnitRows, ...]:
        """Each split of each partition that has rows left, sorted; their text is not read."""
        found: list[UnitRows] = []
        for partition, version in sorted(self.versions.items()):
            removed = self._log_of(version)
            removed = removed.filter(pc.equal(removed.column("action"), "remove")).column("record_id").combine_chunks()
            sums: dict[str, list[int]] = {}
            for batch in self.tables.scan_accepted(version, ["record_id", "split", "text_bytes"]):
                kept = batch.filter(pc.invert(pc.is_in(batch.column("record_id").cast(pa.string()), removed)))
                grouped = pa.Table.from_batches([kept]).group_by("split")
                for row in grouped.aggregate([("text_bytes", "sum"), ([], "count_all")]).to_pylist():
                    entry = sums.setdefault(row["split"], [0, 0])
                    entry[0] += row["count_all"]
                    entry[1] += row["text_bytes_sum"] or 0
            found += [UnitRows(partition, split, *counts) for split, counts in sorted(sums.items())]
        return tuple(found)

    def batches(self, partition: str, split: str, run_bytes: int = RUN_BYTES) -> Iterator[pa.RecordBatch]:
        """Yield the records of one unit ascending by their ids: record_id, text, and spans where the terms have lossOn.

        Memory does not depend on how many there are: what is more than `run_bytes` is sorted on disk.

        Raises:
            DataRefused: the curation's log does not fit the rows.
            StoreError: the table cannot be read, or is not what was published.
        """
        version = self.versions[partition]
        names = list(dict.fromkeys(["record_id", "ingest_id", "partition", "split", *self.contract.terms.text_columns]))
        log = self._log_of(version).sort_by("record_id")
        logged = log.column("record_id").combine_chunks()
        plain = pa.schema([(name, pa.string()) for name in names[:4]])
        scanned = (
            batch.filter(pc.equal(batch.column("split"), split)) for batch in self.tables.scan_accepted(version, names)
        )
        for batch in by_record_id(scanned, run_bytes):
            first, last = batch.column("record_id")[0], batch.column("record_id")[-1]
            start = pc.sum(pc.less(logged, first.cast(pa.string()))).as_py() or 0
            end = pc.sum(pc.less_equal(logged, last.cast(pa.string()))).as_py() or 0
            rows = pa.Table.from_batches([batch])
            text = trained_text(self.contract, rows, self.secret)
            made = rows.select(plain.names).cast(plain).append_column("text", text)
            spans = trained_spans(self.contract, rows, self.secret)
            if spans is not None:
                made = made.append_column("spans", spans)
            kept = training_rows(made, log.slice(start, end - start))
            kept = kept.select(["record_id", "text", *([] if spans is None else ["spans"])])
            yield from kept.combine_chunks().to_batches()

    def _log_of(self, version: PartitionVersion) -> pa.Table:
        return self.log.filter(pc.equal(self.log.column("ingest_id"), version.ingest_id))


def curated_rows(
    contract: Contract, tables: Tables, secret: bytes | None = None, on_date: dt.date | None = None
) -> CuratedRows:
    """Open a data set's curated rows as they may be used on a day, by default today in UTC.

    `secret` is the data set's, needed where its terms pseudonymise a column.

    Raises:
        DataRefused: nothing was accepted, or the current partitions have not been curated, or the curation's log is
            damaged; says what to do.
    """
    versions = {p: v for p, v in tables.current().items() if v.rows_accepted}
    if not versions:
        raise DataRefused(f"{contract.id}: no partition has accepted rows; run: causeway ingest CONTRACT SOURCE")
    name = curation_of(contract, (v.ingest_id for v in versions.values()))
    if not tables.store.exists(curation_key(contract, name)):
        raise DataRefused(f"{contract.id}: its current partitions are not curated; run: causeway curate {contract.id}")
    log = read_log(tables, name, sum(v.rows_accepted for v in versions.values()))
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
    return CuratedRows(contract, name, used, tables, log, secret, others, expired)


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
    touched = log.group_by(["record_id", "ingest_id", "action"]).aggregate([]).column("action")
    counted = {action: pc.sum(pc.equal(touched, action)).as_py() or 0 for action in ("remove", "redact")}
    found = {"removed": counted["remove"], "redacted": counted["redact"]}
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
