"""How far a partition has moved from the one before it.

Source of the population stability index: Lewis 1994, "An Introduction to Credit Scoring"; by its rule of thumb a value
below 0.1 is no shift worth a look, 0.1 to 0.25 a moderate one, above 0.25 a large one.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.checks.measures import Measured
from data_contracts.ruling.context import Previous, RuleContext
from data_contracts.ruling.kinds import BatchRule

# A bin without rows would make the index infinite; it counts as this share.
LEAST_SHARE = 1e-4
BINS = 10


class Reference:
    """A column (or only the rows) of the partition before, read when first asked for."""

    def __init__(self, previous: Previous | None, columns: list[str]) -> None:
        self._previous, self._columns = previous, columns
        self._read = False
        self._found: tuple[str, pa.Table] | None = None

    def found(self) -> tuple[str, pa.Table] | None:
        """Return its value and its columns, or None."""
        if not self._read:
            self._found = None if self._previous is None else self._previous(self._columns)
            self._read = True
        return self._found


class Drift:
    """One metric of drift; without a partition before this one it holds."""

    def __init__(self, rule: BatchRule, context: RuleContext) -> None:
        self.rule = rule
        self.column: str | None = next(iter(rule.arguments["columns"]), None)
        self.reference = Reference(context.previous, list(rule.arguments["columns"]))
        self.rows = self.nulls = 0
        self.bins: Bins | None = None

    def add(self, rows: pa.Table) -> None:
        """Count one batch."""
        self.rows += rows.num_rows
        if self.column is None:
            return
        column = rows.column(self.column)
        self.nulls += column.null_count
        found = self.reference.found()
        if self.rule.kind in ("psi", "newCategories") and found is not None:
            if self.bins is None:
                self.bins = Bins(found[1].column(self.column), self.rule.arguments.get("bins", BINS), self.rule.kind)
            self.bins.add(column)

    def result(self, rows_in: int, rows_accepted: int) -> Measured:
        """Compare with the partition before."""
        found = self.reference.found()
        if found is None:
            return Measured(0.0, "there is no partition before it", True)
        name, before = found
        than = f"than {name}"
        if self.rule.kind == "rowCountChange":
            if not before.num_rows:
                return Measured(0.0, f"{name} has no rows", True)
            change = 100 * (rows_accepted - before.num_rows) / before.num_rows
            return Measured(change, f"{rows_accepted} rows, {change:+.1f} % {than}")
        column = before.column(self.column)
        if self.rule.kind == "nullShareChange":
            now, then = _percent(self.nulls, self.rows), _percent(column.null_count, len(column))
            return Measured(now - then, f"{now:.1f} % NULL, {now - then:+.1f} points {than}")
        if self.bins is None or not self.bins.comparable:
            return Measured(0.0, f"no values here or in {name} to compare", True)
        if self.rule.kind == "newCategories":
            return Measured(self.bins.new, f"{self.bins.new} values that {name} has not")
        index = self.bins.index()
        return Measured(index, f"an index of {index:.4f} against {name}")


class Bins:
    """Counts of values in the bins that a reference gives: its quantiles, or its categories and one for all others."""

    def __init__(self, reference: pa.ChunkedArray, bins: int, kind: str) -> None:
        known = reference.drop_null()
        self.edges: np.ndarray[Any, Any] | None = None
        self.categories: pa.Array | None = None
        self.before: Counter[int] = Counter()
        self.now: Counter[int] = Counter()
        self.new_values: set[bytes] = set()
        if kind == "psi" and not pa.types.is_string(known.type) and not pa.types.is_boolean(known.type):
            numbers = _numbers(known)
            self.edges = np.unique(np.quantile(numbers, np.arange(1, bins) / bins)) if len(numbers) else numbers
        else:
            self.categories = pc.unique(known)
        self._count(known, self.before)

    def add(self, column: pa.ChunkedArray) -> None:
        """Count one batch."""
        self._count(column.drop_null(), self.now)

    @property
    def comparable(self) -> bool:
        """Whether both sides have values."""
        return bool(self.before.total() and self.now.total())

    @property
    def new(self) -> int:
        """How many different values the reference has not."""
        return len(self.new_values)

    def index(self) -> float:
        """The population stability index: the sum of (now - before) x ln(now / before) over the bins."""
        whole, total = self.before.total(), self.now.total()
        index = 0.0
        for place in {*self.before, *self.now}:
            then, now = (max(c / n, LEAST_SHARE) for c, n in ((self.before[place], whole), (self.now[place], total)))
            index += (now - then) * float(np.log(now / then))
        return index

    def _count(self, known: pa.ChunkedArray, into: Counter[int]) -> None:
        if not len(known):
            return
        if self.edges is not None:
            places = np.searchsorted(self.edges, _numbers(known), side="left")
        else:
            found = pc.index_in(known, self.categories)
            fresh = pc.unique(known.filter(pc.is_null(found)))
            # Only hashes are kept, 16 bytes a value: they may be many, and they may be restricted.
            self.new_values.update(_digest(value) for value in fresh.to_pylist())
            places = pc.fill_null(found, -1).to_numpy()
        values, counts = np.unique(places, return_counts=True)
        into.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))


def _digest(value: Any) -> bytes:
    import hashlib

    return hashlib.blake2b(repr(value).encode(), digest_size=16).digest()


def _numbers(values: pa.ChunkedArray) -> np.ndarray[Any, Any]:
    if pa.types.is_date32(values.type):
        values = values.cast(pa.int32())
    elif pa.types.is_timestamp(values.type):
        values = values.cast(pa.int64())
    return np.asarray(values.to_numpy(), dtype=np.float64)


def _percent(count: int, whole: int) -> float:
    return 100 * count / whole if whole else 0.0
