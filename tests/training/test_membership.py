from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.rounds.membership import closed_by, grace_s
from training.rounds.plan import Membership

SITES = ("a", "b", "c", "d")
RULES = st.builds(
    Membership,
    lost_region=st.sampled_from(["wait", "reweight"]),
    quorum=st.integers(1, 6),
    grace_floor_s=st.floats(0.1, 60),
    grace_mad=st.floats(0, 10),
)
WAITS = st.lists(st.floats(0, 1000), max_size=8)


@given(RULES, WAITS)
def test_the_grace_is_median_and_mad_of_past_waits_and_never_below_the_floor(
    rule: Membership, waits: list[float]
) -> None:
    grace = grace_s(rule, waits)
    assert grace >= rule.grace_floor_s
    if waits:
        middle = statistics.median(waits)
        mad = statistics.median([abs(w - middle) for w in waits])
        assert grace == max(rule.grace_floor_s, middle + rule.grace_mad * mad)


def test_the_grace_follows_slower_rounds_and_shrugs_at_one_outlier() -> None:
    rule = Membership(grace_floor_s=1, grace_mad=5)
    assert grace_s(rule, []) == 1
    assert grace_s(rule, [10, 11, 12]) == 16
    assert grace_s(rule, [10, 11, 12, 500]) < 25


@given(RULES, st.sets(st.sampled_from(SITES)), st.sets(st.sampled_from(SITES)), st.floats(0, 2000), WAITS)
def test_a_round_closes_only_with_a_quorum_and_only_when_all_answered_or_the_grace_is_over(
    rule: Membership, contributed: set[str], refused: set[str], waited: float, waits: list[float]
) -> None:
    why = closed_by(rule, SITES, contributed, refused, waited, waits)
    assert why in ("all", "grace", None)
    if len(contributed) < min(rule.quorum, len(SITES)):
        assert why is None
    elif contributed | refused == set(SITES):
        assert why == "all"
    elif rule.lost_region == "wait":
        assert why is None
    else:
        assert (why == "grace") == (waited >= grace_s(rule, waits))


@pytest.mark.parametrize("waited", [0.0, 1e9])
def test_a_plan_that_waits_waits_for_as_long_as_it_takes(waited: float) -> None:
    assert closed_by(Membership(), SITES, ("a", "b", "c"), (), waited, ()) is None


def test_a_quorum_larger_than_the_run_means_everybody() -> None:
    rule = Membership(lost_region="reweight", quorum=9, grace_floor_s=1)
    assert closed_by(rule, SITES, SITES[:3], (), 1e9, ()) is None
    assert closed_by(rule, SITES, SITES, (), 0, ()) == "all"
