"""Who a record is, and on which side of the split it stands: keyed hashes that survive restatement.

Record ids are keyed with the data set's secret, because an unkeyed hash of a patient number is personal data
(it can be found by trying all numbers). Splits are keyed with the public salt in the terms, so anybody can check them.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.arrowtext import Bytes, byte_strings, hex_texts, json_objects, json_rows
from data_contracts.canonical import canonical_json, json_value
from data_contracts.contract import Contract
from data_contracts.keyset import KeySet

__all__ = ["KeyedHash", "RecordIds", "Split", "json_value", "key_hashes", "normalise_text", "splits"]

Split = Literal["train", "held-out"]
Mask = np.ndarray[Any, np.dtype[np.bool_]]

# Printable ASCII without white space but single blanks inside: the same after normalisation.
_UNUSUAL = r"[^ -~]|  |^ | $"


def normalise_text(text: str) -> str:
    """Return the text in Unicode NFC with runs of white space as one blank: what 'the same text' means here."""
    return " ".join(unicodedata.normalize("NFC", text).split())


class KeyedHash:
    """HMAC-SHA256 with one key of messages with one beginning, which are hashed once. Source: RFC 2104."""

    def __init__(self, key: bytes, beginning: bytes = b"") -> None:
        block = (key if len(key) <= 64 else hashlib.sha256(key).digest()).ljust(64, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in block) + beginning)
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in block))

    def digests(self, messages: Sequence[bytes]) -> Bytes:
        """Return the HMAC of the beginning and each message, uint8 [messages, 32]."""
        copy_inner, copy_outer = self._inner.copy, self._outer.copy
        found: list[bytes] = []
        for message in messages:
            inner = copy_inner()
            inner.update(message)
            outer = copy_outer()
            outer.update(inner.digest())
            found.append(outer.digest())
        return np.frombuffer(b"".join(found), dtype=np.uint8).reshape(-1, 32)


class RecordIds:
    """The ids of one partition's records, batch by batch: the first 16 bytes of an HMAC-SHA256 keyed with `secret`.

    Over the canonical JSON [data set, partition, [key values]], or without a primary key [data set, partition, sha256
    of the row, how often that row came before].
    """

    def __init__(self, secret: bytes, contract: Contract, partition: str) -> None:
        self.key = contract.primary_key
        self.names = self.key or tuple(prop.name for prop in contract.properties)
        beginning = canonical_json([contract.id, partition])[:-1] + b","
        self._hash = KeyedHash(secret, beginning + b"[" if self.key else beginning)
        self._contents = KeySet()
        self._often: dict[bytes, int] = {}

    def of(self, batch: pa.RecordBatch) -> tuple[Bytes, Mask]:
        """Return the ids of a batch's rows (uint8 [rows, 16]), and which rows have one.

        A row has none where a key value is null or, without a key, the row could not be decoded; its bytes are zero.
        """
        if self.key:
            valid = [pc.is_valid(batch.column(name)) for name in self.names if batch.column(name).null_count]
        else:
            valid = [pc.is_null(batch.column("_fault"))] if "_fault" in batch.schema.names else []
        known = np.ones(batch.num_rows, dtype=np.bool_)
        for mask in valid:
            known &= mask.to_numpy(zero_copy_only=False)
        rows = batch if known.all() else batch.filter(pa.array(known))
        columns = {name: rows.column(name) for name in self.names}
        messages = json_rows([*columns.values()], "]]") if self.key else self._unkeyed(columns)
        ids = np.zeros((batch.num_rows, 16), dtype=np.uint8)
        ids[known] = self._hash.digests(byte_strings(messages))[:, :16]
        return ids, known

    def _unkeyed(self, columns: dict[str, pa.Array]) -> pa.Array:
        sha256 = hashlib.sha256
        found = b"".join([sha256(content).digest() for content in byte_strings(json_objects(columns))])
        contents = np.frombuffer(found, dtype=np.uint8).reshape(-1, 32)
        occurrences = np.zeros(len(contents), dtype=np.int64)
        for row in np.flatnonzero(self._contents.add(contents[:, :16])):
            content = contents[row].tobytes()
            occurrences[row] = self._often.get(content, 1)
            self._often[content] = int(occurrences[row]) + 1
        names = hex_texts(contents, np.ones(len(contents), dtype=np.bool_))
        return json_rows([names, pa.array(occurrences)], "]")


def key_hashes(contract: Contract, batch: pa.RecordBatch) -> tuple[Bytes, Mask]:
    """Return 16 bytes of each row's primary key (uint8 [rows, 16]), and which rows have one: equal where keys are.

    They tell keys apart and name nobody's record: they are not keyed, and must not be stored.
    """
    columns = [batch.column(name) for name in contract.primary_key]
    known = np.ones(batch.num_rows, dtype=np.bool_)
    for column in columns:
        if column.null_count:
            known &= pc.is_valid(column).to_numpy(zero_copy_only=False)
    rows = batch.select(contract.primary_key)
    rows = rows if known.all() else rows.filter(pa.array(known))
    if len(columns) == 1 and pa.types.is_integer(columns[0].type):
        mixed = _mixed(rows.column(0).cast(pa.int64()).to_numpy().view(np.uint64))
        found = np.stack([mixed, _mixed(mixed)], axis=1).view(np.uint8)
    else:
        sha256 = hashlib.sha256
        joined = b"".join([sha256(key).digest() for key in byte_strings(json_rows([*rows.columns], ""))])
        found = np.frombuffer(joined, dtype=np.uint8).reshape(-1, 32)[:, :16]
    if len(found) == batch.num_rows:
        return found, known
    hashes = np.zeros((batch.num_rows, 16), dtype=np.uint8)
    hashes[known] = found
    return hashes, known


def _mixed(numbers: np.ndarray[Any, np.dtype[np.uint64]]) -> np.ndarray[Any, np.dtype[np.uint64]]:
    """Spread integers over 64 bits, no two to one. Source: SplitMix64 (Steele, Lea and Flood, OOPSLA 2014)."""
    mixed = numbers + np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return mixed ^ (mixed >> np.uint64(31))


def splits(contract: Contract, batch: pa.RecordBatch) -> pa.Array:
    """Return the side of each row (string): held out when its keyed fraction in [0, 1) is below the terms' share.

    Hashed are the values of `splitGroup` alone, not the data set: data sets with one key and one group (the modules,
    descriptions and licences of one distribution) stand on the same side. Without a group it is the primary key. The
    text column counts as the same when it is equal after `normalise_text`.
    """
    terms = contract.terms
    names = terms.split_group or contract.primary_key or (terms.text,)
    columns = [_normalised(batch.column(name)) if name == terms.text else batch.column(name) for name in names]
    messages = json_rows(columns, "]")
    places = None
    if not contract.primary_key or not set(contract.primary_key) <= set(names):
        encoded = messages.dictionary_encode()
        messages, places = encoded.dictionary, encoded.indices
    digests = KeyedHash(terms.held_out_key.encode(), b"[").digests(byte_strings(messages))
    fractions = np.ascontiguousarray(digests[:, :8]).view(">u8")[:, 0].astype(np.float64) / 2.0**64
    sides = pc.if_else(pa.array(fractions < terms.held_out_share), "held-out", "train")
    return sides if places is None else sides.take(places)


def _normalised(values: pa.Array) -> pa.Array:
    if not pa.types.is_string(values.type):
        return values
    unusual = pc.fill_null(pc.match_substring_regex(values, _UNUSUAL), False)
    if not pc.any(unusual).as_py():
        return values
    mended = [normalise_text(text) for text in values.filter(unusual).to_pylist()]
    return pc.replace_with_mask(values, unusual, pa.array(mended, pa.string()))
