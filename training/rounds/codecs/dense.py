"""Codecs that send every value: bf16, and blocks of 8 or 4 bits with one scale each.

| kind | a value is | scale of a block |
|---|---|---|
| bf16 | the nearest bfloat16 | - |
| int8 | a whole number -127..127 times the scale | largest magnitude / 127 |
| int4 | a whole number -7..7 times the scale; two to a byte, the first in the low bits | largest magnitude / 7 |
| e3m0 | sign and 3 bits of exponent: 0, or 2^-6 .. 2^0 times the scale; packed as int4 | largest magnitude |

Scales are bfloat16. E3M0 is the 4-bit format of Streaming DiLoCo (arXiv 2501.18512). Unpacking is a table look-up and
one fp32 multiplication, so it gives the same bytes on any processor. Packing need not, and does not try to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from training.rounds.codecs.bits import LARGEST, all_finite, from_bf16, to_bf16
from training.rounds.codecs.names import Codec

Array = np.ndarray[Any, Any]
Fields = dict[str, tuple[type[np.generic], tuple[int, ...]]]
# Values worked on at a time: 512 KB of fp32, so that the passes over a piece stay in a core's cache.
PIECE = 1 << 17
_TOP = {"int8": 127.0, "int4": 7.0, "e3m0": 1.0}
_FARTHEST = {"int8": 128.0, "int4": 8.0, "e3m0": 1.0}  # the largest magnitude that a code can spell
_SMALLEST_NORMAL = np.float32(2.0**-126)


def fields(codec: Codec, count: int) -> Fields:
    """Return the names, types and shapes of the arrays that `count` values are packed into."""
    if codec.kind == "bf16":
        return {"codes": (np.uint16, (count,))}
    blocks = -(-count // codec.block)
    if codec.kind == "int8":
        return {"codes": (np.int8, (blocks, codec.block)), "scales": (np.uint16, (blocks,))}
    return {"codes": (np.uint8, (blocks, codec.block // 2)), "scales": (np.uint16, (blocks,))}


def pack(codec: Codec, rows: Sequence[Array]) -> dict[str, Array]:
    """Pack the values of fp32 rows, laid end to end, into the arrays that `fields` names; zeros fill the last block.

    Raises:
        ValueError: a value is not finite.
    """
    count = sum(len(row) for row in rows)
    packed = {name: np.empty(shape, dtype) for name, (dtype, shape) in fields(codec, count).items()}
    for place, piece in pieces(rows, codec.block):
        if codec.kind == "bf16":
            packed["codes"][place] = to_bf16(piece[:, 0])
            continue
        scales = _scales(codec.kind, piece)
        packed["scales"][place] = scales
        steps = from_bf16(scales)
        with np.errstate(divide="ignore"):
            inverse = np.where(steps > 0, np.float32(1) / steps, np.float32(0))
        scaled = np.multiply(piece, inverse[:, None])
        coding = _int8 if codec.kind == "int8" else _int4 if codec.kind == "int4" else _e3m0
        packed["codes"][place] = coding(scaled)
    return packed


def unpack(codec: Codec, packed: dict[str, Array]) -> Iterator[Array]:
    """Yield the fp32 values of packed arrays, piece by piece, with those that fill the last block.

    Raises:
        ValueError: a value is not finite, or a scale is negative.
    """
    codes = packed["codes"]
    if codec.kind == "bf16":
        for first in range(0, len(codes), PIECE):
            piece = codes[first : first + PIECE]
            if not all_finite(piece):
                raise ValueError("has values that are not finite")
            yield from_bf16(piece)
        return
    if (packed["scales"] > np.uint16(_limit(codec.kind))).any():  # as bits: so are negative ones, and no numbers
        raise ValueError("has a scale that is negative or whose values are not finite")
    scales = from_bf16(packed["scales"])[:, None]
    step = max(1, PIECE // codec.block)
    for first in range(0, len(scales), step):
        rows = slice(first, first + step)
        if codec.kind == "int8":
            spelled = codes[rows].astype(np.float32)
        else:
            spelled = np.take(_PAIRS[codec.kind], codes[rows]).view(np.float32)
        yield np.multiply(spelled, scales[rows], out=spelled).reshape(-1)


def pieces(rows: Sequence[Array], block: int) -> Iterator[tuple[slice, Array]]:
    """Yield where a piece lies among the blocks, and its values [blocks, block]; zeros fill the last block.

    The values are copied into one buffer that is used again: fresh memory for all of them costs more than the copy.

    Raises:
        ValueError: a value is not finite.
    """
    size = max(1, PIECE // block) * block
    staged, filled, done = np.empty(size, np.float32), 0, 0
    for row in rows:
        at = 0
        while at < len(row):
            taken = min(size - filled, len(row) - at)
            staged[filled : filled + taken] = row[at : at + taken]
            filled, at = filled + taken, at + taken
            if filled == size:
                yield slice(done, done + size // block), _finite(staged).reshape(-1, block)
                filled, done = 0, done + size // block
    if filled:
        last = -(-filled // block)
        staged[filled : last * block] = 0
        yield slice(done, done + last), _finite(staged[: last * block]).reshape(-1, block)


def _finite(values: Array) -> Array:
    if not np.isfinite(values).all():
        raise ValueError("has values that are not finite")
    return values


def _scales(kind: str, piece: Array) -> Array:
    """Return the bfloat16 bits of each row's scale. A row whose scale is below the normal numbers is sent as zeros.

    Rounded to nearest, a scale moves the largest value by at most 0.2 % of itself, less than half a step of int8, so
    that value keeps its code, and what was decoded is encoded to the same bytes again.
    """
    magnitudes = np.abs(piece)
    # Halving columns: numpy reduces a short last axis at a third of this speed.
    width = piece.shape[1]
    while width % 2 == 0 and width > 32:
        width //= 2
        magnitudes = np.maximum(magnitudes[:, :width], magnitudes[:, width:])
    steps = np.multiply(magnitudes.max(axis=1), np.float32(1 / _TOP[kind]))
    steps[steps < _SMALLEST_NORMAL] = 0
    return np.minimum(to_bf16(steps), np.uint16(_limit(kind)))


def _limit(kind: str) -> int:
    """Return the bits of the largest scale with which no code overflows."""
    largest = np.array(float(np.finfo(np.float32).max) / _FARTHEST[kind], np.float32)
    return min(LARGEST, int(largest.view(np.uint32)) >> 16)


def _int8(scaled: Array) -> Array:
    np.rint(scaled, out=scaled)
    np.clip(scaled, -127, 127, out=scaled)
    return scaled.astype(np.int8)


def _int4(scaled: Array) -> Array:
    np.rint(scaled, out=scaled)
    np.clip(scaled, -7, 7, out=scaled)
    scaled += np.float32(8)
    return _nibbles(scaled.astype(np.uint8))


def _e3m0(scaled: Array) -> Array:
    bits = scaled.view(np.uint32)
    sign = (bits >> np.uint32(28)).astype(np.uint8) & np.uint8(8)
    bits &= np.uint32(0x7FFFFFFF)
    # Half of the mantissa's range carries into the exponent: from 1.5 x 2^e on, a magnitude is nearer to 2^(e+1).
    bits += np.uint32(0x400000)
    bits >>= np.uint32(23)
    np.clip(bits, 120, 127, out=bits)
    bits -= np.uint32(120)
    return _nibbles(bits.astype(np.uint8) | sign)


def _nibbles(codes: Array) -> Array:
    """Pack codes of 4 bits two to a byte, the first in the low bits."""
    both = codes.view("<u2")
    packed: Array = (both | (both >> 4)).astype(np.uint8)
    return packed


def _pair_table(values: list[float]) -> Array:
    """Return for each byte its two values, as one 8-byte item each."""
    single = np.array(values, np.float32)
    byte = np.arange(256)
    return np.stack([single[byte & 15], single[byte >> 4]], axis=1).reshape(-1).view(np.float64)


_HALVES = [0.0, *(2.0**e for e in range(-6, 1))]
_PAIRS = {
    "int4": _pair_table([float(code - 8) for code in range(16)]),
    "e3m0": _pair_table(_HALVES + [-value for value in _HALVES]),
}
