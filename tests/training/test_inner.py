from __future__ import annotations

import hashlib
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import ValidationError

from data_contracts.errors import RoundError
from training.inner import IGNORED, InnerLoop, pick_device
from training.model import ModelSpec, build, load_parameters, parameters_of
from training.recipe import InnerRecipe, learning_rate

torch.set_num_threads(1)
SPEC = ModelSpec(vocab_size=300, hidden_size=32, layers=2, heads=2, intermediate_size=48, window=32)
RECIPE = InnerRecipe(lr=1e-2, warmup_steps=3, total_steps=40, batch_windows=4)
CPU = torch.device("cpu")


def batch(number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    ids = np.random.default_rng(number).integers(1, 300, (4, 17))
    return ids[:, :-1].copy(), ids[:, 1:].copy()


def loop(seed: int = 0, recipe: InnerRecipe = RECIPE) -> InnerLoop:
    return InnerLoop(build(SPEC, seed), recipe, CPU)


def digest(trained: InnerLoop) -> str:
    arrays: dict[str, NDArray[Any]] = {**parameters_of(trained.model), **trained.state()}
    return hashlib.sha256(b"".join(name.encode() + a.tobytes() for name, a in sorted(arrays.items()))).hexdigest()


def digest_after(steps: int) -> str:
    trained = loop()
    for number in range(steps):
        trained.step(*batch(number), number)
    return digest(trained)


def test_repeating_a_batch_drives_its_loss_down() -> None:
    trained = loop()
    losses = [trained.step(*batch(0), step).loss for step in range(25)]
    assert np.log(300) - 0.1 < losses[0] < np.log(300) + 1
    assert losses[-1] < 0.6 * losses[0]


def test_the_same_inputs_give_the_same_bytes_in_another_process() -> None:
    program = "from tests.training.test_inner import digest_after; print(digest_after(4))"
    again = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True).stdout
    assert again.strip() == digest_after(4)


@pytest.mark.parametrize("stop", [0, 1, 5])
def test_a_loop_resumed_from_its_state_gives_the_bytes_of_one_never_stopped(stop: int) -> None:
    first = loop()
    for number in range(stop):
        first.step(*batch(number), number)
    resumed = loop(seed=9)
    resumed.step(*batch(77), 0)
    load_parameters(resumed.model, parameters_of(first.model))
    resumed.load_state(first.state())
    for number in range(stop, 8):
        first.step(*batch(number), number)
        resumed.step(*batch(number), number)
    assert digest(resumed) == digest(first) == digest_after(8)


def test_the_state_is_plain_arrays_that_share_nothing_with_the_loop() -> None:
    trained = loop()
    blank = trained.state()
    assert int(blank["steps"]) == 0 and not any(array.any() for array in blank.values())
    trained.step(*batch(0), 0)
    state = trained.state()
    kept = {name: array.copy() for name, array in state.items()}
    trained.step(*batch(1), 1)
    assert int(state["steps"]) == 1 and blank.keys() == state.keys()
    assert all((state[name] == kept[name]).all() for name in state)
    assert {array.dtype for name, array in state.items() if name != "steps"} == {np.dtype(np.float32)}


def test_another_models_state_is_refused() -> None:
    other = InnerLoop(build(SPEC.model_copy(update={"layers": 1}), 0), RECIPE, CPU)
    with pytest.raises(RoundError, match=r"model\.layers\.1\.input_layernorm"):
        loop().load_state(other.state())


def test_masked_targets_are_neither_counted_nor_learned_from() -> None:
    inputs, targets = batch(0)
    targets[:, 8:] = IGNORED
    changed = inputs.copy()
    changed[:, 8:] = 5
    one, two = loop(), loop()
    result = one.step(inputs, targets, 0)
    assert result.tokens == 4 * 8
    assert result.loss == pytest.approx(two.step(changed, targets, 0).loss, abs=1e-6)


def test_the_loss_is_that_of_the_given_targets_not_of_shifted_ones() -> None:
    inputs, targets = batch(0)
    logits = build(SPEC, 0)(input_ids=torch.from_numpy(inputs)).logits.detach().numpy().astype(np.float64)
    log_sum = np.log(np.exp(logits).sum(-1))
    nats = log_sum - np.take_along_axis(logits, targets[..., None], -1)[..., 0]
    assert loop().step(inputs, targets, 0).loss == pytest.approx(nats.mean(), abs=1e-5)


def test_a_batch_without_targets_changes_nothing() -> None:
    trained = loop()
    trained.step(*batch(0), 0)
    before = digest(trained)
    result = trained.step(batch(1)[0], np.full((4, 16), IGNORED), 1)
    assert (result.tokens, result.loss) == (0, 0.0)
    assert digest(trained) == before


