from __future__ import annotations

import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from data_contracts.errors import RoundError
from training.rounds import merge
from training.rounds.codec import Tensors

torch.set_num_threads(1)
FOUND = np.show_config(mode="dicts")["SIMD Extensions"]["found"]  # type: ignore[index]
LIMITED = st.floats(-1e6, 1e6, width=32)
ARRAYS = hnp.arrays(np.float32, st.integers(1, 40), elements=LIMITED)

# Sizes are odd on purpose: the tails of vector loops are where kernels differ. Subnormals too.
SITE = """
import json, sys
import numpy as np
from data_contracts.canonical import sha256
from training import model as models
from training.rounds import codec, merge
from training.rounds.feedback import Feedback
generator = np.random.default_rng(9)
def draw(scale):
    sizes = {"a": (1003,), "b": (37, 29), "c": (1,), "d": (4096,)}
    return {n: (scale * generator.standard_normal(s)).astype(np.float32) for n, s in sizes.items()}
updates = [draw(scale) for scale in (1e-2, 3.0, 1e-39)]
state = merge.initial_state(draw(1.0), "nesterov")
shapes = {n: t.shape for n, t in updates[0].items()}
sent = {c: [codec.encode(c, u) for u in updates] for c in json.loads(sys.argv[1])}
by_codec = {c: [codec.decode(c, payload, shapes, "it") for payload in made] for c, made in sent.items()}
norms = [merge.halving_norm(u).hex() for made in by_codec.values() for u in made]
norms += [merge.pack_state(u)[1] for made in by_codec.values() for u in made]
clips = merge.median_clips([merge.halving_norm(u) for u in by_codec["int8-256"]])
norms.append(merge.pack_state(merge.weighted_mean(by_codec["int8-256"], merge.shares([1017, 333, 1], 0.6), clips))[1])
feedback = Feedback(0.95, shapes)
for update, sparse in zip(updates, by_codec["topk-4096-64-2"], strict=True):
    feedback.settle(feedback.owed(update), sparse)
norms.append(merge.pack_state(feedback.state())[1])
updates = by_codec["fp32"]
for method in ("nesterov", "sgd", "average"):
    for lr in (0.7, 0.123):
        stepped = merge.outer_step(state, merge.weighted_mean(updates, merge.shares([1017, 333, 1])), method, lr, 0.6)
        norms.append(merge.pack_state(stepped)[1])
        if method == "nesterov":
            state = stepped
spec = models.ModelSpec(vocab_size=300, hidden_size=16, layers=1, heads=2, intermediate_size=24, window=8)
norms.append(merge.pack_state(merge.initial_state(models.initial_parameters(spec, 3), "sgd"))[1])
found = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])
print(json.dumps({"bytes": norms, "found": found}))
"""


CODECS = ("fp32", "bf16", "int8-256", "int4-128", "e3m0-128", "topk-4096-64-2")


