from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.errors import RoundError
from tests.training.making import Run, contribute, key_of, make_run, tensors, write_commit
from training.rounds import contribution as contributions
from training.rounds.chain import Slot, advance
from training.rounds.closing import Closer
from training.rounds.commit import ChainState
from training.rounds.contribution import Header
from training.rounds.lengths import planned
from training.rounds.outliers import KEPT, KNOWN, norms_after, outlying
from training.rounds.plan import Length, Membership, Plan

SITES = ("east", "north", "west")
ROUNDS = 12


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("run"), rounds=ROUNDS, norm_bound="robust")


@pytest.fixture(scope="module")
def header(run: Run) -> Header:
    return contribute(run, run.start, "east").header


def after(plan: Plan, state: ChainState, headers: list[Header]) -> ChainState:
    return replace(state, round=state.round + 1, norms=norms_after(plan, state, headers))


@settings(max_examples=40)
@given(
    st.sampled_from([4, 8, 20]),
    st.floats(1.0, 1.6),
    st.floats(0.5, 1.0),
    st.floats(0.85, 1.15),
    st.lists(st.floats(0.75, 1.3), min_size=3 * ROUNDS, max_size=3 * ROUNDS),
    st.sampled_from(SITES),
)
def test_honest_drift_is_never_refused_and_a_hundredfold_update_is(
    run: Run, header: Header, steps: int, growth: float, power: float, drift: float, noise: list[float], liar: str
) -> None:
    lengths = [Length(from_round=n, steps=max(1, round(steps * growth**n))) for n in range(1, ROUNDS + 1)]
    plan = Plan.model_validate({**run.plan.model_dump(), "lengths": lengths})
    state, left = run.start, iter(noise)
    for number in range(1, ROUNDS + 1):
        taken = planned(plan, number)
        typical = 0.01 * taken**power * drift**number
        honest = [replace(header, site=site, steps=taken, norm=typical * next(left)) for site in SITES]
        assert outlying(plan, state, honest) == {}
        assert all(outlying(plan, state, [one]) == {} for one in honest)
        if len(state.norms) >= KNOWN:
            forged = [replace(h, norm=100 * h.norm) if h.site == liar else h for h in honest]
            assert list(outlying(plan, state, forged)) == [liar]
            assert list(outlying(plan, state, [f for f in forged if f.site == liar])) == [liar]
        state = after(plan, state, honest)
    assert len(state.norms) == min(KEPT, 3 * ROUNDS)


@settings(max_examples=40)
@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=3), st.lists(st.floats(1e-3, 1e3), min_size=9, max_size=9))
def test_what_is_left_of_a_round_holds_by_itself(
    run: Run, header: Header, norms: list[float], before: list[float]
) -> None:
    state = run.start
    for k in range(3):
        state = after(run.plan, state, [replace(header, norm=n) for n in before[3 * k : 3 * k + 3]])
    headers = [replace(header, site=site, norm=norm) for site, norm in zip(SITES, norms, strict=False)]
    found = outlying(run.plan, state, headers)
    assert outlying(run.plan, state, [h for h in headers if h.site not in found]) == {}


def test_a_round_that_moves_as_one_is_no_outlier_and_a_lone_site_that_moves_is(run: Run, header: Header) -> None:
    state = run.start
    for _ in range(3):
        state = after(run.plan, state, [replace(header, norm=1.0)] * 3)
    jumped = [replace(header, site=site, norm=30.0) for site in SITES]
    assert outlying(run.plan, state, jumped) == {}
    assert outlying(run.plan, state, jumped[:2]) == {}
    assert list(outlying(run.plan, state, jumped[:1])) == ["east"]


def test_fragments_are_compared_with_their_like(run: Run, header: Header) -> None:
    plan = Plan.model_validate({**run.plan.model_dump(), "overlap": {"fragments": 2}})
    state = run.start
    for number in range(8):
        state = after(plan, state, [replace(header, norm=100.0 if number % 2 else 1.0)] * 3)
    assert outlying(plan, state, [replace(header, norm=100.0)]).keys() == {"east"}
    assert outlying(plan, replace(state, round=9), [replace(header, norm=100.0)]) == {}


def test_the_closer_refuses_an_outlier_on_record_and_no_commit_may_hold_it(tmp_path: Path) -> None:
    run = make_run(tmp_path, norm_bound="robust", membership=Membership(quorum=2))
    state = run.start
    for _ in range(3):
        _, state = write_commit(run, state, [contribute(run, state, site) for site in SITES])
    assert len(state.norms) == 9
    wild = tensors(7, 1.0)
    given = [contribute(run, state, site, wild if site == "west" else None) for site in SITES]
    with pytest.raises(RoundError, match="contribution of west: outlying: norm .* is beyond"):
        write_commit(run, state, given)
    for one in given:
        contributions.publish(run.stores[one.header.site], one)
    slot = advance(run.home, run.plan, state)
    assert isinstance(slot, Slot)
    assert Closer(run.plan, "east", run.home, run.stores, key_of("east")).try_commit(state, slot, 0)
    found = advance(run.home, run.plan, state)
    assert not isinstance(found, Slot)
    (refusal,) = found[1]["refusals"]
    assert (refusal["site"], found[1]["absent"]) == ("west", ["west"])
    assert refusal["contribution"].endswith(f"west-{given[2].sha}.json")
    assert "the last 9 updates that counted, taken to 3 steps, have median" in refusal["reason"]
    assert [i["site"] for i in found[1]["inputs"]] == ["east", "north"]


def test_an_old_plan_bounds_by_the_model_only(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    assert "norm_bound" not in run.plan.body()
    state = run.start
    for _ in range(3):
        _, state = write_commit(run, state, [contribute(run, state, site) for site in SITES])
    assert state.norms == ()
    write_commit(run, state, [contribute(run, state, site, tensors(7, 1.0)) for site in SITES])