def test_a_loss_that_is_not_finite_stops_the_loop_before_the_step() -> None:
    trained = loop()
    with torch.no_grad():
        trained.model.get_parameter("model.norm.weight").fill_(float("inf"))
    before = digest(trained)
    with pytest.raises(RoundError, match="schedule step 6: loss nan"):
        trained.step(*batch(0), 6)
    assert digest(trained) == before


def test_the_gradient_is_clipped_and_its_norm_before_that_is_reported() -> None:
    # AdamW's first moment after one step is (1 - beta1) x the clipped gradient.
    trained = loop(recipe=RECIPE.model_copy(update={"grad_clip": 0.01}))
    result = trained.step(*batch(0), 0)
    moments = [array for name, array in trained.state().items() if name.endswith("exp_avg")]
    clipped = np.sqrt(sum(float((m.astype(np.float64) ** 2).sum()) for m in moments)) / 0.1
    assert result.grad_norm > 0.01
    assert clipped == pytest.approx(0.01, rel=1e-3)


def test_norms_do_not_decay_and_matrices_do() -> None:
    plain, decayed = (loop(recipe=RECIPE.model_copy(update={"weight_decay": decay})) for decay in (0.0, 0.5))
    for trained in (plain, decayed):
        trained.step(*batch(0), 10)
    one, two = parameters_of(plain.model), parameters_of(decayed.model)
    assert (one["model.norm.weight"] == two["model.norm.weight"]).all()
    matrix = "model.layers.0.mlp.up_proj.weight"
    assert np.abs(two[matrix]).sum() < np.abs(one[matrix]).sum()


def test_the_rate_warms_up_peaks_falls_as_a_cosine_and_stays_low() -> None:
    rates = [learning_rate(RECIPE, step) for step in range(60)]
    assert rates[:3] == pytest.approx([1e-2 / 3, 2e-2 / 3, 1e-2])
    assert rates[3] == pytest.approx(1e-2)
    middle = RECIPE.warmup_steps + (RECIPE.total_steps - RECIPE.warmup_steps) / 2
    assert (rates[int(middle)] + rates[int(middle) + 1]) / 2 == pytest.approx(1e-2 * 0.55, rel=1e-3)
    assert rates[40:] == pytest.approx([1e-3] * 20)


@given(st.integers(0, 200), st.integers(1, 200), st.integers(0, 500))
def test_the_rate_lies_between_nothing_and_the_highest_at_any_step(warmup: int, total: int, step: int) -> None:
    recipe = InnerRecipe(warmup_steps=warmup, total_steps=total)
    assert 0 < learning_rate(recipe, step) <= recipe.lr * (1 + 1e-12)


def test_the_step_result_says_which_rate_was_used() -> None:
    assert loop().step(*batch(0), 1).learning_rate == learning_rate(RECIPE, 1)


def test_without_an_accelerator_the_device_is_the_cpu() -> None:
    expected = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else CPU
    assert pick_device() == expected


@pytest.mark.parametrize(
    "wrong", [{"lr": 0}, {"momentum": 0.9}, {"dtype": "float16"}, {"batch_windows": 0}, {"warmup_tokens": 5}]
)
def test_a_recipe_with_a_wrong_or_unknown_entry_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        InnerRecipe(**wrong)


def test_a_recipe_of_an_earlier_plan_is_written_as_it_was_and_a_newer_one_says_what_it_adds() -> None:
    earlier = InnerRecipe().model_dump(mode="json")
    assert set(earlier) == {
        "lr", "betas", "weight_decay", "warmup_steps", "total_steps", "min_lr_fraction", "grad_clip", "batch_windows",
        "dtype",
    }  # fmt: skip
    newer = RECIPE.model_copy(update={"optimizer": "muon", "accumulate": 2})
    assert newer.model_dump(mode="json") == RECIPE.model_dump(mode="json") | {"optimizer": "muon", "accumulate": 2}
    assert InnerRecipe.model_validate(newer.model_dump(mode="json")) == newer


def test_the_schedule_by_tokens_is_that_of_all_sites_whatever_the_local_step() -> None:
    recipe = InnerRecipe(lr=1e-2, warmup_tokens=1000, total_tokens=9000)
    assert [learning_rate(recipe, 0, tokens) for tokens in (1, 500, 1000)] == pytest.approx([1e-5, 5e-3, 1e-2])
    assert learning_rate(recipe, 0, 5000) == learning_rate(recipe, 77, 5000) == pytest.approx(1e-2 * 0.55)
    assert learning_rate(recipe, 0, 9000) == learning_rate(recipe, 0, 90000) == pytest.approx(1e-3)
    with pytest.raises(ValueError, match="needs the tokens"):
        learning_rate(recipe, 3)
    assert loop(recipe=recipe).step(*batch(0), 0, tokens=500).learning_rate == learning_rate(recipe, 0, 500)


def gradients(trained: InnerLoop) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for _, p in sorted(trained.model.named_parameters()) if p.grad is not None])


