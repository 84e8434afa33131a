"""The peer of `benchmarks/codec.py`: the same codecs in the obvious way, in torch and safetensors."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from safetensors.torch import load, save

Tensors = dict[str, torch.Tensor]
_CHUNK = 4096


def encode(codec: str, tensors: Tensors) -> bytes:
    """Return the payload of an update."""
    kind, *numbers = codec.split("-")
    if kind == "fp32":
        return bytes(save(tensors))
    if kind == "bf16":
        return bytes(save({name: tensor.bfloat16() for name, tensor in tensors.items()}))
    row = torch.cat([tensor.flatten() for _, tensor in sorted(tensors.items())])
    if kind == "topk":
        return bytes(save(_topk(row, int(numbers[1]))))
    block = int(numbers[0])
    blocks = torch.nn.functional.pad(row, (0, -len(row) % block)).view(-1, block)
    scales = blocks.abs().amax(dim=1, keepdim=True)
    if kind == "int8":
        codes = (blocks / (scales / 127)).round().to(torch.int8)
    elif kind == "int4":
        codes = _nibbles(((blocks / (scales / 7)).round() + 8).to(torch.uint8))
    else:
        exponents = (blocks.abs() / scales).clamp(min=2.0**-20).log2().round().clamp(min=-7).to(torch.int8) + 7
        codes = _nibbles(exponents.to(torch.uint8) | ((blocks < 0).to(torch.uint8) << 3))
    return bytes(save({"codes": codes, "scales": scales.bfloat16()}))


def decode(codec: str, payload: bytes, shapes: Mapping[str, tuple[int, ...]]) -> Tensors:
    """Return the tensors of a payload."""
    kind, *numbers = codec.split("-")
    packed = load(payload)
    if kind in ("fp32", "bf16"):
        return {name: tensor.float() for name, tensor in packed.items()}
    if kind == "topk":
        row = _untopk(packed)
    else:
        codes, scales = packed["codes"], packed["scales"].float()
        if kind == "int8":
            row = codes.float() * (scales / 127)
        else:
            both = torch.stack([codes & 15, codes >> 4], dim=2).view(len(codes), int(numbers[0]))
            if kind == "int4":
                row = (both.float() - 8) * (scales / 7)
            else:
                size = both & 7
                magnitudes = torch.where(size == 0, 0.0, torch.exp2(size.float() - 7))
                row = torch.where(both > 7, -magnitudes, magnitudes) * scales
    flat, start, tensors = row.flatten(), 0, {}
    for name in sorted(shapes):
        end = start + int(torch.Size(shapes[name]).numel())
        tensors[name] = flat[start:end].view(shapes[name])
        start = end
    return tensors


def _nibbles(codes: torch.Tensor) -> torch.Tensor:
    return codes[:, 0::2] | (codes[:, 1::2] << 4)


def _topk(row: torch.Tensor, kept: int) -> Tensors:
    chunks = torch.nn.functional.pad(row, (0, -len(row) % _CHUNK)).view(-1, _CHUNK)
    indices = chunks.abs().topk(kept, dim=1, sorted=False).indices.sort(dim=1).values
    chosen = chunks.gather(1, indices)
    magnitudes = chosen.abs()
    upper = magnitudes >= magnitudes.mean(dim=1, keepdim=True)
    high = (magnitudes * upper).sum(dim=1) / upper.sum(dim=1).clamp(min=1)
    low = (magnitudes * ~upper).sum(dim=1) / (~upper).sum(dim=1).clamp(min=1)
    codes = ((chosen < 0).to(torch.uint8) | (upper.to(torch.uint8) << 1)).view(len(chunks), -1, 4)
    first, second = indices[:, 0::2], indices[:, 1::2]
    triples = torch.stack([first & 255, (first >> 8) | ((second & 15) << 4), second >> 4], dim=2)
    return {
        "codes": codes[:, :, 0] | (codes[:, :, 1] << 2) | (codes[:, :, 2] << 4) | (codes[:, :, 3] << 6),
        "indices": triples.to(torch.uint8).contiguous(),
        "levels": torch.stack([low, high], dim=1).bfloat16(),
    }


def _untopk(packed: Tensors) -> torch.Tensor:
    triples, levels = packed["indices"].long(), packed["levels"].float()
    first = triples[:, :, 0] | ((triples[:, :, 1] & 15) << 8)
    second = (triples[:, :, 1] >> 4) | (triples[:, :, 2] << 4)
    indices = torch.stack([first, second], dim=2).view(len(triples), -1)
    codes = torch.stack([(packed["codes"] >> shift) & 3 for shift in (0, 2, 4, 6)], dim=2).view(len(triples), -1)
    magnitudes = torch.where(codes >= 2, levels[:, 1:], levels[:, :1])
    values = torch.where((codes & 1) == 1, -magnitudes, magnitudes)
    return torch.zeros(len(triples), _CHUNK).scatter_(1, indices, values)
