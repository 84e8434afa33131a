"""Arrow kernels of Great Expectations' expectations about single rows.

A value that GX would not ask about (NULL, or rows that `ignore_row_if` leaves out) passes. Of rows that are asked
about, a NULL among several columns equals no value and is greater than none, so the row is unexpected.
"""

from __future__ import annotations

import decimal
from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from itertools import combinations
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.checks import gx
from data_contracts.rowchecks import bound_scalar, constants
from data_contracts.ruling.kinds import RowRule

Arguments = Mapping[str, Any]


def expectation_fails(rule: RowRule, batch: pa.RecordBatch) -> pa.BooleanArray:
    """True for each row that the expectation finds unexpected."""
    if rule.runs == "great-expectations":
        return gx.expectation_fails(rule, batch)
    name, kwargs = rule.arguments["expectation"], rule.arguments["kwargs"]
    if name in _SINGLE:
        column = batch.column(kwargs["column"])
        return _SINGLE[name](column, kwargs, rule.arguments["types"][kwargs["column"]])
    columns = [batch.column(column) for column in _named(kwargs)]
    failed = pc.fill_null(_SEVERAL[name](columns, kwargs), True)
    return pc.and_(failed, asked(rule, batch))


def asked(rule: RowRule, batch: pa.RecordBatch) -> pa.BooleanArray:
    """True for each row that the expectation asks about."""
    kwargs = rule.arguments["kwargs"]
    if rule.arguments["expectation"] in (
        "expect_column_values_to_not_be_null",
        "expect_column_values_to_be_null",
    ):
        return pa.repeat(pa.scalar(True), batch.num_rows)
    given = [pc.is_valid(batch.column(column)) for column in _named(kwargs)]
    match kwargs.get("ignore_row_if", "any_value_is_missing"):
        case "either_value_is_missing" | "any_value_is_missing":
            return reduce(pc.and_, given)
        case "neither" | "never":
            return pa.repeat(pa.scalar(True), batch.num_rows)
        case _:
            return reduce(pc.or_, given)


def _named(kwargs: Arguments) -> list[str]:
    if "column" in kwargs:
        return [kwargs["column"]]
    return list(kwargs.get("column_list") or (kwargs["column_A"], kwargs["column_B"]))


def _in_set(column: pa.Array, kwargs: Arguments, logical: str) -> pa.BooleanArray:
    listed = constants([value for value in kwargs["value_set"] if value is not None], logical)
    return pc.if_else(pc.is_valid(column), pc.is_in(column, listed), True)


def _not_in_set(column: pa.Array, kwargs: Arguments, logical: str) -> pa.BooleanArray:
    listed = constants([value for value in kwargs["value_set"] if value is not None], logical)
    return pc.invert(pc.if_else(pc.is_valid(column), pc.is_in(column, listed), False))


def _between(column: pa.Array, kwargs: Arguments, logical: str) -> pa.BooleanArray:
    def scalar(side: str) -> pa.Scalar:
        strict = bool(kwargs.get(f"strict_{side[:3]}"))
        kind = f"exclusive{'Minimum' if side == 'min_value' else 'Maximum'}" if strict else side[:3] + "imum"
        return bound_scalar(kind, kwargs[side], logical)

    return _bounded(column, kwargs, scalar)


def _lengths(column: pa.Array, kwargs: Arguments, _logical: str) -> pa.BooleanArray:
    return _bounded(pc.utf8_length(column), kwargs, lambda side: pa.scalar(float(kwargs[side])))


def _bounded(values: pa.Array, kwargs: Arguments, scalar: Callable[[str], pa.Scalar]) -> pa.BooleanArray:
    inside = []
    if kwargs.get("min_value") is not None:
        inside.append((pc.greater if kwargs.get("strict_min") else pc.greater_equal)(values, scalar("min_value")))
    if kwargs.get("max_value") is not None:
        inside.append((pc.less if kwargs.get("strict_max") else pc.less_equal)(values, scalar("max_value")))
    return reduce(pc.and_, inside)


def _found(column: pa.Array, patterns: Sequence[str], like: bool, every: bool = False) -> pa.BooleanArray:
    match = pc.match_like if like else pc.match_substring_regex
    return reduce(pc.and_ if every else pc.or_, [match(column, pattern) for pattern in patterns])


def _patterns(kwargs: Arguments) -> tuple[list[str], bool]:
    for key, like in (("regex", False), ("like_pattern", True)):
        if key in kwargs:
            return [kwargs[key]], like
    like = "like_pattern_list" in kwargs
    return list(kwargs["like_pattern_list" if like else "regex_list"]), like


def _matching(column: pa.Array, kwargs: Arguments, _logical: str) -> pa.BooleanArray:
    patterns, like = _patterns(kwargs)
    return _found(column, patterns, like, kwargs.get("match_on") == "all")