@pytest.mark.parametrize("pieces", [2, 3, 4])
def test_a_step_in_pieces_has_the_gradient_of_the_whole_however_the_targets_lie(pieces: int) -> None:
    inputs, targets = batch(0)
    targets[0, 2:] = IGNORED
    targets[3] = IGNORED
    whole, accumulated = loop(), loop(recipe=RECIPE.model_copy(update={"accumulate": pieces}))
    one, two = whole.step(inputs, targets, 0), accumulated.step(inputs, targets, 0)
    assert (two.tokens, two.loss) == (one.tokens, pytest.approx(one.loss, rel=1e-6))
    assert two.grad_norm == pytest.approx(one.grad_norm, rel=1e-5)
    assert torch.allclose(gradients(accumulated), gradients(whole), rtol=1e-4, atol=1e-7)


def test_more_pieces_than_windows_are_refused() -> None:
    with pytest.raises(RoundError, match="raise batch_windows to 5"):
        loop(recipe=RECIPE.model_copy(update={"accumulate": 5}))


def test_activations_computed_again_give_the_same_bytes_and_are_kept_no_longer() -> None:
    def kept_bytes(trained: InnerLoop) -> int:
        kept: list[int] = []

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            kept.append(tensor.nbytes)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            trained.model(input_ids=torch.from_numpy(batch(0)[0]), use_cache=False)
        return sum(kept)

    plain, again = loop(), loop(recipe=RECIPE.model_copy(update={"checkpoint_activations": True}))
    assert kept_bytes(again) < 0.5 * kept_bytes(plain)
    for number in range(3):
        plain.step(*batch(number), number)
        again.step(*batch(number), number)
    assert digest(again) == digest(plain)


def test_in_bfloat16_the_weights_and_moments_stay_float32_and_learn_as_well() -> None:
    low = loop(recipe=RECIPE.model_copy(update={"dtype": "bfloat16"}))
    plain = loop()
    losses = [(low.step(*batch(0), n).loss, plain.step(*batch(0), n).loss) for n in range(20)]
    assert {p.dtype for p in low.model.parameters()} == {torch.float32}
    assert {a.dtype for name, a in low.state().items() if name != "steps"} == {np.dtype(np.float32)}
    assert losses[0][0] != losses[0][1]
    assert all(a == pytest.approx(b, rel=0.02) for a, b in losses)


MUON = RECIPE.model_copy(update={"optimizer": "muon", "muon_lr": 0.02})


def test_muon_steps_the_matrices_inside_layers_and_adamw_the_rest() -> None:
    trained = loop(recipe=MUON)
    inside = {name.rpartition(".")[0] for name in trained.state() if name.endswith(".momentum_buffer")}
    assert inside == {n for n, a in parameters_of(trained.model).items() if a.ndim == 2 and "embed_tokens" not in n}
    losses = [trained.step(*batch(0), step).loss for step in range(25)]
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.parametrize("stop", [0, 3])
def test_muon_resumed_from_its_state_gives_the_bytes_of_one_never_stopped(stop: int) -> None:
    first, resumed = loop(recipe=MUON), loop(seed=9, recipe=MUON)
    resumed.step(*batch(77), 0)
    for number in range(stop):
        first.step(*batch(number), number)
    resumed.load_parameters(first.parameters())
    resumed.load_state(first.state())
    for number in range(stop, 6):
        first.step(*batch(number), number)
        resumed.step(*batch(number), number)
    assert digest(resumed) == digest(first)


def test_the_state_of_another_optimizer_is_refused() -> None:
    with pytest.raises(RoundError, match="optimizer state: .* this model's is"):
        loop(recipe=MUON).load_state(loop().state())


def test_a_loop_reset_steps_as_a_new_one() -> None:
    trained = loop()
    start = trained.parameters()
    trained.step(*batch(3), 0)
    trained.reset()
    trained.load_parameters(start)
    for number in range(2):
        trained.step(*batch(number), number)
    assert digest(trained) == digest_after(2)


def test_dropout_is_the_same_whenever_a_step_is_taken_again() -> None:
    def dropping() -> InnerLoop:
        model = build(SPEC, 0)
        for layer in model.model.layers:  # type: ignore[union-attr]
            layer.self_attn.attention_dropout = 0.3
        model.config.attention_dropout = 0.3  # type: ignore[union-attr]
        return InnerLoop(model, RECIPE, CPU)

    one, again, other = dropping(), dropping(), dropping()
    torch.manual_seed(1)
    first = one.step(*batch(0), 7).loss
    torch.manual_seed(2)
    assert again.step(*batch(0), 7).loss == first
    assert other.step(*batch(0), 8).loss != first


@pytest.mark.long
def test_a_compiled_model_learns_what_the_plain_one_does() -> None:
    compiled, plain = loop(recipe=RECIPE.model_copy(update={"compile": True})), loop()
    for number in range(3):
        a, b = compiled.step(*batch(number), number), plain.step(*batch(number), number)
        assert a.loss == pytest.approx(b.loss, rel=1e-4)
