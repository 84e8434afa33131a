"""The loop inside one site: optimizer steps on one model, exact to resume.

The learning rate is a pure function of what the chain has committed, which the caller passes on: a site that joins
late or that lost work is at the same point of the schedule as the others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch.nn import functional

from data_contracts.errors import RoundError
from training.model import ModelSpec, Parameters, build, load_parameters, parameters_of
from training.muon import Muon
from training.recipe import InnerRecipe, learning_rate
from training.sharded import divided, whole

IGNORED = -100  # a masked target: nothing is learned there
_MOMENTS = ("exp_avg", "exp_avg_sq")
_BUFFER = "momentum_buffer"


@dataclass(frozen=True)
class StepResult:
    """One step: `loss` is nats per unmasked target, `grad_norm` the L2 norm before clipping.

    `learning_rate` is AdamW's, which Muon's follows.
    """

    loss: float
    tokens: int
    grad_norm: float
    learning_rate: float


class Loop(Protocol):
    """What the site's process drives: a model in this process, or one that several processes step together."""

    @property
    def device(self) -> torch.device:
        """The device of this process."""

    def step(
        self, inputs: NDArray[np.int64], targets: NDArray[np.int64], schedule_step: int, tokens: int | None = None
    ) -> StepResult:
        """Take one optimizer step."""

    def parameters(self) -> dict[str, NDArray[np.float32]]:
        """Return the trained parameters."""

    def load_parameters(self, parameters: Parameters) -> None:
        """Put trained parameters in place."""

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the optimizer's state."""

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Put an optimizer's state back."""

    def reset(self) -> None:
        """Forget the optimizer's state."""


MakeLoop = Callable[[ModelSpec, int, InnerRecipe], Loop]


def pick_device() -> torch.device:
    """Return the accelerator that torch finds, of whatever make, or the CPU."""
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def alone(spec: ModelSpec, seed: int, recipe: InnerRecipe) -> InnerLoop:
    """Return the loop of a site of one process, on the device that is there."""
    return InnerLoop(build(spec, seed), recipe, pick_device())


@dataclass(frozen=True)
class Team:
    """The ranks of a site that step together, and the module whose forward synchronizes them (None: the model)."""

    rank: int = 0
    ranks: int = 1
    forward: Callable[..., Any] | None = None

    def sum(self, value: float) -> float:
        """Return the sum over all ranks."""
        if self.ranks == 1:
            return value
        total = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(total)
        return float(total)


