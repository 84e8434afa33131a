"""The order of the samples: no shuffle file, and every arrow inverts.

A *stream* is the windows 0..N-1 of one data set version's shards in one region. Epoch e visits them in the order of
a keyed Feistel permutation. A region has 64 lanes: a stream's positions are dealt to them (position mod 64), and each
lane mixes its streams by one periodic schedule with prefix counts. So

    (lane, lane index) <-> (stream, position) <-> (stream, epoch, window)

are all O(1) both ways, for any number of windows, from any point.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from data_contracts.canonical import canonical_json, sha256
from training.shards.schedule import LANES as LANES
from training.shards.schedule import Schedule as Schedule
from training.shards.schedule import Segment as Segment
from training.shards.schedule import next_claims as next_claims
from training.shards.schedule import unroll as unroll

_ROUNDS = 6
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Permutation:
    """A keyed bijection of 0..n-1: a balanced Feistel network over the next power of four, with cycle walking.

    Black and Rogaway, "Ciphers with arbitrary finite domains" (CT-RSA 2002). A value leaves 0..n-1 for less than
    four steps on average, since the domain is less than four times n.
    """

    n: int
    keys: tuple[int, ...]

    @classmethod
    def keyed(cls, n: int, *context: str | int) -> Permutation:
        """Return the permutation of 0..n-1 that a context (seed, stream, epoch) names; n from 1 to 2^62."""
        if not 1 <= n <= 1 << 62:
            raise ValueError(f"a permutation needs 1 <= n <= 2^62, not {n}")
        digest = sha256(canonical_json([n, *context]))
        seeds = bytes.fromhex(digest) + bytes.fromhex(sha256(digest.encode()))
        return cls(n, tuple(int.from_bytes(seeds[8 * i : 8 * i + 8], "little") for i in range(_ROUNDS)))

    @property
    def _half_bits(self) -> int:
        return max(1, -(-(self.n - 1).bit_length() // 2))

    def __call__(self, values: Array) -> Array:
        """Map positions within the epoch, int64 [k], to windows, int64 [k]."""
        return self._walk(values, self._encrypt)

    def inverse(self, values: Array) -> Array:
        """Map windows, int64 [k], to positions within the epoch, int64 [k]."""
        return self._walk(values, self._decrypt)

    def _walk(self, values: Array, step: Any) -> Array:
        out: Array = np.asarray(values, dtype=np.uint64)
        if out.size and int(out.max()) >= self.n:
            raise IndexError(f"{int(out.max())} is outside 0..{self.n - 1}")
        out = step(out)
        outside = np.flatnonzero(out >= np.uint64(self.n))
        while outside.size:
            out[outside] = step(out[outside])
            outside = outside[out[outside] >= np.uint64(self.n)]
        signed: Array = out.astype(np.int64)
        return signed

    def _encrypt(self, values: Array) -> Array:
        bits = np.uint64(self._half_bits)
        mask = np.uint64((1 << self._half_bits) - 1)
        left, right = values >> bits, values & mask
        for key in self.keys:
            left, right = right, left ^ (_mix(right, key) & mask)
        return (left << bits) | right

    def _decrypt(self, values: Array) -> Array:
        bits = np.uint64(self._half_bits)
        mask = np.uint64((1 << self._half_bits) - 1)
        left, right = values >> bits, values & mask
        for key in reversed(self.keys):
            left, right = right ^ (_mix(left, key) & mask), left
        return (left << bits) | right


def _mix(values: Array, key: int) -> Array:
    # splitmix64's finaliser (Steele, Lea, Flood 2014): full avalanche in two multiplications.
    z = values + np.uint64(key)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))


@dataclass(frozen=True)
class Stream:
    """The windows of one data set version in one region, numbered through its shards in order.

    `ends[k]` is the number of windows in shards 0..k.
    """

    dataset: str
    version: str
    region: str
    seed: int
    ends: tuple[int, ...]

    @property
    def windows(self) -> int:
        """N, the number of windows."""
        return self.ends[-1] if self.ends else 0

    def permutation(self, epoch: int) -> Permutation:
        """Return the order of one epoch."""
        return Permutation.keyed(self.windows, self.seed, self.dataset, self.version, self.region, epoch)

    def window(self, position: int) -> tuple[int, int]:
        """Return (epoch, window) of a position."""
        epoch, offset = divmod(position, self.windows)
        return epoch, int(self.permutation(epoch)(np.array([offset]))[0])

    def position(self, epoch: int, window: int) -> int:
        """Return the position at which an epoch visits a window."""
        return epoch * self.windows + int(self.permutation(epoch).inverse(np.array([window]))[0])

    def shard(self, window: int) -> tuple[int, int]:
        """Return (shard number, window within that shard)."""
        number = int(np.searchsorted(np.array(self.ends), window, side="right"))
        return number, window - (self.ends[number - 1] if number else 0)
