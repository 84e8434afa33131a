"""Top-k: of each chunk of 4096 values the largest by magnitude, as 12-bit indices and 2-bit values.

Of SparseLoCo (arXiv 2508.15706), with chunks of successive values rather than tiles of a matrix. A value's 2 bits are
its sign and which of the chunk's two magnitudes it has; these are bfloat16, the means of the smaller and of the larger
values kept. Unpacking copies table entries to their places: the same bytes on any processor.

| array | shape | what |
|---|---|---|
| `indices` | uint8 [chunks, 3 kept / 2] | ascending; two in 3 bytes, the first in the lower 12 bits, low byte first |
| `codes` | uint8 [chunks, kept / 4] | four to a byte, the first in the lowest bits: 1 negative, 2 the larger one |
| `levels` | uint16 [chunks, 2] | the smaller and the larger magnitude, bfloat16 |
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from training.rounds.codecs.bits import LARGEST, from_bf16, to_bf16
from training.rounds.codecs.dense import PIECE, Fields, pieces
from training.rounds.codecs.names import CHUNK, Codec

Array = np.ndarray[Any, Any]


def fields(codec: Codec, count: int) -> Fields:
    """Return the names, types and shapes of the arrays that `count` values are packed into."""
    chunks, kept = -(-count // CHUNK), codec.kept
    return {
        "codes": (np.uint8, (chunks, kept // 4)),
        "indices": (np.uint8, (chunks, kept * 3 // 2)),
        "levels": (np.uint16, (chunks, 2)),
    }


def pack(codec: Codec, rows: Sequence[Array]) -> dict[str, Array]:
    """Pack the values of fp32 rows, laid end to end, into the arrays that `fields` names; zeros fill the last chunk.

    Raises:
        ValueError: a value is not finite.
    """
    count = sum(len(row) for row in rows)
    packed = {name: np.empty(shape, dtype) for name, (dtype, shape) in fields(codec, count).items()}
    for place, piece in pieces(rows, CHUNK):
        indices = largest(piece, codec.kept)
        chosen = np.take_along_axis(piece, indices, axis=1)
        levels, upper = _levels(np.abs(chosen))
        packed["levels"][place] = levels
        packed["codes"][place] = _pack_codes((chosen < 0).astype(np.uint8) | (upper.astype(np.uint8) << np.uint8(1)))
        packed["indices"][place] = _pack_indices(indices.astype(np.uint16))
    return packed


def unpack(codec: Codec, packed: dict[str, Array]) -> Iterator[Array]:
    """Yield the fp32 values of packed arrays, piece by piece: zero where nothing was sent, or where a chunk is filled.

    Raises:
        ValueError: a magnitude is negative or not finite, or a chunk's indices do not ascend.
    """
    levels = packed["levels"]
    if (levels > np.uint16(LARGEST)).any():  # as bits: so are negative ones, and no numbers
        raise ValueError("has a magnitude that is negative or not finite")
    magnitudes = from_bf16(levels)
    # By the two bits of a code: smaller, minus smaller, larger, minus larger.
    tables = np.stack([magnitudes[:, 0], -magnitudes[:, 0], magnitudes[:, 1], -magnitudes[:, 1]], axis=1)
    step = PIECE // CHUNK
    for first in range(0, len(levels), step):
        rows = slice(first, first + step)
        indices = _unpack_indices(packed["indices"][rows])
        if (np.diff(indices, axis=1) <= 0).any():
            raise ValueError("has indices that do not ascend")
        codes = _unpack_codes(packed["codes"][rows])
        values = np.zeros((len(indices), CHUNK), np.float32)
        np.put_along_axis(values, indices, np.take_along_axis(tables[rows], codes, axis=1), axis=1)
        yield values.reshape(-1)


def largest(piece: Array, kept: int) -> Array:
    """Return the indices of the `kept` largest magnitudes of each row of fp32 [rows, 4096], ascending, as intp.

    Of equal magnitudes the first counts as larger. A search by threshold: the `kept`-th largest of the maxima of
    groups is not above the `kept`-th largest value, and few values lie between; only those few are sorted out. Three
    times as fast as torch.topk, seven times as fast as numpy.argpartition.
    """
    rows = len(piece)
    magnitudes = np.abs(piece)
    groups = max(256, 4 * kept)
    maxima = magnitudes.reshape(rows, CHUNK // groups, groups).max(axis=1)
    threshold = np.partition(maxima, groups - kept, axis=1)[:, groups - kept]
    candidates = magnitudes >= threshold[:, None]
    if not threshold.all():
        # Less than `kept` groups have a value at all: those values, and as many zeros as are missing.
        for poor in np.flatnonzero(threshold == 0):
            found = magnitudes[poor] > 0
            missing = max(0, kept - int(found.sum()))
            found[np.flatnonzero(~found)[:missing]] = True
            candidates[poor] = found
    places = np.flatnonzero(candidates)
    row, index = places // CHUNK, places % CHUNK
    counts = np.bincount(row, minlength=rows)
    within = np.arange(len(places)) - np.repeat(np.cumsum(counts) - counts, counts)
    # One number that orders by magnitude, then by index: its parts are 32 and 12 bits.
    ranked = magnitudes.reshape(-1)[places].view(np.uint32).astype(np.int64)
    ranked = (ranked << 12) | (CHUNK - 1 - index)
    width = int(counts.max())
    keys = np.full((rows, width), -1, np.int64)
    keys[row, within] = ranked
    top = np.partition(keys, width - kept, axis=1)[:, width - kept :]
    return np.sort(CHUNK - 1 - (top & (CHUNK - 1)), axis=1).astype(np.intp)


def _levels(magnitudes: Array) -> tuple[Array, Array]:
    """Return two bfloat16 magnitudes for each row, and which values take the larger one.

    Two means by Lloyd's rule, twice. Where a zero is among the values, the smaller magnitude is zero.
    """
    wide = magnitudes.astype(np.float64)
    count = magnitudes.shape[1]
    split = wide.mean(axis=1)
    zeros = (magnitudes == 0).any(axis=1)
    split[zeros] = np.finfo(np.float64).tiny
    for _ in range(2):
        upper = wide >= split[:, None]
        many = upper.sum(axis=1)
        high_sum = np.where(upper, wide, 0.0).sum(axis=1)
        low_sum = np.where(upper, 0.0, wide).sum(axis=1)
        high = high_sum / np.maximum(1, many)
        low = low_sum / np.maximum(1, count - many)
        split = np.where(zeros | (many == count), split, 0.5 * (low + high))
    return to_bf16(np.stack([low, high], axis=1).astype(np.float32)), upper


def _pack_indices(indices: Array) -> Array:
    first, second = indices[:, 0::2], indices[:, 1::2]
    packed = np.empty((len(indices), first.shape[1], 3), np.uint8)
    packed[:, :, 0] = first & 0xFF
    packed[:, :, 1] = (first >> 8) | ((second & 0xF) << 4)
    packed[:, :, 2] = second >> 4
    return packed.reshape(len(indices), -1)


def _unpack_indices(packed: Array) -> Array:
    triples = packed.reshape(len(packed), -1, 3).astype(np.intp)
    indices = np.empty((len(packed), triples.shape[1], 2), np.intp)
    indices[:, :, 0] = triples[:, :, 0] | ((triples[:, :, 1] & 0xF) << 8)
    indices[:, :, 1] = (triples[:, :, 1] >> 4) | (triples[:, :, 2] << 4)
    return indices.reshape(len(packed), -1)


def _pack_codes(codes: Array) -> Array:
    four = codes.reshape(len(codes), -1, 4)
    packed: Array = four[:, :, 0] | (four[:, :, 1] << 2) | (four[:, :, 2] << 4) | (four[:, :, 3] << 6)
    return packed


def _unpack_codes(packed: Array) -> Array:
    shifts = np.array([0, 2, 4, 6], np.uint8)
    return ((packed[:, :, None] >> shifts) & np.uint8(3)).reshape(len(packed), -1).astype(np.intp)
