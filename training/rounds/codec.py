"""How an update crosses the wire: named codecs from fp32 tensors to bytes and back.

The payload is safetensors (no pickle). A codec's decode is part of the protocol: every site must get the same fp32
bytes from the same payload, so it is plain numpy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from data_contracts.errors import RoundError

Tensors = dict[str, np.ndarray[Any, Any]]
CODECS = ("fp32",)


def encode(codec: str, tensors: Tensors) -> bytes:
    """Return the payload of an update; keys are sorted, so the same tensors give the same bytes.

    Raises:
        RoundError: no codec has this name.
    """
    _known(codec)
    ordered = {name: np.ascontiguousarray(tensors[name], dtype=np.float32) for name in sorted(tensors)}
    # One entry: safetensors writes several in an order that changes by call. The signed header names the codec.
    payload: bytes = save(ordered, metadata={"format": "1"})
    return payload


def decode(codec: str, payload: bytes, shapes: dict[str, tuple[int, ...]], what: str) -> Tensors:
    """Return the fp32 tensors of a payload, checked against the model's names and shapes.

    Raises:
        RoundError: unknown codec, not safetensors, over size, a tensor missing, unknown or misshapen, or a value that
            is not finite; names `what` and the tensor.
    """
    _known(codec)
    expected = 4 * sum(int(np.prod(shape)) for shape in shapes.values())
    # The header holds about 100 bytes a tensor; anything far beyond is not this model's update.
    if len(payload) > expected + 4096 + 512 * len(shapes):
        raise RoundError(f"{what}: over size: {len(payload)} bytes where the model has {expected}")
    try:
        tensors: Tensors = load(payload)
    except (SafetensorError, ValueError, KeyError) as error:
        raise RoundError(f"{what}: not a safetensors payload ({error})") from error
    if tensors.keys() != shapes.keys():
        odd = sorted(tensors.keys() ^ shapes.keys())
        raise RoundError(f"{what}: its tensors are not the model's: {', '.join(odd[:5])}")
    for name, shape in shapes.items():
        tensor = tensors[name]
        if tensor.shape != shape or tensor.dtype != np.float32:
            raise RoundError(
                f"{what}: {name} is {tensor.dtype}{list(tensor.shape)}, the model's is float32{list(shape)}"
            )
        if not np.isfinite(tensor).all():
            raise RoundError(f"{what}: {name} has values that are not finite")
    return tensors


def _known(codec: str) -> None:
    if codec not in CODECS:
        raise RoundError(f"unknown codec {codec!r}; this Causeway speaks {', '.join(CODECS)}")
