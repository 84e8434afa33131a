from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.shards.solving import EXACT_CHOICES, TOLERANCE, Places, Problem, solve

REGIONS = 3


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    """Up to six units over three regions; some may not go everywhere, some regions have little room."""
    n = draw(st.integers(1, 6))
    numbers = st.integers(0, 40)
    allowed = np.array([draw(st.lists(st.booleans(), min_size=REGIONS, max_size=REGIONS)) for _ in range(n)])
    allowed[~allowed.any(axis=1), draw(st.integers(0, REGIONS - 1))] = True
    tokens = np.array([draw(numbers) for _ in range(n)], np.float64)
    train = np.array([draw(st.booleans()) for _ in range(n)])
    return Problem(
        allowed=allowed,
        work=np.stack([np.where(train, tokens, 0), np.where(train, 0, tokens)]),
        size=np.array([[draw(st.integers(0, 20)) for _ in range(REGIONS)] for _ in range(n)], np.float64),
        speed=np.array([draw(st.sampled_from([0.5, 1.0, 2.0, 3.0])) for _ in range(REGIONS)]),
        room=np.array([draw(st.sampled_from([np.inf, np.inf, 10.0, 25.0])) for _ in range(REGIONS)]),
        costs=tuple(
            np.array([[draw(st.integers(0, 5)) for _ in range(REGIONS)] for _ in range(n)], np.float64)
            for _ in range(2)
        ),
        busy=np.zeros((2, REGIONS)),
    )


def scores(problem: Problem, choice: Places) -> tuple[float, ...]:
    """Finish time of the training, then both costs, added up the plain way."""
    ends = [0.0] * REGIONS
    for unit, region in enumerate(choice):
        ends[region] += problem.work[0][unit] / problem.speed[region]
    costs = [sum(cost[unit, region] for unit, region in enumerate(choice)) for cost in problem.costs]
    return (max(ends), *costs)


def fits(problem: Problem, choice: Places) -> bool:
    filled = [0.0] * REGIONS
    for unit, region in enumerate(choice):
        if not problem.allowed[unit, region]:
            return False
        filled[region] += problem.size[unit, region]
    return all(taken <= room for taken, room in zip(filled, problem.room, strict=True))


@settings(max_examples=60)
@given(problems())
def test_a_small_problem_has_the_optimum_of_all_its_assignments(problem: Problem) -> None:
    every = [np.array(c) for c in itertools.product(range(REGIONS), repeat=len(problem.size))]
    possible = [scores(problem, choice) for choice in every if fits(problem, choice)]
    found = solve(problem)
    if not possible:
        assert found is None
        return
    assert found is not None
    assert fits(problem, found.choice)
    earliest = min(end for end, *_ in possible)
    within = [s for s in possible if s[0] <= earliest * (1 + TOLERANCE) + 1e-6]
    first = min(s[1] for s in within)
    second = min(s[2] for s in within if s[1] == first)
    end, *costs = scores(problem, found.choice)
    assert end <= earliest * (1 + TOLERANCE) + 1e-6
    assert costs == [first, second]
    assert found.finish_bound_s == pytest.approx(earliest, abs=1e-4)
    # Of those that cost no more, the one that ends first.
    assert end == pytest.approx(min(s[0] for s in within if s[1:] == (first, second)), rel=1e-4)


def large(units: int, regions: int, seed: int) -> Problem:
    """Units that lie somewhere already, with links of different cost between the regions."""
    generator = np.random.default_rng(seed)
    allowed = generator.random((units, regions)) < 0.7
    allowed[:, 0] = True
    tokens = np.round(generator.lognormal(10, 1, units))
    train = generator.random(units) < 0.8
    at = np.array([generator.choice(np.flatnonzero(row)) for row in allowed])
    moved = np.repeat(2 * tokens[:, None], regions, axis=1)
    moved[np.arange(units), at] = 0
    return Problem(
        allowed=allowed,
        work=np.stack([np.where(train, tokens, 0), np.where(train, 0, tokens)]),
        size=np.repeat(2 * tokens[:, None], regions, axis=1),
        speed=generator.uniform(0.5, 3, regions),
        room=np.full(regions, 2.5 * 2 * tokens.sum() / regions),
        costs=(moved, moved * generator.uniform(0, 0.1, (regions, regions))[at]),
        busy=np.zeros((2, regions)),
    )


def test_a_large_problem_is_within_two_hundredths_of_its_bounds() -> None:
    problem = large(1500, 4, seed=3)
    assert problem.allowed.sum() > EXACT_CHOICES
    found = solve(problem)
    assert found is not None
    assert found.rounded
    assert problem.allowed[np.arange(1500), found.choice].all()
    assert (np.bincount(found.choice, problem.size[:, 0], 4) <= problem.room).all()
    shares = np.eye(4)[found.choice]
    assert found.finish_bound_s <= problem.finish_s(shares) <= 1.02 * found.finish_bound_s
    moved = float((problem.costs[0] * shares).sum())
    assert found.cost_bounds[0] * 0.999 <= moved <= 1.02 * found.cost_bounds[0]


def test_what_stays_where_it_is_is_not_moved_for_the_last_hundredth() -> None:
    """50.4 s and 49.6 s are as good as 50 s and 50 s."""
    lying = np.array([0, 0, 1, 1])
    work = np.array([50.0, 0.4, 49.6, 0.0])
    moved = np.where(np.arange(2)[None, :] == lying[:, None], 0.0, 1.0)
    problem = Problem(
        np.ones((4, 2), np.bool_),
        np.stack([work, 0 * work]),
        np.ones((4, 2)),
        np.ones(2),
        np.full(2, np.inf),
        (moved,),
        np.zeros((2, 2)),
    )
    found = solve(problem)
    assert found is not None
    assert found.choice.tolist() == lying.tolist()


def test_nothing_to_place_is_a_solution_and_too_little_room_is_none() -> None:
    empty = Problem(
        np.empty((0, 2), np.bool_),
        np.empty((2, 0)),
        np.empty((0, 2)),
        np.ones(2),
        np.full(2, np.inf),
        (),
        np.zeros((2, 2)),
    )
    found = solve(empty)
    assert found is not None
    assert found.choice.tolist() == []
    full = Problem(
        np.ones((3, 1), np.bool_), np.ones((2, 3)), np.ones((3, 1)), np.ones(1), np.full(1, 2.0), (), np.zeros((2, 1))
    )
    assert solve(full) is None