def _unmatched(column: pa.Array, kwargs: Arguments, _logical: str) -> pa.BooleanArray:
    return pc.invert(_found(column, *_patterns(kwargs)))


def _fails(expected: Callable[[pa.Array, Arguments, str], pa.BooleanArray]) -> Any:
    return lambda column, kwargs, logical: pc.invert(expected(column, kwargs, logical))


_SINGLE: dict[str, Callable[[pa.Array, Arguments, str], pa.BooleanArray]] = {
    "expect_column_values_to_not_be_null": lambda column, _kwargs, _logical: pc.is_null(column),
    "expect_column_values_to_be_null": lambda column, _kwargs, _logical: pc.is_valid(column),
    "expect_column_values_to_be_in_set": _fails(_in_set),
    "expect_column_values_to_not_be_in_set": _fails(_not_in_set),
    "expect_column_values_to_be_between": _fails(_between),
    "expect_column_value_lengths_to_be_between": _fails(_lengths),
    "expect_column_value_lengths_to_equal": lambda column, kwargs, _logical: pc.not_equal(
        pc.utf8_length(column), pa.scalar(float(kwargs["value"]))
    ),
    "expect_column_values_to_match_regex": _fails(_matching),
    "expect_column_values_to_match_regex_list": _fails(_matching),
    "expect_column_values_to_match_like_pattern": _fails(_matching),
    "expect_column_values_to_match_like_pattern_list": _fails(_matching),
    "expect_column_values_to_not_match_regex": _fails(_unmatched),
    "expect_column_values_to_not_match_regex_list": _fails(_unmatched),
    "expect_column_values_to_not_match_like_pattern": _fails(_unmatched),
    "expect_column_values_to_not_match_like_pattern_list": _fails(_unmatched),
}


def _alike(columns: Sequence[pa.Array]) -> Sequence[pa.Array]:
    """Columns of one type: an integer beside a number is a number."""
    if len({column.type for column in columns}) == 1:
        return columns
    return [column.cast(pa.float64(), safe=False) for column in columns]


def _not_greater(columns: Sequence[pa.Array], kwargs: Arguments) -> pa.BooleanArray:
    return pc.invert((pc.greater_equal if kwargs.get("or_equal") else pc.greater)(*_alike(columns)))


def _pairs_outside(columns: Sequence[pa.Array], kwargs: Arguments) -> pa.BooleanArray:
    listed = {(first, second) for first, second in kwargs["value_pairs_set"]}
    first, second = (column.dictionary_encode("encode") for column in columns)
    code = pc.add(pc.multiply(first.indices.cast(pa.int64()), len(second.dictionary)), second.indices.cast(pa.int64()))
    allowed = [
        a * len(second.dictionary) + b
        for a, one in enumerate(first.dictionary.to_pylist())
        for b, other in enumerate(second.dictionary.to_pylist())
        if (one, other) in listed
    ]
    return pc.invert(pc.is_in(code, pa.array(allowed, pa.int64())))


def _sum_differs(columns: Sequence[pa.Array], kwargs: Arguments) -> pa.BooleanArray:
    total = kwargs["sum_total"]
    if not all(pa.types.is_integer(column.type) for column in columns):
        summed = reduce(pc.add, [column.cast(pa.float64(), safe=False) for column in columns])
        return pc.not_equal(summed, float(total))
    # 64-bit integers add up to more than 64 bits.
    exact = reduce(pc.add, [column.cast(pa.decimal128(19)) for column in columns])
    if not float(total).is_integer():
        return pc.if_else(pc.is_valid(exact), True, None)
    return pc.not_equal(exact, pa.scalar(decimal.Decimal(int(total)), exact.type))


def _same(first: pa.Array, second: pa.Array) -> pa.BooleanArray:
    both_null = pc.and_(pc.is_null(first), pc.is_null(second))
    return pc.or_(both_null, pc.fill_null(pc.equal(first, second), False))


_SEVERAL: dict[str, Callable[[Sequence[pa.Array], Arguments], pa.BooleanArray]] = {
    "expect_column_pair_values_a_to_be_greater_than_b": _not_greater,
    "expect_column_pair_values_to_be_equal": lambda columns, _kwargs: pc.not_equal(*_alike(columns)),
    "expect_column_pair_values_to_be_in_set": _pairs_outside,
    "expect_multicolumn_sum_to_equal": _sum_differs,
    "expect_multicolumn_values_to_be_equal": lambda columns, _kwargs: pc.invert(
        reduce(pc.and_, [_same(*_alike([columns[0], other])) for other in columns[1:]])
    ),
    "expect_select_column_values_to_be_unique_within_record": lambda columns, _kwargs: reduce(
        pc.or_, [_same(*_alike(pair)) for pair in combinations(columns, 2)]
    ),
}
