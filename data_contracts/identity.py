"""Who a record is, and on which side of the split it stands: keyed hashes that survive restatement.

Record ids are keyed with the data set's secret, because an unkeyed hash of a patient number is personal data
(it can be found by trying all numbers). Splits are keyed with the public salt in the terms, so anybody can check them.
"""

from __future__ import annotations

import base64
import datetime
import decimal
import hashlib
import hmac
import unicodedata
from collections.abc import Sequence
from typing import Any, Literal

import pyarrow as pa

from data_contracts.canonical import canonical_json
from data_contracts.contract import Contract

Split = Literal["train", "held-out"]


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


def normalise_text(text: str) -> str:
    """Return the text in Unicode NFC with runs of white space as one blank: what 'the same text' means here."""
    return " ".join(unicodedata.normalize("NFC", text).split())


def record_ids(
    secret: bytes, contract: Contract, partition: str, batch: pa.RecordBatch, seen: dict[bytes, int]
) -> list[str | None]:
    """Return the id of each row: 32 hex characters, the first 16 bytes of an HMAC-SHA256.

    Over the canonical JSON [data set, partition, [key values]], or without a primary key [data set, partition, sha256
    of the row, how often that row came before]; `seen` carries those counts from batch to batch. None where a key
    value is null or, without a key, the row could not be decoded.
    """
    key = contract.primary_key
    names = key or tuple(prop.name for prop in contract.properties)
    faulty = _faults(batch)
    ids: list[str | None] = []
    for row, values in enumerate(_rows(batch, names)):
        if key:
            if any(value is None for value in values):
                ids.append(None)
                continue
            identity: list[Any] = [contract.id, partition, values]
        else:
            if faulty[row]:
                ids.append(None)
                continue
            content = hashlib.sha256(canonical_json(dict(zip(names, values, strict=True)))).digest()
            occurrence = seen.get(content, 0)
            seen[content] = occurrence + 1
            identity = [contract.id, partition, content.hex(), occurrence]
        ids.append(hmac.digest(secret, canonical_json(identity), "sha256")[:16].hex())
    return ids


def splits(contract: Contract, batch: pa.RecordBatch) -> list[Split]:
    """Return the side of each row: held out when its keyed fraction in [0, 1) is below the terms' share.

    Hashed are the values of `splitGroup` alone, not the data set: data sets with one key and one group (the modules,
    descriptions and licences of one distribution) stand on the same side. Without a group it is the primary key. The
    text column counts as the same when it is equal after `normalise_text`.
    """
    terms = contract.terms
    names = terms.split_group or contract.primary_key or (terms.text,)
    groups = _rows(batch, names)
    if terms.text in names:
        text = names.index(terms.text)
        for values in groups:
            values[text] = normalise_text(values[text]) if isinstance(values[text], str) else values[text]
    key = terms.held_out_key.encode()
    sides: dict[bytes, Split] = {}
    result: list[Split] = []
    for values in groups:
        message = canonical_json(values)
        if message not in sides:
            fraction = int.from_bytes(hmac.digest(key, message, "sha256")[:8]) / 2**64
            sides[message] = "held-out" if fraction < terms.held_out_share else "train"
        result.append(sides[message])
    return result


def _rows(batch: pa.RecordBatch, names: Sequence[str]) -> list[list[Any]]:
    columns = [[json_value(value) for value in batch.column(name).to_pylist()] for name in names]
    return [list(values) for values in zip(*columns, strict=True)]


def _faults(batch: pa.RecordBatch) -> list[bool]:
    if "_fault" not in batch.schema.names:
        return [False] * batch.num_rows
    return [value is not None for value in batch.column("_fault").to_pylist()]
