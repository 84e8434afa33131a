"""Keyed bijections of 0..n-1 that cost no memory: the order in which an epoch visits a stream's windows.

Two algorithms, by the number that a plan names as its `order`; both are Feistel networks of six rounds with cycle
walking (Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002). What they permute is no secret: the
rounds mix, they do not encipher.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from data_contracts.canonical import canonical_json, sha256

NEWEST_ORDER = 2
_LARGEST = 1 << 62
_ROUNDS = 6
_BLOCK = 8192  # values at a time: their scratch (200 KB) stays in the second-level cache; 17 ns a window, 104 at 2048
Array = np.ndarray[Any, Any]


class Permutation(Protocol):
    """A bijection of 0..n-1 on arrays, int64 [k] to int64 [k]; IndexError for a value outside."""

    @property
    def n(self) -> int: ...
    def __call__(self, values: Array) -> Array: ...
    def inverse(self, values: Array) -> Array: ...


@lru_cache(maxsize=64)
def permutation(order: int, n: int, *context: str | int) -> Permutation:
    """Return the permutation of 0..n-1 that an algorithm and a context (seed, stream, epoch) name; n from 1 to 2^62."""
    if order not in (1, 2):
        raise ValueError(f"order {order!r} is none of 1, 2; a newer Causeway made this plan")
    if not 1 <= n <= _LARGEST:
        raise ValueError(f"a permutation needs 1 <= n <= 2^62, not {n}")
    digest = sha256(canonical_json([n, *context]))
    seeds = bytes.fromhex(digest) + bytes.fromhex(sha256(digest.encode()))
    keys = tuple(int.from_bytes(seeds[8 * i : 8 * i + 8], "little") for i in range(_ROUNDS))
    return Balanced(n, keys) if order == 1 else Fitted(n, keys)


@dataclass(frozen=True)
class Fitted:
    """Order 2: a grid of `rows` x 2^k cells, the smallest such with n or more, so that next to no value walks.

    k is half the bits of n - 1. A value is (row, column); odd rounds add to the row modulo `rows`, even ones are
    XORed into the column. Fewer than 2^k cells of the grid lie outside 0..n-1: a share below 1.5 / sqrt(n). In 32-bit
    words, which numpy does eight or sixteen at a time.
    """

    n: int
    keys: tuple[int, ...]

    @property
    def _bits(self) -> int:
        return (self.n - 1).bit_length() // 2

    def __call__(self, values: Array) -> Array:
        """Map positions within the epoch to windows."""
        return _walk(values, self.n, self._forward)

    def inverse(self, values: Array) -> Array:
        """Map windows to positions within the epoch."""
        return _walk(values, self.n, self._backward)

    def _forward(self, values: Array) -> Array:
        row, column, mixed, scratch = self._split(values)
        rows, mask = np.uint32(self._rows), np.uint32((1 << self._bits) - 1)
        for number, key in enumerate(self.keys):
            if number % 2:
                row += self._step(column, key, mixed, scratch)
                np.minimum(row, row - rows, out=row)  # below zero wraps, so the smaller is the remainder
            else:
                column ^= _mix32(row, key, mixed, scratch) & mask
        return self._join(row, column)

    def _backward(self, values: Array) -> Array:
        row, column, mixed, scratch = self._split(values)
        rows, mask = np.uint32(self._rows), np.uint32((1 << self._bits) - 1)
        for number, key in reversed(list(enumerate(self.keys))):
            if number % 2:
                row -= self._step(column, key, mixed, scratch)
                np.minimum(row, row + rows, out=row)
            else:
                column ^= _mix32(row, key, mixed, scratch) & mask
        return self._join(row, column)

    @property
    def _rows(self) -> int:
        return -(-self.n >> self._bits)

    def _step(self, column: Array, key: int, mixed: Array, scratch: Array) -> Array:
        # Lemire's multiply and shift: 0..rows-1 without a division.
        wide: Array = _mix32(column, key, mixed, scratch) * np.uint64(self._rows)
        wide >>= np.uint64(32)
        return wide.astype(np.uint32)

    def _split(self, values: Array) -> tuple[Array, Array, Array, Array]:
        row = (values >> np.uint64(self._bits)).astype(np.uint32)
        column = values.astype(np.uint32)
        column &= np.uint32((1 << self._bits) - 1)
        return row, column, np.empty_like(row), np.empty_like(row)

    def _join(self, row: Array, column: Array) -> Array:
        joined: Array = row.astype(np.uint64)
        joined <<= np.uint64(self._bits)
        joined |= column
        return joined


@dataclass(frozen=True)
class Balanced:
    """Order 1: two halves of equal bits, over the next power of four; a value walks up to four steps on average."""

    n: int
    keys: tuple[int, ...]

    @property
    def _half_bits(self) -> int:
        return max(1, -(-(self.n - 1).bit_length() // 2))

    def __call__(self, values: Array) -> Array:
        """Map positions within the epoch to windows."""
        return _walk(values, self.n, self._forward)

    def inverse(self, values: Array) -> Array:
        """Map windows to positions within the epoch."""
        return _walk(values, self.n, self._backward)

    def _forward(self, values: Array) -> Array:
        bits, mask = np.uint64(self._half_bits), np.uint64((1 << self._half_bits) - 1)
        left, right = values >> bits, values & mask
        for key in self.keys:
            left, right = right, left ^ (_mix64(right, key) & mask)
        return (left << bits) | right

    def _backward(self, values: Array) -> Array:
        bits, mask = np.uint64(self._half_bits), np.uint64((1 << self._half_bits) - 1)
        left, right = values >> bits, values & mask
        for key in reversed(self.keys):
            left, right = right ^ (_mix64(left, key) & mask), left
        return (left << bits) | right


def _walk(values: Array, n: int, step: Any) -> Array:
    given = np.asarray(values, dtype=np.int64).astype(np.uint64)
    if given.size and int(given.max()) >= n:
        wrong = np.asarray(values)[given >= np.uint64(n)][0]
        raise IndexError(f"{wrong} is outside 0..{n - 1}")
    out = np.empty(given.shape, dtype=np.int64)
    for start in range(0, given.size, _BLOCK):
        block = step(given[start : start + _BLOCK])
        outside = np.flatnonzero(block >= np.uint64(n))
        while outside.size:
            walked = step(block[outside])
            block[outside] = walked
            outside = outside[walked >= np.uint64(n)]
        out[start : start + _BLOCK] = block
    return out


def _mix32(values: Array, key: int, out: Array, scratch: Array) -> Array:
    # Two multiplications, three shifts: the constants of a search for low bias (Wellons and degski, "hash-prospector").
    np.add(values, np.uint32(key & 0xFFFFFFFF), out=out)
    np.right_shift(out, np.uint32(16), out=scratch)
    np.bitwise_xor(out, scratch, out=out)
    np.multiply(out, np.uint32(0x21F0AAAD), out=out)
    np.right_shift(out, np.uint32(15), out=scratch)
    np.bitwise_xor(out, scratch, out=out)
    np.multiply(out, np.uint32(0x735A2D97), out=out)
    np.right_shift(out, np.uint32(15), out=scratch)
    return np.bitwise_xor(out, scratch, out=out)


def _mix64(values: Array, key: int) -> Array:
    # splitmix64's finaliser (Steele, Lea, Flood 2014): full avalanche in two multiplications.
    z = values + np.uint64(key)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
