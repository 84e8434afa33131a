"""A contract tried on a source: every verdict of every rule, and nothing written."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.contract import Contract
from data_contracts.errors import DataRefused
from data_contracts.masking import row_value
from data_contracts.rules import batch_rules, row_rules
from data_contracts.ruling.context import NOTHING, RuleContext
from data_contracts.sources import Source
from data_contracts.validation import DUPLICATE_KEY, Report, validate


@dataclass(frozen=True)
class Example:
    """A row that fails a rule: file and record number, and what may be shown of the rule's column."""

    file: str
    record: int
    shown: str | None


@dataclass(frozen=True)
class RowVerdict:
    """One row rule: how many rows of all partitions fail it, and some of them."""

    rule: str
    description: str
    failing: int
    examples: tuple[Example, ...]


@dataclass(frozen=True)
class BatchVerdict:
    """One batch rule on one partition; `observed` is in the rule's unit."""

    partition: str
    rule: str
    passed: bool
    severity: Literal["error", "warning"]
    observed: float
    detail: str


@dataclass(frozen=True)
class PartitionVerdict:
    """What ingest would do with one partition."""

    partition: str
    verdict: str
    rows_in: int
    accepted: int
    quarantined: int


@dataclass(frozen=True)
class Trial:
    """All verdicts: `rows` of every row rule in the contract's order, `batches` of every batch rule and partition."""

    dataset: str
    version: str
    partitions: tuple[PartitionVerdict, ...]
    rows: tuple[RowVerdict, ...]
    batches: tuple[BatchVerdict, ...]
    bytes_in: int
    seconds: float

    @property
    def refused(self) -> int:
        """Partitions that ingest would refuse."""
        return sum(partition.verdict == "refused" for partition in self.partitions)

    @property
    def quarantined(self) -> int:
        """Rows that fail a rule."""
        return sum(partition.quarantined for partition in self.partitions)

    @property
    def passed(self) -> bool:
        """Whether every row of every partition would be accepted."""
        return not self.refused and not self.quarantined


@dataclass
class _Gathered:
    contract: Contract
    limit: int
    columns: dict[str, str]
    examples: dict[str, list[Example]] = field(default_factory=dict)

    def add(self, table: pa.Table) -> None:
        wanted = table.select(["reasons", "source_file", "source_line", "raw"])
        for batch in wanted.to_batches(max_chunksize=256):
            named = pc.unique(pc.list_flatten(batch.column("reasons"))).to_pylist()
            if all(len(self.examples.get(rule, ())) >= self.limit for rule in named):
                continue
            for row in batch.to_pylist():
                for rule in row["reasons"]:
                    found = self.examples.setdefault(rule, [])
                    if len(found) < self.limit:
                        shown = row_value(self.contract, row["raw"], self.columns.get(rule))
                        found.append(Example(row["source_file"], row["source_line"], shown))


def _nothing(partition: str) -> RuleContext:
    return NOTHING


def try_contract(
    contract: Contract,
    source: Source,
    partitions: Sequence[str] = (),
    examples: int = 3,
    context: Callable[[str], RuleContext] = _nothing,
) -> Trial:
    """Validate the partitions of a source (all, or those that are named) and return every verdict.

    `context` gives by partition what rules may ask beyond it: an earlier partition, other data sets. Without it they
    see none, and a foreign key into another data set cannot be judged.

    Raises:
        DataRefused: a named partition is not in the source, or the source cannot be read.
    """
    began = time.monotonic()
    found = source.partitions()
    unknown = sorted(set(partitions) - {part.value for part in found})
    if unknown:
        listed = ", ".join(part.value for part in found[:20]) + (" ..." if len(found) > 20 else "")
        raise DataRefused(f"{contract.id}: no partition {', '.join(unknown)}; the source has {listed}")
    rules = row_rules(contract)
    columns = {rule.name: rule.column for rule in rules}
    gathered = _Gathered(contract, examples, columns)
    counts: Counter[str] = Counter()
    batches: list[BatchVerdict] = []
    parts: list[PartitionVerdict] = []
    size = 0
    for part in (part for part in found if not partitions or part.value in partitions):
        report = validate(
            contract,
            source.read(part),
            part.value,
            None,
            None,
            gathered.add,
            context=context(part.value),
            examples=examples,
        )
        counts.update(report.reasons)
        batches += _batches(part.value, report)
        parts.append(
            PartitionVerdict(part.value, report.verdict, report.rows_in, report.rows_accepted, report.rows_quarantined)
        )
        size += report.bytes_in
    said = {rule.name: rule.description for rule in rules}
    if contract.primary_key:
        said[DUPLICATE_KEY] = f"no earlier record has the same {', '.join(contract.primary_key)}"
    verdicts = tuple(
        RowVerdict(name, said.get(name, name), counts.get(name, 0), tuple(gathered.examples.get(name, ())))
        for name in [*said, *(name for name in counts if name not in said)]
    )
    seconds = round(time.monotonic() - began, 3)
    return Trial(contract.id, contract.version, tuple(parts), verdicts, tuple(batches), size, seconds)


def rules_of(contract: Contract) -> list[tuple[str, str, str]]:
    """Return (rule, row or batch, description) of every rule of a contract."""
    rows = [(rule.name, "row", rule.description) for rule in row_rules(contract)]
    if contract.primary_key:
        rows.append((DUPLICATE_KEY, "row", f"no earlier record has the same {', '.join(contract.primary_key)}"))
    return rows + [(rule.name, f"batch, {rule.severity}", rule.description) for rule in batch_rules(contract)]


def _batches(partition: str, report: Report) -> list[BatchVerdict]:
    return [
        BatchVerdict(partition, r.rule.name, r.passed, r.rule.severity, float(r.observed), r.detail)
        for r in report.batch_results
    ]
