"""What batch rules measure over the accepted rows, batch by batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.checks.spool import Spool
from data_contracts.contract import Contract
from data_contracts.errors import ContractError
from data_contracts.rowchecks import constants, failing, typed
from data_contracts.ruling.context import RuleContext
from data_contracts.ruling.kinds import BatchRule, RowRule


@dataclass(frozen=True)
class Measured:
    """A figure in the rule's unit, and what was found in words. `passed` is set where no operator decides."""

    figure: float
    said: str
    passed: bool | None = None


class Measure(Protocol):
    """Measures one batch rule."""

    def add(self, rows: pa.Table) -> None:
        """Take in the accepted rows of one batch."""

    def result(self, rows_in: int, rows_accepted: int) -> Measured:
        """Return the figure when all rows are in."""


def measure_of(rule: BatchRule, contract: Contract, context: RuleContext) -> Measure:
    """Return what measures a rule; what few contracts ask for is imported when one does.

    Raises:
        ContractError: the rule is of no known kind.
    """
    match rule.kind:
        case "rowCount" | "quarantineShare":
            return Counts(rule)
        case "nullValues":
            return NullValues(rule)
        case "missingValues":
            return MissingValues(rule)
        case "duplicateValues" | "uniqueness":
            return Repeats(rule)
        case "failingRows":
            return FailingRows(rule)
        case "mostly" | "expectation":
            from data_contracts.checks import aggregates

            return aggregates.Mostly(rule) if rule.kind == "mostly" else aggregates.aggregate_of(rule, contract)
        case "foreignKey":
            from data_contracts.checks import keys

            return keys.Dangling(rule)
        case "sql":
            from data_contracts.checks import sql

            return sql.Query(rule)
        case "psi" | "newCategories" | "nullShareChange" | "rowCountChange":
            from data_contracts.checks import drift

            return drift.Drift(rule, context)
        case "acceptanceSampling":
            from data_contracts.checks import sampling

            return sampling.Sample(rule, contract, context)
        case other:
            raise ContractError(f"rule {rule.name}: {other!r} is no kind of batch rule")


def share(rule: BatchRule, count: int, whole: int) -> Measured:
    """Return a count in the rule's unit: rows, or percent of all rows (0 of none)."""
    figure = count if rule.arguments["unit"] == "rows" else 100 * count / whole if whole else 0.0
    return Measured(figure, f"{count} of {whole} rows")


@dataclass
class Counts:
    """How many rows were accepted, or quarantined of all."""

    rule: BatchRule

    def add(self, rows: pa.Table) -> None:
        """Validation counts them."""

    def result(self, rows_in: int, rows_accepted: int) -> Measured:
        """Return the count."""
        if self.rule.kind == "rowCount":
            return Measured(rows_accepted, f"{rows_accepted} rows")
        return share(self.rule, rows_in - rows_accepted, rows_in)


@dataclass
class NullValues:
    """How many values are NULL."""

    rule: BatchRule
    count: int = 0

    def add(self, rows: pa.Table) -> None:
        """Count those of one batch."""
        self.count += sum(rows.column(name).null_count for name in self.rule.arguments["columns"])

    def result(self, rows_in: int, rows_accepted: int) -> Measured:
        """Return the count."""
        return share(self.rule, self.count, rows_accepted)


@dataclass
class MissingValues:
    """How many values are NULL or one of those that stand for it; a constant of another type stands for nothing."""

    rule: BatchRule
    count: int = 0
    listed: pa.Array = field(init=False)

    def __post_init__(self) -> None:
        logical = self.rule.arguments["logicalType"]
        self.listed = constants([v for v in self.rule.arguments["missingValues"] if _fits(v, logical)], logical)

    def add(self, rows: pa.Table) -> None:
        """Count those of one batch."""
        logical = self.rule.arguments["logicalType"]
        for name in self.rule.arguments["columns"]:
            for chunk in rows.column(name).chunks:
                missing = pc.or_(pc.is_null(chunk), pc.is_in(typed(chunk, logical), self.listed))
                self.count += pc.sum(missing).as_py() or 0

    def result(self, rows_in: int, rows_accepted: int) -> Measured:
        """Return the count."""
        return share(self.rule, self.count, rows_accepted)


class Repeats:
    """How many rows repeat the values of an earlier one. As in SQL, NULL equals nothing, itself included."""

    def __init__(self, rule: BatchRule) -> None:
        self.rule = rule
        self.columns: Sequence[str] = rule.arguments["columns"]
        self.spool = Spool(self.columns)

    def add(self, rows: pa.Table) -> None:
        """Keep the columns of the rows that have them all."""
        known = rows.select(list(self.columns))
        for name in self.columns:
            if known.column(name).null_count:
                known = known.filter(pc.is_valid(known.column(name)))
        self.spool.add(known)

    def result(self, rows_in: int, rows_accepted: int) -> Measured:
        """Return the count."""
        with self.spool:
            return share(self.rule, self.spool.rows - self.spool.distinct(), rows_accepted)


@dataclass
class FailingRows:
    """How many rows fail at least one of the row rules that a batch rule holds."""

    rule: BatchRule
    count: int = 0

    def add(self, rows: pa.Table) -> None:
        """Count those of one batch."""
        inner: Sequence[RowRule] = self.rule.arguments["rules"]
        for batch in rows.to_batches():
            masks = [np.asarray(failing(rule, batch).to_numpy(zero_copy_only=False), dtype=np.bool_) for rule in inner]
            self.count += int(np.logical_or.reduce(masks).sum())

    def result(self, rows_in: int, rows_accepted: int) -> Measured:
        """Return the count."""
        return share(self.rule, self.count, rows_accepted)


def _fits(value: Any, logical: str) -> bool:
    if value is None or ((logical == "string") != isinstance(value, str) and logical in ("string", "boolean")):
        return False
    try:
        constants([value], logical)
    except ValueError:
        return False
    return True
