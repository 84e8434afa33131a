from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from training.muon import Muon, orthogonalised

torch.set_num_threads(1)


def matrix(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=20)
@given(st.integers(1, 40), st.integers(1, 40), st.floats(1e-3, 1e3), st.integers(0, 99))
def test_the_singular_values_of_a_step_lie_near_one_and_its_vectors_stay(
    rows: int, columns: int, scale: float, seed: int
) -> None:
    given_ = matrix(rows, columns, seed)
    left, values, right = torch.linalg.svd(given_, full_matrices=False)
    # Well-conditioned: the quintic lifts singular values from 0.01 of the largest on, not from nothing.
    given_ = left @ torch.diag(values.clamp(min=0.05 * float(values[0]))) @ right
    found = orthogonalised(scale * given_)
    assert torch.linalg.svdvals(found).min() > 0.5
    assert torch.linalg.svdvals(found).max() < 1.3
    inside = left.T @ found @ right.T
    assert torch.allclose(inside, torch.diag(torch.diagonal(inside)), atol=5e-3)


def test_matrices_together_and_transposed_give_what_each_gives_alone() -> None:
    several = torch.stack([matrix(6, 9, seed) for seed in range(4)])
    alone = torch.stack([orthogonalised(one) for one in several])
    assert torch.allclose(orthogonalised(several), alone, atol=1e-6)
    assert torch.allclose(orthogonalised(several.mT), alone.mT, atol=1e-5)


def test_nothing_moves_where_the_gradient_is_nothing() -> None:
    assert not orthogonalised(torch.zeros(4, 5)).any()


@pytest.mark.parametrize("shape", [(8, 8), (24, 8), (8, 24)])
def test_steps_are_those_of_torchs_own_muon(shape: tuple[int, int]) -> None:
    ours, theirs = (torch.nn.Parameter(matrix(*shape)) for _ in range(2))
    optimizer = Muon([ours], momentum=0.95, weight_decay=0.1, dtype=torch.bfloat16)
    reference = torch.optim.Muon([theirs], lr=0.02, momentum=0.95, weight_decay=0.1)
    for seed in range(1, 6):
        ours.grad = matrix(*shape, seed)
        theirs.grad = ours.grad.clone()
        optimizer.step(0.02)
        reference.step()
    moved = (theirs - matrix(*shape)).norm()
    # Both round to bfloat16 inside, in a different order of operations.
    assert (ours - theirs).norm() < 0.05 * moved
    assert torch.equal(optimizer.buffers[0], reference.state[theirs]["momentum_buffer"])


def test_a_matrix_without_a_gradient_stays() -> None:
    still, moving = torch.nn.Parameter(matrix(4, 4)), torch.nn.Parameter(matrix(4, 4))
    moving.grad = matrix(4, 4, 3)
    Muon([still, moving], momentum=0.9, weight_decay=0.1).step(0.1)
    assert torch.equal(still, matrix(4, 4))
    assert not torch.equal(moving, matrix(4, 4))
