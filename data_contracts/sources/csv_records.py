"""Delimited text, one record at a time: what a damaged file needs. Source: RFC 4180, with the usual dialects.

A quote opens only at the start of a field; elsewhere it is a character like any other. A quoted field must be followed
by a delimiter or the end of the record. Where it is not, or never closes, the quote is the damage: the record is then
its first line alone, and the next line starts the next record.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property

from data_contracts.sources.opening import MOST_RECORD_BYTES

Field = tuple[bytes, bool]


@dataclass(frozen=True)
class Dialect:
    """How fields and records are told apart: single characters as UTF-8, `end` as in `reader.lineEnd`."""

    delimiter: bytes = b","
    quote: bytes | None = b'"'
    escape: bytes | None = None
    end: str = "auto"

    @cached_property
    def line_end(self) -> re.Pattern[bytes]:
        """Matches one end of a line."""
        return re.compile({"auto": rb"\r\n|\r|\n", "lf": rb"\n", "crlf": rb"\r\n", "cr": rb"\r"}[self.end])

    @cached_property
    def stop(self) -> re.Pattern[bytes]:
        """Matches what ends an unquoted field, or an escape in it."""
        escape = b"|" + re.escape(self.escape) if self.escape else b""
        return re.compile(re.escape(self.delimiter) + b"|" + self.line_end.pattern + escape)

    @cached_property
    def inside(self) -> re.Pattern[bytes]:
        """Matches what may end a quoted field: a quote, or an escape."""
        escape = b"|" + re.escape(self.escape) if self.escape else b""
        return re.compile(re.escape(self.quote or b"") + escape)


@dataclass(frozen=True)
class Parsed:
    """One record of a text: where it ends, its fields as (bytes, was quoted); `fault` says why it has none.

    `raw` is the record without the end of its line. A blank line is a record without fields and without a fault.
    """

    end: int
    raw: bytes
    fields: list[Field]
    fault: str | None = None


def parse(data: bytes, start: int, dialect: Dialect, final: bool) -> Parsed | None:
    """Parse the record that starts at `start`; None when it may go on after `data`, which `final` rules out."""
    fields: list[Field] = []
    at = start
    while True:
        if dialect.quote and data.startswith(dialect.quote, at):
            field = _quoted(data, at, dialect, final)
        else:
            field = _unquoted(data, at, dialect, final)
        if field is None:
            if final or len(data) - start > MOST_RECORD_BYTES:
                return _first_line(data, start, dialect, final, "a quote is opened and never closed")
            return None
        value, after, quoted = field
        mark = dialect.line_end.match(data, after)
        if mark is not None:
            # The other half of a CRLF may be in the next block.
            if not final and mark.end() == len(data) and mark[0] == b"\r" and dialect.end == "auto":
                return None
            fields.append((value, quoted))
            blank = len(fields) == 1 and not value and not quoted and after == start
            return Parsed(mark.end(), data[start:after], [] if blank else fields)
        if after == len(data):
            if not final:
                return None
            fields.append((value, quoted))
            return Parsed(after, data[start:after], [] if after == start else fields)
        if not data.startswith(dialect.delimiter, after):
            if not final and len(data) - after < 4:
                return None
            return _first_line(
                data, start, dialect, final, f"text follows the closing quote of field {len(fields) + 1}"
            )
        fields.append((value, quoted))
        at = after + len(dialect.delimiter)


def _first_line(data: bytes, start: int, dialect: Dialect, final: bool, fault: str) -> Parsed | None:
    mark = dialect.line_end.search(data, start)
    if mark is None:
        return Parsed(len(data), data[start:], [], fault) if final or len(data) - start > MOST_RECORD_BYTES else None
    if not final and mark.end() == len(data) and mark[0] == b"\r" and dialect.end == "auto":
        return None
    return Parsed(mark.end(), data[start : mark.start()], [], fault)


def _unquoted(data: bytes, at: int, dialect: Dialect, final: bool) -> tuple[bytes, int, bool] | None:
    parts = b""
    begin = at
    while True:
        match = dialect.stop.search(data, at)
        if match is None:
            # Without a stop the field goes on, or the text is over; the caller asks which by where it ends.
            return parts + data[begin:], len(data), False
        if dialect.escape is None or match[0] != dialect.escape:
            return parts + data[begin : match.start()], match.start(), False
        # \N is the null of MySQL, an escape only by its looks: it stays as it is written.
        after = match.end() + _width(data, match.end())
        if after > len(data) or match.end() == len(data):
            return parts + data[begin:], len(data), False
        keep = match.start() if data[match.end() : after] == b"N" else match.end()
        parts += data[begin : match.start()] + data[keep:after]
        begin = at = after


def _quoted(data: bytes, at: int, dialect: Dialect, final: bool) -> tuple[bytes, int, bool] | None:
    quote = dialect.quote or b""
    parts = []
    begin = at = at + len(quote)
    while True:
        match = dialect.inside.search(data, at)
        if match is None:
            return None
        if match[0] == dialect.escape and dialect.escape != quote:
            after = match.end() + _width(data, match.end())
            if after > len(data) or match.end() == len(data):
                return None
            parts += [data[begin : match.start()], data[match.end() : after]]
            begin = at = after
        elif data.startswith(quote, match.end()):
            parts.append(data[begin : match.end()])
            begin = at = match.end() + len(quote)
        elif match.end() == len(data) and not final:
            return None
        else:
            return b"".join([*parts, data[begin : match.start()]]), match.end(), True


def _width(data: bytes, at: int) -> int:
    """Return how many bytes the UTF-8 character at a place has; a byte that starts none is one."""
    lead = data[at] if at < len(data) else 0
    return 1 if lead < 0xC0 else 2 if lead < 0xE0 else 3 if lead < 0xF0 else 4
