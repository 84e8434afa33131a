"""The loop inside one site: AdamW steps on one model, exact to resume.

The learning rate is a pure function of `schedule_step`, which the caller derives from the committed rounds: a site
that joins late or that lost work is at the same point of the schedule as the others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from data_contracts.errors import RoundError
from training.recipe import InnerRecipe, learning_rate

IGNORED = -100  # a masked target: nothing is learned there
_MOMENTS = ("exp_avg", "exp_avg_sq")


@dataclass(frozen=True)
class StepResult:
    """One step: `loss` is nats per unmasked target, `grad_norm` the L2 norm before clipping."""

    loss: float
    tokens: int
    grad_norm: float
    learning_rate: float


def pick_device() -> torch.device:
    """Return the accelerator that torch finds, of whatever make, or the CPU."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


class InnerLoop:
    """AdamW (Loshchilov and Hutter 2017, 1711.05101) on one model on one device; moves the model there."""

    def __init__(self, model: torch.nn.Module, recipe: InnerRecipe, device: torch.device) -> None:
        self.model = model.to(device).train()
        self.recipe = recipe
        self.device = device
        self._names = [name for name, _ in sorted(model.named_parameters())]
        self._parameters = [tensor for _, tensor in sorted(model.named_parameters())]
        matrices = [tensor for tensor in self._parameters if tensor.ndim >= 2]
        vectors = [tensor for tensor in self._parameters if tensor.ndim < 2]
        groups: list[dict[str, Any]] = [
            {"params": matrices, "weight_decay": recipe.weight_decay},
            {"params": vectors, "weight_decay": 0.0},
        ]
        # Of the three forms the fused one is the fastest on a CPU (0.4 ms a step at 0.5M parameters, against 1.5) and
        # as repeatable as the others. Sites need not agree to the bit here: only the merge must.
        self._optimizer = torch.optim.AdamW(groups, lr=recipe.lr, betas=recipe.betas, fused=True)

    def step(self, inputs: NDArray[np.int64], targets: NDArray[np.int64], schedule_step: int) -> StepResult:
        """Take one optimizer step on windows [B, L]; targets are already shifted, -100 where masked.

        A batch without a single target changes nothing and has loss 0.

        Raises:
            RoundError: the loss or the gradient is not finite; the model is as it was before the step.
        """
        rate = learning_rate(self.recipe, schedule_step)
        tokens = int((targets != IGNORED).sum())
        if tokens == 0:
            return StepResult(0.0, 0, 0.0, rate)
        given = torch.from_numpy(np.ascontiguousarray(inputs)).to(self.device)
        wanted = torch.from_numpy(np.ascontiguousarray(targets)).to(self.device)
        logits = self.model(input_ids=given, use_cache=False).logits
        loss = functional.cross_entropy(logits.flatten(0, 1), wanted.flatten(), ignore_index=IGNORED)
        self._optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        norm = float(torch.nn.utils.clip_grad_norm_(self._parameters, self.recipe.grad_clip))
        if not math.isfinite(float(loss.detach())) or not math.isfinite(norm):
            self._optimizer.zero_grad(set_to_none=True)
            raise RoundError(
                f"schedule step {schedule_step}: loss {float(loss.detach())}, gradient norm {norm}; lower the "
                f"recipe's lr ({self.recipe.lr}) or look for a fault of device {self.device}"
            )
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        return StepResult(float(loss.detach()), tokens, norm, rate)

    def state(self) -> dict[str, NDArray[Any]]:
        """Return AdamW's moments (`<parameter>.exp_avg`, `.exp_avg_sq`, fp32) and `steps`, its int64 count of steps.

        With the parameters it is all that an exact resume needs; before the first step the moments are zeros.
        """
        arrays: dict[str, NDArray[Any]] = {"steps": np.array(self._steps(), dtype=np.int64)}
        for name, tensor in zip(self._names, self._parameters, strict=True):
            held = self._optimizer.state.get(tensor, {})
            for moment in _MOMENTS:
                value = held.get(moment)
                blank = np.zeros(tuple(tensor.shape), dtype=np.float32)
                arrays[f"{name}.{moment}"] = blank if value is None else value.cpu().numpy().copy()
        return dict(sorted(arrays.items()))

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Put back what `state` gave, from a loop over a model of the same shape.

        Raises:
            RoundError: a name is missing or unknown, or a shape differs; nothing was put back then.
        """
        shapes = {name: array.shape for name, array in self.state().items()}
        found = {name: array.shape for name, array in state.items()}
        if wrong := sorted(name for name in shapes.keys() | found.keys() if shapes.get(name) != found.get(name)):
            name = wrong[0]
            raise RoundError(f"optimizer state: {name} has shape {found.get(name)}, this model's is {shapes.get(name)}")
        self._optimizer.state.clear()
        steps = int(state["steps"])
        if steps == 0:
            return
        for name, tensor in zip(self._names, self._parameters, strict=True):
            moments = {m: torch.from_numpy(np.array(state[f"{name}.{m}"], dtype=np.float32)) for m in _MOMENTS}
            self._optimizer.state[tensor] = {
                "step": torch.tensor(float(steps), dtype=torch.float32, device=self.device),
                **{moment: value.to(self.device) for moment, value in moments.items()},
            }

    def _steps(self) -> int:
        held = self._optimizer.state.get(self._parameters[0], {})
        return int(held["step"]) if held else 0
