"""The rules once more, value by value in plain Python: what Great Expectations has no expectation for.

A second implementation on purpose. Where it differs from the vectorised one, one of the two is wrong.
"""

from __future__ import annotations

import base64
import datetime
import ipaddress
import json
import math
import re
import uuid
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.checks.text import one_fails
from data_contracts.errors import CausewayError
from data_contracts.identity import json_value
from data_contracts.licences import permitted
from data_contracts.rowchecks import bound_scalar, constants
from data_contracts.rules import BatchRule, RowRule
from data_contracts.ruling.texts import ARGUMENTS

# What Python's re reads otherwise than RE2, or not at all: inline flags, POSIX classes, Unicode classes, \Q and \C.
_RE2_ONLY = re.compile(r"\(\?[a-zA-Z-]+[:)]|\[:|\\[pPQEC]")
_SPACES = r"\t\n\f\r "


def matches(pattern: str, text: str) -> bool:
    """Say whether an RE2 expression is found in the text, by Python's re where it can express it."""
    compiled = _python_form(pattern)
    if compiled is None:
        found: bool = pc.match_substring_regex(pa.array([text]), pattern)[0].as_py()
        return found
    return compiled.search(text) is not None


@lru_cache(maxsize=256)
def _python_form(pattern: str) -> re.Pattern[str] | None:
    """RE2 in Python: classes are ASCII, `$` is the end of the text alone, and `\\s` has no vertical tab."""
    if _RE2_ONLY.search(pattern):
        return None
    parts: list[str] = []
    inside = False
    for token in re.findall(r"\\.|.", pattern, re.DOTALL):
        if token == r"\z" or (token == "$" and not inside):
            token = r"\Z"
        elif token == r"\s":
            token = _SPACES if inside else f"[{_SPACES}]"
        elif token == r"\S" and not inside:
            token = f"[^{_SPACES}]"
        inside = (inside or token == "[") and token != "]"
        parts.append(token)
    try:
        return re.compile("".join(parts), re.ASCII)
    except re.error:
        return None


def passes(rule: RowRule, value: Any, *others: Any) -> bool:
    """Say whether one value passes a row rule that has no expectation of its own; `others` complete a composite key."""
    given = rule.arguments
    if rule.kind == "licence":
        return isinstance(value, str) and permitted(value, given["allowed"])
    if value is None:
        return True
    match rule.kind:
        case "pattern":
            return matches(given["pattern"], value)
        case "type" if given["logicalType"] == "integer":
            width = given.get("format") or "i64"
            bits = int(width[1:])
            low, high = (0, 2**bits - 1) if width[0] == "u" else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
            return bool(low <= value <= high)
        case "type":
            return not isinstance(value, float) or math.isfinite(value)
        case "multipleOf":
            if isinstance(value, int) and float(given["value"]).is_integer():
                return value % int(given["value"]) == 0
            quotient = value / given["value"]
            return bool(abs(quotient - round(quotient)) <= 1e-12 * max(abs(quotient), 1.0))
        case "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum":
            bound = bound_scalar(rule.kind, given["value"], given["logicalType"]).as_py()
            above, strict = rule.kind.lower().endswith("minimum"), rule.kind.startswith("exclusive")
            return bool((value > bound if above else value < bound) or (not strict and value == bound))
        case "enum" | "validValues":
            return value in constants(given["values"], given["logicalType"]).to_pylist()
        case "format":
            return of_format(given["format"], value)
        case kind if kind in ARGUMENTS:
            return not one_fails(rule, value)
        case "foreignKey":
            return None in others or not given["known"].lacks([(value, *others)])[0]
        case "precision":
            return not _remainder(value, *given["unit"])
    raise CausewayError(f"rule {rule.name}: kind {rule.kind!r} has no expectation")


# The batch rules that `observed_by` measures a second time.
SECOND = (
    "rowCount", "quarantineShare", "duplicateValues", "uniqueness", "nullValues", "missingValues", "failingRows"
)  # fmt: skip


