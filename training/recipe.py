"""How a site trains within a round: the recipe of a plan, and the learning rate it implies. Imports no torch."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class InnerRecipe(BaseModel):
    """How a site trains within a round, as the plan holds it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lr: float = Field(default=4e-3, gt=0, description="highest learning rate")
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = Field(default=0.1, ge=0, description="on matrices; norms are left alone")
    warmup_steps: int = Field(default=40, ge=0)
    total_steps: int = Field(default=1000, ge=1, description="steps of each site until the rate is at its lowest")
    min_lr_fraction: float = Field(default=0.1, ge=0, le=1, description="lowest learning rate, as a share of `lr`")
    grad_clip: float = Field(default=1.0, gt=0, description="largest L2 norm of the gradient")
    batch_windows: int = Field(default=4, ge=1, description="windows in one step")
    dtype: Literal["float32"] = "float32"


def learning_rate(recipe: InnerRecipe, schedule_step: int) -> float:
    """Return the rate of a step counted from 0: linear warm-up, then a cosine to `min_lr_fraction`, then constant.

    Loshchilov and Hutter 2016 (1608.03983), one cycle.
    """
    if schedule_step < recipe.warmup_steps:
        return recipe.lr * (schedule_step + 1) / recipe.warmup_steps
    span = max(1, recipe.total_steps - recipe.warmup_steps)
    done = min(1.0, (schedule_step - recipe.warmup_steps) / span)
    share = recipe.min_lr_fraction + (1 - recipe.min_lr_fraction) * (1 + math.cos(math.pi * done)) / 2
    return recipe.lr * share
