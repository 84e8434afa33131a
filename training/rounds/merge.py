"""The merge: what every site must compute to the same byte, on any processor.

It is a written sequence of single fp32 multiplications and additions in numpy, inputs in the order of their sites'
names. No dot product, no fused multiply-add, no reduction whose order depends on the machine: torch's fused kernels,
BLAS and pairwise sums differ by CPU, these ufuncs do not (IEEE 754 basic operations are correctly rounded).
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from data_contracts.canonical import sha256
from data_contracts.errors import RoundError
from training.rounds.codec import Tensors

Array = np.ndarray[Any, Any]


def halving_norm(tensors: Tensors) -> float:
    """Return the 2-norm over all tensors by a float64 halving tree: x[:h] + x[h:] until one value is left.

    Zeros pad each tensor to a power of two; tensors are taken in the order of their names.
    """
    sums = [_tree(tensors[name].astype(np.float64).ravel()) for name in sorted(tensors)]
    total = 0.0
    for value in sums:
        total = total + value
    return math.sqrt(total)


def _tree(values: Array) -> float:
    squares = values * values
    size = 1 << max(0, (len(squares) - 1).bit_length())
    padded = np.zeros(size, dtype=np.float64)
    padded[: len(squares)] = squares
    while len(padded) > 1:
        half = len(padded) // 2
        padded = padded[:half] + padded[half:]
    return float(padded[0])


def shares(tokens: Sequence[int], cap: float = 1.0) -> list[float]:
    """Return the weight of each update: its part of the tokens, but at most `cap` of the whole.

    What a capped site gives up goes to the others in proportion to their tokens. Where even equal weights are above
    the cap, they are what everyone gets. Computed in whole fractions and rounded to float64 once.

    Raises:
        RoundError: no site has a token.
    """
    if sum(tokens) <= 0:
        raise RoundError("a round without tokens has no mean update")
    limit = max(Fraction(cap), Fraction(1, sum(1 for count in tokens if count)))
    capped: set[int] = set()
    while True:
        rest = sum(count for i, count in enumerate(tokens) if i not in capped)
        left = 1 - limit * len(capped)
        parts = [limit if i in capped else left * count / rest for i, count in enumerate(tokens)]
        over = {i for i, part in enumerate(parts) if part > limit}
        if not over:
            return [float(part) for part in parts]
        capped |= over


def median_clips(norms: Sequence[float]) -> list[float]:
    """Return what each update is multiplied with so that its norm is at most the median of the norms, by norm.

    As SparseLoCo (arXiv 2508.15706): one site that ran away moves the model no farther than a typical one. The
    median of an even number is the mean of the middle two; 1.0 leaves an update as it is.
    """
    median = statistics.median(norms)
    return [median / norm if norm > median else 1.0 for norm in norms]


def weighted_mean(
    updates: Sequence[Tensors], weights: Sequence[float], clips: Sequence[float] | None = None
) -> Tensors:
    """Return the sum of updates times their weights (`shares`), each rounded to fp32 once.

    `updates` are fp32 tensors in the order of their sites' names; each is first multiplied with its clip, if that is
    not 1.
    """
    shared = [np.float32(weight) for weight in weights]
    factors = [np.float32(clip) for clip in clips] if clips is not None else [np.float32(1)] * len(updates)
    merged: Tensors = {}
    for name in sorted(updates[0]):
        acc: Array | None = None
        for update, factor, weight in zip(updates, factors, shared, strict=True):
            value = update[name] if factor == 1 else np.multiply(update[name], factor)
            part = np.multiply(value, weight)
            acc = part if acc is None else np.add(acc, part, out=acc)
        merged[name] = np.asarray(acc)
    return merged


def outer_step(state: Tensors, update: Tensors, method: str, lr: float, momentum: float) -> Tensors:
    """Apply the mean pseudo-gradient (base minus local) to the outer state; return the new state.

    `state` holds `p.<name>` parameters and, for nesterov, `m.<name>` momenta, all fp32. Nesterov as in DiLoCo
    (Douillard et al. 2023, arXiv 2311.08105) and torch.optim.SGD: m = mu m + g; p = p - lr (g + mu m).
    sgd: p = p - lr g. average: p = p - g.
    """
    rate, mu = np.float32(lr), np.float32(momentum)
    out: Tensors = {}
    for name in sorted(update):
        g, p = update[name], state[f"p.{name}"]
        if method == "nesterov":
            m = np.add(np.multiply(state[f"m.{name}"], mu), g)
            step = np.multiply(np.add(np.multiply(m, mu), g), rate)
            out[f"m.{name}"] = m
        elif method == "sgd":
            step = np.multiply(g, rate)
        elif method == "average":
            step = g
        else:
            raise RoundError(f"unknown outer optimizer {method!r}; use nesterov, sgd or average")
        out[f"p.{name}"] = np.subtract(p, step)
    return out


def initial_state(parameters: Tensors, method: str) -> Tensors:
    """Return the outer state before round 1: the parameters, and zero momenta where the method has them."""
    state = {f"p.{name}": value.astype(np.float32) for name, value in parameters.items()}
    if method == "nesterov":
        state |= {f"m.{name}": np.zeros_like(value, dtype=np.float32) for name, value in parameters.items()}
    return state


def parameters(state: Tensors) -> Tensors:
    """Return the parameters of an outer state, by model name."""
    return {name[2:]: value for name, value in state.items() if name.startswith("p.")}


def subtract(base: Tensors, local: Tensors) -> Tensors:
    """Return the pseudo-gradient: base minus local, fp32."""
    return {name: np.subtract(base[name], local[name]) for name in sorted(base)}


def mix(local: Tensors, outer: Tensors, alpha: float) -> Tensors:
    """Return the parameters a site goes on with when a round's result arrives while it trains: alpha x local + rest.

    Streaming DiLoCo (arXiv 2501.18512) mixes half and half. alpha 0: the outer parameters, the local steps are lost.
    """
    kept, taken = np.float32(alpha), np.float32(1 - alpha)
    return {name: np.add(np.multiply(local[name], kept), np.multiply(outer[name], taken)) for name in sorted(outer)}


def pack_state(state: Tensors) -> tuple[bytes, str]:
    """Return a snapshot's bytes (safetensors, names sorted) and their SHA-256: the name of the state."""
    ordered = {name: np.ascontiguousarray(state[name], dtype=np.float32) for name in sorted(state)}
    data = save(ordered, metadata={"format": "1"})
    return data, sha256(data)


def unpack_state(data: bytes, what: str) -> Tensors:
    """Return the outer state of a snapshot's bytes.

    Raises:
        RoundError: the bytes are not a snapshot; names `what`.
    """
    try:
        state: Tensors = load(data)
    except (SafetensorError, ValueError, KeyError) as error:
        raise RoundError(f"{what}: not a snapshot ({error})") from error
    return state
