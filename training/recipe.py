"""How a site trains within a round: the recipe of a plan, and the learning rate it implies. Imports no torch."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer, model_validator

# Fields that plans of earlier versions lack.
_LATER = (
    "accumulate",
    "checkpoint_activations",
    "compile",
    "optimizer",
    "muon_lr",
    "muon_momentum",
    "warmup_tokens",
    "total_tokens",
)


class InnerRecipe(BaseModel):
    """How a site trains within a round, as the plan holds it.

    Fields that earlier plans lack are left out of it at their default, which is what was done then: an old plan keeps
    its hash.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    lr: float = Field(default=4e-3, gt=0, description="highest learning rate")
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = Field(default=0.1, ge=0, description="on matrices; norms are left alone")
    warmup_steps: int = Field(default=40, ge=0)
    total_steps: int = Field(default=1000, ge=1, description="steps of each site until the rate is at its lowest")
    min_lr_fraction: float = Field(default=0.1, ge=0, le=1, description="lowest learning rate, as a share of `lr`")
    grad_clip: float = Field(default=1.0, gt=0, description="largest L2 norm of the gradient")
    batch_windows: int = Field(default=4, ge=1, description="windows in one step")
    dtype: Literal["float32", "bfloat16"] = Field(
        default="float32", description="of forward and backward (autocast); weights and moments are float32 always"
    )
    accumulate: int = Field(default=1, ge=1, description="pieces in which a rank computes its windows of a step")
    checkpoint_activations: bool = Field(default=False, description="compute them again in the backward: less memory")
    compile: bool = Field(default=False, description="torch.compile; its bytes are not those of plain torch")
    optimizer: Literal["adamw", "muon"] = Field(
        default="adamw", description="muon: for the matrices inside layers; AdamW for embeddings, head and norms"
    )
    muon_lr: float = Field(default=0.02, gt=0, description="highest learning rate of Muon's matrices")
    muon_momentum: float = Field(default=0.95, ge=0, lt=1)
    warmup_tokens: int = Field(default=0, ge=0, description="with total_tokens: tokens of all sites until the highest")
    total_tokens: int = Field(
        default=0, ge=0, description="tokens of all sites until the rate is at its lowest; 0: by steps of a site"
    )

    @model_validator(mode="after")
    def _one_schedule(self) -> InnerRecipe:
        if self.warmup_tokens and self.warmup_tokens >= self.total_tokens:
            raise ValueError(
                f"warmup_tokens {self.warmup_tokens} needs a total_tokens above it, not {self.total_tokens}"
            )
        return self

    @model_serializer(mode="wrap")
    def _as_plans_have_it(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        body: dict[str, Any] = handler(self)
        return {k: v for k, v in body.items() if k not in _LATER or v != type(self).model_fields[k].default}


def learning_rate(recipe: InnerRecipe, schedule_step: int, tokens: int | None = None) -> float:
    """Return AdamW's rate of a step: linear warm-up, then a cosine to `min_lr_fraction`, then constant.

    Loshchilov and Hutter 2016 (1608.03983), one cycle. `schedule_step` counts from 0 and decides unless the recipe has
    `total_tokens`: then `tokens` does, what all sites together have trained on once this step is done.

    Raises:
        ValueError: the recipe goes by tokens, and none are given.
    """
    if recipe.total_tokens:
        if tokens is None:
            raise ValueError("a recipe with total_tokens needs the tokens that the run has trained on")
        if tokens < recipe.warmup_tokens:
            return recipe.lr * max(1, tokens) / recipe.warmup_tokens
        return recipe.lr * _cosine(recipe, tokens - recipe.warmup_tokens, recipe.total_tokens - recipe.warmup_tokens)
    if schedule_step < recipe.warmup_steps:
        return recipe.lr * (schedule_step + 1) / recipe.warmup_steps
    return recipe.lr * _cosine(recipe, schedule_step - recipe.warmup_steps, recipe.total_steps - recipe.warmup_steps)


def _cosine(recipe: InnerRecipe, since: int, span: int) -> float:
    done = min(1.0, since / max(1, span))
    return recipe.min_lr_fraction + (1 - recipe.min_lr_fraction) * (1 + math.cos(math.pi * done)) / 2
