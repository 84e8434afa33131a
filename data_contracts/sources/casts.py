"""Whole columns as ODCS logical types: Arrow's casts where they agree with `values`, that reading where they do not.

A cast is taken for the values whose form both read alike; every other value is read in Python, each distinct one once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.sources.values import UNREADABLE, Read

Bad = dict[int, tuple[Any, Exception]]
"""Row -> (its value, why it cannot be read)."""

_TRUE, _FALSE = ["true", "True", "TRUE", "1"], ["false", "False", "FALSE", "0"]
# Up to the 28th, every such text is a date; the few others cost little one by one.
_DAY = "[12][0-9]{3}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])"
_CLOCK = r"([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]{1,6})?)?"


def cast_column(values: pa.Array, logical: str, wanted: pa.DataType, read: Read) -> tuple[pa.Array, Bad]:
    """Return the values as the Arrow type of a logical type, and those that are none, which are null in the array.

    `values` is of any type; binary values are read as text where they are UTF-8. Rows count from the array's start.
    """
    values = plain(values)
    if pa.types.is_null(values.type):
        return pa.nulls(len(values), wanted), {}
    if pa.types.is_binary(values.type) or pa.types.is_string(values.type):
        taken = _FROM_TEXT[logical](_text(values))
    else:
        taken = _native(values, logical, wanted)
    if taken.null_count == values.null_count:
        return taken, {}
    return _one_by_one(values, taken, wanted, read)


def python_values(values: pa.Array) -> list[Any]:
    """Return the values as Python's; binary ones as text where they are UTF-8, dates that Python lacks as text."""
    found: list[Any] = []
    for scalar in plain(values):
        try:
            found.append(_python(scalar))
        except UNREADABLE:
            found.append(_said(scalar))
    return found


def plain(values: pa.Array) -> pa.Array:
    """Return the same values in the plain layout of their type: no dictionary, no view, no large offsets."""
    kind = values.type
    if pa.types.is_dictionary(kind):
        return plain(values.dictionary_decode())
    if pa.types.is_run_end_encoded(kind):
        return plain(pc.run_end_decode(values))
    if isinstance(values, pa.ExtensionArray):
        return plain(values.storage)
    if pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return values.cast(pa.string())
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind) or pa.types.is_fixed_size_binary(kind):
        return values.cast(pa.binary())
    return values


def _nothing(values: pa.Array, wanted: pa.DataType) -> pa.Array:
    return pa.nulls(len(values), wanted)


def _text(values: pa.Array) -> pa.Array:
    """Return bytes as text, null where they are not UTF-8; Parquet's reader only takes a file's word that they are."""
    data = values.view(pa.binary())
    try:
        return data.cast(pa.string())
    except pa.ArrowInvalid:
        if len(data) == 1:
            return pa.nulls(1, pa.string())
        half = len(data) // 2
        return pa.concat_arrays([_text(data.slice(0, half)), _text(data.slice(half))])


def _integers(values: pa.Array) -> pa.Array:
    wanted = pa.int64()
    try:
        taken = values.cast(wanted)
    except pa.ArrowInvalid:
        return _where(values, "^-?[0-9]{1,18}$", lambda chosen: chosen.cast(wanted), wanted)
    # Arrow reads 0x1F as well, a contract's integers are decimal.
    hexadecimal = pc.or_(pc.match_substring(values, "x"), pc.match_substring(values, "X"))
    return pc.if_else(hexadecimal, pa.scalar(None, wanted), taken) if pc.any(hexadecimal).as_py() else taken


def _numbers(values: pa.Array) -> pa.Array:
    wanted = pa.float64()
    try:
        return _finite(values.cast(wanted))
    except pa.ArrowInvalid:
        form = r"^-?([0-9]{1,40}(\.[0-9]{0,40})?|\.[0-9]{1,40})([eE][+-]?[0-9]{1,2})?$"
        return _where(values, form, lambda chosen: chosen.cast(wanted), wanted)


def _booleans(values: pa.Array) -> pa.Array:
    place = pc.index_in(values, pa.array([*_TRUE, *_FALSE]))
    return pa.array([True] * len(_TRUE) + [False] * len(_FALSE)).take(place)


def _dates(values: pa.Array) -> pa.Array:
    wanted = pa.date32()
    return _where(values, f"^{_DAY}$", lambda chosen: chosen.cast(wanted), wanted)


def _timestamps(values: pa.Array) -> pa.Array:
    wanted = pa.timestamp("us", tz="UTC")
    naive = _where(
        values, f"^{_DAY}([ T]{_CLOCK})?$", lambda chosen: chosen.cast(pa.timestamp("us")).cast(wanted), wanted
    )
    if naive.null_count == values.null_count:
        return naive
    zone = r"(Z|[+-](0[0-9]|1[0-9]|2[0-3]):[0-5][0-9])"
    return pc.coalesce(naive, _where(values, f"^{_DAY}[ T]{_CLOCK}{zone}$", lambda chosen: chosen.cast(wanted), wanted))


