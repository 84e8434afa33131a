"""Expectations about a whole partition, over its accepted rows: Arrow where a figure adds up, GX where not."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.checks import gx
from data_contracts.checks.expected import asked
from data_contracts.checks.measures import Measure, Measured
from data_contracts.checks.spool import Spool
from data_contracts.contract import Contract
from data_contracts.rowchecks import constants, failing
from data_contracts.ruling.kinds import BatchRule, RowRule


class Mostly:
    """The share of the rows asked about that an expectation finds as expected; of none it holds."""

    def __init__(self, rule: BatchRule) -> None:
        self.rule = rule
        self.inner: RowRule = rule.arguments["rules"][0]
        self.asked = self.failed = 0

    def add(self, rows: pa.Table) -> None:
        """Count both in one batch."""
        for batch in rows.to_batches():
            self.asked += pc.sum(asked(self.inner, batch)).as_py() or 0
            self.failed += pc.sum(failing(self.inner, batch)).as_py() or 0

    def result(self, rows_in: int, rows_accepted: int) -> Measured:
        """Return the number of unexpected rows."""
        return mostly(self.rule, self.failed, self.asked)


def mostly(rule: BatchRule, failed: int, whole: int) -> Measured:
    """Judge as GX does: expected rows over rows asked about, at least `mostly`."""
    passed = not whole or (whole - failed) / whole >= rule.arguments["mostly"]
    return Measured(failed, f"{failed} of {whole} rows are unexpected", passed)


def aggregate_of(rule: BatchRule, contract: Contract) -> Measure:
    """Return what measures an expectation about a partition."""
    name = rule.arguments["expectation"]
    if rule.runs == "great-expectations":
        return AskedOfGx(rule)
    if name in _UNIQUE:
        return Distinct(rule)
    if name in _ORDERS:
        return Steps(rule)
    if "distinct_values" in name:
        (logical,) = rule.arguments["types"].values()
        return Listed(rule, logical)
    if name in _FIGURES:
        return Figure(rule)
    return Shape(rule, [prop.name for prop in contract.properties])


class AskedOfGx:
    """Great Expectations itself, over the columns of all accepted rows: in memory at the end, as GX needs them."""

    def __init__(self, rule: BatchRule) -> None:
        self.rule = rule
        self.spool = Spool(rule.arguments["columns"])

    def add(self, rows: pa.Table) -> None:
        """Keep the columns of one batch."""
        self.spool.add(rows)

    def result(self, rows_in: int, rows_accepted: int) -> Measured:
        """Return what GX says; of no rows it holds."""
        given = self.rule.arguments
        with self.spool:
            found = self.spool.dataset()
            if found is None:
                return Measured(0.0, "there is no row", True)
            table = found if isinstance(found, pa.Table) else found.to_table()
            shares = {"mostly": given["mostly"]} if given["mostly"] < 1 else {}
            (result,) = gx.results(gx.frame_of(table), [gx.made(given["expectation"], {**given["kwargs"], **shares})])
        count = result.result.get("unexpected_count")
        observed = result.result.get("observed_value")
        number = isinstance(observed, int | float) and not isinstance(observed, bool)
        figure = count if count is not None else observed if number else int(not result.success)
        return Measured(float(figure), "says Great Expectations", bool(result.success))


class Distinct:
    """Values (or rows of several columns) that occur once, and how many differ."""

    def __init__(self, rule: BatchRule) -> None:
        self.rule = rule
        self.columns: list[str] = list(rule.arguments["columns"])
        self.spool = Spool(self.columns)
        self.inner = RowRule("", self.columns[0], "expectation", rule.arguments, "")

    def add(self, rows: pa.Table) -> None:
        """Keep the rows that are asked about."""
        kept = [batch.filter(asked(self.inner, batch)) for batch in rows.select(self.columns).to_batches()]
        if kept:
            self.spool.add(pa.Table.from_batches(kept))

    def result(self, rows_in: int, rows_accepted: int) -> Measured:
        """Count those that occur more than once, or the distinct ones."""
        with self.spool:
            known = self.spool.rows
            match _UNIQUE[self.rule.arguments["expectation"]]:
                case "count":
                    return between(self.rule, self.spool.distinct(), "distinct values")
                case "share":
                    return between(self.rule, self.spool.distinct() / known if known else 0.0, "of them are distinct")
                case _:
                    return mostly(self.rule, self.spool.repeated(), known)


class Steps:
    """Steps from one value to the next against the order of the source; NULL is no step."""

    def __init__(self, rule: BatchRule) -> None:
        self.rule = rule
        self.values = self.against = 0
        self.last: pa.Scalar | None = None

    def add(self, rows: pa.Table) -> None:
        """Follow one batch."""
        column = rows.column(self.rule.arguments["columns"][0]).drop_null().combine_chunks()
        self.values += len(column)
        if not len(column):
            return
        values = column if self.last is None else pa.concat_arrays([pa.array([self.last], column.type), column])
        self.last = column[-1]
        before, after = values[:-1], values[1:]
        if "decreasing" in self.rule.arguments["expectation"]:
            before, after = after, before
        good = (pc.greater if self.rule.arguments["kwargs"].get("strictly") else pc.greater_equal)(after, before)
        self.against += len(good) - (pc.sum(good).as_py() or 0)

    def result(self, rows_in: int, rows_accepted: int) -> Measured:
        """Return the number of such steps."""
        return mostly(self.rule, self.against, self.values)


class Listed:
    """Distinct values beside a set: none outside it, all of it, or both."""

    def __init__(self, rule: BatchRule, logical: str) -> None:
        self.rule = rule
        self.listed = pc.unique(
            constants([value for value in rule.arguments["kwargs"]["value_set"] if value is not None], logical)
        )
        self.found: set[Any] = set()
        self.outside = 0

    def add(self, rows: pa.Table) -> None:
        """Look at one batch."""
        present = pc.unique(rows.column(self.rule.arguments["columns"][0]).drop_null())
        self.outside += pc.sum(pc.invert(pc.is_in(present, self.listed))).as_py() or 0
        self.found |= set(self.listed.filter(pc.is_in(self.listed, present)).to_pylist())

    def result(self, rows_in: int, rows_accepted: int) -> Measured:
        """Count what is outside and what is missing, as the expectation asks."""
        name = self.rule.arguments["expectation"]
        missing = len(self.listed) - len(self.found)
        wrong = (0 if "contain_set" in name else self.outside) + (0 if "be_in_set" in name else missing)
        return Measured(wrong, f"{self.outside} values outside the set, {missing} of the set are missing", wrong == 0)


class Figure:
    """Least, greatest, mean, sum or standard deviation of a column, or the share of its rows that have a value."""

    def __init__(self, rule: BatchRule) -> None:
        self.rule = rule
        self.moments = Moments()

    def add(self, rows: pa.Table) -> None:
        """Take in one batch."""
        self.moments.add(rows.column(self.rule.arguments["columns"][0]))

    def result(self, rows_in: int, rows_accepted: int) -> Measured:
        """Return the figure."""
        return between(self.rule, _FIGURES[self.rule.arguments["expectation"]](self.moments), "is the figure")


class Shape:
    """How many rows, and which columns the contract has."""

    def __init__(self, rule: BatchRule, names: list[str]) -> None:
        self.rule = rule
        self.names = names

    def add(self, rows: pa.Table) -> None:
        """Validation counts them."""

    def result(self, rows_in: int, rows_accepted: int) -> Measured:
        """Compare."""
        names, kwargs = self.names, self.rule.arguments["kwargs"]
        match self.rule.arguments["expectation"]:
            case "expect_table_row_count_to_be_between":
                return between(self.rule, rows_accepted, "rows")
            case "expect_table_row_count_to_equal":
                return Measured(rows_accepted, f"{rows_accepted} rows", rows_accepted == kwargs["value"])
            case "expect_table_column_count_to_be_between":
                return between(self.rule, len(names), "columns")
            case "expect_table_column_count_to_equal":
                found = len(names) == kwargs["value"]
            case "expect_table_columns_to_match_ordered_list":
                found = names == list(kwargs["column_list"])
            case "expect_table_columns_to_match_set":
                wanted = set(kwargs["column_set"])
                found = wanted <= set(names) and (kwargs.get("exact_match") is False or wanted == set(names))
            case _:
                index, column = kwargs.get("column_index"), kwargs["column"]
                found = column in names and (index is None or names.index(column) == index)
        return Measured(int(not found), f"the columns are {', '.join(names[:10])}", found)


def between(rule: BatchRule, figure: float | None, unit: str) -> Measured:
    """Judge a figure by `min_value` and `max_value`; where there is no value there is no figure, and it fails."""
    if figure is None:
        return Measured(0.0, "there is no value", False)
    kwargs = rule.arguments["kwargs"]
    low, high = kwargs.get("min_value"), kwargs.get("max_value")
    above = low is None or (figure > low if kwargs.get("strict_min") else figure >= low)
    below = high is None or (figure < high if kwargs.get("strict_max") else figure <= high)
    return Measured(figure, f"{figure:.6g} {unit}", bool(above and below))


class Moments:
    """Count, mean, sum of squared deviations, sum, least and greatest, merged batch by batch (Chan et al. 1983)."""

    def __init__(self) -> None:
        self.rows = self.count = 0
        self.mean = self.squares = 0.0
        self.total: int | float = 0
        self.least: Any = None
        self.most: Any = None

    def add(self, column: pa.ChunkedArray) -> None:
        """Take in one batch of a column; NULL counts as a row only."""
        self.rows += len(column)
        values = column.drop_null()
        count = len(values)
        if not count or (not pa.types.is_integer(values.type) and not pa.types.is_floating(values.type)):
            self.count += count
            return
        numbers = values.to_numpy().astype(np.float64)
        mean = float(numbers.mean())
        squares = float(((numbers - mean) ** 2).sum())
        apart = mean - self.mean
        whole = self.count + count
        self.squares += squares + apart * apart * self.count * count / whole
        self.mean += apart * count / whole
        self.count = whole
        self.total += float(numbers.sum()) if pa.types.is_floating(values.type) else _exact(values)
        ends = pc.min_max(values)
        least, most = ends["min"].as_py(), ends["max"].as_py()
        self.least = least if self.least is None else min(self.least, least)
        self.most = most if self.most is None else max(self.most, most)


def _exact(values: pa.ChunkedArray) -> int:
    """The sum of 64-bit integers, in Python's where Arrow's would wrap."""
    ends = pc.min_max(values)
    if max(abs(ends["min"].as_py()), abs(ends["max"].as_py())) * len(values) < 2**63:
        return int(pc.sum(values).as_py())
    return sum(values.to_pylist())


_UNIQUE = {
    "expect_column_values_to_be_unique": "repeated",
    "expect_compound_columns_to_be_unique": "repeated",
    "expect_column_unique_value_count_to_be_between": "count",
    "expect_column_proportion_of_unique_values_to_be_between": "share",
}
_ORDERS = ("expect_column_values_to_be_increasing", "expect_column_values_to_be_decreasing")
_FIGURES: dict[str, Callable[[Moments], float | None]] = {
    "expect_column_min_to_be_between": lambda m: m.least,
    "expect_column_max_to_be_between": lambda m: m.most,
    "expect_column_mean_to_be_between": lambda m: m.mean if m.count else None,
    "expect_column_sum_to_be_between": lambda m: m.total,
    "expect_column_stdev_to_be_between": lambda m: math.sqrt(m.squares / (m.count - 1)) if m.count > 1 else None,
    "expect_column_proportion_of_non_null_values_to_be_between": lambda m: m.count / m.rows if m.rows else 0.0,
}
