"""Tensors that FSDP2 has divided among the ranks of a site, and plain ones, by the same two calls.

`torch.distributed.tensor` costs 1 s to import, so a site of one process does without: its tensors are plain.
"""

from __future__ import annotations

import torch


def whole(tensor: torch.Tensor) -> torch.Tensor:
    """Return the whole of a tensor; all ranks must ask together."""
    if _is_plain(tensor):
        return tensor
    from torch.distributed.tensor import DTensor

    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def divided(tensor: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    """Return a whole tensor, which every rank has, divided as `like` is; no bytes travel."""
    if _is_plain(like):
        return tensor
    from torch.distributed.tensor import DTensor, Replicate

    if not isinstance(like, DTensor):
        return tensor
    everywhere = [Replicate()] * like.device_mesh.ndim
    same = DTensor.from_local(tensor, like.device_mesh, everywhere, run_check=False)
    return same.redistribute(placements=like.placements)


def _is_plain(tensor: torch.Tensor) -> bool:
    return type(tensor) in (torch.Tensor, torch.nn.Parameter)
