"""Models of transformers from a config, from a checkpoint, and with an adapter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from data_contracts.errors import CausewayError, RoundError
from training.export import ModelCard, export_model
from training.inner import InnerLoop
from training.model import Lora, ModelSpec, build, initial_parameters, parameter_shapes, parameters_of
from training.planning import RunConfig, load_run_config
from training.pretrained import merged, read_checkpoint
from training.recipe import InnerRecipe
from training.tokenizer import train_tokenizer

torch.set_num_threads(1)
CPU = torch.device("cpu")
RECIPE = InnerRecipe(lr=1e-2, warmup_steps=3, total_steps=40, batch_windows=4)
SIZES = {"vocab_size": 300, "max_position_embeddings": 32}
CONFIGS: dict[str, dict[str, Any]] = {
    "gpt2": {"model_type": "gpt2", "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 32, "vocab_size": 300},
    "qwen3": {
        **SIZES,
        "model_type": "qwen3",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "intermediate_size": 48,
        "tie_word_embeddings": False,
    },
}


def spec(kind: str, **more: Any) -> ModelSpec:
    return ModelSpec(architecture="transformers", config=CONFIGS[kind], vocab_size=300, window=32, **more)


def losses(loop: InnerLoop, steps: int = 12) -> list[float]:
    ids = np.random.default_rng(0).integers(1, 300, (4, 17))
    return [loop.step(ids[:, :-1].copy(), ids[:, 1:].copy(), n).loss for n in range(steps)]


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_model_from_a_config_has_the_shapes_told_without_building_it_and_learns(kind: str) -> None:
    first = initial_parameters(spec(kind), 3)
    assert {name: array.shape for name, array in first.items()} == parameter_shapes(spec(kind))
    again, other = (parameters_of(build(spec(kind), seed)) for seed in (3, 4))
    assert all(first[name].tobytes() == again[name].tobytes() for name in first)
    assert any((first[name] != other[name]).any() for name in first)
    found = losses(InnerLoop(build(spec(kind), 3), RECIPE, CPU))
    assert found[-1] < found[0] - 0.3


@pytest.mark.parametrize(
    "wrong",
    [
        {"config": {}},
        {"config": {"hidden_size": 8}},
        {"config": {"model_type": "gpt2", "auto_map": {"AutoModel": "elsewhere.py"}}},
        {"config": CONFIGS["gpt2"] | {"vocab_size": 299}},
        {"config": CONFIGS["qwen3"] | {"max_position_embeddings": 31}},
        {"config": CONFIGS["gpt2"], "layers": 2},
        {"config": CONFIGS["gpt2"], "architecture": "llama"},
    ],
)
def test_a_config_that_does_not_fit_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ModelSpec(**{"architecture": "transformers", "vocab_size": 300, "window": 32, **wrong})


@pytest.mark.parametrize("model_type", ["abacus", "vit"])
def test_a_config_of_no_causal_language_model_is_refused(model_type: str) -> None:
    wrong = ModelSpec(architecture="transformers", config={"model_type": model_type}, vocab_size=300, window=32)
    with pytest.raises(RoundError, match="model config"):
        build(wrong, 0)


def test_a_spec_in_a_plan_is_as_before_for_a_llama_and_reads_back_for_the_others() -> None:
    assert set(ModelSpec().model_dump(mode="json")) == {
        "architecture", "vocab_size", "hidden_size", "layers", "heads", "intermediate_size", "window",
    }  # fmt: skip
    for one in (spec("gpt2"), spec("qwen3", lora=Lora(rank=2)), ModelSpec(lora=Lora())):
        assert ModelSpec.model_validate(one.model_dump(mode="json")) == one


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoint")
    build(spec("qwen3"), 5).save_pretrained(folder)  # type: ignore[operator]
    return folder


def test_training_goes_on_from_a_checkpoint(checkpoint: Path) -> None:
    found, parameters = read_checkpoint(checkpoint, 16)
    assert found.vocab_size == 300
    assert {name: array.shape for name, array in parameters.items()} == parameter_shapes(found)
    wanted = parameters_of(build(spec("qwen3"), 5))
    assert all(parameters[name].tobytes() == wanted[name].tobytes() for name in wanted)
    loop = InnerLoop(build(found, 0), RECIPE, CPU)
    loop.load_parameters(parameters)
    theirs = AutoModelForCausalLM.from_pretrained(checkpoint)
    ids = torch.arange(1, 17).reshape(1, 16)
    with torch.no_grad():
        assert torch.allclose(loop.model(input_ids=ids).logits, theirs(input_ids=ids).logits, atol=1e-6)


def test_a_folder_that_is_no_checkpoint_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(CausewayError, match="not a checkpoint"):
        read_checkpoint(tmp_path, 16)
    (tmp_path / "config.json").write_bytes((checkpoint / "config.json").read_bytes())
    torch.save(build(spec("qwen3"), 5).state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(CausewayError, match="not a checkpoint"):
        read_checkpoint(tmp_path, 16)


def test_a_checkpoint_that_lacks_a_layer_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    config = json.loads((checkpoint / "config.json").read_bytes()) | {"num_hidden_layers": 3, "layer_types": None}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "model.safetensors").write_bytes((checkpoint / "model.safetensors").read_bytes())
    with pytest.raises(CausewayError, match=r"lacks model\.layers\.2"):
        read_checkpoint(tmp_path, 16)


def test_of_a_model_with_an_adapter_only_the_adapter_is_trained_and_sent(checkpoint: Path) -> None:
    whole, base = read_checkpoint(checkpoint, 16)
    adapted = whole.model_copy(update={"lora": Lora(rank=2)})
    loop = InnerLoop(build(adapted, 0, base), RECIPE, CPU)
    update = loop.parameters()
    assert {name: array.shape for name, array in update.items()} == parameter_shapes(adapted)
    assert all("lora_" in name for name in update)
    assert sum(a.size for a in update.values()) < 0.2 * sum(a.size for a in base.values())
    frozen = {n: t.clone() for n, t in loop.model.named_parameters() if not t.requires_grad}
    found = losses(loop, 20)
    assert found[-1] < found[0] - 0.1
    now = dict(loop.model.named_parameters())
    assert all(torch.equal(now[name], tensor) for name, tensor in frozen.items())


def test_an_adapter_merged_is_the_model_without_one_that_computes_the_same(checkpoint: Path) -> None:
    whole, base = read_checkpoint(checkpoint, 16)
    adapted = whole.model_copy(update={"lora": Lora(rank=2)})
    loop = InnerLoop(build(adapted, 0, base), RECIPE, CPU)
    losses(loop, 5)
    plain = InnerLoop(build(whole, 0), RECIPE, CPU)
    plain.load_parameters(merged(adapted, loop.parameters(), base))
    ids = torch.arange(1, 17).reshape(1, 16)
    with torch.no_grad():
        ours, theirs = loop.model(input_ids=ids).logits, plain.model(input_ids=ids).logits
    assert torch.allclose(ours, theirs, atol=1e-5)
    assert not torch.allclose(ours, build(whole, 0, base)(input_ids=ids).logits, atol=1e-3)


def test_an_adapter_for_layers_that_are_not_there_is_refused(checkpoint: Path) -> None:
    with pytest.raises(RoundError, match="lora"):
        build(ModelSpec(lora=Lora(targets=["abacus"])), 0)


def test_run_toml_names_sizes_a_config_or_a_checkpoint_beside_it(checkpoint: Path, tmp_path: Path) -> None:
    head = (
        'name = "small"\npurpose = "research pre-training"\ntokenizer = 300\ndatasets = ["a/b"]\nwindow = 16\n[model]\n'
    )
    (tmp_path / "beside").symlink_to(checkpoint)
    run = tmp_path / "run.toml"
    run.write_text(head + 'checkpoint = "beside"\n')
    found, first = load_run_config(run).model.begin(16, 300, 0)
    assert first["lm_head.weight"].tobytes() == read_checkpoint(checkpoint, 16)[1]["lm_head.weight"].tobytes()
    with pytest.raises(CausewayError, match="the model has 300 tokens, the tokenizer 301"):
        load_run_config(run).model.begin(16, 301, 0)

    run.write_text(head + "config = " + json.dumps(CONFIGS["gpt2"]).replace('":', '" =') + "\n")
    config = load_run_config(run)
    found, first = config.model.begin(16, 290, 3)
    assert found.config["vocab_size"] == 290
    assert {name: array.shape for name, array in first.items()} == parameter_shapes(found)
    # As a flow's parameters it goes through JSON, with every default written out.
    assert RunConfig.model_validate(config.model_dump(mode="json")) == config

    run.write_text(head + 'checkpoint = "beside"\nlayers = 2\n')
    with pytest.raises(CausewayError, match="checkpoint, layers: give one of"):
        load_run_config(run)


def test_a_model_from_a_config_is_exported_and_plain_transformers_loads_it(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(iter(["some words and other words"] * 20), 300)
    parameters = {name: array * np.float32(2) for name, array in initial_parameters(spec("gpt2"), 1).items()}
    card = ModelCard("small", "research", "small-1", 1, "0" * 64, (), ())
    export_model(tmp_path / "model", spec("gpt2"), parameters, tokenizer, card)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    assert type(loaded).__name__ == "GPT2LMHeadModel"
    found = parameters_of(loaded)
    assert all(found[name].tobytes() == array.tobytes() for name, array in parameters.items())
