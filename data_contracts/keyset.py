"""Which keys came before: a set of 16-byte hashes that stays small in memory, whatever the number of rows.

The last quarter million keys are in a hash table in memory; older ones lie in a file, sorted by the quarter million. A
bit map of each quarter million says which keys cannot be in it, so that of new keys the file is asked for one in 1,400.
Memory: 13 MB, 16 more while keys move to the file, and 2.1 bytes a key. The keys must be hashes: their bits are taken
as random.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from typing import IO, Any

import numpy as np

UInt64s = np.ndarray[Any, np.dtype[np.uint64]]
Places = np.ndarray[Any, np.dtype[np.int64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]

_RUN_KEYS = 1 << 18
_FLAGS = np.uint32((1 << 22) - 1)
_SLOTS = 1 << 20
# The file is read by the bucket: the keys that share their first twelve bits, 64 of a run.
_BUCKETS = 1 << 12


class KeySet:
    """A set of keys (uint8 [rows, 16]); its file has no name and goes with the set."""

    def __init__(self, run_keys: int = _RUN_KEYS) -> None:
        self._run_keys = run_keys
        # The table: a slot has the newest of its keys, or -1, and each key the one before it in the slot.
        self._slots = np.full(_SLOTS, -1, dtype=np.int32)
        self._keys = np.zeros((run_keys, 2), dtype=np.uint64)
        self._older = np.zeros(run_keys, dtype=np.int32)
        self._count = 0
        self._runs: list[_Run] = []
        self._file: IO[bytes] | None = None

    def add(self, keys: np.ndarray[Any, np.dtype[np.uint8]]) -> Mask:
        """Add keys and return which of them were there before, earlier ones of the same call included."""
        pairs = np.ascontiguousarray(keys).view(np.uint64)
        parts = [self._add(pairs[at : at + self._run_keys]) for at in range(0, len(pairs), self._run_keys)]
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.bool_)

    def _add(self, pairs: UInt64s) -> Mask:
        if self._count + len(pairs) > self._run_keys:
            self._spill()
        repeated = np.zeros(len(pairs), dtype=np.bool_)
        if self._runs:
            spots = _spots(pairs)
            for run in self._runs:
                for row in _rows_with_all(spots, run.flags):
                    repeated[row] |= run.holds(pairs[row])
        slots = (pairs.view(np.uint32)[:, 0] & np.uint32(_SLOTS - 1)).astype(np.int64)
        places = np.arange(self._count, self._count + len(pairs), dtype=np.int32)
        self._keys[self._count : self._count + len(pairs)] = pairs
        self._count += len(pairs)
        rows = np.arange(len(pairs))
        while len(rows):
            known = self._in_table(pairs[rows], self._slots[slots[rows]])
            repeated[rows[known]] = True
            rows = rows[~known]
            self._older[places[rows]] = self._slots[slots[rows]]
            # Of rows that share a slot the first takes it, being assigned last; the others come after it.
            self._slots[slots[rows][::-1]] = places[rows][::-1]
            rows = rows[self._slots[slots[rows]] != places[rows]]
        return repeated

    def _in_table(self, pairs: UInt64s, heads: np.ndarray[Any, np.dtype[np.int32]]) -> Mask:
        found = np.zeros(len(pairs), dtype=np.bool_)
        rows = np.flatnonzero(heads >= 0)
        places = heads[rows]
        while len(rows):
            there, here = self._keys[places], pairs[rows]
            same = (there[:, 0] == here[:, 0]) & (there[:, 1] == here[:, 1])
            found[rows[same]] = True
            rows, places = rows[~same], self._older[places[~same]]
            rows, places = rows[places >= 0], places[places >= 0]
        return found

    def _spill(self) -> None:
        if not self._count:
            return
        whole = self._keys[: self._count]
        buckets = _buckets(whole)
        whole = whole[np.argsort(buckets, kind="stable")]  # of 16 bits, a radix sort
        ends = np.cumsum(np.bincount(buckets, minlength=_BUCKETS))
        flags = np.zeros(int(_FLAGS) + 1, dtype=np.bool_)
        for spot in _spots(whole):
            flags[spot] = True
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="causeway-keys-")  # noqa: SIM115  it lives as long as the set
        start = self._file.seek(0, os.SEEK_END)
        self._file.write(whole.data)
        self._file.flush()
        self._runs.append(_Run(self._file, start, ends, np.packbits(flags)))
        self._slots[:] = -1
        self._count = 0


class _Run:
    """Keys in the file from `start`, in the order of their buckets, which end at `ends`."""

    def __init__(self, file: IO[bytes], start: int, ends: Places, bits: np.ndarray[Any, np.dtype[np.uint8]]) -> None:
        self._file, self._start, self._ends, self._bits = file, start, ends, bits

    def flags(self, spots: Places) -> Mask:
        """Return the bits at the given places; packbits puts the first of eight highest."""
        found: Mask = (self._bits[spots >> 3] >> (7 - (spots & 7)).astype(np.uint8)) & 1 == 1
        return found

    def holds(self, key: UInt64s) -> bool:
        """Say whether the run holds a key; reads the key's bucket."""
        bucket = int(_buckets(key[np.newaxis])[0])
        first = int(self._ends[bucket - 1]) if bucket else 0
        data = os.pread(self._file.fileno(), (int(self._ends[bucket]) - first) * 16, self._start + first * 16)
        return bool((np.frombuffer(data, dtype=np.uint64).reshape(-1, 2) == key).all(axis=1).any())


def _buckets(pairs: UInt64s) -> np.ndarray[Any, np.dtype[np.uint16]]:
    return (pairs[:, 0] >> np.uint64(52)).astype(np.uint16)


def _spots(pairs: UInt64s) -> list[Places]:
    """Return seven places of each key in a map of 2^22 bits. Source: Kirsch and Mitzenmacher, ESA 2006."""
    words = pairs.view(np.uint32)
    first, step = words[:, 0], words[:, 1]
    return [(first + np.uint32(number) * step & _FLAGS).astype(np.int64) for number in range(7)]


def _rows_with_all(spots: list[Places], flags: Callable[[Places], Mask]) -> Places:
    rows = np.flatnonzero(flags(spots[0]))
    for spot in spots[1:]:
        rows = rows[flags(spot[rows])]
    return rows
