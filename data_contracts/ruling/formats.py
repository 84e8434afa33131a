"""The formats of logicalTypeOptions: names of string formats, and how fine a date's or timestamp's pattern is.

Sources: ODCS v3.2 "Logical Type Options"; `java.time.format.DateTimeFormatter`, to which ODCS refers.
"""

from __future__ import annotations

import re

TEXT_FORMATS = ("byte", "date", "date-time", "email", "hostname", "ipv4", "ipv6", "time", "uri", "uuid")
NUMBER_FORMATS = ("f32",)
# What these promise holds of every value of the type, so there is nothing to check.
FREE_FORMATS = {"string": ("binary", "password"), "number": ("f64",)}

_UNITS = {
    **dict.fromkeys("uyY", "year"),
    **dict.fromkeys("Qq", "quarter"),
    **dict.fromkeys("ML", "month"),
    **dict.fromkeys("dDEecFwW", "day"),
    **dict.fromkeys("aBHhKk", "hour"),
    "m": "minute",
    "s": "second",
    "A": "millisecond",
    **dict.fromkeys("nN", "nanosecond"),
}
_ORDER = ("year", "quarter", "month", "day", "hour", "minute", "second", "millisecond", "microsecond", "nanosecond")
_WITHOUT_UNIT = "GVvzOXxZp"
_TOKEN = re.compile(r"'(?:[^']|'')*'|([A-Za-z])\1*|[^A-Za-z']")


def finest_unit(pattern: str, logical: str) -> tuple[int, str] | None:
    """Return the finest step that a pattern can write, as (10, 'millisecond'), or None when it writes every value.

    Raises:
        ValueError: it is no pattern, or writes times of a date; says what.
    """
    position, finest = 0, (-1, 1)
    while position < len(pattern):
        token = _TOKEN.match(pattern, position)
        if token is None:
            raise ValueError("a quotation mark is not closed")
        letter, position = token.group(1), token.end()
        if letter is None or letter in _WITHOUT_UNIT:
            continue
        if letter == "S":
            digits = len(token.group())
            unit, step = ("millisecond", 10 ** (3 - digits))
            if digits > 3:
                unit, step = "microsecond", 10 ** max(6 - digits, 0)
        elif letter in _UNITS:
            unit, step = _UNITS[letter], 1
        else:
            raise ValueError(f"the letter {letter} means nothing in a pattern")
        if logical == "date" and _ORDER.index(unit) > _ORDER.index("day"):
            raise ValueError(f"a date has no {unit}")
        finest = max(finest, (_ORDER.index(unit), -step))
    if finest[0] < 0:
        raise ValueError("it writes no part of a date")
    unit, step = _ORDER[finest[0]], -finest[1]
    stored = "day" if logical == "date" else "microsecond"
    return None if _ORDER.index(unit) >= _ORDER.index(stored) and step == 1 else (step, unit)
