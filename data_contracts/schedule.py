"""When a data set's partitions should be there: what its contract's slaProperties promise, beside what came.

A partition whose value is a date begins on that day (UTC) and ends where the next one begins; it is due a latency
after its end. Without a `latency` in the contract that is one period: the partition of Monday, daily, is due when
Wednesday begins.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import count, takewhile
from typing import TYPE_CHECKING

from cronsim import CronSim

from data_contracts.periods import Frequency, Period, read_day, read_frequency, read_latency

if TYPE_CHECKING:
    from data_contracts.catalog.tables import PartitionVersion
    from data_contracts.contract import Contract

__all__ = ["Frequency", "Freshness", "expected", "frequency", "freshness", "freshness_of", "last_day", "latency"]

_DAY = timedelta(days=1)


@dataclass(frozen=True)
class Freshness:
    """A data set beside its promise.

    `newest` is the newest partition in force: the last date, or of values that are no dates the last published. `due`
    is when what follows it must be there, ISO 8601 in UTC, None when nothing is promised, nothing came yet, or the
    newest lies in the future; `late_s` is how many seconds ago that was, 0 when it is still to come.
    `missing` are the dates that should be there by now and are not, gaps of long ago included.
    """

    dataset: str
    newest: str | None
    due: str | None
    late_s: float
    missing: tuple[str, ...]
    words: str

    @property
    def late(self) -> bool:
        """Whether what is due is not there."""
        return self.late_s > 0


def frequency(contract: Contract) -> Frequency | None:
    """Return how often the contract promises data, or None when it does not say."""
    promised = contract.sla.get("frequency")
    return None if promised is None else read_frequency(promised.value, promised.unit)


def latency(contract: Contract) -> Period | None:
    """Return how long after its end a partition may come, or None when the contract does not say."""
    promised = contract.sla.get("latency")
    return None if promised is None else read_latency(promised.value, promised.unit)


def last_day(contract: Contract) -> date:
    """Return the last day for which the contract promises anything: its `endOfLife`, else the end of the calendar."""
    promised = contract.sla.get("endOfLife")
    return date.max if promised is None else read_day(promised.value)


def expected(contract: Contract, values: Collection[str], until: date) -> list[str]:
    """Return the partition values that should exist, from the first of `values` to the day `until`, in their form.

    Nothing is expected without a frequency, or when a value is no date (YYYY-MM-DD or YYYYMMDD, all in one form).
    Under a cron expression the days are those on which it fires; a frequency below a day expects every day.
    """
    often = frequency(contract)
    dash = _dash(values, often)
    if often is None or dash is None:
        return []
    first, until = min(map(date.fromisoformat, values)), min(until, last_day(contract))
    return [_text(day, dash) for day in takewhile(lambda day: day <= until, _days(often, first))]


def freshness(contract: Contract, versions: Iterable[PartitionVersion], now: datetime) -> Freshness:
    """Say whether a data set keeps its contract's promise; `versions` are all of its versions, `now` has a zone."""
    known: set[str] = set()
    published: dict[str, str] = {}
    for version in versions:
        known.add(version.partition)
        if version.verdict != "refused":
            published[version.partition] = max(published.get(version.partition, ""), version.published_at)
    return freshness_of(contract, known, published, now)


def freshness_of(contract: Contract, known: Collection[str], published: Mapping[str, str], now: datetime) -> Freshness:
    """Say the same from values: those ever seen, and of those in force when each was published, ISO 8601 in UTC.

    Partitions that are no dates are fresh when one was published within the last period and its latency.
    """
    often, now = frequency(contract), now.astimezone(UTC)
    dash = _dash(known, often)
    newest = max(published, key=lambda value: (published[value] if dash is None else "", value), default=None)
    if often is None:
        return Freshness(contract.id, newest, None, 0.0, (), "no frequency promised")
    if dash is None:
        return _by_publication(contract, often, newest, published, now)
    first = date.fromisoformat(min(known))
    begun = date.fromisoformat(newest) if newest else first - _DAY
    due, missing = None, []
    last = last_day(contract)
    for day, deadline in _deadlines(often, latency(contract), first, now.date()):
        if day > last:
            break
        if due is None and day > begun:
            due = deadline
        if deadline <= now and (value := _text(day, dash)) not in published:
            missing.append(value)
    if due is None and last < now.date():
        words = f"ended on {last}" + (f", {len(missing):,} missing" if missing else "")
        return Freshness(contract.id, newest, None, 0.0, tuple(missing), words)
    return _told(contract, often, newest, due, tuple(missing), now)


def _deadlines(often: Frequency, wait: Period | None, first: date, today: date) -> Iterator[tuple[date, datetime]]:
    """Yield each partition's day and when it must be there, up to the one that begins after today."""
    if first > today:
        return
    begins = _days(often, first)
    day, end, after = next(begins), next(begins), next(begins)
    while True:
        yield day, _midnight(after) if wait is None else wait.after(_midnight(end))
        if day > today:
            return
        day, end, after = end, after, next(begins)


def _by_publication(
    contract: Contract, often: Frequency, newest: str | None, published: Mapping[str, str], now: datetime
) -> Freshness:
    if newest is None:
        return Freshness(contract.id, None, None, 0.0, (), "nothing accepted yet")
    if last_day(contract) < now.date():
        return Freshness(contract.id, newest, None, 0.0, (), f"ended on {last_day(contract)}")
    end = often.next(datetime.fromisoformat(published[newest]).astimezone(UTC))
    wait = latency(contract)
    due = often.next(end) if wait is None else wait.after(end)
    return _told(contract, often, newest, due, (), now)


def _told(
    contract: Contract,
    often: Frequency,
    newest: str | None,
    due: datetime | None,
    missing: tuple[str, ...],
    now: datetime,
) -> Freshness:
    late_s = max(0.0, (now - due).total_seconds()) if due else 0.0
    words = f"late by {_length(late_s)}" if late_s else "fresh"
    if missing:
        words += f", {len(missing):,} missing"
    return Freshness(contract.id, newest, due.isoformat() if due else None, late_s, missing, f"{words} ({often.words})")


def _length(seconds: float) -> str:
    for size, name in ((86_400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            return f"{int(seconds // size):,} {name}{'s' if seconds >= 2 * size else ''}"
    return "less than a minute"


def _dash(values: Collection[str], often: Frequency | None) -> str | None:
    """Return what stands between year, month and day in all values; None when they, or the periods, are no days."""
    seconds = often.period.seconds if often and often.period else 0.0
    if seconds > 86_400 and seconds % 86_400:
        return None
    return next((dash for dash in ("-", "") if values and all(_is_day(value, dash) for value in values)), None)


def _is_day(value: str, dash: str) -> bool:
    try:
        return value == _text(date.fromisoformat(value), dash)
    except ValueError:
        return False


def _text(day: date, dash: str) -> str:
    # strftime writes the year 900 as '900'.
    return day.isoformat() if dash else day.isoformat().replace("-", "")


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def _days(often: Frequency, first: date) -> Iterator[date]:
    """Yield the days on which partitions begin, from the first, without end."""
    if often.period is None:
        day = first
        while True:
            # The day's own midnight counts, and a day on which cron fires often counts once.
            day = next(CronSim(often.cron or "", _midnight(day) - timedelta(seconds=1))).date()
            yield day
            day += _DAY
    # Several updates a day are of one day's partition.
    period = often.period if often.period.months or often.period.seconds >= 86_400 else Period(0, 86_400)
    for number in count():
        yield period.after(_midnight(first), number).date()
