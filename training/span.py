"""Training a span: the batches of one site's claims of one round, in one piece or in several."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from training.inner import Loop
from training.shards.loader import Loader, inputs_targets

Place = tuple[int, int]


@dataclass
class Tally:
    """What came of a span's steps so far.

    `tokens` are targets by data set, `nats` their summed loss, `skipped` (lane, lane index) that could not be read;
    `norms` the sum of the steps' gradient norms; `seconds` are those of the steps and of the data for them,
    by the monotonic clock.
    """

    done: int = 0
    tokens: dict[str, int] = field(default_factory=dict)
    nats: float = 0.0
    skipped: list[Place] = field(default_factory=list)
    seconds: float = 0.0
    norms: float = 0.0

    @property
    def count(self) -> int:
        """Targets trained on."""
        return sum(self.tokens.values())

    @property
    def loss(self) -> float:
        """Mean nats per target."""
        return self.nats / max(1, self.count)


def train_steps(
    loader: Loader,
    loop: Loop,
    batches: Sequence[Sequence[Place]],
    tally: Tally,
    clock: Callable[[int], tuple[int, int]],
    note: dict[str, Any],
    look: Callable[[], None],
) -> None:
    """Take one step on each batch, and add what came of it to `tally`.

    `clock` gives a step of the span its place in the inner schedule, in steps and in tokens of all sites; `note` goes
    into the loader's log; `look` is called before each step and may raise.
    """
    pairs = [tuple(np.array(batch, dtype=np.int64).T) for batch in batches]
    if not pairs:
        return
    with loader.ahead(pairs) as assembled:
        begun = time.monotonic()
        for places, batch in zip(batches, assembled, strict=True):
            tally.seconds += time.monotonic() - begun
            look()
            begun = time.monotonic()
            loader.record(batch, {**note, "step": tally.done, "places": places})
            tally.skipped += batch.skipped
            inputs, targets = inputs_targets(batch)
            result = loop.step(inputs, targets, *clock(tally.done))
            tally.nats += result.loss * result.tokens
            tally.norms += result.grad_norm
            for owner, count in zip(loader.owners(batch), (targets >= 0).sum(axis=1).tolist(), strict=True):
                if count:
                    tally.tokens[owner] = tally.tokens.get(owner, 0) + count
            tally.done += 1
        tally.seconds += time.monotonic() - begun
