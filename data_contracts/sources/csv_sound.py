"""How far a delimited text is sound: the part that pyarrow's reader and `csv_records.parse` read alike.

Text is sound up to the first byte that is not UTF-8, escape, or quote that does not open at the start of a field and
close at its end. Where quotes are sound their parity says which line ends are ends of records.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from data_contracts.sources.csv_records import Dialect

_ENDS = {"auto": b"\r\n", "lf": b"\n", "cr": b"\r"}


def sound(data: bytes, dialect: Dialect, final: bool) -> tuple[int, bool]:
    """Return how many bytes are whole sound records, and whether what follows them is not sound.

    `data` starts with a record; unless it is the `final` part of the text its last record may go on after it.
    """
    if len(dialect.delimiter) > 1 or len(dialect.quote or b"") > 1 or dialect.end == "crlf":
        return 0, True
    limit = len(data)
    for mark in (dialect.escape, {"lf": b"\r", "cr": b"\n"}.get(dialect.end)):
        if mark is not None and (place := data.find(mark, 0, limit)) >= 0:
            limit = place
    if not data.isascii():
        try:
            data[:limit].decode("utf-8")
        except UnicodeDecodeError as error:
            # A character may be cut by the end of the block.
            if final or limit < len(data) or error.reason != "unexpected end of data":
                limit = error.start
    dirty = limit < len(data)
    body = data[:limit] if dirty else data
    if not final and not dirty and body.endswith(b"\r"):
        # Half of a CRLF, perhaps.
        body = body[:-1]
    last = final and not dirty
    if dialect.quote is None or dialect.quote not in body:
        return len(body) if last else 1 + max(body.rfind(bytes([end])) for end in _ENDS[dialect.end]), dirty
    cut, broken = _quoted(np.frombuffer(body, np.uint8), dialect, last)
    return cut, dirty or broken


def _quoted(data: np.ndarray[Any, np.dtype[np.uint8]], dialect: Dialect, last: bool) -> tuple[int, bool]:
    quote, delimiter = (dialect.quote or b"")[0], dialect.delimiter[0]
    ends = data == _ENDS[dialect.end][0]
    for other in _ENDS[dialect.end][1:]:
        ends |= data == other
    edge = ends | (data == delimiter)
    places = np.flatnonzero(data == quote)
    opens, closes = places[0::2], places[1::2]
    # An opening quote stands at the start of a field, or right after a closing one (a doubled quote).
    opens = opens[opens > 0]
    bad_opens = opens[~(edge[opens - 1] | (data[opens - 1] == quote))]
    closes = closes[closes < len(data) - 1]
    bad_closes = closes[~(edge[closes + 1] | (data[closes + 1] == quote))]
    first = min((int(bad[0]) for bad in (bad_opens, bad_closes) if len(bad)), default=len(data))
    broken = first < len(data)
    if last and not broken:
        if len(places) % 2 == 0:
            return len(data), False
        broken = True
    stops = np.flatnonzero(ends[:first])
    outside = stops[np.searchsorted(places, stops) % 2 == 0]
    return int(outside[-1]) + 1 if len(outside) else 0, broken
