"""The codecs of updates, one core: millions of parameters a second, bytes, and what is lost, beside plain torch.

The update has the shapes of a Llama and normal values whose size differs by tensor. Ours and the same codec written
in the obvious way in torch (`benchmarks/codec_torch.py`, one thread) run in turn; seconds are of processor time, so
that other work on the machine counts less; figures are medians.

| figure | what it is |
|---|---|
| `encode_mparams_s`, `decode_mparams_s` | from tensors to the payload's bytes, and from these to checked tensors |
| `both_mparams_s` | encode and decode of the same update in turn; `slowest_mparams_s`: of the slowest codec |
| `torch_both_mparams_s`, `speedup` | the same of plain torch, and ours over it |
| `bytes_per_parameter` | the payload with its header, over the parameters; it is exactly what `wire_bytes` foretells |
| `left_out` | of one encoding, the 2-norm of what is not sent over that of the update; error feedback sends it later |
| `feedback_mparams_s` | error feedback itself: adding what is owed, and keeping what was not sent |
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from benchmarks import codec_torch
from training.rounds.codec import Tensors, decode, encode, wire_bytes
from training.rounds.feedback import Feedback
from training.rounds.merge import halving_norm, subtract

CODECS = ("fp32", "bf16", "int8-256", "int4-128", "e3m0-128", "topk-4096-64-2")


def run(quick: bool) -> dict[str, Any]:
    """Return the figures of each codec."""
    layers, repeats = (4, 3) if quick else (16, 7)
    update = make_update(layers)
    shapes = {name: tensor.shape for name, tensor in update.items()}
    count = sum(tensor.size for tensor in update.values())
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        figures = {codec: _measure(codec, update, shapes, count, repeats) for codec in CODECS}
    finally:
        torch.set_num_threads(threads)
    return {
        "parameters": count,
        "slowest_mparams_s": min(f["both_mparams_s"] for f in figures.values()),
        "smallest_speedup": min(f["speedup"] for f in figures.values()),
        "feedback_mparams_s": _feedback(update, shapes, count, repeats),
        "codecs": figures,
    }


def make_update(layers: int, width: int = 512) -> Tensors:
    """Return an update with the shapes of a Llama of this many layers."""
    shapes: dict[str, tuple[int, ...]] = {"embed": (4096, width), "norm": (width,)}
    for layer in range(layers):
        shapes |= {f"{layer}.{name}": (width, width) for name in ("q", "k", "v", "o")}
        shapes |= {f"{layer}.{name}": (3 * width, width) for name in ("gate", "up")}
        shapes |= {f"{layer}.down": (width, 3 * width), f"{layer}.before": (width,), f"{layer}.after": (width,)}
    generator = np.random.default_rng(7)
    return {
        name: (generator.uniform(1e-4, 1e-3) * generator.standard_normal(shape)).astype(np.float32)
        for name, shape in shapes.items()
    }


def _measure(codec: str, update: Tensors, shapes: dict[str, tuple[int, ...]], count: int, repeats: int) -> Any:
    given = {name: torch.from_numpy(tensor) for name, tensor in update.items()}
    taken: dict[str, list[float]] = {job: [] for job in ("encode", "decode", "torch_encode", "torch_decode")}
    for _ in range(repeats):
        payload = _timed(taken["encode"], lambda: encode(codec, update))
        decoded = _timed(taken["decode"], lambda payload=payload: decode(codec, payload, shapes, "it"))
        theirs = _timed(taken["torch_encode"], lambda: codec_torch.encode(codec, given))
        back = _timed(taken["torch_decode"], lambda theirs=theirs: codec_torch.decode(codec, theirs, shapes))
    if len(payload) != wire_bytes(codec, shapes):
        raise RuntimeError(f"{codec}: {len(payload)} bytes, foretold {wire_bytes(codec, shapes)}")
    left_out = halving_norm(subtract(update, decoded)) / halving_norm(update)
    torch_left_out = halving_norm(subtract(update, {n: t.numpy() for n, t in back.items()})) / halving_norm(update)
    speed = {job: count / statistics.median(seconds) / 1e6 for job, seconds in taken.items()}
    both = 1 / (1 / speed["encode"] + 1 / speed["decode"])
    torch_both = 1 / (1 / speed["torch_encode"] + 1 / speed["torch_decode"])
    sys.stderr.write(f"{codec}: {both:.0f} million parameters/s, plain torch {torch_both:.0f}\n")
    return {
        "encode_mparams_s": round(speed["encode"]),
        "decode_mparams_s": round(speed["decode"]),
        "both_mparams_s": round(both),
        "torch_both_mparams_s": round(torch_both),
        "speedup": round(both / torch_both, 2),
        "bytes_per_parameter": round(len(payload) / count, 4),
        "times_fewer_bytes": round(4 * count / len(payload), 1),
        "left_out": round(left_out, 4),
        "torch_left_out": round(torch_left_out, 4),
    }


def _feedback(update: Tensors, shapes: dict[str, tuple[int, ...]], count: int, repeats: int) -> int:
    feedback, taken = Feedback(0.95, shapes), list[float]()
    for _ in range(repeats):
        _timed(taken, lambda: feedback.settle(feedback.owed(update), update))
    return round(count / statistics.median(taken) / 1e6)


def _timed(taken: list[float], job: Callable[[], Any]) -> Any:
    began = time.process_time()
    result = job()
    taken.append(time.process_time() - began)
    return result
