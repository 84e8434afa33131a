"""What is in quarantine now, by reason; which of it passes under a contract; and what a later version resolved.

A refused row is *open* while the newest attempt at its partition, or the version in force, holds it. It is *resolved*
when a later version of the partition accepts it, or no longer has it; that is recorded once, in the table `resolved`.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.catalog.tables import RESOLVED_SCHEMA, PartitionVersion, Tables
from data_contracts.contract import Contract
from data_contracts.masking import row_value, stored_row
from data_contracts.rules import row_rules
from data_contracts.ruling.context import NOTHING, RuleContext
from data_contracts.sources.records import RawRecord, batches
from data_contracts.splitting import RowSplitter, any_of
from data_contracts.validation import DUPLICATE_KEY

Verdict = Literal["passes", "fails", "unknown"]
ACCEPTED, GONE = "accepted", "gone"


@dataclass(frozen=True)
class Shown:
    """One row of quarantine as it may be shown: where it came from, its id, what may be seen of the rule's column."""

    file: str
    record: int | None
    record_id: str | None
    shown: str | None


@dataclass(frozen=True)
class Group:
    """The open rows that break one rule; a row that breaks several is in several groups."""

    reason: str
    description: str
    rows: int
    partitions: tuple[str, ...]
    examples: tuple[Shown, ...]


@dataclass(frozen=True)
class Resolved:
    """What became of the rows that older versions of a partition had refused: newly recorded, by outcome."""

    accepted: int = 0
    gone: int = 0
    still: int = 0


def open_versions(tables: Tables, partitions: Sequence[str] = ()) -> list[PartitionVersion]:
    """Return the versions whose quarantine is open: of each partition the newest, and the one in force."""
    versions = [v for v in tables.versions() if not partitions or v.partition in partitions]
    chosen: dict[str, PartitionVersion] = {}
    for group in ({v.partition: v for v in versions}, {v.partition: v for v in versions if v.verdict != "refused"}):
        # An override names the attempt that it overrides: its rows count once.
        chosen |= {v.attempt_id: v for v in group.values() if v.rows_quarantined}
    return sorted(chosen.values(), key=lambda v: (v.partition, v.rank))


def groups(contract: Contract, tables: Tables, partitions: Sequence[str] = (), limit: int = 3) -> list[Group]:
    """Group the open rows by reason, the commonest first, with examples; values of classified columns are hidden."""
    rules = {rule.name: rule for rule in row_rules(contract)}
    counts: dict[str, int] = {}
    where: dict[str, dict[str, None]] = {}
    examples: dict[str, list[Shown]] = {}
    for version in open_versions(tables, partitions):
        for row in tables.read_quarantine(version).to_pylist():
            for reason in row["reasons"]:
                counts[reason] = counts.get(reason, 0) + 1
                where.setdefault(reason, {})[version.partition] = None
                found = examples.setdefault(reason, [])
                if len(found) < limit:
                    column = rules[reason].column if reason in rules else None
                    shown = row_value(contract, row["raw"], column)
                    found.append(Shown(row["source_file"], row["source_line"], row["record_id"], shown))
    said = {DUPLICATE_KEY: "an earlier record of the partition has the same key"}
    said |= {name: rule.description for name, rule in rules.items()}
    return [
        Group(
            name,
            said.get(name, "a rule that the contract no longer has"),
            counts[name],
            tuple(where[name]),
            tuple(examples[name]),
        )
        for name in sorted(counts, key=lambda name: (-counts[name], name))
    ]


def judged_again(contract: Contract, rows: pa.Table, context: RuleContext = NOTHING) -> list[Verdict]:
    """Say of each row of quarantine whether it passes the row rules of a contract, by the values that were stored.

    `unknown`: its bytes could not be decoded, or only its place among others broke a rule; the source must be read.
    """
    verdicts: list[Verdict] = ["unknown"] * rows.num_rows
    known: list[int] = []
    records: list[RawRecord] = []
    for index, (raw, reasons) in enumerate(
        zip(rows.column("raw").to_pylist(), rows.column("reasons").to_pylist(), strict=True)
    ):
        values = stored_row(raw)
        if values is not None and reasons != [DUPLICATE_KEY]:
            known.append(index)
            records.append(RawRecord("", index, _named(contract, values)))
    splitter = RowSplitter(contract, context)
    done = 0
    for batch in batches(contract, records):
        refused = any_of(splitter.failures(batch))
        failing = [False] * batch.num_rows if refused is None else refused.to_pylist()
        for index, fails in zip(known[done : done + batch.num_rows], failing, strict=True):
            verdicts[index] = "fails" if fails else "passes"
        done += batch.num_rows
    return verdicts


