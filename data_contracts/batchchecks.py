"""Batch rules: what each of them measures over the accepted rows of a partition, and how it is judged."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from data_contracts.checks.measures import Measure, measure_of
from data_contracts.contract import Contract
from data_contracts.rules import BatchRule, holds
from data_contracts.ruling.context import NOTHING, RuleContext

__all__ = ["BatchCheck", "BatchResult"]


@dataclass(frozen=True)
class BatchResult:
    """A batch rule's verdict: `observed` is in the rule's unit, rows, percent (0 to 100) or the metric's own."""

    rule: BatchRule
    passed: bool
    observed: float
    detail: str


class BatchCheck:
    """Measures over the accepted rows what one batch rule compares; `add` takes them batch by batch.

    Memory does not grow with the rows: what must be kept lies in temporary files that go when the rule is judged.
    """

    def __init__(self, rule: BatchRule, contract: Contract, context: RuleContext = NOTHING) -> None:
        self.rule = rule
        self._measure: Measure = measure_of(rule, contract, context)

    def add(self, rows: pa.Table) -> None:
        """Take in the accepted rows of one batch."""
        self._measure.add(rows)

    def judge(self, rows_in: int, rows_accepted: int) -> BatchResult:
        """Judge the partition when its last batch is in."""
        measured = self._measure.result(rows_in, rows_accepted)
        passed = holds(self.rule, measured.figure) if measured.passed is None else measured.passed
        said = "holds" if passed else "does not hold"
        return BatchResult(self.rule, passed, measured.figure, f"{self.rule.description}: {said}, {measured.said}")
