"""Moments as people write them."""

from __future__ import annotations

import datetime as dt

from data_contracts.errors import DataRefused


def moment_of(text: str) -> dt.datetime | None:
    """Read a day or a moment in ISO 8601; without a zone it is UTC, and empty text is None.

    Raises:
        DataRefused: it is neither.
    """
    if not text:
        return None
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError as error:
        raise DataRefused(f"{text!r} is no moment; write 2020-03-25, or 2020-03-25T12:00:00+00:00") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=dt.UTC)
