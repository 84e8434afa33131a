"""Row rules over Arrow batches: which rows of a batch fail one rule, vectorised with pyarrow.compute."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.arrowtext import utf8_data
from data_contracts.checks import KERNELS
from data_contracts.errors import ContractError
from data_contracts.licences import permitted
from data_contracts.patterns import matcher

if TYPE_CHECKING:
    from data_contracts.rules import RowRule

FAULT_COLUMN = "_fault"
_TYPES = {
    "string": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us", tz="UTC"),
}


class Columns:
    """The columns of one batch, and what several rules ask of them, each computed once."""

    def __init__(self, batch: pa.RecordBatch) -> None:
        self.batch = batch
        self._made: dict[tuple[str, str], pa.Array] = {}

    def column(self, name: str) -> pa.Array:
        """Return a column as it came."""
        return self._once(name, "", lambda: self.batch.column(name))

    def typed(self, name: str, logical: str) -> pa.Array:
        """Return a column as the Arrow type of an ODCS logical type; what is not of that type is NULL."""
        return self._once(name, logical, lambda: typed(self.column(name), logical))

    def text(self, name: str) -> pa.Array:
        """Return a column as text."""
        kind = self.column(name).type
        is_text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        return self.column(name) if is_text else self.typed(name, "string")

    def lengths(self, name: str) -> pa.Array:
        """Return the lengths of a column's texts in Unicode characters."""
        return self._once(name, "#length", lambda: _lengths(self.text(name)))

    def _once(self, name: str, what: str, make: Callable[[], pa.Array]) -> pa.Array:
        found = self._made.get((name, what))
        if found is None:
            found = self._made[name, what] = make()
        return found


Check = Callable[[Columns], "pa.BooleanArray | None"]
"""Columns of a batch -> True for each row that fails one rule (NULL passes), or None when no row can fail."""


def failing(rule: RowRule, batch: pa.RecordBatch) -> pa.BooleanArray:
    """Return True for each row of the batch that fails the rule.

    NULL passes every kind but `required` and `licence`: an unknown licence is not permitted. A value that is not of
    its column's type fails `type` alone.

    Raises:
        ContractError: the rule is of no known kind.
        KeyError: the batch lacks the rule's column.
    """
    failed = prepared(rule)(Columns(batch))
    if failed is None:
        return pa.repeat(pa.scalar(False), batch.num_rows)
    return pc.fill_null(failed, False) if failed.null_count else failed


def prepared(rule: RowRule) -> Check:
    """Return what says which rows fail the rule, its constants made ready once for all batches.

    Raises:
        ContractError: the rule is of no known kind.
    """
    name, given = rule.column, rule.arguments
    match rule.kind:
        case "decodes":
            return lambda columns: _none_if(
                columns.column(name).null_count == len(columns.column(name)), lambda: pc.is_valid(columns.column(name))
            )
        case "required":
            return lambda columns: _none_if(
                not columns.column(name).null_count, lambda: pc.is_null(columns.column(name))
            )
        case "type":
            return _type_check(name, given["logicalType"], given.get("format"))
        case "minLength":
            return lambda columns: pc.less(columns.lengths(name), given["value"])
        case "maxLength":
            return lambda columns: pc.greater(columns.lengths(name), given["value"])
        case "pattern":
            matches = matcher(given["pattern"])
            return lambda columns: pc.invert(matches(columns.text(name)))
        case "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum":
            logical = given["logicalType"]
            scalar, beyond = bound_scalar(rule.kind, given["value"], logical), _BEYOND[rule.kind]
            return lambda columns: _beyond(columns.typed(name, logical), scalar, beyond)
        case "multipleOf":
            return lambda columns: _no_multiple(columns.typed(name, given["logicalType"]), given["value"])
        case "enum" | "validValues":
            return _listed_check(name, given["logicalType"], constants(given["values"], given["logicalType"]))
        case "licence":
            return _licence_check(name, given["allowed"])
        case other if other in KERNELS:
            return lambda columns: KERNELS[other](rule, columns.batch)
        case other:
            raise ContractError(f"rule {rule.name}: {other!r} is no kind of row rule")


def typed(column: pa.Array, logical: str) -> pa.Array:
    """Return the values as the Arrow type of an ODCS logical type; a value that is not of that type becomes NULL."""
    wanted = _TYPES[logical]
    if column.type == wanted:
        return column
    try:
        return column.cast(wanted)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return pa.array([_one(value, wanted) for value in column], wanted)