_FROM_TEXT: dict[str, Callable[[pa.Array], pa.Array]] = {
    "string": lambda values: values,
    "integer": _integers,
    "number": _numbers,
    "boolean": _booleans,
    "date": _dates,
    "timestamp": _timestamps,
}


def _where(values: pa.Array, form: str, cast: Callable[[pa.Array], pa.Array], wanted: pa.DataType) -> pa.Array:
    """Cast the values of one form; the others are null."""
    fits = pc.match_substring_regex(values, form)
    return cast(pc.if_else(fits, values, pa.scalar(None, values.type)))


def _finite(values: pa.Array) -> pa.Array:
    finite = pc.is_finite(values)
    if pc.all(finite, min_count=0).as_py() is not False:
        return values
    return pc.if_else(finite, values, pa.scalar(None, values.type))


def _native(values: pa.Array, logical: str, wanted: pa.DataType) -> pa.Array:
    """Cast numbers, truth values, dates and moments; what has no cast that says the same is null."""
    kind = values.type
    whole, real = pa.types.is_integer(kind), pa.types.is_floating(kind)
    try:
        match logical:
            case "integer" if whole:
                return values.cast(wanted)
            case "integer" if real:
                exact = pc.and_(pc.equal(pc.floor(values), values), pc.less(pc.abs(values), 2.0**63))
                return pc.if_else(exact, values, pa.scalar(None, kind)).cast(wanted)
            case "number" if whole:
                return values.cast(wanted, safe=False)
            case "number" if real:
                return _finite(values.cast(wanted))
            case "boolean" if pa.types.is_boolean(kind):
                return values
            case "date" if pa.types.is_date(kind):
                return _years(values.cast(wanted))
            case "date" if pa.types.is_timestamp(kind) and kind.tz in (None, "UTC"):
                return _years(pc.floor_temporal(values, unit="day").cast(wanted))
            case "timestamp" if pa.types.is_date(kind):
                return _years(values.cast(pa.timestamp("us")).cast(wanted))
            case "timestamp" if pa.types.is_timestamp(kind):
                if kind.unit == "ns":
                    values = pc.floor_temporal(values, unit="microsecond")
                return _years(values.cast(pa.timestamp("us", tz=kind.tz)).cast(wanted))
            case "string" if pa.types.is_date32(kind):
                return _years(values).cast(wanted)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        pass
    return _nothing(values, wanted)


def _years(values: pa.Array) -> pa.Array:
    """Leave out what lies outside of the years 1 to 9999: Python has no such date."""
    zone = None if pa.types.is_date(values.type) else values.type.tz
    low, high = (pa.scalar(text).cast(pa.timestamp("us")) for text in ("0001-01-01", "9999-12-31 23:59:59.999999"))
    if pa.types.is_date(values.type):
        low, high = low.cast(pa.date32()), pa.scalar("9999-12-31").cast(pa.date32())
    elif zone:
        low, high = low.cast(values.type), high.cast(values.type)
    within = pc.and_(pc.greater_equal(values, low), pc.less_equal(values, high))
    if pc.all(within, min_count=0).as_py() is not False:
        return values
    return pc.if_else(within, values, pa.scalar(None, values.type))


def _one_by_one(values: pa.Array, taken: pa.Array, wanted: pa.DataType, read: Read) -> tuple[pa.Array, Bad]:
    """Read what no cast took, each distinct value once."""
    left = pc.and_(pc.is_valid(values), pc.is_null(taken))
    rows = np.flatnonzero(left.to_numpy(zero_copy_only=False))
    chosen = values.take(pa.array(rows))
    try:
        encoded = chosen.dictionary_encode()
        scalars, places = encoded.dictionary, encoded.indices.to_numpy()
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        scalars, places = chosen, np.arange(len(rows))
    found: list[Any] = []
    failed: dict[int, tuple[Any, Exception]] = {}
    for place, scalar in enumerate(scalars):
        value = None
        try:
            value = _python(scalar)
            found.append(read(value))
        except UNREADABLE as error:
            failed[place] = (_said(scalar) if value is None else value, error)
            found.append(None)
    column = pa.array(found, wanted).take(pa.array(places))
    bad = {int(rows[n]): failed[int(place)] for n, place in enumerate(places) if int(place) in failed} if failed else {}
    where = np.zeros(len(values), dtype=np.int64)
    where[rows] = np.arange(len(rows))
    return pc.if_else(left, column.take(pa.array(where)), taken), bad


def _said(scalar: pa.Scalar) -> str:
    """Return Arrow's own text of a value that Python cannot hold."""
    return str(scalar.cast(pa.string()).as_py())


def _python(scalar: pa.Scalar) -> Any:
    if pa.types.is_string(scalar.type):
        scalar = scalar.cast(pa.binary())
    value = scalar.as_py()
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError:
            return value
    return value
