"""A site of two processes over gloo steps as one process does."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from data_contracts.errors import RoundError
from training.inner import IGNORED, InnerLoop, Loop
from training.model import ModelSpec, build
from training.parallel import FORMS, Form, Together, started, together
from training.recipe import InnerRecipe

torch.set_num_threads(1)
SPEC = ModelSpec(vocab_size=300, hidden_size=32, layers=2, heads=2, intermediate_size=48, window=32)
RECIPE = InnerRecipe(lr=1e-2, warmup_steps=3, total_steps=40, batch_windows=4)
MUON = RECIPE.model_copy(update={"optimizer": "muon"})
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def two_ranks() -> Iterator[None]:
    with started(2):
        yield


def batch(number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    ids = np.random.default_rng(number).integers(1, 300, (4, 17))
    targets = ids[:, 1:].copy()
    # The ranks have unlike numbers of targets: a mean of their means would be another gradient.
    targets[0, 3:] = IGNORED
    return ids[:, :-1].copy(), targets


def trained(loop: Loop, start: int = 0, end: int = 3) -> dict[str, NDArray[Any]]:
    for number in range(start, end):
        loop.step(*batch(number), number)
    return {**loop.parameters(), **loop.state()}


def digest(arrays: dict[str, NDArray[Any]]) -> str:
    return hashlib.sha256(b"".join(name.encode() + a.tobytes() for name, a in sorted(arrays.items()))).hexdigest()


def in_pieces(recipe: InnerRecipe) -> InnerLoop:
    return InnerLoop(build(SPEC, 0), recipe.model_copy(update={"accumulate": 2}), CPU)


@pytest.mark.usefixtures("two_ranks")
@pytest.mark.parametrize("recipe", [RECIPE, MUON], ids=["adamw", "muon"])
def test_two_ddp_ranks_give_the_bytes_of_one_process_in_two_pieces(recipe: InnerRecipe) -> None:
    assert digest(trained(Together(SPEC, 0, recipe))) == digest(trained(in_pieces(recipe)))


@pytest.mark.usefixtures("two_ranks")
@pytest.mark.parametrize("recipe", [RECIPE, MUON], ids=["adamw", "muon"])
def test_two_fsdp_ranks_give_the_numbers_of_one_process(recipe: InnerRecipe) -> None:
    ours, alone = trained(Together(SPEC, 0, recipe, "fsdp")), trained(in_pieces(recipe))
    assert ours.keys() == alone.keys()
    for name, array in alone.items():
        assert ours[name].shape == array.shape
        assert np.allclose(ours[name], array, rtol=1e-4, atol=1e-5), name


@pytest.mark.usefixtures("two_ranks")
@pytest.mark.parametrize("form", FORMS)
def test_the_state_of_all_ranks_goes_into_one_process_and_back(form: Form) -> None:
    ranks = Together(SPEC, 0, MUON, form)
    half = trained(ranks, 0, 2)
    kept = ranks.state()
    alone = in_pieces(MUON)
    alone.load_parameters(ranks.parameters())
    alone.load_state(kept)
    assert digest({**alone.parameters(), **alone.state()}) == digest(half)
    further = digest(trained(ranks, 2, 4))
    again = Together(SPEC, 7, MUON, form)
    again.load_parameters(alone.parameters())
    again.load_state(alone.state())
    assert digest(trained(again, 2, 4)) == further


@pytest.mark.usefixtures("two_ranks")
def test_the_ranks_go_on_after_a_step_that_was_refused_and_after_a_reset() -> None:
    ranks = Together(SPEC, 0, RECIPE)
    start = ranks.parameters()
    broken = {name: np.full_like(array, np.inf) if "norm" in name else array for name, array in start.items()}
    ranks.load_parameters(broken)
    with pytest.raises(RoundError, match="loss nan"):
        ranks.step(*batch(0), 0)
    with pytest.raises(RoundError, match="missing"):
        ranks.load_parameters({})
    ranks.load_parameters(start)
    ranks.step(*batch(5), 0)
    ranks.reset()
    ranks.load_parameters(start)
    assert digest(trained(ranks)) == digest(trained(in_pieces(RECIPE)))


@pytest.mark.usefixtures("two_ranks")
def test_bfloat16_pieces_and_activations_computed_again_go_with_ranks() -> None:
    recipe = RECIPE.model_copy(update={"dtype": "bfloat16", "accumulate": 2, "checkpoint_activations": True})
    alone = InnerLoop(build(SPEC, 0), recipe, CPU)
    expected = [alone.step(*batch(0), n).loss for n in range(4)]
    for form in FORMS:
        ranks = Together(SPEC, 0, recipe, form)
        assert [ranks.step(*batch(0), n).loss for n in range(4)] == pytest.approx(expected, rel=0.01)


@pytest.mark.usefixtures("two_ranks")
def test_fewer_windows_than_ranks_are_refused_and_the_ranks_go_on() -> None:
    with pytest.raises(RoundError, match="raise batch_windows to 2"):
        Together(SPEC, 0, RECIPE.model_copy(update={"batch_windows": 1}))
    Together(SPEC, 0, RECIPE).step(*batch(0), 0)


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(RoundError, match="not one of ddp, fsdp"), together(2, "zero", 1):
        pass


# Rank 0 in a process of its own, which loses a rank, or is lost.
PROGRAM = """
import os, signal, sys, torch
torch.set_num_threads(1)
from data_contracts.errors import RoundError
from tests.training.test_parallel import RECIPE, SPEC, batch
from training import parallel
died = sys.argv[1] == "rank"
try:
    with parallel.started(2):
        ranks = parallel.Together(SPEC, 0, RECIPE)
        ranks.step(*batch(0), 0)
        (other,) = [int(p) for p in open(f"/proc/self/task/{os.getpid()}/children").read().split()]
        print(other, flush=True)
        if died:
            os.kill(other, signal.SIGKILL)
        else:
            os.kill(os.getpid(), signal.SIGKILL)
        for number in range(100):
            ranks.step(*batch(number), number)
except RoundError as error:
    print(error, flush=True)
    sys.exit(7)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a process ends with its parent on Linux only")
@pytest.mark.parametrize("who", ["rank", pytest.param("rank 0", marks=pytest.mark.long)])
def test_when_a_rank_dies_the_site_ends_at_once_and_says_so(who: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, who], capture_output=True, text=True, check=False, timeout=200
    )  # fmt: skip
    other, *said = done.stdout.splitlines()
    assert done.returncode == (7 if who == "rank" else -signal.SIGKILL), done.stderr
    if who == "rank":
        assert "a rank of this site has ended" in said[-1]
    until = time.monotonic() + 180
    while _alive(int(other)):
        assert time.monotonic() < until, "a rank outlived its rank 0"
        time.sleep(0.05)


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as stream:
            return stream.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