def constants(values: Sequence[Any], logical: str) -> pa.Array:
    """Return a contract's constants as an array of their column's type.

    Raises:
        ValueError: one of them is not of that type.
    """
    parsed: list[Any] = []
    for value in values:
        if logical in ("date", "timestamp"):
            if not isinstance(value, str):
                raise ValueError(f"{value!r} is no ISO 8601 text")
            moment = datetime.datetime.fromisoformat(value)
            moment = moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
            parsed.append(moment if logical == "timestamp" else datetime.date.fromisoformat(value))
        elif logical in ("integer", "number") and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise ValueError(f"{value!r} is no number")
        else:
            parsed.append(value)
    if logical == "integer" and not all(float(value).is_integer() for value in parsed):
        raise ValueError("not a whole number")
    convert: Any = {"integer": int, "number": float}.get(logical, lambda value: value)
    try:
        return pa.array([convert(value) for value in parsed], _TYPES[logical])
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise ValueError(str(error)) from error


def bound_scalar(kind: str, bound: Any, logical: str) -> pa.Scalar:
    """Return a contract's bound as a value of its column's type.

    Raises:
        ValueError: it is not of that type.
    """
    if logical == "integer" and isinstance(bound, float):
        # Compared as integers, because 2^53 and 2^53 + 1 are one float64.
        bound = math.ceil(bound) if kind in ("minimum", "exclusiveMaximum") else math.floor(bound)
    return constants([bound], logical)[0]


def pattern_fault(pattern: Any) -> str | None:
    """Say why a regular expression is none of RE2, or return None."""
    if not isinstance(pattern, str):
        return "it is no text"
    try:
        pc.match_substring_regex(pa.array([""]), pattern)
    except pa.ArrowInvalid as error:
        return str(error)
    return None


def _one(value: pa.Scalar, wanted: pa.DataType) -> Any:
    try:
        return value.cast(wanted).as_py()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None


def _none_if(nothing: bool, make: Callable[[], pa.BooleanArray]) -> pa.BooleanArray | None:
    return None if nothing else make()


def _lengths(text: pa.Array) -> pa.Array:
    data = utf8_data(text)
    # Of ASCII, bytes are characters; the maximum of the bytes is found ten times as fast as characters are counted.
    if not len(data) or int(data.max()) < 128:
        return pc.binary_length(text)
    return pc.utf8_length(text)


def _type_check(name: str, logical: str, width: str | None) -> Check:
    wanted = _TYPES[logical]
    low = high = None
    if logical == "integer" and width is not None and width != "i64":
        bits = int(width[1:])
        low, high = (0, 2**bits - 1) if width[0] == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)

    def check(columns: Columns) -> pa.BooleanArray | None:
        column, values = columns.column(name), columns.typed(name, logical)
        bad = None if column.type == wanted else pc.and_(pc.is_valid(column), pc.is_null(values))
        outside = None
        if logical == "number":
            # Neither NaN nor infinity is a number of JSON, and no bound could be checked against NaN.
            outside = pc.invert(pc.is_finite(values))
        elif low is not None:
            outside = pc.or_(pc.less(values, low), pc.greater(values, high))
        if bad is None or outside is None:
            return outside if bad is None else bad
        return pc.or_(bad, pc.fill_null(outside, False))

    return check


_BEYOND = {
    "minimum": pc.less,
    "maximum": pc.greater,
    "exclusiveMinimum": pc.less_equal,
    "exclusiveMaximum": pc.greater_equal,
}


def _beyond(values: pa.Array, bound: pa.Scalar, beyond: Callable[..., pa.Array]) -> pa.BooleanArray:
    failed = beyond(values, bound)
    if pa.types.is_floating(values.type):
        # NaN is neither below nor above a bound; it does not lie within either.
        return pc.or_(failed, pc.is_nan(values))
    return failed


def _listed_check(name: str, logical: str, listed: pa.Array) -> Check:
    def check(columns: Columns) -> pa.BooleanArray:
        values = columns.typed(name, logical)
        failed = pc.invert(pc.is_in(values, listed))
        return pc.and_(pc.is_valid(values), failed) if values.null_count else failed

    return check


def _licence_check(name: str, allowed: Sequence[str]) -> Check:
    known: dict[str | None, bool] = {None: False}

    def check(columns: Columns) -> pa.BooleanArray:
        text = columns.text(name)
        fitting = []
        for value in pc.unique(text).to_pylist():
            if value not in known:
                known[value] = permitted(value, allowed)
            if known[value]:
                fitting.append(value)
        return pc.invert(pc.is_in(text, pa.array(fitting, text.type)))

    return check


def _no_multiple(values: pa.Array, divisor: float) -> pa.BooleanArray:
    if pa.types.is_integer(values.type) and float(divisor).is_integer():
        whole = pa.scalar(int(divisor), values.type)
        return pc.not_equal(pc.multiply(pc.divide(values, whole), whole), values)
    quotient = pc.divide(values.cast(pa.float64()), float(divisor))
    # 0.3 / 0.1 is 2.9999999999999996: a few units in the last place are the division's, not the value's.
    slack = pc.multiply(pc.max_element_wise(pc.abs(quotient), 1.0), 1e-12)
    return pc.greater(pc.abs(pc.subtract(quotient, pc.round(quotient))), slack)
