"""One training run of the parity benchmark: sites stepped in this process through the parts that the engine has.

The inner loop, codecs, error feedback, merge and outer optimizer are the product's own; what is left out is the stores.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict
from torch.nn import functional

from benchmarks.parity_text import Text, Windows
from data_contracts.errors import RoundError
from training.inner import InnerLoop
from training.model import ModelSpec, build, count_parameters, parameter_shapes
from training.recipe import InnerRecipe
from training.rounds import merge
from training.rounds.codec import Tensors, decode, encode
from training.rounds.feedback import Feedback
from training.rounds.plan import Outer

_WARMUP = 0.05  # of the steps
_EVALUATED = 128  # windows in one forward


class Recipe(BaseModel):
    """What differs between methods.

    `lengths`: "all" for data parallel (one loop over the batches of all sites), "15" for rounds of 15 steps, "8-24" for
    rounds that change from 8 to 24 steps in proportion to the steps done. `muon_lr` counts only with Muon.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    optimizer: str = "adamw"
    lr: float = 4e-3
    muon_lr: float = 0.02
    lengths: str = "all"
    outer: Outer = Outer(method="average", lr=1.0, momentum=0.0)
    codec: str = "fp32"
    feedback: float = 0.0

    def faster(self, times: float) -> Recipe:
        """Return the recipe with other inner rates: AdamW's and Muon's change together."""
        return self.model_copy(
            update={"lr": float(f"{self.lr * times:.6g}"), "muon_lr": float(f"{self.muon_lr * times:.6g}")}
        )


@dataclass(frozen=True)
class Setting:
    """What all methods share; `batch_windows` are of all sites together."""

    model: ModelSpec
    text: Text
    steps: int
    batch_windows: int

    @property
    def sites(self) -> int:
        """How many sites there are."""
        return len(self.text.train)

    @property
    def tokens(self) -> int:
        """How many tokens all sites train on."""
        return self.steps * self.batch_windows * self.model.window


@dataclass(frozen=True)
class Outcome:
    """Held-out nats per token after the last merge (of each site's sets, and their mean), and what a site sent."""

    loss: float
    losses: list[float]
    bytes_out: int
    rounds: int
    seconds: float


def round_lengths(lengths: str, steps: int) -> list[int]:
    """Return the steps of each round; the last one ends with the run.

    Raises:
        ValueError: not one length, nor two of them with a dash.
    """
    first, _, last = lengths.partition("-")
    begin, end = int(first), int(last or first)
    made: list[int] = []
    while (done := sum(made)) < steps:
        planned = round(begin + (end - begin) * done / steps)
        made.append(min(planned, steps - done))
    return made


def train(setting: Setting, recipe: Recipe, seed: int, steps: int) -> Outcome:
    """Train for `steps` steps of the batch; the seed gives the first parameters and the order of every site's windows.

    Raises:
        RoundError: the loss or an update is not finite.
    """
    began = time.process_time()
    draw = [np.random.Generator(np.random.PCG64([seed, site])) for site in range(setting.sites)]
    orders = [generator.permutation(len(data)) for generator, data in zip(draw, setting.text.train, strict=True)]
    if recipe.lengths == "all":
        loop = _loop(setting, recipe, seed, steps, setting.batch_windows)
        for step in range(steps):
            batches = [_batch(setting, orders[site], site, step) for site in range(setting.sites)]
            loop.step(*_pair(np.concatenate(batches)), step)
        parameters, rounds = loop.parameters(), steps
        bytes_out = steps * 4 * count_parameters(setting.model)
    else:
        parameters, rounds, bytes_out = _rounds(setting, recipe, seed, steps, orders)
    losses = [evaluate(setting.model, parameters, windows) for windows in setting.text.held_out]
    mean = sum(losses) / len(losses)
    if not np.isfinite(mean):
        raise RoundError(f"parity: held-out loss {mean} after {steps} steps of {recipe}")
    return Outcome(mean, losses, bytes_out, rounds, time.process_time() - began)


def _rounds(
    setting: Setting, recipe: Recipe, seed: int, steps: int, orders: list[NDArray[np.int64]]
) -> tuple[Tensors, int, int]:
    """Return the parameters after the last merge, the number of rounds, and the payload bytes of one site."""
    shapes = parameter_shapes(setting.model)
    loops = [_loop(setting, recipe, seed, steps, setting.batch_windows // setting.sites) for _ in orders]
    owing = [Feedback(recipe.feedback, shapes) for _ in orders]
    outer = recipe.outer
    state = merge.initial_state(loops[0].parameters(), outer.method)
    weights = merge.shares([1] * setting.sites)
    done, bytes_out, lengths = 0, 0, round_lengths(recipe.lengths, steps)
    for length in lengths:
        base = merge.parameters(state)
        updates: list[Tensors] = []
        for site, loop in enumerate(loops):
            loop.load_parameters(base)
            for step in range(done, done + length):
                loop.step(*_pair(_batch(setting, orders[site], site, step)), step)
            owed = owing[site].owed(merge.subtract(base, loop.parameters()))
            payload = encode(recipe.codec, owed)
            sent = decode(recipe.codec, payload, shapes, f"site {site}")
            owing[site].settle(owed, sent)
            updates.append(sent)
        state |= merge.outer_step(state, merge.weighted_mean(updates, weights), outer.method, outer.lr, outer.momentum)
        done, bytes_out = done + length, bytes_out + len(payload)
    return merge.parameters(state), len(lengths), bytes_out


def evaluate(model: ModelSpec, parameters: Tensors, windows: Windows) -> float:
    """Return the mean nats per token of windows [N, L + 1]."""
    loop = InnerLoop(build(model, 0), InnerRecipe(), torch.device("cpu"))
    loop.load_parameters(parameters)
    network = loop.model.eval()
    total = 0.0
    with torch.no_grad():
        for at in range(0, len(windows), _EVALUATED):
            inputs, targets = map(torch.from_numpy, _pair(windows[at : at + _EVALUATED]))
            logits: Any = network(input_ids=inputs, use_cache=False).logits
            total += float(functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum"))
    return total / (len(windows) * (windows.shape[1] - 1))


def _loop(setting: Setting, recipe: Recipe, seed: int, steps: int, batch_windows: int) -> InnerLoop:
    inner = InnerRecipe(
        optimizer=recipe.optimizer,
        lr=recipe.lr,
        muon_lr=recipe.muon_lr,
        warmup_steps=round(_WARMUP * steps),
        total_steps=steps,
        min_lr_fraction=0.0,
        batch_windows=batch_windows,
    )
    return InnerLoop(build(setting.model, seed), inner, torch.device("cpu"))


def _batch(setting: Setting, order: NDArray[np.int64], site: int, step: int) -> Windows:
    count = setting.batch_windows // setting.sites
    chosen = order[np.arange(step * count, (step + 1) * count) % len(order)]
    batch: Windows = setting.text.train[site][chosen]
    return batch


def _pair(windows: Windows) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    whole = windows.astype(np.int64)
    return np.ascontiguousarray(whole[:, :-1]), np.ascontiguousarray(whole[:, 1:])
