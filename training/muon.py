"""Muon: momentum whose step is orthogonalised, for the matrices inside the layers of a model.

Jordan et al. 2024 (kellerjordan.github.io/posts/muon); as inner optimizer of sites: MuLoCo (2505.23725).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch

from training.sharded import divided, whole

# The quintic of Jordan's post: steep at 0, so that five steps bring singular values from 0.001 to about 1 (0.7 to 1.2).
_A, _B, _C = 3.4445, -4.7750, 2.0315
_STEPS = 5
_TINY = 1e-7


def orthogonalised(matrices: torch.Tensor, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Return U V^T, about, of each matrix U S V^T in [..., rows, columns], by Newton-Schulz steps in `dtype`."""
    x: torch.Tensor = matrices.to(dtype)
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / x.norm(dim=(-2, -1), keepdim=True).clamp(min=_TINY)
    for _ in range(_STEPS):
        gram = x @ x.mT
        x = _A * x + (_B * gram + _C * (gram @ gram)) @ x
    found: torch.Tensor = (x.mT if tall else x).to(matrices.dtype)
    return found


class Muon:
    """Muon over matrices [rows, columns], with Nesterov momentum; `buffers` is its whole state, in their order.

    A step of rate `lr` moves a matrix by lr x sqrt(max(1, rows / columns)), after a decay by 1 - lr x `weight_decay`.
    """

    def __init__(
        self, matrices: Sequence[torch.Tensor], momentum: float, weight_decay: float, dtype: torch.dtype = torch.float32
    ) -> None:
        self.matrices = list(matrices)
        self.buffers = [torch.zeros_like(matrix) for matrix in self.matrices]
        self._momentum, self._weight_decay, self._dtype = momentum, weight_decay, dtype

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Take one step along the gradients; a matrix without one stays."""
        alike: dict[torch.Size, list[tuple[torch.Tensor, torch.Tensor]]] = {}
        for matrix, buffer in zip(self.matrices, self.buffers, strict=True):
            if matrix.grad is None:
                continue
            buffer.lerp_(matrix.grad, 1 - self._momentum)
            ahead = whole(matrix.grad.lerp(buffer, self._momentum))
            alike.setdefault(ahead.shape, []).append((matrix, ahead))
        # Matrices of one shape together: a batched product costs less than many small ones.
        for (rows, columns), group in alike.items():
            steps = orthogonalised(torch.stack([ahead for _, ahead in group]), self._dtype)
            for (matrix, _), step in zip(group, steps.unbind(), strict=True):
                matrix.mul_(1 - lr * self._weight_decay)
                matrix.add_(divided(step.contiguous(), matrix), alpha=-lr * math.sqrt(max(1, rows / columns)))
