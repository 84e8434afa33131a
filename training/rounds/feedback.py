"""Error feedback: what a codec left out of an update is owed, and goes with the updates of later rounds.

    owed = decay x residual + update;   sent = decode(encode(owed));   residual = owed - sent

The residual is state of the site, as the inner optimizer's: it is kept beside it, and rolled back with it when the
work of a round was discarded. Decay 0.95 as SparseLoCo (arXiv 2508.15706), 1 as in Karimireddy et al. 2019
(arXiv 1901.09847).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from data_contracts.errors import RoundError
from training.rounds.codec import Shapes, Tensors


class Feedback:
    """The residual of one site, fp32, by the model's names; zeros at first."""

    def __init__(self, decay: float, shapes: Shapes) -> None:
        self.decay = np.float32(decay)
        self._residual: Tensors = {name: np.zeros(shapes[name], np.float32) for name in sorted(shapes)}

    def owed(self, update: Tensors) -> Tensors:
        """Return what is to be encoded for an update of some or all tensors; changes nothing."""
        return {name: np.add(np.multiply(self._residual[name], self.decay), update[name]) for name in sorted(update)}

    def settle(self, owed: Tensors, sent: Tensors) -> None:
        """Keep what was owed and not sent; `sent` is the decoded payload, all that the other sites see."""
        # What did not cross in this round, a fragment of another one, owes what it owed.
        self._residual |= {name: np.subtract(owed[name], sent[name]) for name in sorted(owed)}

    def state(self) -> Tensors:
        """Return the residual: all that an exact resume needs."""
        return dict(self._residual)

    def load_state(self, state: Mapping[str, np.ndarray[tuple[int, ...], np.dtype[np.float32]]]) -> None:
        """Put back what `state` gave, of a model of the same shapes.

        Raises:
            RoundError: a name is missing or unknown, or a shape differs; nothing was put back then.
        """
        shapes = {name: residual.shape for name, residual in self._residual.items()}
        found = {name: residual.shape for name, residual in state.items()}
        if wrong := sorted(name for name in shapes.keys() | found.keys() if shapes.get(name) != found.get(name)):
            name = wrong[0]
            raise RoundError(f"error feedback: {name} has shape {found.get(name)}, this model's is {shapes.get(name)}")
        self._residual = {name: np.array(state[name], np.float32) for name in shapes}
