"""A region's windows for any torch trainer: batches as tensors, and an `IterableDataset` for `DataLoader`.

The order is the site worker's: the same seed gives the same windows. Its state is one integer a lane, which
`state_dict` and `load_state_dict` carry as torchdata's `StatefulDataLoader` asks for it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import IterableDataset, get_worker_info

from data_contracts.catalog.store import Store
from data_contracts.errors import StoreError
from training.shards.cache import ShardCache
from training.shards.loader import IGNORE, Array, Batch, Loader
from training.shards.region import RegionOrder
from training.shards.schedule import LANES, next_claims, unroll

_forked = False


def _note_fork() -> None:
    global _forked
    _forked = True


os.register_at_fork(after_in_child=_note_fork)


def to_inputs_targets(batch: Batch, device: torch.device | str = "cpu") -> tuple[torch.Tensor, torch.Tensor]:
    """Return inputs and targets on a device, int64 [k, window]: targets shifted by one, -100 where padded or masked.

    The tokens travel as they lie in the shards, two or four bytes each, and are widened there.
    """
    wide = batch.tokens.dtype == np.uint32
    # Few devices compute with unsigned words: the same bits as signed ones, and the sign taken away.
    moved = torch.from_numpy(batch.tokens.view(np.int32 if wide else np.int16)).to(device)
    tokens = moved.to(torch.int64) & (0xFFFFFFFF if wide else 0xFFFF)
    inputs, targets = tokens[:, :-1].clone(), tokens[:, 1:].clone()
    lengths = torch.from_numpy(batch.lengths.copy()).to(device)
    beyond = torch.arange(inputs.shape[1], device=device) >= lengths[:, None]
    inputs.masked_fill_(beyond, 0)
    targets.masked_fill_(beyond, IGNORE)
    if batch.mask is not None:
        targets.masked_fill_(~torch.from_numpy(batch.mask[:, 1:].copy()).to(device), IGNORE)
    return inputs, targets


class Windows(IterableDataset[dict[str, torch.Tensor]]):
    """Batches of a region's windows without end: `inputs` and `targets` as `to_inputs_targets` makes them.

    Give it to a `DataLoader` with `batch_size=None` and, if it has workers, `multiprocessing_context="spawn"`. The 64
    lanes are dealt to the ranks and their workers, `world_size` times workers of them at most; when each has taken as
    many windows, all together have taken the same ones whatever their number. Each batch carries `state`, int64 [64]:
    the next lane index of this worker's lanes, -1 for those of others (`merged` joins them).

    `store` opens the region's store, `cache` and `cache_bytes` are `ShardCache`'s, `unreadable` is `Loader`'s.
    """

    def __init__(
        self,
        store: str | Path,
        order: RegionOrder,
        window: int,
        batch_windows: int,
        *,
        rank: int = 0,
        world_size: int = 1,
        cache: Path | None = None,
        cache_bytes: int | None = None,
        unreadable: Literal["stop", "skip"] = "stop",
    ) -> None:
        self.order, self.window, self.batch_windows = order, window, batch_windows
        self.rank, self.world_size = rank, world_size
        self._store, self._cache, self._cache_bytes = str(store), cache, cache_bytes
        self._unreadable: Literal["stop", "skip"] = unreadable
        self._index = [0] * LANES

    def lanes(self) -> list[int]:
        """Return the lanes of this rank and, in a worker of a `DataLoader`, of this worker.

        Raises:
            ValueError: there are more ranks and workers than lanes.
        """
        worker = get_worker_info()
        number, workers = (0, 1) if worker is None else (worker.id, worker.num_workers)
        parts = self.world_size * workers
        if not 0 <= self.rank < self.world_size or parts > LANES:
            raise ValueError(
                f"rank {self.rank} of {self.world_size} with {workers} workers: ranks count from 0, and ranks times"
                f" workers may be {LANES} at most, the lanes of a region; use fewer workers"
            )
        return list(range(self.rank * workers + number, LANES, parts))

    def __iter__(self) -> Iterator[dict[str, torch.Tensor]]:
        if _forked:
            raise StoreError(
                f"{self._store}: a store cannot be read in a forked process: its threads stayed in the parent;"
                ' give DataLoader multiprocessing_context="spawn"'
            )
        lanes = self.lanes()
        cache = ShardCache(Store.open(self._store), self._cache, self._cache_bytes)
        loader = Loader(cache, self.order, self.window, unreadable=self._unreadable)
        states: list[list[int]] = []
        try:
            with loader.ahead(self._batches(lanes, states)) as ahead:
                for batch in ahead:
                    self._index = states.pop(0)
                    inputs, targets = to_inputs_targets(batch)
                    state = torch.full((LANES,), -1, dtype=torch.int64)
                    state[lanes] = torch.tensor([self._index[lane] for lane in lanes])
                    yield {"inputs": inputs, "targets": targets, "state": state}
        finally:
            cache.close()

    def _batches(self, lanes: Sequence[int], states: list[list[int]]) -> Iterator[tuple[Array, Array]]:
        index = list(self._index)
        while True:
            claims = next_claims(index, lanes, self.batch_windows)
            for lane, _, end in claims:
                index[lane] = end
            states.append(list(index))
            chosen = np.array(unroll(claims), dtype=np.int64)
            yield chosen[:, 0], chosen[:, 1]

    def state_dict(self) -> dict[str, Any]:
        """Return what `load_state_dict` takes: the next lane index of every lane, after the batch handed out last."""
        return {"format": 1, "index": list(self._index)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state: `state_dict`'s, or a `merged` one, which ranks and workers of any number may load.

        Raises:
            ValueError: it is not a state of this format.
        """
        index = state.get("index")
        if state.get("format") != 1 or not isinstance(index, list) or len(index) != LANES:
            raise ValueError(f"not a state of format 1 with {LANES} lane indices: {state!r}"[:200])
        self._index = [int(i) for i in index]


def merged(states: Sequence[torch.Tensor]) -> dict[str, Any]:
    """Join the `state` tensors of the last batch of each rank and worker into one for `Windows.load_state_dict`."""
    index = torch.stack(list(states)).amax(dim=0).clamp(min=0)
    return {"format": 1, "index": index.tolist()}
