"""Placing 10^2, 10^3 and 10^4 units over six regions: seconds to decide, and how near the decision is to its bounds.

Units of very different sizes lie somewhere already, seven in ten regions may hold each, every link has a price, and
the regions have twice the room that is needed. `cpu_s` are seconds of one core. `finish_gap` and `bytes_gap` are
fractions above what is proven to be the least: of the finish time, a hundredth is given up where that moves less.
"""

from __future__ import annotations

import sys
import time
from typing import Any

import numpy as np

from training.shards.solving import Problem, solve

REGIONS = 6


def run(quick: bool) -> dict[str, Any]:
    """Return the figures by number of units."""
    figures: dict[str, Any] = {}
    for units in (100, 1_000) if quick else (100, 1_000, 10_000):
        asked = problem(units)
        began = time.process_time()
        found = solve(asked)
        seconds = time.process_time() - began
        assert found is not None
        shares = np.eye(REGIONS)[found.choice]
        moved = float((asked.costs[0] * shares).sum())
        figures[f"cpu_s_{units}"] = round(seconds, 2)
        figures[f"finish_gap_{units}"] = round(asked.finish_s(shares) / found.finish_bound_s - 1, 4)
        figures[f"bytes_gap_{units}"] = round(moved / found.cost_bounds[0] - 1, 4)
        print(f"placement: {units} units in {seconds:.1f} s", file=sys.stderr, flush=True)
    return figures


def problem(units: int) -> Problem:
    """The same problem each time for a number of units."""
    generator = np.random.default_rng(units)
    allowed = generator.random((units, REGIONS)) < 0.7
    allowed[np.arange(units), generator.integers(0, REGIONS, units)] = True
    tokens = np.round(generator.lognormal(14, 1, units))
    train = generator.random(units) < 0.8
    at = np.array([generator.choice(np.flatnonzero(row)) for row in allowed])
    moved = np.repeat(2 * tokens[:, None], REGIONS, axis=1)
    moved[np.arange(units), at] = 0
    prices, speeds = generator.uniform(0, 0.1, (REGIONS, REGIONS)), generator.uniform(1, 4, (REGIONS, REGIONS))
    return Problem(
        allowed=allowed,
        work=np.stack([np.where(train, tokens, 0), np.where(train, 0, tokens)]),
        size=np.repeat(2 * tokens[:, None], REGIONS, axis=1),
        speed=generator.uniform(1, 4, REGIONS),
        room=np.full(REGIONS, 2 * 2 * tokens.sum() / REGIONS),
        costs=(moved, moved * prices[at], moved * speeds[at]),
        busy=np.zeros((2, REGIONS)),
    )
