"""The model: a Llama decoder as small as its plan says, or any causal language model of `transformers` from its config.

Its parameters are numpy arrays.

torch and transformers are imported inside the functions that need them: reading a plan needs `ModelSpec` only, and
they cost 2 s and 4 s.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from data_contracts.errors import RoundError
from training.tokenizer import END_ID

if TYPE_CHECKING:
    import torch
    from transformers.configuration_utils import PretrainedConfig
    from transformers.models.llama.configuration_llama import LlamaConfig

Parameters = Mapping[str, NDArray[np.float32]]

_EMBEDDING = "model.embed_tokens.weight"


_LLAMA_ONLY = ("hidden_size", "layers", "heads", "intermediate_size")


class Lora(BaseModel):
    """Low-rank adapters on frozen matrices (Hu et al. 2021, 2106.09685): only theirs are the trained parameters."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    rank: int = Field(default=8, ge=1)
    alpha: float = Field(default=16.0, gt=0, description="the adapter counts alpha / rank")
    targets: list[str] = Field(default=[], description="names of linear layers; none: all inside the decoder's layers")


class ModelSpec(BaseModel):
    """The shape of a model, as the plan holds it; input and output embeddings of a llama are one matrix.

    The defaults have 0.5 million parameters. With architecture `transformers` the `config` says it all, and the four
    sizes of a llama are left out.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture: Literal["llama", "transformers"] = "llama"
    vocab_size: int = Field(default=2048, ge=257, description="tokens, `<|endoftext|>` included")
    hidden_size: int = Field(default=96, ge=8)
    layers: int = Field(default=3, ge=1)
    heads: int = Field(default=3, ge=1)
    intermediate_size: int = Field(default=256, ge=8, description="width inside each gated feed-forward layer")
    window: int = Field(default=256, ge=2, description="the most tokens the model sees at once")

    config: dict[str, Any] = Field(default={}, description="of a causal language model of transformers: config.json")
    lora: Lora | None = None

    @model_validator(mode="after")
    def _config_is_whole(self) -> ModelSpec:
        if (self.architecture == "transformers") != bool(self.config):
            raise ValueError('a config and architecture = "transformers" go together')
        if not self.config:
            return self
        if not isinstance(self.config.get("model_type"), str) or "auto_map" in self.config:
            raise ValueError("config: it needs a model_type that transformers ships; code from elsewhere is not run")
        if given := sorted(self.model_fields_set & set(_LLAMA_ONLY)):
            raise ValueError(f"{', '.join(given)}: the config says that")
        if self.config.get("vocab_size", self.vocab_size) != self.vocab_size:
            raise ValueError(f"config: vocab_size {self.config['vocab_size']} is not {self.vocab_size}")
        longest = self.config.get("max_position_embeddings", self.window)
        if longest < self.window:
            raise ValueError(f"config: max_position_embeddings {longest} is less than the window of {self.window}")
        return self

    @model_serializer(mode="wrap")
    def _as_plans_have_it(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        body: dict[str, Any] = handler(self)
        absent = _LLAMA_ONLY if self.config else ("config",)
        return {k: v for k, v in body.items() if k not in absent and (k != "lora" or v is not None)}

    @model_validator(mode="after")
    def _heads_divide(self) -> ModelSpec:
        if self.hidden_size % self.heads or (self.hidden_size // self.heads) % 2:
            raise ValueError(
                f"hidden_size {self.hidden_size} over {self.heads} heads: each head needs the same even width "
                "(rotary positions turn pairs)"
            )
        return self


def parameter_shapes(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Return the shape of every trained parameter, names sorted and a tied embedding once.

    Imports no torch for a llama without an adapter; other models are made without memory, on torch's meta device.
    """
    if spec.config or spec.lora:
        import torch

        with torch.device("meta"):
            model = _with_adapter(_empty(spec), spec)
        return dict(sorted((n, tuple(t.shape)) for n, t in model.named_parameters() if t.requires_grad))
    hidden, inner = spec.hidden_size, spec.intermediate_size
    shapes: dict[str, tuple[int, ...]] = {_EMBEDDING: (spec.vocab_size, hidden), "model.norm.weight": (hidden,)}
    for layer in range(spec.layers):
        prefix = f"model.layers.{layer}."
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            shapes[f"{prefix}self_attn.{name}.weight"] = (hidden, hidden)
        shapes[f"{prefix}mlp.gate_proj.weight"] = (inner, hidden)
        shapes[f"{prefix}mlp.up_proj.weight"] = (inner, hidden)
        shapes[f"{prefix}mlp.down_proj.weight"] = (hidden, inner)
        shapes[f"{prefix}input_layernorm.weight"] = (hidden,)
        shapes[f"{prefix}post_attention_layernorm.weight"] = (hidden,)
    return dict(sorted(shapes.items()))