def observed_by(rule: BatchRule, accepted: pa.Table, refused: np.ndarray[Any, np.dtype[np.bool_]]) -> Any:
    """Return what a batch rule compares, over the rows that no expectation refused.

    For `mustNotBeBetween` that is whether the figure lies between.
    """
    given = rule.arguments
    columns = [accepted.column(name).to_pylist() for name in given.get("columns", ())]
    rows = list(zip(*columns, strict=True))
    whole = accepted.num_rows
    match rule.kind:
        case "rowCount":
            count = whole
        case "quarantineShare":
            count, whole = int(refused.sum()), len(refused)
        case "duplicateValues" | "uniqueness":
            known = [json.dumps([json_value(v) for v in row]) for row in rows if all(v is not None for v in row)]
            count = len(known) - len(set(known))
        case "nullValues":
            count = sum(value is None for row in rows for value in row)
        case "missingValues":
            missing = [json_value(value) for value in given["missingValues"]]
            count = sum(value is None or json_value(value) in missing for row in rows for value in row)
        case "failingRows":
            named = given["columns"]
            count = sum(
                not all(passes(inner, row[named.index(inner.column)]) for inner in given["rules"]) for row in rows
            )
        case other:
            raise CausewayError(f"rule {rule.name}: kind {other!r} has no second implementation")
    observed = count if given["unit"] == "rows" else 100 * count / whole if whole else 0.0
    if given["operator"] == "mustNotBeBetween":
        return bool(given["value"][0] <= observed <= given["value"][1])
    return observed


def of_format(name: str, value: Any) -> bool:
    """Say whether a value is of a format of `logicalTypeOptions`, by Python's own parsers."""
    try:
        match name:
            case "f32":
                return bool(abs(value) <= float(np.finfo(np.float32).max))
            case "byte":
                return bool(base64.b64encode(base64.b64decode(value, validate=True)).decode() == value)
            case "date":
                return bool(len(value) == 10 and datetime.date.fromisoformat(value))
            case "ipv4":
                return bool(str(ipaddress.IPv4Address(value)) == value)
            case "ipv6":
                return bool(ipaddress.IPv6Address(value)) and "%" not in value
            case "uuid":
                return str(uuid.UUID(value)) == str(value).lower()
            case "hostname":
                return bool(len(value) <= 253 and all(_is_label(label) for label in value.split(".")))
            case "email":
                local, _, host = value.rpartition("@")
                atoms = [set(atom) <= _ATOM and atom for atom in local.split(".")]
                labels = host.split(".")
                return bool(len(value) <= 254 and all(atoms) and len(labels) > 1 and all(map(_is_label, labels)))
            case "uri":
                scheme, colon, rest = value.partition(":")
                head = scheme[:1].isalpha() and scheme.isascii() and set(scheme[1:]) <= _SCHEME
                bare = re.sub("%[0-9A-Fa-f]{2}", "", rest)
                return bool(head and colon and rest) and set(bare) <= _URI
            case _:
                wanted = f"2000-01-01T{value}" if name == "time" else value
                zone = wanted[-1:] in "Zz" or wanted[-6:-5] in ("+", "-")
                whole = wanted[10:11] in ("T", "t") and wanted[19:20] in (".", "+", "-", "Z", "z") and wanted[16] == ":"
                return bool(whole and zone and datetime.datetime.fromisoformat(wanted[:19].replace("t", "T")))
    except (ValueError, IndexError):
        return False


_ATOM = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+/=?^_`{|}~-")
_SCHEME = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+.-")
_URI = set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._~:/?#[]@!$&'()*+,;=-")


def _is_label(label: str) -> bool:
    plain = set(label) <= _SCHEME - set("+.")
    return 0 < len(label) <= 63 and plain and label[0] != "-" and label[-1] != "-"


def _remainder(value: Any, step: int, unit: str) -> bool:
    """Whether a date or moment has a part below (step, unit)."""
    order = ("year", "quarter", "month", "day", "hour", "minute", "second", "millisecond", "microsecond")
    below = order.index(unit)
    micro = getattr(value, "microsecond", 0)
    parts = [
        (2, (value.month - 1) % 3 if unit == "quarter" else value.month - 1 if unit == "year" else 0),
        (3, value.day - 1),
        (4, getattr(value, "hour", 0)),
        (5, getattr(value, "minute", 0)),
        (6, getattr(value, "second", 0)),
    ]
    rest = {"millisecond": micro % (1000 * step), "microsecond": micro % step}.get(unit, micro)
    return bool(rest) or any(part for level, part in parts if level > below)
