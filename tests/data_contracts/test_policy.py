"""decide(): pure, fails closed, and every reason names its clause."""

from __future__ import annotations

import datetime
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.errors import CausewayError, PolicyRefused
from data_contracts.policy import Place, Purpose, decide, decide_derived, may_leave, permitted_place
from data_contracts.terms import ACTIVITIES, USES, TrainingTerms, countries

DAY = datetime.date(2026, 6, 1)
TERMS = TrainingTerms(
    format=1,
    licence="CC-BY-4.0",
    licence_column=None,
    licences_allowed=(),
    permitted=("pre-training",),
    prohibited=("commercial",),
    storage=("SE",),
    processing=("SE", "US"),
    valid_from=datetime.date(2026, 1, 1),
    valid_until=datetime.date(2026, 12, 31),
    derived_updates="restricted",
    held_out_share=0.1,
    held_out_key="k",
    split_group=("id",),
    text="content",
)
LULEA, BOSTON, OSLO = Place("lulea", ("SE",)), Place("boston", ("US",)), Place("oslo", ("NO",))
RESEARCH = Purpose.parse("research pre-training")


def test_a_use_inside_all_clauses_is_allowed_and_says_which() -> None:
    decision = decide(TERMS, RESEARCH, LULEA, DAY, action="store")
    assert decision.allowed
    assert any(reason.startswith("residency.storage:") for reason in decision.reasons)
    assert any(reason.startswith("purposes.permitted:") for reason in decision.reasons)


def test_storing_and_processing_are_two_permissions() -> None:
    assert not decide(TERMS, RESEARCH, BOSTON, DAY, action="store").allowed
    assert decide(TERMS, RESEARCH, BOSTON, DAY, action="process").allowed


def test_every_jurisdiction_of_a_place_must_be_permitted() -> None:
    decision = decide(TERMS, None, Place("both", ("SE", "US")), DAY, action="store")
    assert not decision.allowed and len(decision.reasons) == 1 and "lies in US" in decision.reasons[0]


@pytest.mark.parametrize(
    ("zones", "country", "allowed"),
    [
        (("EU",), "SE", True),
        (("EU",), "NO", False),
        (("EEA",), "NO", True),
        (("EEA",), "CH", False),
        (("EU",), "GB", False),
        (("anywhere",), "CN", True),
        (("anywhere",), "XX", False),
        (("anywhere",), "EU", False),
        (("MARS",), "SE", False),
        ((), "SE", False),
        (("SE",), "se", False),
    ],
)
def test_zones_hold_their_members_and_nothing_unknown(zones: tuple[str, ...], country: str, allowed: bool) -> None:
    decision = decide(replace(TERMS, storage=zones), None, Place("there", (country,)), DAY, action="store")
    assert decision.allowed is allowed and "residency.storage" in " ".join(decision.reasons)


def test_a_place_without_jurisdictions_is_refused() -> None:
    assert not decide(replace(TERMS, storage=("anywhere",)), None, Place("?", ()), DAY, action="store").allowed


def test_an_unknown_action_is_refused() -> None:
    assert not decide(TERMS, None, LULEA, DAY, action="copy").allowed  # type: ignore[arg-type]


def test_prohibited_wins_over_permitted() -> None:
    decision = decide(TERMS, Purpose.parse("commercial pre-training"), LULEA, DAY, action="store")
    assert not decision.allowed and decision.reasons[0].startswith("purposes.prohibited:")


def test_a_purpose_that_nothing_permits_is_refused() -> None:
    decision = decide(TERMS, Purpose.parse("research retrieval"), LULEA, DAY, action="store")
    assert not decision.allowed and decision.reasons[0].startswith("purposes.permitted:")


def test_an_entry_of_two_words_asks_for_both() -> None:
    terms = replace(TERMS, permitted=("research evaluation",))
    assert not decide(terms, RESEARCH, LULEA, DAY, action="store").allowed
    assert decide(terms, Purpose.parse("evaluation research"), LULEA, DAY, action="store").allowed


def test_a_non_commercial_licence_refuses_commerce_whatever_the_purposes_say() -> None:
    terms = replace(TERMS, licence="CC-BY-NC-4.0", prohibited=())
    decision = decide(terms, Purpose.parse("commercial pre-training"), LULEA, DAY, action="store")
    assert not decision.allowed and decision.reasons[0].startswith("licence:")


@pytest.mark.parametrize(
    ("day", "allowed"),
    [("2025-12-31", False), ("2026-01-01", True), ("2026-12-31", True), ("2027-01-01", False)],
)
def test_both_days_of_validity_are_included(day: str, allowed: bool) -> None:
    assert decide(TERMS, None, LULEA, datetime.date.fromisoformat(day), action="store").allowed is allowed


@pytest.mark.parametrize(
    "text", ["", "research", "pre-training", "pre-training evaluation", "x y", "research x", "a b c"]
)
def test_a_purpose_that_cannot_be_read_names_the_words(text: str) -> None:
    with pytest.raises(CausewayError, match="commercial, research.*pre-training"):
        Purpose.parse(text)


@given(st.sampled_from(USES), st.sampled_from(ACTIVITIES))
def test_a_purpose_reads_back_what_it_writes(use: str, activity: str) -> None:
    assert Purpose.parse(str(Purpose(activity, use))) == Purpose(activity, use)


@given(
    st.lists(st.sampled_from(sorted(countries())), max_size=4).map(tuple),
    st.lists(st.sampled_from(["SE", "US", "EU", "anywhere"]), max_size=3).map(tuple),
    st.sampled_from(sorted(countries())),
)
def test_one_more_jurisdiction_never_opens_a_place(lands: tuple[str, ...], zones: tuple[str, ...], more: str) -> None:
    terms = replace(TERMS, storage=zones)
    before = decide(terms, None, Place("p", lands), DAY, action="store").allowed
    after = decide(terms, None, Place("p", (*lands, more)), DAY, action="store").allowed
    assert before or not lands or not after


def test_the_first_permitted_place_is_taken() -> None:
    assert permitted_place(TERMS, [OSLO, LULEA, BOSTON], DAY) == LULEA


def test_without_a_permitted_place_every_refusal_is_told() -> None:
    with pytest.raises(PolicyRefused, match=r"(?s)oslo lies in NO.*boston lies in US"):
        permitted_place(TERMS, [OSLO, BOSTON], DAY)


def test_restricted_updates_need_home_and_every_site_inside() -> None:
    assert not may_leave(TERMS)
    assert decide_derived(TERMS, LULEA, [LULEA], DAY).allowed
    assert not decide_derived(TERMS, OSLO, [LULEA], DAY).allowed
    refused = decide_derived(TERMS, LULEA, [LULEA, BOSTON], DAY)
    assert not refused.allowed and refused.reasons[0].startswith("derivedUpdates: restricted")


def test_updates_that_may_leave_ask_for_no_place() -> None:
    terms = replace(TERMS, derived_updates="may-leave")
    assert may_leave(terms) and decide_derived(terms, OSLO, [BOSTON], DAY).allowed
