"""Accepted rows -> the shards of a unit: Arrow IPC files with one token buffer that maps into memory, and manifests.

Reading, tokenizing and writing overlap. Memory is bounded by two shards, whatever the size of the unit: one that is
being filled and one that is being written.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.canonical import canonical_json
from data_contracts.catalog.store import Store
from data_contracts.errors import DataRefused, ObjectExists, StoreError
from training.shards.manifest import BLOCK_BYTES, Manifest, Split
from training.shards.tokenizing import Array, Encoded, Tokenizer, encode, token_dtype

# Of the Arrow file: 2 has a loss mask, which a reader of format 1 would not see.
FORMAT, MASKED_FORMAT = "1", "2"
# 128 MiB of uint16, 256 MiB of uint32.
SHARD_TOKENS = 1 << 26


@dataclass(frozen=True)
class UnitFacts:
    """What the manifests of a unit say of it beside what is counted; the fields are theirs."""

    dataset: str
    partition: str
    ingest_id: str
    curation_id: str
    split: Split
    region: str
    terms_sha: str
    purpose: str
    decision: tuple[str, ...]


@dataclass(frozen=True)
class ShardData:
    """A shard in memory, mapped from its file.

    `tokens`: uint16 or uint32 [T], each record's ended by the end-of-text token. `offsets`: int64 [R + 1], record r
    owns tokens offsets[r]..offsets[r+1]-1. `record_ids`: R hex strings. `text_bytes`: int64 [R]. `mask`: bool [T],
    where a token is trained on; None: everywhere.
    """

    tokens: Array
    offsets: Array
    text_bytes: Array
    mask: Array | None
    table: pa.Table

    @property
    def record_ids(self) -> list[str]:
        """The record ids as Python strings; `table` has them as Arrow."""
        found: list[str] = self.table.column("record_id").to_pylist()
        return found


def write_unit(
    store: Store,
    batches: Iterable[pa.RecordBatch],
    tokenizer: Tokenizer,
    facts: UnitFacts,
    *,
    workers: int | None = None,
    shard_tokens: int = SHARD_TOKENS,
    progress: Callable[[int, int], None] = lambda records, tokens: None,
) -> list[Manifest]:
    """Tokenize the records of a unit and write its shards to a region's store; return their manifests.

    `batches` have the columns `record_id` and `text`, and `spans` where a loss mask is wanted (`tokenizing.encode`),
    ascending by record_id. A shard takes as many records as fit into `shard_tokens`, one at least. The bytes follow
    from records and tokenizer, not from batches, `workers` (threads, by default one a core) or time. All manifests are
    written last: a unit without them does not exist. `progress` is told records and tokens done.

    Raises:
        DataRefused: a record has no text, or stands in the wrong place; names it.
        StoreError: the store failed.
    """
    manifests: list[Manifest] = []
    with tempfile.TemporaryDirectory(prefix="causeway-shard-") as folder, ThreadPoolExecutor(1) as writing:
        building, last = _Building(tokenizer, shard_tokens), ""
        started: Future[Manifest] | None = None
        records = tokens = 0

        def finish(full: _Building, part: int) -> Manifest:
            return _write(store, full, tokenizer, facts, Path(folder) / f"{part}.arrow", part)

        for run in encode(batches, tokenizer, workers):
            last = _checked_order(run, last)
            start = 0
            while start < len(run.lengths):
                end = start + building.room(run.lengths[start:])
                building.add(run, start, end)
                start = end
                if start < len(run.lengths):
                    if started is not None:
                        manifests.append(started.result())
                    started = writing.submit(finish, building, len(manifests))
                    building = _Building(tokenizer, shard_tokens)
            records, tokens = records + len(run.lengths), tokens + len(run.tokens)
            progress(records, tokens)
        if started is not None:
            manifests.append(started.result())
        manifests.append(finish(building, len(manifests)))
    whole = [replace(m, parts=len(manifests)) for m in manifests]
    for manifest in whole:
        _put_whole(store, manifest.key, canonical_json(manifest.document()))
    return whole


def _checked_order(run: Encoded, last: str) -> str:
    ids = run.record_ids
    if not len(ids):
        return last
    wrong = pc.less_equal(ids[1:], ids[:-1])
    found = ids[0] if last and ids[0].as_py() <= last else next(iter(ids[1:].filter(wrong)), None)
    if found is not None:
        raise DataRefused(f"record {found}: not in the ascending order of record ids, or there twice; sort the records")
    return str(ids[-1])


class _Building:
    """One shard that is being filled."""

    def __init__(self, tokenizer: Tokenizer, limit: int) -> None:
        self.limit = limit
        # Pages that are never written cost nothing.
        self.tokens: Array = np.empty(limit, dtype=token_dtype(tokenizer))
        self.mask: Array | None = None
        self.used = 0
        self.ids: list[pa.Array] = []
        self.lengths: list[Array] = []
        self.text_bytes: list[Array] = []

    def room(self, lengths: Array) -> int:
        """Return how many of the next records fit; the first record of a shard always does."""
        fitting = int(np.searchsorted(np.cumsum(lengths), self.limit - self.used, side="right"))
        return fitting if self.used else max(1, fitting)

    def add(self, run: Encoded, start: int, end: int) -> None:
        if start == end:
            return
        first = int(run.lengths[:start].sum())
        taken = run.tokens[first : first + int(run.lengths[start:end].sum())]
        if len(taken) > len(self.tokens):
            self.tokens = np.empty(len(taken), dtype=self.tokens.dtype)
        self.tokens[self.used : self.used + len(taken)] = taken
        if run.mask is not None:
            if self.mask is None:
                self.mask = np.empty(len(self.tokens), dtype=np.uint8)
            self.mask[self.used : self.used + len(taken)] = run.mask[first : first + len(taken)]
        self.used += len(taken)
        self.ids.append(run.record_ids.slice(start, end - start))
        self.lengths.append(run.lengths[start:end])
        self.text_bytes.append(run.text_bytes[start:end])

    def batch(self, tokenizer: Tokenizer) -> pa.RecordBatch:
        """Return the shard as the one record batch of its file; the token buffer is not copied."""
        offsets = pa.array(_ends(self.lengths))
        sizes = np.concatenate(self.text_bytes) if self.text_bytes else np.empty(0, np.int64)
        ids = pa.concat_arrays(self.ids) if self.ids else pa.array([], pa.string())
        columns = {
            "record_id": ids,
            "tokens": pa.LargeListArray.from_arrays(offsets, pa.array(self.tokens[: self.used])),
            "text_bytes": pa.array(sizes, pa.int64()),
        }
        if self.mask is not None:
            columns["trained"] = pa.LargeListArray.from_arrays(offsets, pa.array(self.mask[: self.used]))
        form = FORMAT if self.mask is None else MASKED_FORMAT
        metadata = {"causeway.format": form, "causeway.tokenizer": tokenizer.sha}
        fields = [pa.field(name, column.type, nullable=False) for name, column in columns.items()]
        return pa.record_batch(list(columns.values()), schema=pa.schema(fields, metadata=metadata))


def _ends(lengths: list[Array]) -> Array:
    joined = np.concatenate([np.empty(0, np.int64), *lengths])
    offsets = np.zeros(len(joined) + 1, dtype=np.int64)
    np.cumsum(joined, out=offsets[1:])
    return offsets


def _write(store: Store, full: _Building, tokenizer: Tokenizer, facts: UnitFacts, path: Path, part: int) -> Manifest:
    """Write one shard's Arrow file, first to `path`, then to the store, where it is compared with its sha256."""
    batch = full.batch(tokenizer)
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as file:
        file.write_batch(batch)
    digest, blocks = hashes(path)
    token_offset, mask_offset = buffer_offsets(path)
    manifest = Manifest(
        part=part,
        parts=0,
        tokenizer=tokenizer.sha,
        token_dtype=token_dtype(tokenizer),
        tokens=full.used,
        records=batch.num_rows,
        text_bytes=sum(int(sizes.sum()) for sizes in full.text_bytes),
        arrow_bytes=path.stat().st_size,
        arrow_sha256=digest,
        block_bytes=BLOCK_BYTES,
        blocks=blocks,
        token_offset=token_offset,
        loss_mask=mask_offset is not None,
        mask_offset=mask_offset,
        **asdict(facts),
    )
    # Named by its content, and replaced as a whole: who has a damaged file of this name mapped keeps the old bytes.
    store.put_file(manifest.arrow_key, path, digest)
    path.unlink()
    return manifest


