"""Fragments: the parts of a model that take turns in crossing, one a round (Streaming DiLoCo, arXiv 2501.18512).

Round r exchanges fragment (r - 1) mod F. Layer l belongs to fragment l mod F, so that each holds layers from top to
bottom; what lies in no layer (embedding, head, last norm) goes where the fewest parameters are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from data_contracts.errors import RoundError
from training.rounds import merge
from training.rounds.codec import Tensors
from training.rounds.plan import Plan

_LAYER = re.compile(r"(?:^|\.)(\d+)\.")


def fragment_of(shapes: Mapping[str, tuple[int, ...]], fragments: int) -> list[tuple[str, ...]]:
    """Return the names of each fragment's parameters, sorted: every name in one of them.

    The number of a layer is the first part of a name that is one: `model.layers.3.mlp.up_proj.weight`. The rest is
    dealt from the largest down.

    Raises:
        RoundError: a fragment would be empty.
    """
    found: list[list[str]] = [[] for _ in range(fragments)]
    sizes = [0] * fragments
    outside = []
    for name in sorted(shapes):
        layer = _LAYER.search(name)
        if layer is None:
            outside.append(name)
            continue
        found[int(layer[1]) % fragments].append(name)
        sizes[int(layer[1]) % fragments] += math.prod(shapes[name])
    for name in sorted(outside, key=lambda n: (-math.prod(shapes[n]), n)):
        least = min(range(fragments), key=lambda k: (sizes[k], k))
        found[least].append(name)
        sizes[least] += math.prod(shapes[name])
    if not all(found):
        layers = len({m[1] for m in map(_LAYER.search, shapes) if m})
        raise RoundError(
            f"overlap: {fragments} fragments of a model of {layers} layers leave one empty; set fragments to at most"
            f" {max(1, layers)}"
        )
    return [tuple(sorted(names)) for names in found]


def names_in(plan: Plan, parameters: Tensors, number: int) -> tuple[str, ...]:
    """Return the names of the parameters that round `number`, from 1, exchanges."""
    if plan.overlap.fragments == 1:
        return tuple(sorted(parameters))
    shapes = {name: tensor.shape for name, tensor in parameters.items()}
    return fragment_of(shapes, plan.overlap.fragments)[(number - 1) % plan.overlap.fragments]


def part(tensors: Tensors, names: tuple[str, ...]) -> Tensors:
    """Return the tensors of these names."""
    return {name: tensors[name] for name in names}


def exchanged(plan: Plan, tensors: Tensors, number: int) -> Tensors:
    """Return the parameters of an outer state that round `number` exchanges."""
    parameters = merge.parameters(tensors)
    return part(parameters, names_in(plan, parameters, number))