class InnerLoop:
    """AdamW (1711.05101) or Muon and AdamW on one model on one device; moves the model there.

    Only parameters that need a gradient are trained, kept and given out: of a model with an adapter, the adapter's.
    """

    def __init__(
        self, model: torch.nn.Module, recipe: InnerRecipe, device: torch.device, team: Team | None = None
    ) -> None:
        self.model = model.to(device).train()
        self.recipe = recipe
        self.device = device
        self._team = team or Team()
        self._pieces = self._team.ranks * recipe.accumulate
        if recipe.batch_windows < self._pieces:
            raise RoundError(
                f"recipe: {recipe.batch_windows} windows a step over {self._team.ranks} ranks, in "
                f"{recipe.accumulate} pieces each: raise batch_windows to {self._pieces}, or lower accumulate"
            )
        if recipe.checkpoint_activations:
            _compute_again(self.model)
        self._forward: Callable[..., Any] = self._team.forward or self.model
        if recipe.compile:
            self._forward = torch.compile(self._forward)
        named = sorted((name, tensor) for name, tensor in model.named_parameters() if tensor.requires_grad)
        self._parameters = dict(named)
        self._random = _draws_at_random(model)
        self.reset()

    def reset(self) -> None:
        """Forget the optimizer's state: the next step is as the first."""
        recipe = self.recipe
        inside = _inside(self.model, self._parameters) if recipe.optimizer == "muon" else set()
        rest = [tensor for name, tensor in self._parameters.items() if name not in inside]
        groups: list[dict[str, Any]] = [
            {"params": [tensor for tensor in rest if tensor.ndim >= 2], "weight_decay": recipe.weight_decay},
            {"params": [tensor for tensor in rest if tensor.ndim < 2], "weight_decay": 0.0},
        ]
        # Of the three forms the fused one is the fastest on a CPU (0.4 ms a step at 0.5M parameters, against 1.5) and
        # as repeatable as the others. Sites need not agree to the bit here: only the merge must.
        self._optimizer = torch.optim.AdamW(groups, lr=recipe.lr, betas=recipe.betas, fused=True)
        self._inside = [name for name in self._parameters if name in inside]
        matrices = [self._parameters[name] for name in self._inside]
        self._muon = Muon(matrices, recipe.muon_momentum, recipe.weight_decay, getattr(torch, recipe.dtype))
        self._steps = 0

    def step(
        self, inputs: NDArray[np.int64], targets: NDArray[np.int64], schedule_step: int, tokens: int | None = None
    ) -> StepResult:
        """Take one optimizer step on windows [B, L]; targets are already shifted, -100 where masked.

        Every rank of a team is given all windows and takes its own. `tokens` is what all sites have trained on once
        this step is done: the schedule of a recipe with `total_tokens`. A batch without a single target changes
        nothing and has loss 0.

        Raises:
            RoundError: the loss or the gradient is not finite; the model is as it was before the step.
        """
        rate = learning_rate(self.recipe, schedule_step, tokens)
        counted = int((targets != IGNORED).sum())
        if counted == 0:
            return StepResult(0.0, 0, 0.0, rate)
        if self._random:
            torch.manual_seed((schedule_step << 16) + self._team.rank)
        self._forget_gradients()
        loss = self._backward(inputs, targets, counted)
        clipped = torch.nn.utils.clip_grad_norm_(self._parameters.values(), self.recipe.grad_clip)
        norm = float(whole(clipped))
        if not math.isfinite(loss) or not math.isfinite(norm):
            self._forget_gradients()
            raise RoundError(
                f"schedule step {schedule_step}: loss {loss}, gradient norm {norm}; lower the "
                f"recipe's lr ({self.recipe.lr}) or look for a fault of device {self.device}"
            )
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        if self._inside:
            self._muon.step(self.recipe.muon_lr * (rate / self.recipe.lr))
        self._steps += 1
        return StepResult(loss, counted, norm, rate)

    def parameters(self) -> dict[str, NDArray[np.float32]]:
        """Return a copy of the trained parameters, names sorted."""
        return parameters_of(self.model)

    def load_parameters(self, parameters: Parameters) -> None:
        """Copy trained parameters into the model.

        Raises:
            RoundError: a name is missing or unknown, or a shape differs; nothing was copied then.
        """
        load_parameters(self.model, parameters)

    def state(self) -> dict[str, NDArray[Any]]:
        """Return `steps`, int64, and the moments, fp32: with the parameters all that an exact resume needs.

        `<parameter>.exp_avg` and `.exp_avg_sq`, or Muon's `.momentum_buffer`; zeros before the first step.
        """
        arrays: dict[str, NDArray[Any]] = {"steps": np.array(self._steps, dtype=np.int64)}
        for name, tensor in self._moments():
            arrays[name] = whole(tensor).cpu().numpy().copy()
        return dict(sorted(arrays.items()))

    def load_state(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Put back what `state` gave, from a loop over a model of the same shape with the same optimizer.

        Raises:
            RoundError: a name is missing or unknown, or a shape differs; nothing was put back then.
        """
        shapes = {name: tuple(tensor.shape) for name, tensor in self._moments()} | {"steps": ()}
        found = {name: array.shape for name, array in state.items()}
        if wrong := sorted(name for name in shapes.keys() | found.keys() if shapes.get(name) != found.get(name)):
            name = wrong[0]
            raise RoundError(f"optimizer state: {name} has shape {found.get(name)}, this model's is {shapes.get(name)}")
        self.reset()
        self._steps = int(state["steps"])
        if self._steps == 0:
            return

        def loaded(name: str, like: torch.Tensor) -> torch.Tensor:
            return divided(torch.from_numpy(np.array(state[name], dtype=np.float32)).to(self.device), like)

        for name, tensor in self._parameters.items():
            if name not in self._inside:
                self._optimizer.state[tensor] = {
                    "step": torch.tensor(float(self._steps), dtype=torch.float32, device=self.device),
                    **{moment: loaded(f"{name}.{moment}", tensor) for moment in _MOMENTS},
                }
        for name, buffer in zip(self._inside, self._muon.buffers, strict=True):
            buffer.copy_(loaded(f"{name}.{_BUFFER}", buffer))

    def _moments(self) -> Iterator[tuple[str, torch.Tensor]]:
        for name, tensor in self._parameters.items():
            if name not in self._inside:
                held = self._optimizer.state.get(tensor, {})
                for moment in _MOMENTS:
                    yield f"{name}.{moment}", held[moment] if moment in held else torch.zeros_like(tensor)
        for name, buffer in zip(self._inside, self._muon.buffers, strict=True):
            yield f"{name}.{_BUFFER}", buffer

    def _forget_gradients(self) -> None:
        for tensor in self._parameters.values():
            tensor.grad = None

    def _backward(self, inputs: NDArray[np.int64], targets: NDArray[np.int64], counted: int) -> float:
        """Set the gradient of the mean loss over all windows; return that loss."""
        if self._pieces == 1:
            loss = self._nats(inputs, targets, "mean")
            torch.autograd.backward(loss)
            return float(loss.detach())
        if len(inputs) < self._pieces:
            raise RoundError(f"a step of {len(inputs)} windows cannot be computed in {self._pieces} pieces")
        first = self._team.rank * self.recipe.accumulate
        mine = np.array_split(np.arange(len(inputs)), self._pieces)[first : first + self.recipe.accumulate]
        total = 0.0
        for k, rows in enumerate(mine):
            with self._unsynchronized(last=k == len(mine) - 1):
                # Each piece weighs by its targets. The ranks' gradients are averaged, and their sum is wanted.
                loss = self._nats(inputs[rows], targets[rows], "sum") / counted
                torch.autograd.backward(loss * self._team.ranks)
            total += float(loss.detach())
        return self._team.sum(total)

    def _nats(self, inputs: NDArray[np.int64], targets: NDArray[np.int64], reduction: str) -> torch.Tensor:
        given = torch.from_numpy(np.ascontiguousarray(inputs)).to(self.device)
        wanted = torch.from_numpy(np.ascontiguousarray(targets)).to(self.device)
        low = self.recipe.dtype != "float32"
        with torch.autocast(self.device.type, getattr(torch, self.recipe.dtype)) if low else nullcontext():
            logits = self._forward(input_ids=given, use_cache=False).logits
        if low:
            logits = logits.float()
        return functional.cross_entropy(
            logits.flatten(0, 1), wanted.flatten(), ignore_index=IGNORED, reduction=reduction
        )

    def _unsynchronized(self, last: bool) -> AbstractContextManager[None]:
        """Leave the exchange of gradients to the last piece, where DDP lets us."""
        wait: Any = getattr(self._team.forward, "no_sync", None)
        return nullcontext() if last or wait is None else wait()


def _compute_again(model: torch.nn.Module) -> None:
    """Let the layers compute their activations again in the backward.

    Raises:
        RoundError: it is a model that cannot.
    """
    # transformers 5.23 renamed it, and deprecates the name before.
    for name in ("activation_checkpointing_enable", "gradient_checkpointing_enable"):
        if enable := getattr(model, name, None):
            enable({"use_reentrant": False})
            return
    raise RoundError(
        f"recipe: a {type(model).__name__} cannot compute activations again; set checkpoint_activations off"
    )


def _inside(model: torch.nn.Module, parameters: Mapping[str, torch.Tensor]) -> set[str]:
    """Return the names of the matrices inside layers: neither embedding nor output head."""
    outer = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
    head: Any = getattr(model, "get_output_embeddings", lambda: None)()
    if head is not None:
        outer.add(id(head.weight))
    return {name for name, tensor in parameters.items() if tensor.ndim == 2 and id(tensor) not in outer}


def _draws_at_random(model: torch.nn.Module) -> bool:
    """Say whether a step of the model draws random numbers: dropout, whatever module or setting does it."""
    config: Any = getattr(model, "config", None)
    settings: Mapping[str, Any] = config.to_dict() if config is not None else {}
    stated = any("drop" in name and isinstance(value, float) and value > 0 for name, value in settings.items())
    return stated or any(isinstance(m, torch.nn.Dropout) and m.p > 0 for m in model.modules())
