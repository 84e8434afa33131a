"""The operators that training spends its arithmetic in, each as one case of the parity gate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional

from training.muon import orthogonalised

_ROWS, _WIDTH, _CLASSES = 64, 256, 512
_HEADS, _LENGTH, _HEAD = 4, 64, 32

Draw = Callable[..., torch.Tensor]


@dataclass(frozen=True)
class Operator:
    """One case: `inputs` draws float64 tensors, `call` makes one of them; floating inputs are differentiated.

    `reduced` is the number of terms of its longest sum. `full` says that a run in bfloat16 computes it in float32.
    """

    name: str
    reduced: int
    inputs: Callable[[Draw], list[torch.Tensor]]
    call: Callable[..., torch.Tensor]
    full: bool = False
    differentiated: bool = True


def _attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    return functional.scaled_dot_product_attention(q, k, v, is_causal=True)


def _gated(x: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    return functional.silu(gate) * x


def _cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(logits, targets, reduction="none")


def _layer_norm(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    return functional.layer_norm(x, x.shape[-1:], weight, bias)


def _rms_norm(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return functional.rms_norm(x, x.shape[-1:], weight, 1e-6)


def _embedding(table: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    return functional.embedding(tokens, table)


def _softmax(x: torch.Tensor) -> torch.Tensor:
    return functional.softmax(x, dim=-1)


def _adamw(start: torch.Tensor, *gradients: torch.Tensor) -> torch.Tensor:
    """Return how far three steps of the fused AdamW move."""
    weight = torch.nn.Parameter(start.clone())
    optimizer = torch.optim.AdamW([weight], lr=0.1, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    for gradient in gradients:
        weight.grad = gradient.clone()
        optimizer.step()
    return weight.detach() - start


def _muon(matrix: torch.Tensor) -> torch.Tensor:
    return orthogonalised(matrix, matrix.dtype)


def _tokens(count: int) -> torch.Tensor:
    """Every class some times, so that the backward of an embedding has sums to form."""
    return (torch.arange(count) * 37) % (_CLASSES // 8)


OPERATORS = (
    Operator("matmul", _WIDTH, lambda draw: [draw(_ROWS, _WIDTH), draw(_WIDTH, _WIDTH)], torch.matmul),
    Operator(
        "attention",
        _LENGTH,
        lambda draw: [draw(2, _HEADS, _LENGTH, _HEAD) for _ in range(3)],
        _attention,
    ),
    Operator("softmax", _WIDTH, lambda draw: [draw(_ROWS, _WIDTH)], _softmax),
    Operator(
        "layer norm", _WIDTH, lambda draw: [draw(_ROWS, _WIDTH), draw(_WIDTH), draw(_WIDTH)], _layer_norm, full=True
    ),
    Operator("rms norm", _WIDTH, lambda draw: [draw(_ROWS, _WIDTH), draw(_WIDTH)], _rms_norm, full=True),
    Operator("silu x gate", 1, lambda draw: [draw(_ROWS, _WIDTH), draw(_ROWS, _WIDTH)], _gated),
    Operator(
        "cross entropy", _CLASSES, lambda draw: [draw(_ROWS, _CLASSES), _tokens(_ROWS)], _cross_entropy, full=True
    ),
    Operator("embedding", 8, lambda draw: [draw(_CLASSES, _ROWS), _tokens(8 * _ROWS)], _embedding, full=True),
    Operator(
        "adamw step",
        1,
        lambda draw: [draw(_ROWS, _WIDTH) for _ in range(4)],
        _adamw,
        full=True,
        differentiated=False,
    ),
    Operator("muon step", _WIDTH, lambda draw: [draw(_ROWS, _WIDTH)], _muon, full=True, differentiated=False),
)


def run_operator(operator: Operator, device: torch.device, dtype: torch.dtype) -> dict[str, list[torch.Tensor]]:
    """Run a case on a device in a dtype and on the CPU in float64, from the same rounded inputs.

    Returns by what was computed (`forward`, `gradient 0` ...) the pair [found, reference], float64 on the CPU.
    """
    used = torch.float32 if operator.full else dtype
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> torch.Tensor:
        # What both sides get can be held in the lower precision: what is compared is arithmetic, not rounding.
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).double()

    inputs = operator.inputs(draw)
    found: dict[str, list[torch.Tensor]] = {}
    upstream: torch.Tensor | None = None
    for place, precision in ((torch.device("cpu"), torch.float64), (device, used)):
        given = [x.to(place, precision) if x.is_floating_point() else x.to(place) for x in inputs]
        floating = [x.requires_grad_(operator.differentiated) for x in given if x.is_floating_point()]
        out = operator.call(*given)
        results = {"forward" if operator.differentiated else "step": out.detach()}
        if operator.differentiated:
            upstream = draw(*out.shape) if upstream is None else upstream
            gradients = torch.autograd.grad(out, floating, upstream.to(place, precision))
            results |= {f"gradient {k}": gradient for k, gradient in enumerate(gradients)}
        for what, value in results.items():
            found.setdefault(what, []).insert(0, value.detach().cpu().double())
    return found
