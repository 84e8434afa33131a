"""How often data comes: the `frequency` and `latency` of an ODCS contract's slaProperties, read into periods.

Sources: Open Data Contract Standard v3.1, "Service-Level Agreement" (value and unit); ISO 8601-1 durations; POSIX
crontab, five fields. Days and months are those of UTC.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from cronsim import CronSim, CronSimError

from data_contracts.odcs import Fault, nearest

_UNITS = {
    "s": ("s", "sec", "second", "seconds"),
    "min": ("min", "minute", "minutes"),
    "h": ("h", "hr", "hour", "hours"),
    "d": ("d", "day", "days"),
    "w": ("w", "wk", "week", "weeks"),
    "mo": ("mo", "mon", "month", "months"),
    "y": ("y", "yr", "year", "years"),
}
_UNIT_OF = {word: unit for unit, words in _UNITS.items() for word in words}
_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86_400, "w": 604_800}
_MONTHS = {"mo": 1, "y": 12}
_NAMES = {"s": "second", "min": "minute", "h": "hour", "d": "day", "w": "week", "mo": "month", "y": "year"}
# The word of a frequency, and the moments it names as a cron expression.
_WORDS = {
    "hourly": (1, "h", "0 * * * *"),
    "daily": (1, "d", "0 0 * * *"),
    "weekly": (1, "w", "0 0 * * 1"),
    "monthly": (1, "mo", "0 0 1 * *"),
    "yearly": (1, "y", "0 0 1 1 *"),
}
_NUMBER = re.compile(r"\d+(\.\d+)?")
_DURATION = re.compile(r"P(?!$)(\d+Y)?(\d+M)?(\d+W)?(\d+D)?(?:T(?=\d)(\d+H)?(\d+M)?(\d+S)?)?")
# Longer is a slip of the pen, and would leave the calendar.
_MOST_S = 100 * 366 * 86_400
_LATENCY_FORMS = "a number with a unit (s, min, h, d, w, mo, y), or an ISO 8601 duration (PT12H, P2D)"
_FREQUENCY_FORMS = (
    "hourly, daily, weekly, monthly, yearly; a number with a unit (s, min, h, d, w, mo, y); "
    "an ISO 8601 duration (PT1H, P1D); or a cron expression of five fields (30 6 * * *)"
)


@dataclass(frozen=True)
class Period:
    """A length of time: whole calendar months and seconds."""

    months: int = 0
    seconds: float = 0.0

    def after(self, moment: datetime, times: int = 1) -> datetime:
        """Return the moment that many periods later; the 31st becomes the last day of a shorter month."""
        later = timedelta(seconds=self.seconds * times)
        if not self.months:
            return moment + later
        months = moment.year * 12 + moment.month - 1 + self.months * times
        year, month = months // 12, months % 12 + 1
        day = min(moment.day, calendar.monthrange(year, month)[1])
        return moment.replace(year=year, month=month, day=day) + later


@dataclass(frozen=True)
class Frequency:
    """How often a data set's partitions come.

    Exactly one of `cron` (five fields, UTC) and `every_s` (seconds) is given; `words` says it to a person. `period` is
    the time from one partition to the next, None when a cron expression that the contract gives decides it.
    """

    cron: str | None
    every_s: float | None
    words: str
    period: Period | None

    def next(self, moment: datetime) -> datetime:
        """Return the end of the period that begins at a moment in UTC."""
        if self.period is not None:
            return self.period.after(moment)
        return next(CronSim(self.cron or "", moment))


def read_frequency(value: Any, unit: str | None) -> Frequency:
    """Read the value and unit of the property `frequency`.

    Raises:
        ValueError: it has none of the allowed forms; the text says which are.
    """
    text = str(value).strip()
    if isinstance(value, str) and text.lower() in _WORDS:
        amount, one, cron = _WORDS[text.lower()]
        return Frequency(cron, None, text.lower(), _period(amount, one))
    if isinstance(value, str) and len(text.split()) == 5:
        try:
            next(CronSim(text, datetime(2024, 1, 1)))
        except (CronSimError, StopIteration) as error:
            raise ValueError(
                f"{text!r} is no cron expression ({error or 'never fires'}); use one of: {_FREQUENCY_FORMS}"
            ) from None
        return Frequency(text, None, f"by cron {text}", None)
    period = _read_period(value, unit, _FREQUENCY_FORMS, [*_WORDS])
    if not period.months:
        if not period.seconds:
            raise ValueError(f"{_shown(value, unit)} is no time at all; use one of: {_FREQUENCY_FORMS}")
        return _by_seconds(period)
    if period.seconds or 12 % period.months:
        raise ValueError(
            f"{_shown(value, unit)} cannot be scheduled by the calendar; use 1, 2, 3, 4, 6 or 12 months, or days"
        )
    word = {1: "monthly", 12: "yearly"}.get(period.months)
    if word:
        return Frequency(_WORDS[word][2], None, word, period)
    return Frequency(f"0 0 1 */{period.months} *", None, f"every {period.months} months", period)


def read_latency(value: Any, unit: str | None) -> Period:
    """Read the value and unit of the property `latency`.

    Raises:
        ValueError: it has none of the allowed forms; the text says which are.
    """
    return _read_period(value, unit, _LATENCY_FORMS, ())


def sla_faults(document: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield what cannot be read in the slaProperties that are used; others are kept as they are."""
    seen: set[str] = set()
    entries = document.get("slaProperties")
    for index, entry in enumerate(entries if isinstance(entries, list) else ()):
        name = entry["property"]
        if name not in ("frequency", "latency", "endOfLife"):
            continue
        if name in seen:
            yield Fault(("slaProperties", index, "property"), f"{name} stands twice; keep one")
        seen.add(name)
        try:
            if name == "endOfLife":
                read_day(entry["value"])
            else:
                (read_frequency if name == "frequency" else read_latency)(entry["value"], entry.get("unit"))
        except ValueError as error:
            yield Fault(("slaProperties", index, "value"), str(error))


