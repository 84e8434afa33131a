"""Canonical JSON and content addresses.

One value has one byte string: keys sorted, no blanks, UTF-8, no NaN or infinity (RFC 8785 restricted to integers,
strings, booleans, null, lists, objects, and floats in Python's shortest round-trip form). Signed and hashed
documents are always these bytes.
"""

from __future__ import annotations

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
