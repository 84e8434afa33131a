"""Rows whose text is not of the format that the column names, or whose time is finer than its pattern."""

from __future__ import annotations

import ipaddress

import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.ruling.kinds import RowRule

_LABEL = r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_DAY = r"[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])"
_TIME = r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:(?:[0-5][0-9]|60)(?:\.[0-9]+)?(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])"
_PATTERNS = {
    "byte": r"^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$",  # RFC 4648 section 4
    "date": f"^{_DAY}$",  # RFC 3339 full-date
    "date-time": f"^{_DAY}[Tt]{_TIME}$",
    # RFC 5321 section 4.1.2, the dot-string form, in ASCII
    "email": r"^[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*@"
    rf"{_LABEL}(?:\.{_LABEL})+$",
    "hostname": rf"^{_LABEL}(?:\.{_LABEL})*$",  # RFC 1123 section 2.1
    "ipv4": rf"^{_OCTET}(?:\.{_OCTET}){{3}}$",
    "ipv6": r"^[0-9A-Fa-f:.]{2,45}$",  # a first sieve; Python's ipaddress decides
    "time": f"^{_TIME}$",
    # RFC 3986 section 3: a scheme, then only the characters of a URI, percent signs followed by two hex digits
    "uri": r"^[A-Za-z][A-Za-z0-9+.-]*:(?:[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=-]|%[0-9A-Fa-f]{2})+$",
    "uuid": r"^[0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}$",  # RFC 9562 section 4
}
_LONGEST = {"hostname": 253, "email": 254}
_LARGEST_F32 = 3.4028234663852886e38


def format_fails(rule: RowRule, batch: pa.RecordBatch) -> pa.BooleanArray:
    """True where the text (or number) is not of `arguments['format']`; NULL stays NULL."""
    column, name = batch.column(rule.column), rule.arguments["format"]
    if name == "f32":
        return pc.greater(pc.abs(column.cast(pa.float64())), _LARGEST_F32)
    text = column.cast(pa.string())
    failed = pc.invert(pc.match_substring_regex(text, _PATTERNS[name]))
    if name in _LONGEST:
        failed = pc.or_(failed, pc.greater(pc.utf8_length(text), _LONGEST[name]))
    if name in ("date", "date-time"):
        # 2023-02-29 is read as 2023-03-01, so what is written again tells the days that the calendar lacks.
        day = pc.utf8_slice_codeunits(text, 0, 10)
        again = pc.strftime(pc.strptime(day, "%Y-%m-%d", "s", error_is_null=True), "%Y-%m-%d")
        failed = pc.or_(failed, pc.fill_null(pc.not_equal(again, day), False))
    if name == "ipv6":
        unique = pc.unique(text.filter(pc.fill_null(pc.invert(failed), False)))
        wrong = [value for value in unique.to_pylist() if not _is_ipv6(value)]
        failed = pc.or_(failed, pc.is_in(text, pa.array(wrong, pa.string())))
    return failed


def precision_fails(rule: RowRule, batch: pa.RecordBatch) -> pa.BooleanArray:
    """True where a date or timestamp has a part finer than `arguments['unit']`, as (step, unit), can tell."""
    column = batch.column(rule.column)
    step, unit = rule.arguments["unit"]
    return pc.not_equal(pc.floor_temporal(column, multiple=step, unit=unit), column)


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True
