"""Canonical JSON and content addresses.

One value has one byte string: keys sorted, no blanks, UTF-8, no NaN or infinity (RFC 8785 restricted to integers,
strings, booleans, null, lists, objects, and floats in Python's shortest round-trip form). Signed and hashed
documents are always these bytes.
"""

from __future__ import annotations

import base64
import datetime
import decimal
import hashlib
import json
from typing import Any


def canonical_json(value: Any) -> bytes:
    """Return the one byte string of a JSON value.

    Raises:
        ValueError: a float is NaN or infinite.
        TypeError: a value has no JSON form.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8")


def sha256(data: bytes | memoryview) -> str:
    """Return the lower-case hex SHA-256 of the bytes."""
    return hashlib.sha256(data).hexdigest()


def document_sha(value: Any) -> str:
    """Return the SHA-256 of a document's canonical JSON."""
    return sha256(canonical_json(value))


def json_value(value: Any) -> Any:
    """Return the one JSON form of a cell: dates as ISO 8601, bytes as base64, other numbers as text."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if value - value == 0 else str(value)
    if isinstance(value, datetime.datetime):
        return (value.astimezone(datetime.UTC) if value.tzinfo else value).isoformat()
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, decimal.Decimal):
        return str(value)
    if isinstance(value, dict):
        return {str(key): json_value(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [json_value(entry) for entry in value]
    return str(value)
