from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.errors import RoundError
from tests.training.making import Run, contribute, make_run
from training.rounds.commit import check_against
from training.rounds.lengths import growing, planned, schedule_step, steps_before, steps_of, total_steps
from training.rounds.plan import Length, Plan

ROUNDS = 12
LENGTHS = st.dictionaries(st.integers(1, ROUNDS + 3), st.integers(1, 40), max_size=5).map(
    lambda found: [Length(from_round=number, steps=steps) for number, steps in sorted(found.items())]
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("run"), rounds=ROUNDS)


def with_lengths(run: Run, *lengths: Length, **changes: object) -> Plan:
    return Plan.model_validate({**run.plan.model_dump(), "lengths": list(lengths), **changes})


@settings(max_examples=40)
@given(LENGTHS)
def test_the_clock_of_the_schedule_is_the_sum_of_the_rounds_before(run: Run, lengths: list[Length]) -> None:
    plan = with_lengths(run, *lengths)
    by_round = [max((x for x in lengths if x.from_round <= n), key=lambda x: x.from_round, default=None)
                for n in range(1, ROUNDS + 1)]  # fmt: skip
    steps = [plan.steps if found is None else found.steps for found in by_round]
    assert [planned(plan, n) for n in range(1, ROUNDS + 1)] == steps
    assert [steps_before(plan, n) for n in range(1, ROUNDS + 2)] == [sum(steps[:n]) for n in range(ROUNDS + 1)]
    assert total_steps(plan) == sum(steps)


@settings(max_examples=40)
@given(LENGTHS, st.integers(1, ROUNDS), st.integers(1, 90))
def test_the_steps_of_a_site_are_spread_over_the_planned_ones(
    run: Run, lengths: list[Length], number: int, steps: int
) -> None:
    plan = with_lengths(run, *lengths)
    places = [schedule_step(plan, number, step, steps) for step in range(steps)]
    begin, end = steps_before(plan, number), steps_before(plan, number + 1)
    assert places[0] == begin
    assert all(begin <= place < end for place in places)
    gaps = [b - a for a, b in pairwise([*places, end])]
    assert max(gaps) - min(gaps) <= 1
    if steps == planned(plan, number):
        assert places == list(range(begin, end))


@settings(max_examples=40)
@given(st.integers(1, 20), st.floats(1.01, 3), st.integers(0, 60), st.integers(1, 40))
def test_growing_rounds_grow_by_the_factor_up_to_the_longest(steps: int, growth: float, more: int, rounds: int) -> None:
    longest = steps + more
    lengths = growing(steps, growth, longest, rounds)
    assert lengths[0] == Length(from_round=1, steps=steps)
    assert all(a.from_round < b.from_round <= rounds and a.steps < b.steps for a, b in pairwise(lengths))
    for length in lengths:
        exact = min(longest, steps * growth ** (length.from_round - 1))
        assert exact - 1 <= length.steps <= exact * (1 + 1e-9)


def test_a_plan_without_lengths_keeps_its_hash(run: Run) -> None:
    assert "lengths" not in run.plan.body()
    grown = with_lengths(run, Length(from_round=2, steps=9))
    assert grown.body()["lengths"] == [{"from_round": 2, "steps": 9}]
    assert Plan.model_validate(grown.body()) == grown


def test_a_contribution_of_another_number_of_steps_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path, lengths=[Length(from_round=1, steps=5)])
    good = contribute(run, run.start, "east").header
    assert good.steps == 5 == steps_of(run.plan, run.start, "east")
    check_against(run.plan, run.start, good, "", "it")
    lanes = tuple((lane, 0, 1) for lane in range(6))
    short = contribute(run, run.start, "east", steps=3, claims=lanes).header
    with pytest.raises(RoundError, match="it: 3 steps where east takes 5 in round 1"):
        check_against(run.plan, run.start, short, "", "it")