def compute(**environment: str) -> dict[str, list[str]]:
    clean = {k: v for k, v in os.environ.items() if k not in ("ATEN_CPU_CAPABILITY", "NPY_DISABLE_CPU_FEATURES")}
    command = [sys.executable, "-W", "error", "-c", SITE, json.dumps(CODECS)]
    run = subprocess.run(command, env={**clean, **environment}, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    answer: dict[str, list[str]] = json.loads(run.stdout)
    return answer


def test_this_numpy_has_kernels_to_turn_off() -> None:
    # Without them the next test would compare one kernel with itself; on such a machine this line says so.
    assert FOUND, "numpy reports no dispatchable CPU feature here: run the merge tests on a CPU with AVX2"


def test_all_cpu_kernels_compute_the_same_bytes() -> None:
    plain = compute()
    assert plain["found"] == FOUND
    assert compute(ATEN_CPU_CAPABILITY="default", OMP_NUM_THREADS="3")["bytes"] == plain["bytes"]
    # numpy turns off what it dispatches at run time, one level after the other from the top.
    for kept in range(len(FOUND)):
        lesser = compute(NPY_DISABLE_CPU_FEATURES=" ".join(FOUND[kept:]), ATEN_CPU_CAPABILITY="default")
        assert lesser["found"] == FOUND[:kept]
        assert lesser["bytes"] == plain["bytes"]


@given(st.dictionaries(st.sampled_from("abc"), ARRAYS, min_size=1))
def test_the_halving_norm_is_the_two_norm(tensors: Tensors) -> None:
    exact = math.sqrt(math.fsum(float(v) ** 2 for t in tensors.values() for v in t))
    assert merge.halving_norm(tensors) == pytest.approx(exact, rel=1e-12, abs=1e-150)


@given(ARRAYS)
def test_the_halving_norm_is_the_written_tree(values: np.ndarray[tuple[int], np.dtype[np.float32]]) -> None:
    squares = [float(v) * float(v) for v in values]
    squares += [0.0] * ((1 << (len(squares) - 1).bit_length()) - len(squares))
    while len(squares) > 1:
        half = len(squares) // 2
        squares = [a + b for a, b in zip(squares[:half], squares[half:], strict=True)]
    assert merge.halving_norm({"x": values}) == math.sqrt(squares[0])


def test_the_norm_of_nothing_and_of_large_values_is_finite() -> None:
    assert merge.halving_norm({"x": np.zeros(0, np.float32), "y": np.zeros((2, 2), np.float32)}) == 0.0
    assert merge.halving_norm({"x": np.full(4, 3e38, np.float32)}) == pytest.approx(6e38, rel=1e-6)


@st.composite
def rounds(draw: st.DrawFn) -> tuple[list[Tensors], list[int]]:
    size, sites = draw(st.integers(1, 12)), draw(st.integers(1, 4))
    array = hnp.arrays(np.float32, size, elements=LIMITED)
    tokens = draw(st.lists(st.integers(1, 10**7), min_size=sites, max_size=sites))
    return [{"x": draw(array), "y": draw(array)} for _ in range(sites)], tokens


@settings(deadline=None)
@given(rounds())
def test_the_mean_is_a_plain_fp32_loop_in_the_order_of_the_sites(made: tuple[list[Tensors], list[int]]) -> None:
    updates, tokens = made
    merged = merge.weighted_mean(updates, merge.shares(tokens))
    for name in ("x", "y"):
        for i in range(len(updates[0][name])):
            total = np.float32(updates[0][name][i]) * np.float32(tokens[0] / sum(tokens))
            for update, count in zip(updates[1:], tokens[1:], strict=True):
                total = np.float32(total + np.float32(update[name][i] * np.float32(count / sum(tokens))))
            assert merged[name][i].tobytes() == np.float32(total).tobytes()
        assert merged[name].dtype == np.float32


def test_a_site_of_equal_updates_changes_nothing_and_weights_are_tokens() -> None:
    updates = [{"x": np.array([8.0], np.float32)}, {"x": np.array([0.0], np.float32)}]
    assert merge.weighted_mean(updates, merge.shares([3, 1]))["x"].tolist() == [6.0]
    assert merge.weighted_mean(updates, merge.shares([0, 1]))["x"].tolist() == [0.0]


def test_a_round_without_tokens_is_refused() -> None:
    with pytest.raises(RoundError, match="without tokens"):
        merge.shares([0])


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=6).filter(any), st.floats(0.01, 1))
def test_a_share_is_of_the_tokens_up_to_the_cap_and_together_they_are_whole(tokens: list[int], cap: float) -> None:
    found = merge.shares(tokens, cap)
    limit = max(cap, 1 / sum(1 for count in tokens if count))
    assert math.fsum(found) == pytest.approx(1, abs=1e-15)
    assert all(0 <= share <= limit for share in found)
    assert all(share == 0 for share, count in zip(found, tokens, strict=True) if count == 0)
    under = [(share, count) for share, count in zip(found, tokens, strict=True) if count and share < limit]
    for share, count in under:  # of those below the cap, each has the same per token
        assert share / count == pytest.approx(under[0][0] / under[0][1], rel=1e-12)
    if under:
        assert under[0][0] / under[0][1] >= 1 / sum(tokens) * (1 - 1e-12)
    assert merge.shares(tokens) == [count / sum(tokens) for count in tokens]
    backwards = merge.shares(tokens[::-1], cap)
    assert backwards[::-1] == found


def test_a_cap_takes_from_the_large_and_gives_to_the_small() -> None:
    assert merge.shares([8, 1, 1], 0.5) == [0.5, 0.25, 0.25]
    assert merge.shares([6, 3, 1], 0.5) == [0.5, 0.375, 0.125]
    assert merge.shares([9, 1], 0.25) == [0.5, 0.5]
    assert merge.shares([7], 0.25) == [1.0]


@given(st.lists(st.floats(0, 1e30), min_size=1, max_size=7))
def test_no_clipped_norm_is_above_the_median(norms: list[float]) -> None:
    clips = merge.median_clips(norms)
    middle = sorted([*norms, *norms])[len(norms) - 1 : len(norms) + 1]
    median = sum(middle) / 2
    for norm, clip in zip(norms, clips, strict=True):
        assert 0 <= clip <= 1
        assert clip == 1 if norm <= median else clip * norm == pytest.approx(median)


def test_a_site_that_ran_away_moves_the_model_no_farther_than_a_typical_one() -> None:
    updates = [{"x": np.array([value, 0], np.float32)} for value in (1.0, -2.0, 1000.0)]
    clips = merge.median_clips([merge.halving_norm(u) for u in updates])
    assert clips == [1.0, 1.0, 0.002]
    assert merge.weighted_mean(updates, [0.25, 0.25, 0.5], clips)["x"].tolist() == pytest.approx([0.75, 0.0])
    assert merge.weighted_mean(updates, [0.25, 0.25, 0.5], [1.0] * 3)["x"].tolist() == [499.75, 0.0]


