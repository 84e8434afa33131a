"""Accepted rows -> one shard: an Arrow IPC file with one token buffer that maps into memory, and its manifest."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import pyarrow as pa

from data_contracts.canonical import canonical_json, sha256
from data_contracts.catalog.store import Store
from data_contracts.errors import DataRefused, ObjectExists, StoreError
from training.shards.manifest import Manifest

FORMAT = 1


class Tokenizer(Protocol):
    """What the writer needs of a tokenizer."""

    @property
    def sha(self) -> str: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def end_id(self) -> int: ...
    def encode_batch(self, texts: list[str]) -> Sequence[np.ndarray[Any, Any]]: ...


@dataclass(frozen=True)
class ShardData:
    """A shard in memory, mapped from its file.

    `tokens`: uint16 or uint32 [T], each record's ended by the end-of-text token. `offsets`: int64 [R + 1], record r
    owns tokens offsets[r]..offsets[r+1]-1. `record_ids`: R hex strings. `text_bytes`: int64 [R].
    """

    tokens: np.ndarray[Any, Any]
    offsets: np.ndarray[Any, Any]
    record_ids: list[str]
    text_bytes: np.ndarray[Any, Any]
    table: pa.Table


def encode_shard(rows: pa.Table, text: str, tokenizer: Tokenizer) -> tuple[bytes, dict[str, Any]]:
    """Tokenize rows (columns `record_id` and the text property), sorted by record id; return file bytes and counts.

    The same rows and tokenizer give the same bytes. Rows whose text is null are refused.

    Raises:
        DataRefused: a row has no text; names its record.
    """
    rows = rows.sort_by("record_id")
    texts = rows.column(text).to_pylist()
    ids = rows.column("record_id").to_pylist()
    for record_id, value in zip(ids, texts, strict=True):
        if value is None:
            raise DataRefused(
                f"record {record_id}: {text} is null and cannot be tokenized; let the contract require it"
            )
    kind: Literal["uint16", "uint32"] = "uint16" if tokenizer.vocab_size <= 65536 else "uint32"
    end = np.array([tokenizer.end_id], dtype=kind)
    parts: list[np.ndarray[Any, Any]] = []
    lengths: list[int] = []
    for start in range(0, len(texts), 256):
        for encoded in tokenizer.encode_batch(texts[start : start + 256]):
            parts += [encoded.astype(kind), end]
            lengths.append(len(encoded) + 1)
    tokens = np.concatenate(parts) if parts else np.empty(0, dtype=kind)
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)]).astype(np.int64)
    sizes = np.array([len(t.encode()) for t in texts], dtype=np.int64)
    column = pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), pa.array(tokens))
    schema = pa.schema(
        [
            pa.field("record_id", pa.string(), nullable=False),
            pa.field("tokens", pa.large_list(pa.from_numpy_dtype(np.dtype(kind))), nullable=False),
            pa.field("text_bytes", pa.int64(), nullable=False),
        ],
        metadata={"causeway.format": str(FORMAT), "causeway.tokenizer": tokenizer.sha},
    )
    batch = pa.record_batch([pa.array(ids, pa.string()), column, pa.array(sizes)], schema=schema)
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, schema) as writer:
        writer.write_batch(batch)
    counts = {
        "token_dtype": kind,
        "tokens": len(tokens),
        "records": len(ids),
        "text_bytes": int(sizes.sum()),
    }
    return sink.getvalue(), counts


def write_shard(store: Store, data: bytes, counts: dict[str, Any], **facts: Any) -> tuple[Manifest, bool]:
    """Write the Arrow file, read it back against its sha256, then its manifest; return it and whether it is new.

    `facts` are the manifest's other fields. The manifest is written last: a shard without one does not exist. A file
    that is there with other bytes than its name says is damaged, and written again.
    """
    digest = sha256(data)
    manifest = Manifest(arrow_bytes=len(data), arrow_sha256=digest, **counts, **facts)
    wrote = _put_whole(store, manifest.arrow_key, data)
    store.get(manifest.arrow_key, digest)
    return manifest, _put_whole(store, manifest.key, canonical_json(manifest.document())) or wrote


def _put_whole(store: Store, key: str, data: bytes) -> bool:
    """Put an object that is named by its content; return False when it was there, whole."""
    try:
        return store.ensure(key, data)
    except ObjectExists:
        # Never overwritten in place: who has the old bytes mapped keeps them.
        store.delete(key)
        store.create(key, data)
        return True


def open_shard(path: Path) -> ShardData:
    """Map a local shard file into memory without copying its tokens.

    Raises:
        StoreError: the file is not a shard; names it.
    """
    try:
        source = pa.memory_map(str(path))
        table = pa.ipc.open_file(source).read_all()
        if (table.schema.metadata or {}).get(b"causeway.format") != str(FORMAT).encode():
            raise StoreError(f"{path}: not a shard of format {FORMAT}")
        column = table.column("tokens").combine_chunks()
        if isinstance(column, pa.ChunkedArray):
            column = column.chunk(0)
        return ShardData(
            tokens=column.values.to_numpy(zero_copy_only=True),
            offsets=column.offsets.to_numpy(zero_copy_only=True),
            record_ids=table.column("record_id").to_pylist(),
            text_bytes=table.column("text_bytes").to_numpy(),
            table=table,
        )
    except (OSError, pa.ArrowException, KeyError, AttributeError) as error:
        raise StoreError(f"{path}: damaged: not a shard ({error})") from error