def read_day(value: Any) -> date:
    """Read the day of an `endOfLife`; a moment counts by its day.

    Raises:
        ValueError: it is no ISO 8601 day or moment.
    """
    try:
        return datetime.fromisoformat(str(value)).date()
    except ValueError as error:
        raise ValueError(f"{value!r} is no day; write it as 2020-04-05") from error


def _read_period(value: Any, unit: str | None, forms: str, words: Sequence[str]) -> Period:
    text = str(value).strip()
    if not isinstance(value, bool) and _NUMBER.fullmatch(text):
        if unit == "m":
            raise ValueError("the unit m is minutes to some and months to others; write min or mo")
        if unit not in _UNIT_OF:
            found = "has no unit" if unit is None else f"has the unit {unit!r}{nearest(unit, _UNIT_OF)}"
            raise ValueError(f"{text} {found}; use one of: {forms}")
        period = _period(float(text), _UNIT_OF[unit])
    else:
        match = _DURATION.fullmatch(text) if isinstance(value, str) else None
        if match is None:
            raise ValueError(f"{text!r} cannot be read{nearest(text, words)}; use one of: {forms}")
        years, months, weeks, days, hours, minutes, seconds = (int(part[:-1]) if part else 0 for part in match.groups())
        seconds += weeks * 604_800 + days * 86_400 + hours * 3600 + minutes * 60
        period = Period(years * 12 + months, seconds)
    if period.months * 31 * 86_400 + period.seconds > _MOST_S:
        raise ValueError(f"{_shown(value, unit)} is more than a century; use one of: {forms}")
    return period


def _period(amount: float, unit: str) -> Period:
    if unit in _SECONDS:
        return Period(0, amount * _SECONDS[unit])
    if amount != int(amount):
        raise ValueError(f"{amount:g} {_NAMES[unit]}s is no whole number of {_NAMES[unit]}s; use days")
    return Period(int(amount) * _MONTHS[unit])


def _by_seconds(period: Period) -> Frequency:
    for word, (amount, unit, cron) in _WORDS.items():
        if _period(amount, unit) == period:
            return Frequency(cron, None, word, period)
    whole = (u for u in ("w", "d", "h", "min") if period.seconds >= _SECONDS[u] and not period.seconds % _SECONDS[u])
    largest = next(whole, "s")
    number = period.seconds / _SECONDS[largest]
    return Frequency(None, period.seconds, f"every {number:g} {_NAMES[largest]}{'s' if number != 1 else ''}", period)


def _shown(value: Any, unit: str | None) -> str:
    return f"{value} {unit}" if unit else str(value)