def _named(contract: Contract, values: Mapping[str, Any]) -> dict[str, Any]:
    """Values by property: what was stored under the property's name, or the name that it has in the source."""
    return {p.name: values.get(p.name, values.get(p.physical_name)) for p in contract.properties}


def resolve(tables: Tables, partition: str, now: datetime.datetime) -> Resolved:
    """Record what the newest version of a partition resolved of the rows that older ones had refused.

    A row is found again by its record_id, or, where the bytes of the source are the same, by file and record number.
    Nothing is recorded while the newest version is refused, and nothing twice.
    """
    history = tables.versions(partition)
    newest = history[-1] if history else None
    if newest is None or newest.verdict == "refused":
        return Resolved()
    recorded = {(row["ingest_id"], row["source_file"], row["source_line"]) for row in _recorded(tables, partition)}
    accepted = tables.read_accepted(newest, ["record_id", "source_file", "source_line"])
    refused = tables.read_quarantine(newest)
    made: list[dict[str, Any]] = []
    still = 0
    seen = {newest.attempt_id}
    for version in reversed(history[:-1]):
        if version.attempt_id in seen or not version.rows_quarantined:
            continue
        seen.add(version.attempt_id)
        same = version.source_sha == newest.source_sha
        there, left = _keys(accepted, same), _keys(refused, same)
        for row in tables.read_quarantine(version).to_pylist():
            if (version.ingest_id, row["source_file"], row["source_line"]) in recorded:
                continue
            mine = set(_key(row["record_id"], row["source_file"], row["source_line"], by_place=same))
            if not mine & there and mine & left:
                still += 1
                continue
            outcome = ACCEPTED if mine & there else GONE
            made.append(_entry(row, version, newest, outcome, now))
    if made:
        tables.append_resolved(pa.Table.from_pylist(made, RESOLVED_SCHEMA))
    outcomes = [entry["outcome"] for entry in made]
    return Resolved(outcomes.count(ACCEPTED), outcomes.count(GONE), still)


def resolved_counts(tables: Tables) -> dict[str, int]:
    """Return how many rows of quarantine were ever recorded as resolved, by outcome."""
    counts = {ACCEPTED: 0, GONE: 0}
    for entry in pc.value_counts(tables.read_resolved().column("outcome")).to_pylist():
        counts[entry["values"]] = entry["counts"]
    return counts


def _recorded(tables: Tables, partition: str) -> list[dict[str, Any]]:
    table = tables.read_resolved()
    return list(table.filter(pc.equal(table.column("partition"), partition)).to_pylist())


def _entry(
    row: Mapping[str, Any], old: PartitionVersion, new: PartitionVersion, outcome: str, now: datetime.datetime
) -> dict[str, Any]:
    return {
        "record_id": row["record_id"],
        "partition": old.partition,
        "ingest_id": old.ingest_id,
        "source_file": row["source_file"],
        "source_line": row["source_line"],
        "reasons": row["reasons"],
        "outcome": outcome,
        "resolved_by": new.ingest_id,
        "resolved_at": now.astimezone(datetime.UTC).isoformat(timespec="microseconds"),
    }


def _keys(rows: pa.Table, by_place: bool) -> set[tuple[str, ...]]:
    ids, files, lines = (rows.column(name).to_pylist() for name in ("record_id", "source_file", "source_line"))
    return {key for values in zip(ids, files, lines, strict=True) for key in _key(*values, by_place=by_place)}


def _key(record_id: str | None, file: str | None, record: int | None, *, by_place: bool) -> Iterator[tuple[str, ...]]:
    # With the same bytes the place is the record; a record_id of rows without a key would count equal texts.
    if by_place:
        yield ("place", str(file), str(record))
    elif record_id is not None:
        yield ("id", record_id)