def count_parameters(spec: ModelSpec) -> int:
    """Return the number of trained numbers, the tied embedding counted once."""
    return sum(math.prod(shape) for shape in parameter_shapes(spec).values())


def initial_parameters(spec: ModelSpec, seed: int) -> dict[str, NDArray[np.float32]]:
    """Return the parameters that training starts from; the same spec and seed give the same bytes.

    Normal with deviation 1/sqrt(columns), the two projections into the residual stream scaled by 1/sqrt(2 x layers),
    norms 1. Drawn by numpy: torch's `normal_` differs between CPUs with and without AVX2. A model from a config has the
    first weights that transformers gives it, an adapter those of peft: the same bytes on one kind of machine.
    """
    if spec.config or spec.lora:
        return parameters_of(build(spec, seed))
    # The customary 0.02 suits widths near 2,500. At width 128, after 0.6 million tokens of Python source, held-out
    # text cost 2.94 bits per byte from 0.02, 2.80 from 0.05 and 2.75 from 0.09 = 1/sqrt(128); one seed, the rest equal.
    generator = np.random.Generator(np.random.PCG64(seed))
    into_residual = 1 / math.sqrt(2 * spec.layers)
    parameters: dict[str, NDArray[np.float32]] = {}
    for name, shape in parameter_shapes(spec).items():
        if len(shape) == 1:
            parameters[name] = np.ones(shape, dtype=np.float32)
            continue
        scale = into_residual if name.endswith(("o_proj.weight", "down_proj.weight")) else 1.0
        deviation = scale / math.sqrt(shape[1])
        parameters[name] = (generator.standard_normal(shape) * deviation).astype(np.float32)
    return parameters


def llama_config(spec: ModelSpec) -> LlamaConfig:
    """Return the `transformers` configuration of a spec."""
    from transformers.models.llama.configuration_llama import LlamaConfig

    return LlamaConfig(
        vocab_size=spec.vocab_size,
        hidden_size=spec.hidden_size,
        intermediate_size=spec.intermediate_size,
        num_hidden_layers=spec.layers,
        num_attention_heads=spec.heads,
        max_position_embeddings=spec.window,
        tie_word_embeddings=True,
        bos_token_id=END_ID,
        eos_token_id=END_ID,
        # A padding id would freeze that token's embedding at zero, and `<|endoftext|>` has to learn.
        pad_token_id=None,
        architectures=["LlamaForCausalLM"],
        dtype="float32",
    )


def config_of(spec: ModelSpec) -> PretrainedConfig:
    """Return the `transformers` configuration of a spec.

    Raises:
        RoundError: transformers knows no such model.
    """
    if not spec.config:
        return llama_config(spec)
    from transformers.models.auto.configuration_auto import AutoConfig

    # As above: no padding id. What the tokenizer of Causeway calls the end stands where the config names none.
    ends = {"bos_token_id": END_ID, "eos_token_id": END_ID}
    try:
        return AutoConfig.for_model(**{**ends, **spec.config, "pad_token_id": None, "dtype": "float32"})
    except (ValueError, TypeError) as error:
        raise RoundError(f"model config: {str(error).splitlines()[0]}") from error


