from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.errors import RoundError
from tests.training.making import Run, contribute, make_run, write_commit
from training.rounds.commit import ChainState, check_against
from training.rounds.contribution import parse
from training.rounds.lengths import (
    LONGEST,
    SPREAD,
    Measured,
    growing,
    measured_after,
    planned,
    schedule_step,
    steps_before,
    steps_of,
    total_steps,
)
from training.rounds.plan import Length, Membership, Plan
from training.rounds.run import newest_state

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


# The pace of the sites


def paced(run: Run, pace: str = "speed", steps: int = 48, round_s: float = 0.0, **speeds: float) -> Plan:
    sites = [{**s.model_dump(), "speed": speeds.get(s.name, 0.0)} for s in run.plan.sites]
    return with_lengths(run, steps=steps, pace=pace, round_s=round_s, sites=sites)


def after(
    run: Run, plan: Plan, state: ChainState, seconds: Mapping[str, float], steps: Mapping[str, int]
) -> ChainState:
    """The state after a round that counted these sites, by what their steps took."""
    base = contribute(run, run.start, "east").header
    headers = [replace(base, site=site, seconds=took, steps=steps[site]) for site, took in seconds.items()]
    return replace(state, round=state.round + 1, measured=measured_after(plan, state, headers))


def rounds_of(run: Run, plan: Plan, rates: list[dict[str, float]]) -> list[dict[str, int]]:
    """The steps that sites of these true rates (steps per second, by round) are asked for."""
    state, asked = replace(run.start, members=tuple(sorted(rates[0]))), []
    for truth in rates:
        steps = {site: steps_of(plan, state, site) for site in truth}
        asked.append(steps)
        state = after(run, plan, state, {site: steps[site] / rate for site, rate in truth.items()}, steps)
    return asked


RATE = st.floats(0.01, 1e4)


@settings(max_examples=40)
@given(st.fixed_dictionaries(dict.fromkeys(("east", "north", "west"), RATE)))
def test_by_speed_the_fastest_takes_the_planned_steps_and_the_others_end_with_it(
    run: Run, rates: dict[str, float]
) -> None:
    first, second = rounds_of(run, paced(run), [rates, rates])
    assert set(first.values()) == {48}
    fastest = max(rates, key=lambda site: rates[site])
    assert second[fastest] == 48
    for site, steps in second.items():
        assert 1 <= steps <= 48
        share = rates[site] / min(rates[fastest], SPREAD * sorted(rates.values())[1])
        assert abs(steps - max(1.0, min(48.0, 48 * share))) <= 1


def test_a_site_that_becomes_slow_or_fast_is_waited_for_in_one_round_only(run: Run) -> None:
    fast, slow = {"east": 8.0, "north": 8.0, "west": 2.0}, {"east": 2.0, "north": 8.0, "west": 2.0}
    truth = [fast, fast, slow, slow, fast, fast]
    asked = rounds_of(run, paced(run), truth)
    assert [a["east"] for a in asked] == [48, 48, 48, 12, 12, 48]
    waits = []
    for steps, rates in zip(asked, truth, strict=True):
        took = [steps[site] / rates[site] for site in steps]
        waits.append(max(took) - min(took))
    assert [round(w, 2) for w in waits] == [18.0, 0.0, 18.0, 0.0, 4.5, 0.0]


def test_a_site_that_is_dropped_is_asked_for_less_until_it_is_in_time_again(run: Run) -> None:
    plan, state, seen = paced(run), run.start, []
    for _ in range(8):
        steps = {site: steps_of(plan, state, site) for site in state.members}
        seen.append(steps["west"])
        # The round goes on without west when its steps take more than twice the others' time; a step of it takes 16.
        counted = {"east": 48.0, "north": 48.0} | ({"west": 16.0 * steps["west"]} if steps["west"] <= 6 else {})
        state = after(run, plan, state, counted, steps)
    assert seen == [48, 24, 12, 6, 3, 3, 3, 3]
    assert state.measured["west"] == Measured(1 / 16)


@settings(max_examples=40)
@given(st.floats(1e-3, 1e6), st.integers(1, 48))
def test_what_a_site_says_of_its_speed_leaves_the_others_their_work(run: Run, seconds: float, steps: int) -> None:
    plan = paced(run)
    honest = {"east": 48.0, "north": 48.0}
    state = after(run, plan, run.start, {**honest, "west": seconds}, {"east": 48, "north": 48, "west": steps})
    assert all(48 // SPREAD <= steps_of(plan, state, site) <= 48 for site in honest)
    assert 1 <= steps_of(plan, state, "west") <= 48


def test_before_a_site_is_measured_the_plan_says_how_fast_it_is(run: Run) -> None:
    plan = paced(run, east=4.0, north=1.0)
    assert {site: steps_of(plan, run.start, site) for site in run.start.members} == {
        "east": 48,
        "north": 12,
        "west": 48,
    }
    # North turns out to be half as fast as east, and a joiner is placed by the others.
    joined = paced(run, east=4.0, north=1.0, west=2.0)
    state = after(run, joined, replace(run.start, members=("east",)), {"east": 12.0}, {"east": 48})
    state = replace(state, members=("east", "north", "west"))
    assert {site: steps_of(joined, state, site) for site in state.members} == {"east": 48, "north": 12, "west": 24}


def test_by_time_a_site_takes_what_fits_and_before_it_is_measured_what_is_planned(run: Run) -> None:
    plan = paced(run, "time", steps=10, round_s=6.0)
    rates = {"east": 4.0, "north": 0.5, "west": 0.01}
    first, second = rounds_of(run, plan, [rates, rates])
    assert first == {"east": 10, "north": 10, "west": 10}
    assert second == {"east": 24, "north": 3, "west": 1}
    bounded = after(run, plan, run.start, {"east": 0.001}, {"east": 10})
    assert steps_of(plan, bounded, "east") == LONGEST * 10


def test_seconds_stand_in_the_header_where_the_pace_asks_for_them(tmp_path: Path) -> None:
    fixed, paced_run = make_run(tmp_path / "fixed"), make_run(tmp_path / "paced", pace="speed")
    assert "seconds" not in contribute(fixed, fixed.start, "east").document
    good = contribute(paced_run, paced_run.start, "east", seconds=2.5)
    assert (good.document["format"], good.document["seconds"]) == (4, 2.5)
    assert parse(good.document, "it") == good.header
    for run, seconds in ((fixed, 1.0), (paced_run, 0.0)):
        with pytest.raises(RoundError, match="it: seconds are"):
            check_against(run.plan, run.start, contribute(run, run.start, "east", seconds=seconds).header, "", "it")
    for wrong in (-1.0, "1", True, 0):
        with pytest.raises(RoundError, match="not a contribution header"):
            parse({**good.document, "seconds": wrong}, "it")


def test_the_chain_measures_what_it_counts(tmp_path: Path) -> None:
    run = make_run(tmp_path, pace="speed", steps=4, membership=Membership(lost_region="reweight"))
    given = [contribute(run, run.start, site, seconds=took) for site, took in (("east", 2.0), ("north", 8.0))]
    _, state = write_commit(run, run.start, given)
    assert state.measured == {"east": Measured(2.0), "north": Measured(0.5), "west": Measured(0.0, 1)}
    assert newest_state(run.home, run.plan).measured == state.measured
    assert [steps_of(run.plan, state, site) for site in ("east", "north", "west")] == [4, 1, 2]
