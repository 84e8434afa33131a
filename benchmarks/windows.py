"""Shards for the loading benchmark: real ones of drawn tokens, and as many as a large region has, whose bulk is a hole.

`python -m benchmarks.windows first|epoch STORE VERSION WINDOW BATCH` opens the version that lies in a store and hands out
its first batch, or all of it once; it prints one JSON line: seconds since the imports, peak anonymous memory, and, of
an epoch, the tokens.
"""  # noqa: E501

from __future__ import annotations

import hashlib
import json
import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_contracts.canonical import canonical_json, sha256
from data_contracts.catalog.store import Store
from training.shards.cache import ShardCache
from training.shards.loader import Loader
from training.shards.manifest import BLOCK_BYTES, DatasetVersion, Manifest, ShardRef, read_version
from training.shards.region import RegionOrder, region_order
from training.shards.writer import SHARD_TOKENS, UnitFacts, write_unit

DATASET, REGION = "bench/tokens", "here"
Array = np.ndarray[Any, Any]


class _Drawn:
    """In place of a tokenizer: a text is a seed and a number of tokens."""

    sha, vocab_size, end_id = "d" * 64, 65536, 0

    def encode_batch(self, texts: list[str]) -> list[Array]:
        return [self._draw(*map(int, text.split())) for text in texts]

    def encode_offsets(self, texts: list[str]) -> list[tuple[Array, Array]]:
        raise NotImplementedError

    def _draw(self, seed: int, count: int) -> Array:
        return np.random.default_rng(seed).integers(1, 65536, count, dtype=np.uint16)


def write_drawn(store: Store, shards: int, tokens: int) -> DatasetVersion:
    """Write real shards of so many tokens each, and the version that lists them."""
    made = []
    for number in range(shards):
        ids, texts = [f"{number:08d}"], [f"{number} {tokens - 1}"]
        batch = pa.record_batch({"record_id": ids, "text": texts})
        made += write_unit(store, [batch], _Drawn(), _facts(f"{number:08d}"), shard_tokens=SHARD_TOKENS)
    return _listed(store, made)


def write_hollow(store: Store, windows: int, window: int) -> DatasetVersion:
    """Write a version of so many windows whose shards are of full size, and a hole after their first block.

    Manifests, sizes and block hashes are right. A file's own name is not its SHA-256: the loader compares blocks.
    """
    made: list[Manifest] = []
    left = windows * window + 1
    hole = hashlib.sha256(bytes(BLOCK_BYTES)).hexdigest()
    while left > 1:
        tokens = min(SHARD_TOKENS, left)
        left -= tokens - 1
        head = np.random.default_rng([windows, len(made)]).bytes(BLOCK_BYTES)
        size = BLOCK_BYTES * (1 + -(-2 * tokens // BLOCK_BYTES))
        blocks = (sha256(head), *(hole,) * (size // BLOCK_BYTES - 1))
        manifest = Manifest(
            part=0,
            parts=1,
            tokenizer=_Drawn.sha,
            token_dtype="uint16",
            tokens=tokens,
            records=1,
            text_bytes=2 * tokens,
            arrow_bytes=size,
            arrow_sha256=sha256(b"hollow" + head),
            block_bytes=BLOCK_BYTES,
            blocks=blocks,
            token_offset=4096,
            loss_mask=False,
            mask_offset=None,
            **vars(_facts(f"{len(made):08d}")),
        )
        store.put(manifest.arrow_key, head)
        with store.path(manifest.arrow_key).open("r+b") as file:
            file.truncate(size)
        store.put(manifest.key, canonical_json(manifest.document()))
        made.append(manifest)
    return _listed(store, made)


def _facts(partition: str) -> UnitFacts:
    return UnitFacts(
        dataset=DATASET,
        partition=partition,
        ingest_id=partition * 8,
        curation_id="c" * 64,
        split="train",
        region=REGION,
        terms_sha="1" * 64,
        purpose="research pre-training",
        decision=("made for a benchmark",),
    )


def _listed(store: Store, manifests: list[Manifest]) -> DatasetVersion:
    version = DatasetVersion(
        dataset=DATASET,
        contract_sha="3" * 64,
        contract_version="1.0.0",
        terms={},
        terms_sha="1" * 64,
        curation_id="c" * 64,
        tokenizer=_Drawn.sha,
        partitions=tuple({"partition": m.partition, "ingest_id": m.ingest_id} for m in manifests),
        shards=tuple(ShardRef.of(m) for m in manifests),
    )
    version.write(store)
    return version


def order_of(version: DatasetVersion, window: int) -> RegionOrder:
    """Return the order of a version's windows, by the newest algorithm."""
    order = region_order([version], REGION, window, 1, {}, algorithm=2)
    assert order is not None
    return order


def batches(count: int, size: int, start: int = 0) -> Iterator[tuple[Array, Array]]:
    """Yield the batches of `count` windows from position `start` on, lane by lane in turn."""
    for first in range(start, start + count, size):
        positions = np.arange(first, min(first + size, start + count))
        yield positions % 64, positions // 64


def main(job: str, store: str, sha: str, window: str, batch: str) -> None:
    """Hand out the first batch of a version, or all of it once."""
    began = time.perf_counter()
    opened = Store.open(store)
    order = order_of(read_version(opened, DATASET, sha), int(window))
    loader = Loader(ShardCache(opened), order, int(window))
    windows = order.streams[0].windows
    peak = handed = 0
    with loader.ahead(batches(int(batch) if job == "first" else windows, int(batch))) as ahead:
        for number, found in enumerate(ahead):
            handed += found.tokens.size
            if number % 64 == 0:
                peak = max(peak, _anonymous_kb())
    seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds, "at": time.time(), "peak_mb": peak / 1024, "tokens": handed}))


def _anonymous_kb() -> int:
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found.group(1))


if __name__ == "__main__":
    main(*sys.argv[1:])