@settings(deadline=None, max_examples=40)
@given(rounds(), st.floats(0.1, 1))
def test_a_clipped_and_capped_mean_is_a_plain_fp32_loop(made: tuple[list[Tensors], list[int]], cap: float) -> None:
    updates, tokens = made
    clips = merge.median_clips([merge.halving_norm(u) for u in updates])
    merged = merge.weighted_mean(updates, merge.shares(tokens, cap), clips)
    weights = [np.float32(share) for share in merge.shares(tokens, cap)]
    for name in ("x", "y"):
        for i in range(len(updates[0][name])):
            parts = [
                np.float32(np.float32(u[name][i] * np.float32(c)) * w)
                for u, c, w in zip(updates, clips, weights, strict=True)
            ]
            total = parts[0]
            for part in parts[1:]:
                total = np.float32(total + part)
            assert merged[name][i].tobytes() == total.tobytes()


def test_mixing_keeps_a_part_of_the_local_steps() -> None:
    local, outer = {"x": np.array([1.0, 2.0], np.float32)}, {"x": np.array([3.0, 2.0], np.float32)}
    assert merge.mix(local, outer, 0.5)["x"].tolist() == [2.0, 2.0]
    assert merge.mix(local, outer, 0.0)["x"].tolist() == [3.0, 2.0]
    assert merge.mix(local, outer, 1.0)["x"].tolist() == [1.0, 2.0]


@settings(deadline=None)
@given(ARRAYS, st.sampled_from(["nesterov", "sgd", "average"]), st.floats(0.01, 1), st.floats(0, 0.99))
def test_the_outer_step_is_a_plain_fp32_loop(
    g: np.ndarray[tuple[int], np.dtype[np.float32]], method: str, lr: float, momentum: float
) -> None:
    p, m = np.float32(0.25) * g + np.float32(1), np.float32(0.5) * g - np.float32(2)
    state = {"p.x": p, **({"m.x": m} if method == "nesterov" else {})}
    out = merge.outer_step(state, {"x": g}, method, lr, momentum)
    assert out.keys() == state.keys()
    rate, mu = np.float32(lr), np.float32(momentum)
    for i in range(len(g)):
        step = g[i]
        if method == "nesterov":
            moved = np.float32(np.float32(m[i] * mu) + g[i])
            step = np.float32(np.float32(np.float32(moved * mu) + g[i]) * rate)
            assert out["m.x"][i] == moved
        elif method == "sgd":
            step = np.float32(g[i] * rate)
        assert out["p.x"][i] == np.float32(p[i] - step)


@pytest.mark.parametrize(("lr", "momentum"), [(0.7, 0.6), (0.1, 0.9), (1.0, 0.0)])
def test_nesterov_and_sgd_agree_with_torch(lr: float, momentum: float) -> None:
    generator = np.random.default_rng(2)
    start = generator.standard_normal(50).astype(np.float32)
    for method in ("nesterov", "sgd"):
        nesterov = method == "nesterov" and momentum > 0
        tensor = torch.nn.Parameter(torch.tensor(start))
        optimizer = torch.optim.SGD([tensor], lr=lr, momentum=momentum if nesterov else 0.0, nesterov=nesterov)
        state = merge.initial_state({"x": start}, method)
        for _ in range(6):
            gradient = generator.standard_normal(50).astype(np.float32)
            tensor.grad = torch.tensor(gradient)
            optimizer.step()
            state = merge.outer_step(state, {"x": gradient}, method, lr, momentum)
        np.testing.assert_allclose(state["p.x"], tensor.detach().numpy(), rtol=1e-5, atol=1e-5)


def test_averaging_moves_to_the_mean_of_the_sites() -> None:
    base, local = {"x": np.array([1.0, 2.0], np.float32)}, {"x": np.array([0.5, 4.0], np.float32)}
    state = merge.initial_state(base, "average")
    moved = merge.outer_step(state, merge.weighted_mean([merge.subtract(base, local)], [1.0]), "average", 0.7, 0.6)
    assert merge.parameters(moved)["x"].tolist() == [0.5, 4.0]


def test_an_unknown_outer_optimizer_is_refused_by_name() -> None:
    with pytest.raises(RoundError, match="'lion'.*nesterov, sgd or average"):
        merge.outer_step({"p.x": np.zeros(1, np.float32)}, {"x": np.zeros(1, np.float32)}, "lion", 1.0, 0.0)


@given(st.dictionaries(st.sampled_from("abc"), ARRAYS, min_size=1), st.sampled_from(["nesterov", "sgd"]))
def test_a_snapshot_gives_back_the_state_and_its_name_is_its_hash(tensors: Tensors, method: str) -> None:
    state = merge.initial_state(tensors, method)
    data, sha = merge.pack_state(state)
    assert (data, sha) == merge.pack_state(dict(reversed(list(state.items()))))
    back = merge.unpack_state(data, "it")
    assert back.keys() == state.keys()
    assert all(back[n].tobytes() == state[n].tobytes() for n in state)
    assert merge.parameters(back).keys() == tensors.keys()


@pytest.mark.parametrize("data", [b"", b"garbage that is no snapshot", b"\xff" * 100])
def test_bytes_that_are_no_snapshot_are_refused_by_name(data: bytes) -> None:
    with pytest.raises(RoundError, match="home/000004: not a snapshot"):
        merge.unpack_state(data, "home/000004")
