"""What of a value may be shown to a person: nothing of a column that is classified as anything but open.

ODCS leaves the words of `classification` to the organisation, so the open ones are listed here and all others hide.
"""

from __future__ import annotations

import json
from typing import Any

from data_contracts.contract import Contract
from data_contracts.redaction import redact

OPEN = ("public", "open", "internal", "non-sensitive", "none")
_LONGEST = 60


def is_sensitive(classification: str | None) -> bool:
    """Say whether values of a column may not be shown; a column without classification is shown."""
    return classification is not None and classification.strip().lower() not in OPEN


def shown(value: Any, classification: str | None) -> str:
    """Return a value as it may be shown: its length where it is sensitive, else its beginning without addresses."""
    if value is None:
        return "NULL"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    if is_sensitive(classification):
        return f"({classification}, {len(text)} characters)"
    clean = redact([text[: 4 * _LONGEST]], {"email": "redact"})[0][0].as_py()
    return repr(clean[:_LONGEST]) + ("…" if len(clean) > _LONGEST or len(text) > 4 * _LONGEST else "")


def row_value(contract: Contract, raw: str | None, column: str | None) -> str | None:
    """Return what a quarantined row may show of one column; None where the row or the column cannot say.

    `raw` is the row as canonical JSON, or the bytes of a record that could not be decoded, in hex.
    """
    known = {prop.name: prop for prop in contract.properties}
    row = stored_row(raw)
    if row is None or column not in known:
        return None
    prop = known[column]
    return shown(row.get(column, row.get(prop.physical_name)), prop.classification)


def stored_row(raw: str | None) -> dict[str, Any] | None:
    """Return the values of a quarantined row from its column `raw`, None where they are not known.

    `raw` is canonical JSON; of a record with a value that could not be read, JSON in hex, or the record's own bytes.
    """
    if raw is None:
        return None
    try:
        row = json.loads(raw if raw.startswith("{") else bytes.fromhex(raw))
    except ValueError:
        return None
    return row if isinstance(row, dict) else None
