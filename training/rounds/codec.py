"""How an update crosses the wire: named codecs from fp32 tensors to bytes and back.

The payload is safetensors (no pickle). A codec's decode is part of the protocol: every site must get the same fp32
bytes from the same payload, so it is plain numpy, one correctly rounded operation at a time. `fp32` sends the tensors
as they are. Every other codec lays the tensors of two or more dimensions end to end, in the order of their names, and
packs that one row of values (`codecs/dense.py`, `codecs/sparse.py`); the vectors (gains of norms, biases: about 0.1 %
of a model) go as bfloat16 in `vectors`. Which bytes a payload has is fixed by codec and shapes: `wire_bytes`.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from data_contracts.errors import RoundError
from training.rounds.codecs import dense, sparse
from training.rounds.codecs.dense import Fields
from training.rounds.codecs.names import FORMS, Codec, parse_codec

__all__ = ["FORMS", "Shapes", "Tensors", "check_size", "decode", "encode", "parse_codec", "wire_bytes"]

Tensors = dict[str, np.ndarray[Any, Any]]
Shapes = Mapping[str, tuple[int, ...]]
_VECTORS = Codec("bf16")
_DTYPES: dict[type[np.generic], str] = {np.float32: "F32", np.uint16: "U16", np.uint8: "U8", np.int8: "I8"}


def encode(codec: str, tensors: Tensors) -> bytes:
    """Return the payload of an update; keys are sorted, so the same tensors give the same bytes.

    Raises:
        RoundError: no codec has this name, or (but for fp32) a value is not finite; names the tensor.
    """
    parsed = parse_codec(codec)
    ordered = {name: np.ascontiguousarray(tensors[name], dtype=np.float32) for name in sorted(tensors)}
    if parsed.kind != "fp32":
        packing = sparse if parsed.kind == "topk" else dense
        rows = {name: tensor.reshape(-1) for name, tensor in ordered.items()}
        matrices = [rows[name] for name, tensor in ordered.items() if tensor.ndim > 1]
        vectors = [rows[name] for name, tensor in ordered.items() if tensor.ndim < 2]
        try:
            packed = packing.pack(parsed, matrices)
            packed["vectors"] = dense.pack(_VECTORS, vectors)["codes"]
        except ValueError as error:
            wrong = next((name for name, row in rows.items() if not np.isfinite(row).all()), "a tensor")
            raise RoundError(f"the update to be sent: {wrong} {error}") from error
        ordered = packed
    fields = _fields(parsed, {name: tensor.shape for name, tensor in tensors.items()})
    return b"".join([_head(fields), *(ordered[name].reshape(-1).view(np.uint8).data for name in _in_order(fields))])


def decode(codec: str, payload: bytes, shapes: Shapes, what: str) -> Tensors:
    """Return the fp32 tensors of a payload, checked against the model's names and shapes.

    Raises:
        RoundError: unknown codec, not safetensors, over size, a tensor missing, unknown or misshapen, or a value that
            is not finite; names `what` and the tensor.
    """
    parsed = parse_codec(codec)
    check_size(codec, len(payload), shapes, what)
    try:
        tensors: Tensors = load(payload)
    except (SafetensorError, ValueError, KeyError) as error:
        raise RoundError(f"{what}: not a safetensors payload ({error})") from error
    wanted = _fields(parsed, shapes)
    if tensors.keys() != wanted.keys():
        odd = sorted(tensors.keys() ^ wanted.keys())
        raise RoundError(f"{what}: its tensors are not the model's: {', '.join(odd[:5])}")
    for name, (dtype, shape) in wanted.items():
        tensor = tensors[name]
        if tensor.shape != shape or tensor.dtype != dtype:
            raise RoundError(
                f"{what}: {name} is {tensor.dtype}{list(tensor.shape)},"
                f" the model's is {np.dtype(dtype).name}{list(shape)}"
            )
    return _finite(tensors, what) if parsed.kind == "fp32" else _unpacked(parsed, tensors, shapes, what)


def check_size(codec: str, size: int, shapes: Shapes, what: str) -> None:
    """Check the length of a payload, which may still lie where it was published.

    Raises:
        RoundError: no codec has this name, or it is over size; names `what`.
    """
    expected = wire_bytes(codec, shapes)
    # Of fp32, other writers of safetensors may spell the header of about 100 bytes a tensor a little longer.
    room = 4096 + 512 * len(shapes) if parse_codec(codec).kind == "fp32" else 0
    if size > expected + room:
        raise RoundError(f"{what}: over size: {size} bytes where {codec} of this model has {expected}")


def wire_bytes(codec: str, shapes: Shapes) -> int:
    """Return the exact length of the payload of an update with these shapes: header and all.

    Raises:
        RoundError: no codec has this name.
    """
    fields = _fields(parse_codec(codec), shapes)
    return len(_head(fields)) + sum(np.dtype(dtype).itemsize * math.prod(shape) for dtype, shape in fields.values())


def _in_order(fields: Fields) -> list[str]:
    """Return the names as safetensors orders them: the widest types first, then by name."""
    return sorted(fields, key=lambda name: (-np.dtype(fields[name][0]).itemsize, name))


def _head(fields: Fields) -> bytes:
    """Return what precedes the data of a safetensors file, written here: its own writer copies all data twice."""
    # One entry: safetensors writes several in an order that changes by call. The signed header names the codec.
    entries: dict[str, Any] = {"__metadata__": {"format": "1"}}
    offset = 0
    for name in _in_order(fields):
        dtype, shape = fields[name]
        end = offset + np.dtype(dtype).itemsize * math.prod(shape)
        entries[name] = {"dtype": _DTYPES[dtype], "shape": list(shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _fields(codec: Codec, shapes: Shapes) -> Fields:
    """Return the names, types and shapes of the tensors of a payload."""
    if codec.kind == "fp32":
        return {name: (np.float32, tuple(shape)) for name, shape in shapes.items()}
    packing = sparse if codec.kind == "topk" else dense
    matrices = sum(math.prod(shape) for shape in shapes.values() if len(shape) > 1)
    vectors = sum(math.prod(shape) for shape in shapes.values() if len(shape) < 2)
    return {**packing.fields(codec, matrices), "vectors": (np.uint16, (vectors,))}


def _unpacked(codec: Codec, packed: Tensors, shapes: Shapes, what: str) -> Tensors:
    packing = sparse if codec.kind == "topk" else dense
    tensors: Tensors = {name: np.empty(shapes[name], np.float32) for name in sorted(shapes)}
    matrices = [tensor.reshape(-1) for tensor in tensors.values() if tensor.ndim > 1]
    vectors = [tensor.reshape(-1) for tensor in tensors.values() if tensor.ndim < 2]
    part = "vectors"
    try:
        _pour(dense.unpack(_VECTORS, {"codes": packed[part]}), vectors)
        part = codec.name
        _pour(packing.unpack(codec, packed), matrices)
    except ValueError as error:
        raise RoundError(f"{what}: {part} {error}") from error
    return tensors


def _pour(pieces: Iterator[np.ndarray[Any, Any]], rows: list[np.ndarray[Any, Any]]) -> None:
    """Write the values of the pieces into the rows, one after the other."""
    at, row = 0, 0
    for piece in pieces:
        taken = 0
        while taken < len(piece) and row < len(rows):
            count = min(len(piece) - taken, len(rows[row]) - at)
            rows[row][at : at + count] = piece[taken : taken + count]
            taken, at = taken + count, at + count
            if at == len(rows[row]):
                row, at = row + 1, 0


def _finite(tensors: Tensors, what: str) -> Tensors:
    for name, tensor in tensors.items():
        if not np.isfinite(tensor).all():
            raise RoundError(f"{what}: {name} has values that are not finite")
    return tensors
