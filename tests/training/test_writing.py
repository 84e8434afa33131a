"""The shards of a unit: which bytes they have, where they are cut, and what is there when the writer dies."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.canonical import sha256
from data_contracts.catalog.store import Store
from data_contracts.errors import DataRefused
from tests.training.making import TOKENIZER, batch_of, facts_of
from training.shards.manifest import BLOCK_BYTES, Manifest
from training.shards.writer import open_shard, write_unit


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "north")


def ids_of(texts: list[str]) -> list[str]:
    return [f"{i:06d}" for i in range(len(texts))]


def write(
    store: Store, texts: list[str], shard_tokens: int = 1 << 20, workers: int = 1, rows: int = 0
) -> list[Manifest]:
    """Write a unit of these texts in batches of `rows` rows, by default one."""
    whole = batch_of(ids_of(texts), texts)
    rows = rows or max(1, len(texts))
    batches = [whole.slice(start, rows) for start in range(0, len(texts), rows)]
    return write_unit(store, batches, TOKENIZER, facts_of(), workers=workers, shard_tokens=shard_tokens)


def records(store: Store, manifests: list[Manifest]) -> list[tuple[str, list[int]]]:
    found = []
    for manifest in manifests:
        shard = open_shard(store.path(manifest.arrow_key))
        ends = zip(shard.offsets[:-1], shard.offsets[1:], strict=True)
        parts = [shard.tokens[start:end].tolist() for start, end in ends]
        found += list(zip(shard.record_ids, parts, strict=True))
    return found


@settings(deadline=None, max_examples=25)
@given(st.lists(st.text(max_size=30), max_size=12), st.integers(1, 40), st.integers(1, 3), st.integers(1, 5))
def test_every_record_is_in_one_shard_whole_and_no_shard_is_longer_than_its_limit(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], limit: int, workers: int, rows: int
) -> None:
    store = Store.open(tmp_path_factory.mktemp("unit"))
    manifests = write(store, texts, limit, workers, rows)
    encoded = [[*ids.tolist(), TOKENIZER.end_id] for ids in TOKENIZER.encode_batch(texts)]
    assert records(store, manifests) == list(zip(ids_of(texts), encoded, strict=True))
    assert [(m.part, m.parts) for m in manifests] == [(n, len(manifests)) for n in range(len(manifests))]
    assert all(m.tokens <= limit or m.records == 1 for m in manifests)
    # A shard ends only where the next record did not fit.
    for one, after in itertools.pairwise(manifests):
        assert one.tokens + len(records(store, [after])[0][1]) > limit
    # The same bytes for any number of workers and any batches.
    assert write(Store.open(tmp_path_factory.mktemp("again")), texts, limit) == manifests
    assert sum(m.text_bytes for m in manifests) == sum(len(t.encode()) for t in texts)


def test_a_manifest_names_every_block_and_where_the_tokens_begin(store: Store) -> None:
    texts = [f"one two three four {n}" * 40 for n in range(2000)]
    (manifest,) = write(store, texts, rows=100)
    data = store.get(manifest.arrow_key)
    assert len(data) == manifest.arrow_bytes > 2 * BLOCK_BYTES
    blocks = [data[start : start + manifest.block_bytes] for start in range(0, len(data), manifest.block_bytes)]
    assert manifest.blocks == tuple(map(sha256, blocks))
    assert sha256(data) == manifest.arrow_sha256
    tokens = np.frombuffer(data, manifest.token_dtype, manifest.tokens, manifest.token_offset)
    assert np.array_equal(tokens, open_shard(store.path(manifest.arrow_key)).tokens)
    assert manifest.token_offset % 8 == 0
    assert (manifest.loss_mask, manifest.mask_offset) == (False, None)


def test_an_open_shard_is_mapped_and_not_copied(store: Store) -> None:
    (manifest,) = write(store, ["one two three four"] * 2000)
    before = pa.total_allocated_bytes()
    shard = open_shard(store.path(manifest.arrow_key))
    assert shard.tokens.nbytes > 4000
    assert pa.total_allocated_bytes() - before < shard.tokens.nbytes


def test_a_unit_without_records_is_one_empty_shard(store: Store) -> None:
    (manifest,) = write(store, [])
    assert (manifest.records, manifest.tokens, manifest.parts) == (0, 0, 1)


def test_a_record_without_text_or_out_of_order_is_refused_by_name(store: Store) -> None:
    for ids, texts, why in (
        (["a", "b"], ["x", None], "record b: text is null"),
        (["b", "a"], ["x", "y"], "record a: not in the ascending order"),
        (["a", "a"], ["x", "y"], "record a: not in the ascending order"),
    ):
        with pytest.raises(DataRefused, match=why):
            write_unit(store, [batch_of(ids, texts)], TOKENIZER, facts_of())
    with pytest.raises(DataRefused, match="record a: not in the ascending order"):
        write_unit(store, [batch_of(["b"], ["x"]), batch_of(["a"], ["y"])], TOKENIZER, facts_of())
    assert list(store.list("shards")) == []


def test_a_writer_that_dies_leaves_no_manifest_and_is_done_again(store: Store) -> None:
    texts = ["one two three four"] * 9
    whole = write(Store.open(Path(store.url) / "whole"), texts, 20)
    assert len(whole) > 2

    def dying() -> Iterator[pa.RecordBatch]:
        yield batch_of(ids_of(texts)[:-1], texts[:-1])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_unit(store, dying(), TOKENIZER, facts_of(), shard_tokens=20)
    left = {key for key, _ in store.list("shards")}
    assert left < {m.arrow_key for m in whole}
    assert write(store, texts, 20) == whole
    assert {key for key, _ in store.list("shards")} == {m.arrow_key for m in whole} | {m.key for m in whole}


def spans_batch(texts: list[str], spans: list[list[int]]) -> pa.RecordBatch:
    names = ["record_id", "text", "spans"]
    columns = [pa.array(ids_of(texts)), pa.array(texts, pa.string()), pa.array(spans, pa.list_(pa.int32()))]
    return pa.record_batch(columns, names=names)


@settings(deadline=None, max_examples=25)
@given(st.lists(st.tuples(st.text(max_size=12), st.text(max_size=12), st.text(max_size=12)), min_size=1, max_size=5))
def test_the_loss_mask_names_the_tokens_that_share_a_character_with_a_span(
    tmp_path_factory: pytest.TempPathFactory, parts: list[tuple[str, str, str]]
) -> None:
    store = Store.open(tmp_path_factory.mktemp("masked"))
    texts = ["".join(p) for p in parts]
    spans = [[len(a), len(a) + len(b)] if b else [] for a, b, _ in parts]
    (manifest,) = write_unit(store, [spans_batch(texts, spans)], TOKENIZER, facts_of())
    shard = open_shard(store.path(manifest.arrow_key))
    assert manifest.loss_mask
    assert shard.mask is not None
    data = store.get(manifest.arrow_key)
    assert manifest.mask_offset is not None
    assert np.array_equal(np.frombuffer(data, np.bool_, manifest.tokens, manifest.mask_offset), shard.mask)
    for row, (a, b, _) in enumerate(parts):
        mask = shard.mask[shard.offsets[row] : shard.offsets[row + 1]].tolist()
        offsets = TOKENIZER.encode_offsets([texts[row]])[0][1].tolist()
        inside = [any(len(a) <= c < len(a) + len(b) for c in range(start, end)) for start, end in offsets]
        assert mask == [*inside, any(inside)]


def test_tokens_are_the_same_with_and_without_a_mask(store: Store) -> None:
    texts = ["one two three", "å→字 four", ""]
    (masked,) = write_unit(store, [spans_batch(texts, [[0, 3], [], []])], TOKENIZER, facts_of())
    (plain,) = write(store, texts)
    assert records(store, [masked]) == records(store, [plain])
    assert masked.arrow_sha256 != plain.arrow_sha256
    assert replace(masked, loss_mask=False).sha != masked.sha
