"""A store goes away in the middle of a move: a real Swift region that is killed, and comes back with its data."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from data_contracts.catalog.store import Store
from data_contracts.errors import StoreError
from tests.conftest import available
from tests.stores import Swift
from tests.training.making import TOKENIZER
from training.shards.inventory import Held, Lying
from training.shards.manifest import Manifest
from training.shards.moving import move
from training.shards.writer import UnitFacts, open_shard, write_unit
from training.sites import Region

FACTS = UnitFacts("d/a", "p", "1" * 64, "2" * 64, "train", "west", "3" * 64, "research pre-training", ("because.",))
WEST = Region("west", (), ("US",), "", None, 1.0)
PARTS = 4
MORE = 24  # more than are copied side by side


@pytest.fixture
def swift(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Swift]:
    with available(), Swift(tmp_path / "swift", "west") as server:
        for name, value in server.access.environment().items():
            monkeypatch.setenv(name, value)
        yield server


def unit_at(store: Store, parts: int = PARTS) -> Held:
    """A unit of shards of some ten kB each, in a store."""
    words = np.random.default_rng(0).integers(0, 10**9, (parts, 4_000))
    texts = [" ".join(map(str, row)) for row in words]
    ids = [f"{n:032x}" for n in range(parts)]
    batch = pa.record_batch({"record_id": pa.array(ids), "text": pa.array(texts)})
    written = write_unit(store, [batch], TOKENIZER, FACTS, shard_tokens=1000)
    assert len(written) == parts
    return Held(WEST, tuple(Lying(WEST, store, m.key, m, True) for m in written))


def elsewhere(held: Held) -> list[Manifest]:
    return [replace(m, region="north") for m in held.manifests]


def test_a_source_that_is_gone_in_the_middle_is_waited_for(swift: Swift, tmp_path: Path) -> None:
    held, target = unit_at(Store.open(swift.access.bucket("shards")), MORE), Store.open(tmp_path / "north")
    made, gone = elsewhere(held), threading.Event()

    def after_a_shard(_: int) -> None:
        if not gone.is_set():
            gone.set()
            swift.stop()

    with ThreadPoolExecutor(1) as pool:
        moving = pool.submit(move, held, target, made, tmp_path / "staging", lambda a, b: None, after_a_shard)
        assert gone.wait(60)
        time.sleep(1.0)
        assert not moving.done(), "the move did not need what was stopped"
        # Not in a thread that ends: its servers would end with it.
        swift.start()
        sent = moving.result()
    assert sent == sum(m.arrow_bytes for m in made)
    for m in made:
        target.get(m.arrow_key, m.arrow_sha256)
        assert target.get_json(m.key, m.sha)["region"] == "north"
        assert open_shard(target.path(m.arrow_key)).table.num_rows == m.records


def test_a_destination_that_stays_away_stops_the_move_and_the_next_one_sends_the_rest(
    swift: Swift, tmp_path: Path
) -> None:
    held = unit_at(Store.open(tmp_path / "west"))
    target = Store.open(swift.access.bucket("shards"), retry_s=1.0)
    made = elsewhere(held)
    arrived: list[int] = []

    def after_two(size: int) -> None:
        arrived.append(size)
        if len(arrived) == 2:
            swift.stop()

    with pytest.raises(StoreError, match=f"{os.path.basename(made[2].arrow_key)}"):
        move(held, target, made, tmp_path / "staging", lambda a, b: None, after_two)
    swift.start()
    assert [key for key, _ in target.list("shards")] == sorted(m.arrow_key for m in made[:2])
    assert move(held, target, made, tmp_path / "staging", lambda a, b: None) == sum(m.arrow_bytes for m in made[2:])
    for m in made:
        target.get(m.arrow_key, m.arrow_sha256)
        target.get(m.key, m.sha)
