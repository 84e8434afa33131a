"""A region's shards as one stretch of memory: any windows of any of them by one numpy gather.

Shards are mapped when a window of theirs is first asked for, and a window's blocks are checked before it is copied. A
Python step per shard would cost some microseconds, ten times what copying a window takes; so the gather runs over one
view from the lowest mapped address to the highest, at addresses that lie in mapped and checked blocks only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from training.shards.blocks import Array, ShardFile, UnreadableShard
from training.shards.cache import ShardCache
from training.shards.manifest import ShardRef
from training.shards.stretches import Needs


@dataclass(frozen=True)
class _Memory:
    """What numpy asks for to make an array over memory that others own."""

    __array_interface__: dict[str, Any]


class RegionMap:
    """The mapped shards of a region; windows are named by shard number, first token and length, int64 [k] each.

    A window reads `length` + 1 tokens: inputs and, shifted by one, targets.
    """

    def __init__(self, cache: ShardCache, refs: Sequence[ShardRef]) -> None:
        self.cache = cache
        self._refs = refs
        self.version = 0  # counts what was forgotten: what was checked in an older version may be gone
        self._files: list[ShardFile | None] = [None] * len(refs)
        self._lost: dict[int, UnreadableShard] = {}
        self._open = np.zeros(len(refs), dtype=np.bool_)
        # Of each open shard: addresses and file offsets of tokens and mask (0: none), bytes a token, and its blocks.
        columns: list[Array] = [np.zeros(len(refs), dtype=np.int64) for _ in range(7)]
        self._address, self._mask_address, self._offset, self._mask_offset, self._size, self._shift, self._block = (
            columns
        )
        self._ready: Array = np.zeros(0, dtype=np.bool_)
        self._blocks = 0
        self._masked = False
        self._sizes: set[int] = set()
        self._drops = cache.drops

    def needs(self, shards: Array, first: Array, length: Array) -> Needs:
        """Return the blocks of windows that are not checked yet, by file; shards that are not open are opened.

        Raises:
            StoreError: the store failed. What is missing or damaged is left out: see `bring`.
        """
        return [(self._file(shard), blocks) for shard, blocks in self._needs(shards, first, length)]

    def _needs(self, shards: Array, first: Array, length: Array) -> list[tuple[int, Array]]:
        self._forget_dropped()
        open_ = self._open[shards]
        if not open_.all():
            self._open_new(np.unique(shards[~open_]))
            open_ = self._open[shards]
            shards, first, length = shards[open_], first[open_], length[open_]
        wanted: dict[int, list[Array]] = {}
        for low, high in self._stretches(shards, first, length):
            for step in range(int((high - low).max(initial=-1)) + 1):
                block = np.minimum(low + step, high)
                missing = ~self._ready[block]
                if missing.any():
                    for shard in np.unique(shards[missing]).tolist():
                        wanted.setdefault(shard, []).append(block[missing & (shards == shard)] - self._block[shard])
        found = []
        for shard, blocks in wanted.items():
            self._learn(shard)
            still = np.unique(np.concatenate(blocks))
            still = still[~self._ready[still + self._block[shard]]]
            if len(still):
                found.append((shard, still))
        return found

    def bring(self, shards: Array, first: Array, length: Array) -> tuple[Array, UnreadableShard | None]:
        """Have the bytes of windows here and checked; return which are, bool [k], and what is wrong with another.

        Raises:
            StoreError: the store failed.
        """
        needs = self._needs(shards, first, length)
        wrong: UnreadableShard | None = None
        if needs:
            try:
                self.cache.bring([(self._file(shard), blocks) for shard, blocks in needs])
            except UnreadableShard as error:
                wrong = error
            for shard, _ in needs:
                self._learn(shard)
        readable = self._open[shards]
        if not readable.all():
            wrong = wrong or self._lost[int(shards[~readable][0])]
        elif wrong is None:
            return readable, None
        for row in np.flatnonzero(readable).tolist():
            one = slice(row, row + 1)
            for low, high in self._stretches(shards[one], first[one], length[one]):
                readable[row] &= self._ready[int(low[0]) : int(high[0]) + 1].all()
        return readable, wrong

    def copy(self, shards: Array, first: Array, length: Array, window: int) -> tuple[Array, Array | None]:
        """Return the tokens, [k, window + 1], and the mask of windows whose blocks are checked; zeros at short ends.

        A row of length 0 stays empty.
        """
        if len(self._sizes) < 2:
            tokens = self._gathered(self._address, max(self._sizes, default=2), shards, first, length, window)
        else:
            tokens = np.zeros((len(shards), window + 1), dtype=np.uint32)
            for one in self._sizes:
                mine = (self._size[shards] == one) & (length > 0)
                tokens[mine] = self._gathered(self._address, one, shards[mine], first[mine], length[mine], window)
        if not self._masked:
            return tokens, None
        plain = (self._mask_address[shards] == 0) & (length > 0)
        mask = self._gathered(self._mask_address, 1, shards, first, np.where(plain, 0, length), window)
        mask[plain] = 1
        return tokens, mask.view(np.bool_)

    def holds(self, shards: Array) -> bool:
        """Say whether all these shards are open."""
        return bool(self._open[shards].all())

    def files(self) -> list[ShardFile]:
        """Return the open files."""
        return [file for file in self._files if file is not None]

    def _gathered(self, bases: Array, size: int, shards: Array, first: Array, length: Array, window: int) -> Array:
        kind = f"<u{size}"
        places = bases[shards]
        places += first * size
        full = length == window
        whole = bool(full.all())
        chosen = places if whole else places[full]
        rows: Array
        if len(chosen):
            low, high = int(chosen.min()), int(chosen.max())
            shift = size.bit_length() - 1
            shape, strides = (((high - low) >> shift) + 1, window + 1), (size, size)
            view: Array = np.asarray(
                _Memory({"version": 3, "typestr": kind, "data": (low, True), "shape": shape, "strides": strides})
            )
            rows = view[(chosen - low) >> shift]
            if whole:
                return rows
        spread = np.zeros((len(shards), window + 1), dtype=kind)
        if len(chosen):
            spread[full] = rows
        rows = spread
        for row in np.flatnonzero(~full & (length > 0)).tolist():
            tokens = int(length[row]) + 1
            start = int(places[row]) - self._file_address(int(shards[row]))
            rows[row, :tokens] = self._file(int(shards[row])).data[start : start + tokens * size].view(kind)
        return rows

    def _stretches(self, shards: Array, first: Array, length: Array) -> list[tuple[Array, Array]]:
        """Return the first and last block of each window's tokens, and of its mask where a shard has one."""
        size, shift, base = self._size[shards], self._shift[shards], self._block[shards]
        start = self._offset[shards] + first * size
        found = [(base + (start >> shift), base + ((start + length * size) >> shift))]
        if self._masked:
            start = np.where(self._mask_offset[shards] > 0, self._mask_offset[shards] + first, start)
            end = np.where(self._mask_offset[shards] > 0, start + length, start)
            found.append((base + (start >> shift), base + (end >> shift)))
        return found

    def _open_new(self, shards: Array) -> None:
        new = [s for s in shards.tolist() if s not in self._lost]
        for shard, file in zip(new, self.cache.open_all([self._refs[s] for s in new]), strict=True):
            try:
                if isinstance(file, UnreadableShard):
                    raise file
                if not file.manifest.blocks:
                    self.cache.bring([(file, np.arange(file.blocks))])
                self._add(shard, file)
            except UnreadableShard as error:
                self._lost[shard] = error

    def _add(self, shard: int, file: ShardFile) -> None:
        tokens, mask = file.offsets()
        address = int(file.data.ctypes.data)
        self._files[shard] = file
        self._address[shard], self._offset[shard] = address + tokens, tokens
        if mask is not None:
            self._mask_address[shard], self._mask_offset[shard], self._masked = address + mask, mask, True
        self._size[shard] = 2 if file.manifest.token_dtype == "uint16" else 4
        self._sizes.add(int(self._size[shard]))
        self._shift[shard] = file.shift
        if self._blocks + file.blocks > len(self._ready):
            self._ready = np.concatenate([self._ready, np.zeros(max(4096, self._blocks, file.blocks), dtype=np.bool_)])
        self._block[shard] = self._blocks
        self._blocks += file.blocks
        self._learn(shard)
        self._open[shard] = True

    def _learn(self, shard: int) -> None:
        file = self._file(shard)
        self._ready[self._block[shard] : self._block[shard] + file.blocks] = file.checked

    def _forget_dropped(self) -> None:
        if self.cache.drops == self._drops:
            return
        self._drops = self.cache.drops
        self.version += 1
        for shard, file in enumerate(self._files):
            if file is not None and file.gone:
                self._files[shard] = None
                self._open[shard] = False

    def _file(self, shard: int) -> ShardFile:
        file = self._files[shard]
        assert file is not None
        return file

    def _file_address(self, shard: int) -> int:
        return int(self._address[shard] - self._offset[shard])
