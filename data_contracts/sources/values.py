"""One value as an ODCS logical type: the reading that all sources share; `casts` does the same for whole columns."""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Callable, Sequence
from typing import Any

from data_contracts.contract import Contract

Read = Callable[[Any], Any]
"""Value (never None) -> value of the logical type; ValueError, TypeError or ArithmeticError where it is none."""

UNREADABLE = (ValueError, TypeError, ArithmeticError)


def value_readers(contract: Contract) -> list[tuple[str, Read]]:
    """Return (column, how its values are read) for each of the contract's columns, in their order."""
    forms = tuple(contract.reader.get("timestampFormats") or ())
    readers = {**_READERS, "timestamp": lambda value: _timestamp(value, forms)}
    return [(prop.name, readers.get(prop.logical_type, _text)) for prop in contract.properties]


def fault_of(name: str, value: Any, error: Exception) -> str:
    """Say that a value of a column is not of its type."""
    text = repr(value)
    return f"{name}: {text if len(text) <= 80 else text[:79] + '…'} cannot be read: {error}"


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if isinstance(value, str):
        value.encode("utf-8")  # JSON may hold lone surrogates, which no UTF-8 file can
        return value
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    raise TypeError(f"text is needed, this is {type(value).__name__}")


def _integer(value: Any) -> int:
    if isinstance(value, bool):
        raise TypeError("a whole number is needed, this is a truth value")
    number = decimal.Decimal(value.strip() if isinstance(value, str) else value)
    if number != number.to_integral_value() or not -(2**63) <= number < 2**63:
        raise ValueError("not a whole number of 64 bits")
    return int(number)


def _number(value: Any) -> float:
    if isinstance(value, bool):
        raise TypeError("a number is needed, this is a truth value")
    number = float(value)
    if number - number != 0:
        raise ValueError("not a finite number")
    return number


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    known = {"true": True, "1": True, "false": False, "0": False}
    word = str(value).strip().lower()
    if word not in known:
        raise ValueError("neither true nor false")
    return known[word]


def _date(value: Any) -> datetime.date:
    if isinstance(value, datetime.datetime):
        return value.date()
    return value if isinstance(value, datetime.date) else datetime.date.fromisoformat(str(value).strip())


def _timestamp(value: Any, forms: Sequence[str] = ()) -> datetime.datetime:
    moment = value if isinstance(value, datetime.datetime) else _moment(str(value).strip(), forms)
    # ODCS: a timestamp without a zone is UTC unless the contract says otherwise.
    # In UTC here: a moment whose zone leads out of the years 1 to 9999 could be stored, but never read again.
    return moment.astimezone(datetime.UTC) if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)


def _moment(text: str, forms: Sequence[str]) -> datetime.datetime:
    """Read ISO 8601, else the first of the reader's `timestampFormats` (strptime) that fits."""
    try:
        return datetime.datetime.fromisoformat(text)
    except ValueError:
        for form in forms:
            try:
                return datetime.datetime.strptime(text, form)
            except ValueError:
                continue
        raise


_READERS: dict[str, Read] = {
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "date": _date,
    "timestamp": _timestamp,
}
