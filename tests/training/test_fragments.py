from __future__ import annotations

import math
import random
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.errors import RoundError
from tests.training.making import make_run
from training.model import ModelSpec, parameter_shapes
from training.rounds.fragments import exchanged, fragment_of, names_in

OUTSIDE = {"model.embed_tokens.weight": (300, 16), "lm_head.weight": (300, 16), "model.norm.weight": (16,)}
INSIDE = ("self_attn.q_proj.weight", "mlp.up_proj.weight", "input_layernorm.weight")


@settings(max_examples=25)
@given(
    layers=st.integers(1, 12),
    fragments=st.integers(1, 12),
    prefix=st.sampled_from(["model.layers", "transformer.h", "base_model.model.model.layers"]),
    order=st.randoms(use_true_random=False),
)
def test_each_parameter_is_in_one_fragment_by_its_layer(
    layers: int, fragments: int, prefix: str, order: random.Random
) -> None:
    names = [f"{prefix}.{layer}.{inside}" for layer in range(layers) for inside in INSIDE] + list(OUTSIDE)
    order.shuffle(names)
    shapes = {name: OUTSIDE.get(name, (16, 16)) for name in names}
    if fragments > layers + len(OUTSIDE):
        with pytest.raises(RoundError, match=f"overlap: {fragments} fragments of a model of {layers} layers"):
            fragment_of(shapes, fragments)
        return
    found = fragment_of(shapes, fragments)
    assert sorted(name for part in found for name in part) == sorted(names)
    assert all(part and list(part) == sorted(part) for part in found)
    for number, part in enumerate(found):
        for name in set(part) - set(OUTSIDE):
            assert int(name.removeprefix(prefix).split(".")[1]) % fragments == number
    # The same whatever order the names came in.
    assert fragment_of({name: shapes[name] for name in sorted(names)}, fragments) == found


def test_what_lies_in_no_layer_goes_where_the_fewest_parameters_are() -> None:
    shapes = parameter_shapes(ModelSpec(vocab_size=300, hidden_size=16, layers=3, heads=2, intermediate_size=24))
    found = fragment_of(shapes, 2)
    sizes = [sum(math.prod(shapes[name]) for name in part) for part in found]
    # Layers 0 and 2 are in the first, so the embedding is in the second.
    assert "model.embed_tokens.weight" in found[1]
    assert max(sizes) < 2 * min(sizes)


def test_rounds_take_the_fragments_in_turn_and_a_plan_without_them_takes_all(tmp_path: Path) -> None:
    run = make_run(tmp_path, overlap={"fragments": 2})
    parameters = {name[2:]: t for name, t in run.start.tensors.items() if name.startswith("p.")}
    turns = [names_in(run.plan, parameters, number) for number in range(1, 6)]
    assert turns == [("a",), ("b",), ("a",), ("b",), ("a",)]
    assert list(exchanged(run.plan, run.start.tensors, 2)) == ["b"]
    whole = run.plan.model_copy(update={"overlap": type(run.plan.overlap)()})
    assert names_in(whole, parameters, 2) == ("a", "b")
