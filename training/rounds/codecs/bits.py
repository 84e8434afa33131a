"""bfloat16 in numpy: its 16 bits in a uint16, to and from fp32."""

from __future__ import annotations

from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
LARGEST = 0x7F7F  # the bits of the largest finite value
_EXPONENT = 0x7F80


def to_bf16(values: Array) -> Array:
    """Return the bits of the nearest bfloat16 (ties to even) of finite fp32 values; beyond the largest, the largest."""
    bits = np.ascontiguousarray(values).view(np.uint32)
    rounded = bits >> np.uint32(16)
    rounded &= np.uint32(1)
    rounded += np.uint32(0x7FFF)
    rounded += bits
    rounded >>= np.uint32(16)
    nearest = rounded.astype(np.uint16)
    over = (nearest & np.uint16(0x7FFF)) > np.uint16(LARGEST)
    if over.any():
        nearest[over] = (nearest[over] & np.uint16(0x8000)) | np.uint16(LARGEST)
    return nearest


def from_bf16(bits: Array) -> Array:
    """Return the fp32 values of bfloat16 bits: exact, every bfloat16 is an fp32."""
    wide = bits.astype(np.uint32)
    wide <<= np.uint32(16)
    return wide.view(np.float32)


def all_finite(bits: Array) -> bool:
    """Say whether no value of these bits is infinite or not a number."""
    return not bool(((bits & np.uint16(_EXPONENT)) == np.uint16(_EXPONENT)).any())
