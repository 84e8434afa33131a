"""Shards of drawn tokens, of any size, without a text or a tokenizer that reads it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from data_contracts.catalog.store import Store
from tests.training.making import facts_of, version_of
from training.shards.manifest import Manifest
from training.shards.region import RegionOrder, region_order
from training.shards.writer import write_unit

Array = np.ndarray[Any, Any]


class Numbers:
    """A "tokenizer" whose texts are `seed length`: so many tokens, drawn by the seed."""

    sha, end_id = "n" * 64, 0

    def __init__(self, vocab_size: int = 65536) -> None:
        self.vocab_size = vocab_size

    def encode_batch(self, texts: list[str]) -> list[Array]:
        return [drawn(text, self.vocab_size) for text in texts]

    def encode_offsets(self, texts: list[str]) -> list[tuple[Array, Array]]:
        # One character a token: spans of a text say which of its tokens are trained on.
        return [(ids, np.stack([np.arange(len(ids)), np.arange(len(ids)) + 1], 1)) for ids in self.encode_batch(texts)]


def drawn(text: str, vocab_size: int = 65536) -> Array:
    seed, length = map(int, text.split())
    return np.random.default_rng(seed).integers(1, vocab_size, length, dtype=np.uint32)


def numbered(
    store: Store,
    lengths: Sequence[int],
    partition: str = "p",
    vocab_size: int = 65536,
    spans: Sequence[Sequence[int]] | None = None,
    dataset: str = "test/notes",
) -> Manifest:
    """One shard of records of so many tokens; `spans` as `tokenizing.encode` takes them."""
    texts = [f"{hash_of(partition, k)} {length}" for k, length in enumerate(lengths)]
    columns = {"record_id": pa.array([f"{partition}-{k:05d}" for k in range(len(texts))]), "text": pa.array(texts)}
    if spans is not None:
        columns["spans"] = pa.array([list(s) for s in spans], pa.list_(pa.int32()))
    facts = facts_of(dataset, partition)
    (manifest,) = write_unit(store, [pa.record_batch(columns)], Numbers(vocab_size), facts)
    return manifest


def hash_of(partition: str, record: int) -> int:
    return sum(ord(c) << (8 * k) for k, c in enumerate(partition[:3])) * 1000 + record


def order_over(manifests: Sequence[Manifest], window: int, algorithm: int = 2) -> RegionOrder:
    """The order of these shards, all data sets at their weight in windows."""
    names = sorted({m.dataset for m in manifests})
    versions = [version_of([m for m in manifests if m.dataset == name]) for name in names]
    order = region_order(versions, "europe", window, 4, {}, algorithm=algorithm)
    assert order is not None
    return order


def everything(order: RegionOrder, epochs: int = 1) -> tuple[Array, Array]:
    """Lanes and lane indices of every position of so many epochs, stream by stream."""
    found = [
        order.find(number, position)
        for number, stream in enumerate(order.streams)
        for position in range(epochs * stream.windows)
    ]
    lanes, indices = np.array([place for place in found if place is not None], dtype=np.int64).T
    return lanes, indices


def plain(store: Store, order: RegionOrder, shard: int, first: int, window: int) -> tuple[Array, Array]:
    """Tokens and mask of a window, read from the Arrow file alone; `shard` counts through the region's shards."""
    ref = [ref for held in order.shards for ref in held][shard]
    with pa.memory_map(str(store.path(ref.arrow_key))) as source:
        table = pa.ipc.open_file(source).read_all()
        tokens = table.column("tokens").combine_chunks().values.to_numpy()[first : first + window + 1].copy()
        if "trained" not in table.schema.names:
            return tokens, np.ones(len(tokens), dtype=np.bool_)
        mask = table.column("trained").combine_chunks().values.to_numpy()[first : first + window + 1].copy()
    return tokens, mask.astype(np.bool_)
