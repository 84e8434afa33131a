"""Row rules over Arrow batches: which rows of a batch fail one rule, vectorised with pyarrow.compute."""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.checks import KERNELS
from data_contracts.errors import ContractError
from data_contracts.licences import permitted

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


def failing(rule: RowRule, batch: pa.RecordBatch) -> pa.BooleanArray:
    """Return True for each row of the batch that fails the rule.

    NULL passes every kind but `required` and `licence`: an unknown licence is not permitted. A value that is not of
    its column's type fails `type` alone.

    Raises:
        ContractError: the rule is of no known kind.
        KeyError: the batch lacks the rule's column.
    """
    column = batch.column(rule.column)
    given = rule.arguments
    match rule.kind:
        case "decodes":
            return pc.is_valid(column)
        case "required":
            return pc.is_null(column)
        case "type":
            return _badly_typed(column, given["logicalType"], given.get("format"))
        case "minLength":
            failed = pc.less(pc.utf8_length(_text(column)), given["value"])
        case "maxLength":
            failed = pc.greater(pc.utf8_length(_text(column)), given["value"])
        case "pattern":
            failed = pc.invert(pc.match_substring_regex(_text(column), given["pattern"]))
        case "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum":
            failed = _out_of_bound(column, rule.kind, given["value"], given["logicalType"])
        case "multipleOf":
            failed = _no_multiple(typed(column, given["logicalType"]), given["value"])
        case "enum" | "validValues":
            listed = constants(given["values"], given["logicalType"])
            failed = pc.and_(pc.is_valid(column), pc.invert(pc.is_in(typed(column, given["logicalType"]), listed)))
            if given["logicalType"] != "string":
                failed = pc.and_(failed, pc.is_valid(typed(column, given["logicalType"])))
        case "licence":
            text = _text(column)
            known = [value for value in pc.unique(text).to_pylist() if permitted(value, given["allowed"])]
            return pc.invert(pc.is_in(text, pa.array(known, text.type)))
        case other if other in KERNELS:
            failed = KERNELS[other](rule, batch)
        case other:
            raise ContractError(f"rule {rule.name}: {other!r} is no kind of row rule")
    return pc.fill_null(failed, False)


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


def _text(column: pa.Array) -> pa.Array:
    return (
        column if pa.types.is_string(column.type) or pa.types.is_large_string(column.type) else typed(column, "string")
    )


def _one(value: pa.Scalar, wanted: pa.DataType) -> Any:
    try:
        return value.cast(wanted).as_py()
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None


def _badly_typed(column: pa.Array, logical: str, width: str | None) -> pa.BooleanArray:
    values = typed(column, logical)
    bad = pc.and_(pc.is_valid(column), pc.is_null(values))
    if logical == "number":
        # Neither NaN nor infinity is a number of JSON, and no bound could be checked against NaN.
        bad = pc.or_(bad, pc.fill_null(pc.invert(pc.is_finite(values)), False))
    if logical == "integer" and width is not None and width != "i64":
        bits = int(width[1:])
        low, high = (0, 2**bits - 1) if width[0] == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
        outside = pc.or_(pc.less(values, low), pc.greater(values, high))
        bad = pc.or_(bad, pc.fill_null(outside, False))
    return bad


def _out_of_bound(column: pa.Array, kind: str, bound: Any, logical: str) -> pa.BooleanArray:
    values, scalar = typed(column, logical), bound_scalar(kind, bound, logical)
    kept = {
        "minimum": pc.greater_equal,
        "maximum": pc.less_equal,
        "exclusiveMinimum": pc.greater,
        "exclusiveMaximum": pc.less,
    }[kind](values, scalar)
    return pc.invert(kept)


def _no_multiple(values: pa.Array, divisor: float) -> pa.BooleanArray:
    if pa.types.is_integer(values.type) and float(divisor).is_integer():
        whole = pa.scalar(int(divisor), values.type)
        return pc.not_equal(pc.multiply(pc.divide(values, whole), whole), values)
    quotient = pc.divide(values.cast(pa.float64()), float(divisor))
    # 0.3 / 0.1 is 2.9999999999999996: a few units in the last place are the division's, not the value's.
    slack = pc.multiply(pc.max_element_wise(pc.abs(quotient), 1.0), 1e-12)
    return pc.greater(pc.abs(pc.subtract(quotient, pc.round(quotient))), slack)
