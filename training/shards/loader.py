"""The loader of one site: lane indices in, token windows out, from memory-mapped shards of its own region."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from data_contracts.canonical import sha256
from data_contracts.catalog.store import Store
from data_contracts.errors import StoreError
from training.shards.manifest import ShardRef
from training.shards.region import RegionOrder as RegionOrder
from training.shards.region import region_order as region_order
from training.shards.writer import ShardData, open_shard

Array = np.ndarray[Any, Any]
IGNORE = -100


class Loader:
    """Hands out windows of a region's shards; each hand-out may be written to an independent log.

    Raises:
        StoreError: a shard is missing, or its bytes are not those its manifest names.
    """

    def __init__(self, store: Store, order: RegionOrder, window: int, log: Path | None = None) -> None:
        self.order = order
        self.window = window
        self._store = store
        self._open: dict[str, ShardData] = {}
        self._log = log.open("a", buffering=1) if log else None
        for held in order.shards:
            for ref in held:
                self._shard(ref)

    def batch(self, places: Sequence[tuple[int, int]], note: dict[str, Any]) -> tuple[Array, Array, list[str]]:
        """Return inputs and targets, int64 [len(places), window], and each row's data set.

        Targets are shifted by one, padding is -100.

        `places` are (lane, lane index) pairs; `note` goes into the log with what was handed out.
        """
        inputs = np.zeros((len(places), self.window), dtype=np.int64)
        targets = np.full((len(places), self.window), IGNORE, dtype=np.int64)
        handed = []
        for row, (lane, index) in enumerate(places):
            number, position = self.order.locate(lane, index)
            stream = self.order.streams[number]
            epoch, window = stream.window(position)
            shard_number, inner = stream.shard(window)
            ref = self.order.shards[number][shard_number]
            tokens = self._shard(ref).tokens[inner * self.window : (inner + 1) * self.window + 1]
            inputs[row, : len(tokens) - 1] = tokens[:-1]
            targets[row, : len(tokens) - 1] = tokens[1:]
            handed.append([stream.dataset, epoch, window, ref.arrow_sha256, inner])
        if self._log:
            self._log.write(json.dumps({**note, "handed": handed}) + "\n")
        return inputs, targets, [str(h[0]) for h in handed]

    def _shard(self, ref: ShardRef) -> ShardData:
        found = self._open.get(ref.key)
        if found is None:
            path = self._store.path(ref.arrow_key)
            if not path.exists():
                raise StoreError(f"{path}: shard is missing; restore it or shard the data set again")
            digest = sha256(path.read_bytes())
            if digest != ref.arrow_sha256:
                raise StoreError(f"{path}: damaged: sha256 is {digest}, its manifest says {ref.arrow_sha256}")
            found = self._open[ref.key] = open_shard(path)
        return found
