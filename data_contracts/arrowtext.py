"""Text made of Arrow columns without a Python object a value: JSON, hexadecimal digits, the bytes beneath."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.canonical import canonical_json, json_value

Bytes = np.ndarray[Any, np.dtype[np.uint8]]

# What JSON must escape where any other character may stand as it is (RFC 8259, section 7).
_ESCAPED = np.zeros(256, dtype=np.bool_)
_ESCAPED[[*range(32), ord('"'), ord("\\")]] = True
_NEEDS_ESCAPE = r'[\x00-\x1f"\\]'
_HEX = np.frombuffer("".join(f"{byte:02x}" for byte in range(256)).encode(), dtype=np.uint16)


def utf8_data(text: pa.Array) -> Bytes:
    """Return the bytes of all texts of a string or binary array, one after the other (a view; NULLs too)."""
    _, offsets, data = text.buffers()
    if data is None or not len(text):
        return np.zeros(0, dtype=np.uint8)
    wide = pa.types.is_large_string(text.type) or pa.types.is_large_binary(text.type)
    # A buffer of a damaged Arrow file may end in the middle of a number that no text needs.
    bounds = np.frombuffer(offsets, np.int64 if wide else np.int32, text.offset + len(text) + 1)
    return np.frombuffer(data, dtype=np.uint8)[bounds[text.offset] : bounds[text.offset + len(text)]]


def json_texts(values: pa.Array) -> pa.Array:
    """Return the canonical JSON of each value, as `canonical_json(json_value(value))` writes it; NULL is `null`."""
    kind = values.type
    if pa.types.is_string(kind):
        text = _quoted(values)
    elif pa.types.is_integer(kind):
        text = values.cast(pa.string())
    elif pa.types.is_boolean(kind):
        text = pc.if_else(values, "true", "false")
    elif pa.types.is_date32(kind):
        text = _joined('"', values.cast(pa.string()), '"')
    elif pa.types.is_timestamp(kind) and kind.unit == "us" and kind.tz == "UTC":
        text = _moments(values)
    elif pa.types.is_float64(kind):
        text = pa.array([_number(value) for value in values.to_pylist()], pa.string())
    else:
        text = pa.array([canonical_json(json_value(value)).decode() for value in values.to_pylist()], pa.string())
    return pc.fill_null(text, "null") if text.null_count else text


def json_rows(columns: list[pa.Array], end: str) -> pa.Array:
    """Return the canonical JSON of each row's values, commas between them and `end` after them: `1,"a"]`."""
    parts: list[Any] = []
    for column in columns:
        parts += [json_texts(column), ","]
    return _joined(*parts[:-1], end)


def json_objects(columns: Mapping[str, pa.Array]) -> pa.Array:
    """Return the canonical JSON of each row as an object: `{"a":1,"b":null}`, names in order."""
    parts: list[Any] = []
    for name in sorted(columns):
        lead = "," if parts else "{"
        parts += [f"{lead}{canonical_json(name).decode()}:", json_texts(columns[name])]
    return _joined(*parts, "}")


def hex_texts(keys: Bytes, known: np.ndarray[Any, np.dtype[np.bool_]]) -> pa.Array:
    """Return keys (uint8 [rows, width]) in lower-case hexadecimal digits, NULL where they are not known."""
    rows, width = keys.shape
    if not known.any():
        return pa.nulls(rows, pa.string())
    digits = _HEX[keys].view(np.uint8)
    offsets = np.arange(0, (rows + 1) * width * 2, width * 2, dtype=np.int32)
    whole = pa.Array.from_buffers(pa.string(), rows, [None, pa.py_buffer(offsets), pa.py_buffer(digits)])
    return whole if known.all() else pc.if_else(pa.array(known), whole, pa.scalar(None, pa.string()))


def byte_strings(text: pa.Array) -> list[bytes]:
    """Return the values of a string array without NULLs as bytes."""
    data: list[bytes] = text.view(pa.binary()).to_pylist()
    return data


def _joined(*parts: Any) -> pa.Array:
    return pc.binary_join_element_wise(*parts, "")


def _quoted(text: pa.Array) -> pa.Array:
    if not _ESCAPED[utf8_data(text)].any():
        return _joined('"', text, '"')
    special = pc.match_substring_regex(text, _NEEDS_ESCAPE)
    plain = _joined('"', text, '"')
    escaped = [json.dumps(value, ensure_ascii=False) for value in text.filter(special).to_pylist()]
    return pc.replace_with_mask(plain, pc.fill_null(special, False), pa.array(escaped, pa.string()))


def _number(value: float | None) -> str | None:
    # JSON's number is Python's shortest form; what is none is text.
    return None if value is None else repr(value) if value - value == 0 else f'"{value}"'


def _moments(values: pa.Array) -> pa.Array:
    """ISO 8601 as Python writes it: six digits of a second, or none."""
    full = values.cast(pa.timestamp("us")).cast(pa.string())
    whole = pc.equal(pc.microsecond(values), 0)
    whole = pc.and_(whole, pc.equal(pc.millisecond(values), 0))
    text = pc.if_else(whole, pc.utf8_slice_codeunits(full, 0, 19), full)
    return _joined('"', pc.utf8_replace_slice(text, 10, 11, "T"), '+00:00"')