def hashes(path: Path) -> tuple[str, tuple[str, ...]]:
    """Return the SHA-256 of a file and of each of its blocks of `BLOCK_BYTES`."""
    whole, blocks = hashlib.sha256(), []
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            whole.update(block)
            blocks.append(hashlib.sha256(block).hexdigest())
    return whole.hexdigest(), tuple(blocks)


def buffer_offsets(path: Path) -> tuple[int, int | None]:
    """Return the bytes of a shard file at which its tokens and its loss mask begin; None where it has no mask."""
    with pa.memory_map(str(path)) as source:
        file = source.read_buffer()
        batch = pa.ipc.open_file(pa.BufferReader(file)).get_batch(0)

        def place(name: str) -> int:
            values = batch.column(name).values
            # A buffer of no bytes lies nowhere.
            return int(values.buffers()[1].address) - int(file.address) if len(values) else 0

        return place("tokens"), place("trained") if "trained" in batch.schema.names else None


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
        form = (table.schema.metadata or {}).get(b"causeway.format", b"").decode()
        if form not in (FORMAT, MASKED_FORMAT):
            raise StoreError(f"{path}: not a shard of format {FORMAT} or {MASKED_FORMAT}")
        column = _one_chunk(table, "tokens")
        mask = _one_chunk(table, "trained").values.to_numpy(zero_copy_only=True) if form == MASKED_FORMAT else None
        return ShardData(
            tokens=column.values.to_numpy(zero_copy_only=True),
            offsets=column.offsets.to_numpy(zero_copy_only=True),
            text_bytes=table.column("text_bytes").to_numpy(),
            mask=None if mask is None else mask.view(np.bool_),
            table=table,
        )
    except (OSError, pa.ArrowException, KeyError, AttributeError) as error:
        raise StoreError(f"{path}: damaged: not a shard ({error})") from error


def _one_chunk(table: pa.Table, name: str) -> Any:
    # combine_chunks would copy even a single chunk: the tokens of a whole shard.
    column = table.column(name)
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
