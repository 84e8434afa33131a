"""Regular expressions over columns: RE2, and quicker ways to the same answer for codes and for columns that repeat.

An expression of one fixed width, such as `^[A-Z]{3}-[0-9]{6}$`, is a comparison of bytes, position by position.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Bytes = np.ndarray[Any, np.dtype[np.uint8]]
Matcher = Callable[[pa.Array], pa.BooleanArray]
"""Text (string array) -> True where the expression is found, NULL where the text is."""

# Few values in this many rows are taken for few in all: then each is searched once.
_SAMPLE = 1024
_WIDEST = 64
_ITEM = re.compile(r"(\[(?:[A-Za-z0-9_](?:-[A-Za-z0-9_])?)+\]|[A-Za-z0-9_ :/,@#%&=~;<>!\"'-])(?:\{([0-9]{1,2})\})?")
_RANGE = re.compile(r"(.)-(.)|(.)")


def matcher(pattern: str) -> Matcher:
    """Return what finds an RE2 expression in texts."""
    classes = fixed_classes(pattern)
    if classes is not None:
        return lambda text: _fixed(text, classes)
    return lambda text: _searched(text, pattern)


def fixed_classes(pattern: str) -> list[Bytes] | None:
    """Return the bytes allowed at each position (ASCII, sorted), or None where the expression is not that simple."""
    if not (pattern.startswith("^") and pattern.endswith("$")):
        return None
    found: list[Bytes] = []
    at, end = 1, len(pattern) - 1
    while at < end:
        item = _ITEM.match(pattern, at, end)
        if item is None:
            return None
        allowed: set[int] = set()
        for low, high, single in _RANGE.findall(item[1].strip("[]")):
            allowed.update(range(ord(low), ord(high) + 1) if low else [ord(single)])
        found += [np.array(sorted(allowed), dtype=np.uint8)] * int(item[2] or 1)
        at = item.end()
    return found if 0 < len(found) <= _WIDEST and all(len(allowed) for allowed in found) else None


def _searched(text: pa.Array, pattern: str) -> pa.BooleanArray:
    sample = text.slice(0, _SAMPLE)
    if len(text) <= _SAMPLE or pc.count_distinct(sample).as_py() * 4 > _SAMPLE:
        return pc.match_substring_regex(text, pattern)
    encoded = text.dictionary_encode()
    return pc.match_substring_regex(encoded.dictionary, pattern).take(encoded.indices)


def _fixed(text: pa.Array, classes: list[Bytes]) -> pa.BooleanArray:
    _, offsets, data = text.buffers()
    bounds = np.frombuffer(offsets, dtype=np.int64 if pa.types.is_large_string(text.type) else np.int32)
    bounds = bounds[text.offset : text.offset + len(text) + 1].astype(np.int64) if len(text) else bounds[:1]
    width = len(classes)
    fits = np.diff(bounds) == width
    if fits.all() and len(text):
        grid = np.frombuffer(data, dtype=np.uint8)[bounds[0] : bounds[-1]].reshape(-1, width)
        for place, allowed in enumerate(classes):
            fits &= _within(grid[:, place], allowed)
    elif fits.any():
        rows = np.flatnonzero(fits)
        whole, starts = np.frombuffer(data, dtype=np.uint8), bounds[rows]
        good = np.ones(len(rows), dtype=np.bool_)
        for place, allowed in enumerate(classes):
            good &= _within(whole[starts + place], allowed)
        fits[rows] = good
    found = pa.array(fits)
    return found if not text.null_count else pc.if_else(pc.is_valid(text), found, pa.scalar(None, pa.bool_()))


def _within(values: Bytes, allowed: Bytes) -> np.ndarray[Any, np.dtype[np.bool_]]:
    low, high = allowed[0], allowed[-1]
    if int(high) - int(low) + 1 == len(allowed):
        one_range: np.ndarray[Any, np.dtype[np.bool_]] = (values - low) <= high - low  # below low wraps round to above
        return one_range
    table = np.zeros(256, dtype=np.bool_)
    table[allowed] = True
    return table[values]