def build(spec: ModelSpec, seed: int, base: Parameters | None = None) -> torch.nn.Module:
    """Return the model in fp32 on the CPU with its `initial_parameters`; no global random state changes.

    `base`: with an adapter the frozen parameters under it, by the names that they have without it.

    Raises:
        RoundError: transformers knows no such model, or has no causal language model of that kind.
    """
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = _empty(spec).float()
        if not spec.config:
            # transformers has drawn weights of its own, which are overwritten.
            load_parameters(model, initial_parameters(spec.model_copy(update={"lora": None}), seed))
        if base is not None:
            load_parameters(model, base)
        return _with_adapter(model, spec)


def _empty(spec: ModelSpec) -> torch.nn.Module:
    """Return the model with whatever weights transformers gives it."""
    if not spec.config:
        from transformers.models.llama.modeling_llama import LlamaForCausalLM

        llama: torch.nn.Module = LlamaForCausalLM(llama_config(spec))
        return llama
    from transformers.models.auto.modeling_auto import AutoModelForCausalLM

    try:
        model: torch.nn.Module = AutoModelForCausalLM.from_config(config_of(spec))
    except ValueError as error:
        raise RoundError(f"model config: {str(error).splitlines()[0]}") from error
    return model


def _with_adapter(model: torch.nn.Module, spec: ModelSpec) -> torch.nn.Module:
    if spec.lora is None:
        return model
    from peft import LoraConfig, get_peft_model

    try:
        config = LoraConfig(
            r=spec.lora.rank,
            lora_alpha=spec.lora.alpha,
            target_modules=spec.lora.targets or "all-linear",
            lora_dropout=0.0,
            bias="none",
            task_type="CAUSAL_LM",
        )
        with warnings.catch_warnings():
            # peft 0.21 asks transformers 5.23 by names that it deprecates.
            warnings.simplefilter("ignore", FutureWarning)
            wrapped: torch.nn.Module = get_peft_model(model, config)
    except ValueError as error:
        raise RoundError(f"lora: {str(error).splitlines()[0]}") from error
    return wrapped


def parameters_of(model: torch.nn.Module) -> dict[str, NDArray[np.float32]]:
    """Return a copy of the trained parameters, names sorted, tied weights once, whatever devices hold them.

    Trained are those that need a gradient: of a model with an adapter, the adapter's.
    """
    from training.sharded import whole

    named = sorted((name, tensor) for name, tensor in model.named_parameters() if tensor.requires_grad)
    return {name: whole(tensor.detach()).float().cpu().numpy().copy() for name, tensor in named}


def load_parameters(model: torch.nn.Module, parameters: Parameters) -> None:
    """Copy trained parameters into a model in place, on the devices it is on; it keeps no reference to the arrays.

    Raises:
        RoundError: a name is missing or unknown, or a shape differs; nothing was copied then.
    """
    import torch

    from training.sharded import divided

    own = {name: tensor for name, tensor in model.named_parameters() if tensor.requires_grad}
    if missing := sorted(own.keys() - parameters.keys()):
        raise RoundError(f"parameters: {', '.join(missing[:3])} missing ({len(missing)} in all); another model's?")
    if unknown := sorted(parameters.keys() - own.keys()):
        raise RoundError(f"parameters: {', '.join(unknown[:3])} not of this model ({len(unknown)} in all)")
    for name, tensor in own.items():
        if tuple(tensor.shape) != parameters[name].shape:
            raise RoundError(f"parameter {name}: shape {parameters[name].shape}, the plan's is {tuple(tensor.shape)}")
    with torch.no_grad():
        for name, tensor in own.items():
            given = torch.from_numpy(np.array(parameters[name], dtype=np.float32))
            tensor.copy_(divided(given.to(tensor.device), tensor))
