from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from data_contracts.errors import RoundError
from training.model import (
    ModelSpec,
    build,
    count_parameters,
    initial_parameters,
    load_parameters,
    parameter_shapes,
    parameters_of,
)

torch.set_num_threads(1)
SPEC = ModelSpec(vocab_size=300, hidden_size=32, layers=2, heads=2, intermediate_size=48, window=32)


def test_the_default_model_has_half_a_million_parameters() -> None:
    assert 450_000 <= count_parameters(ModelSpec()) <= 560_000


def test_the_shapes_are_those_of_the_built_model_with_tied_weights_once() -> None:
    parameters = parameters_of(build(SPEC, 0))
    assert {name: array.shape for name, array in parameters.items()} == parameter_shapes(SPEC)
    assert list(parameters) == sorted(parameters)
    assert "lm_head.weight" not in parameters
    assert all(array.dtype == np.float32 for array in parameters.values())
    assert count_parameters(SPEC) == sum(array.size for array in parameters.values())


def test_output_and_input_embeddings_are_one_matrix() -> None:
    model = build(SPEC, 0)
    assert model.lm_head.weight is model.model.embed_tokens.weight  # type: ignore[union-attr]


def test_a_seed_names_one_initial_model_and_another_seed_another() -> None:
    first, again, other = (parameters_of(build(SPEC, seed)) for seed in (7, 7, 8))
    assert all(first[name].tobytes() == again[name].tobytes() for name in first)
    assert all((first[name] != other[name]).any() for name in first if first[name].ndim == 2)


def test_the_initial_parameters_need_no_torch_and_are_what_the_built_model_holds() -> None:
    built = parameters_of(build(SPEC, 3))
    assert all(array.tobytes() == built[name].tobytes() for name, array in initial_parameters(SPEC, 3).items())


def test_building_leaves_the_callers_random_state_alone() -> None:
    torch.manual_seed(5)
    np.random.seed(5)
    before, before_numpy = torch.get_rng_state(), repr(np.random.get_state())
    build(SPEC, 1)
    assert torch.equal(before, torch.get_rng_state())
    assert before_numpy == repr(np.random.get_state())


def test_parameters_loaded_are_parameters_held_and_not_shared_with_the_arrays() -> None:
    model = build(SPEC, 0)
    wanted = {name: array + np.float32(0.5) for name, array in parameters_of(model).items()}
    load_parameters(model, wanted)
    held = parameters_of(model)
    assert all(held[name].tobytes() == wanted[name].tobytes() for name in wanted)
    wanted["model.norm.weight"][:] = 9
    held["model.norm.weight"][:] = 8
    assert (parameters_of(model)["model.norm.weight"] == 1.5).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.pop("model.norm.weight"), "model.norm.weight missing"),
        (lambda p: p.update({"extra": np.zeros(1)}), "extra not of this model"),
        (lambda p: p.update({"model.norm.weight": np.zeros(31)}), r"model.norm.weight: shape \(31,\)"),
    ],
)
def test_another_models_parameters_are_refused_and_change_nothing(change, message) -> None:  # type: ignore[no-untyped-def]
    model = build(SPEC, 0)
    before = parameters_of(model)
    wrong = {name: array + 1 for name, array in before.items()}
    change(wrong)
    with pytest.raises(RoundError, match=message):
        load_parameters(model, wrong)
    assert all((parameters_of(model)[name] == before[name]).all() for name in before)


def test_the_model_sees_only_what_came_before() -> None:
    model = build(SPEC, 0).eval()
    ids = torch.arange(1, 17).reshape(1, 16)
    changed = ids.clone()
    changed[0, 10:] = 200
    with torch.no_grad():
        a, b = model(input_ids=ids).logits, model(input_ids=changed).logits
    assert torch.allclose(a[0, :10], b[0, :10], atol=1e-6)
    assert not torch.allclose(a[0, 10:], b[0, 10:], atol=1e-3)


@pytest.mark.parametrize("wrong", [{"heads": 5}, {"hidden_size": 33, "heads": 11}, {"colour": 1}, {"vocab_size": 100}])
def test_a_spec_that_cannot_be_built_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValidationError):
        ModelSpec(**wrong)  # type: ignore[arg-type]


def test_reading_a_spec_imports_neither_torch_nor_transformers() -> None:
    program = "import sys, training.model; assert not {'torch', 'transformers'} & set(sys.modules), 'imported'"
    subprocess.run([sys.executable, "-c", program], check=True)
