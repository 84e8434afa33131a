"""The model: a Llama decoder from `transformers`, as small as its plan says, and its parameters as numpy arrays.

torch and transformers are imported inside the functions that need them: reading a plan needs `ModelSpec` only, and
they cost 2 s and 4 s.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from data_contracts.errors import RoundError
from training.tokenizer import END_ID

if TYPE_CHECKING:
    import torch
    from transformers.models.llama.configuration_llama import LlamaConfig

Parameters = Mapping[str, NDArray[np.float32]]

_EMBEDDING = "model.embed_tokens.weight"


class ModelSpec(BaseModel):
    """The shape of a model, as the plan holds it; input and output embeddings are one matrix.

    The defaults have 0.5 million parameters.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    architecture: Literal["llama"] = "llama"
    vocab_size: int = Field(default=2048, ge=257, description="tokens, `<|endoftext|>` included")
    hidden_size: int = Field(default=96, ge=8)
    layers: int = Field(default=3, ge=1)
    heads: int = Field(default=3, ge=1)
    intermediate_size: int = Field(default=256, ge=8, description="width inside each gated feed-forward layer")
    window: int = Field(default=256, ge=2, description="the most tokens the model sees at once")

    @model_validator(mode="after")
    def _heads_divide(self) -> ModelSpec:
        if self.hidden_size % self.heads or (self.hidden_size // self.heads) % 2:
            raise ValueError(
                f"hidden_size {self.hidden_size} over {self.heads} heads: each head needs the same even width "
                "(rotary positions turn pairs)"
            )
        return self


def parameter_shapes(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Return the shape of every parameter, names sorted and the tied embedding once; imports no torch."""
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
    norms 1. Drawn by numpy: torch's `normal_` differs between CPUs with and without AVX2.
    """
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


def build(spec: ModelSpec, seed: int) -> torch.nn.Module:
    """Return a `LlamaForCausalLM` in fp32 on the CPU with `initial_parameters`; no global random state changes."""
    import torch
    from transformers.models.llama.modeling_llama import LlamaForCausalLM

    # transformers draws its own first weights, which are overwritten, from torch's CPU generator.
    with torch.random.fork_rng(devices=[]):
        model: torch.nn.Module = LlamaForCausalLM(llama_config(spec))
    load_parameters(model, initial_parameters(spec, seed))
    return model.float()


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
