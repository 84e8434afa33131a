"""decide(): pure, fails closed, and every reason names its clause."""

from __future__ import annotations

import datetime
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.errors import CausewayError, PolicyRefused
from data_contracts.policy import Place, Purpose, decide, decide_derived, may_leave, permitted_place, retained
from data_contracts.terms import ACTIVITIES, USES, Retention, TrainingTerms, countries

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


def test_a_zone_of_the_terms_holds_its_countries_and_no_other() -> None:
    terms = replace(TERMS, storage=("nordic",), zones={"nordic": ("SE", "NO")})
    assert decide(terms, None, OSLO, DAY, action="store").allowed
    assert not decide(terms, None, BOSTON, DAY, action="store").allowed
    assert not decide(replace(terms, zones={}), None, OSLO, DAY, action="store").allowed


def test_never_in_refuses_whatever_is_permitted() -> None:
    terms = replace(TERMS, storage=("anywhere",), never_in=("US",))
    assert decide(terms, None, OSLO, DAY, action="store").allowed
    refused = decide(terms, None, Place("mixed", ("SE", "US")), DAY, action="store")
    assert refused.reasons == ("residency.neverIn: mixed lies in US, and never in US is said.",)


def test_never_outside_binds_rows_and_what_is_derived_from_them() -> None:
    terms = replace(TERMS, storage=("anywhere",), processing=("anywhere",), never_outside=("EEA",))
    assert decide(terms, None, OSLO, DAY, action="process").allowed
    refused = decide(terms, None, BOSTON, DAY, action="process")
    assert refused.reasons == ("residency.neverOutside: boston lies in US, and never outside EEA is said.",)
    leaving = replace(terms, derived_updates="may-leave")
    assert not may_leave(leaving) and not decide_derived(leaving, LULEA, [BOSTON], DAY).allowed


def test_a_never_clause_that_names_no_known_zone_refuses_every_place() -> None:
    for terms in (replace(TERMS, never_in=("nordic",)), replace(TERMS, never_outside=("SE", "nordic"))):
        assert not decide(terms, None, LULEA, DAY, action="store").allowed


def test_without_a_licence_nothing_is_permitted_until_a_ground_is_on_record() -> None:
    unstated = replace(TERMS, licence="NOASSERTION")
    for purpose in (None, RESEARCH):
        refused = decide(unstated, purpose, LULEA, DAY, action="store")
        assert refused.reasons[0].startswith("licence: nobody states one")
    ground = {"basis": "public-domain", "reference": "17 U.S.C. 105"}
    allowed = decide(replace(unstated, legal_basis=ground), RESEARCH, LULEA, DAY, action="store")
    assert allowed.allowed and "legalBasis: public-domain, on record as 17 U.S.C. 105." in allowed.reasons


def test_a_prohibition_names_the_licence() -> None:
    terms = replace(TERMS, licence="GPL-3.0-only")
    refused = decide(terms, Purpose.parse("commercial pre-training"), LULEA, DAY, action="store")
    assert refused.reasons == (
        "purposes.prohibited: 'commercial pre-training' falls under 'commercial'; the licence is GPL-3.0-only.",
    )


def test_retention_ends_after_its_last_day_and_says_what_is_to_be_done() -> None:
    terms = replace(TERMS, retention=Retention("P1M", "anonymise"))
    since = datetime.date(2026, 1, 31)
    assert retained(TERMS, since, datetime.date.max).allowed
    assert retained(terms, since, datetime.date(2026, 2, 28)).allowed
    over = retained(terms, since, datetime.date(2026, 3, 1))
    assert not over.allowed and over.reasons[0].endswith("the day is 2026-03-01: anonymise the rows.")


_places = st.lists(st.sampled_from(["SE", "NO", "US", "EU", "EEA", "anywhere", "nordic", "MARS"]), max_size=3).map(
    tuple
)
_purposes = st.lists(st.sampled_from([*USES, *ACTIVITIES, "research pre-training"]), max_size=3).map(tuple)
_terms = st.builds(
    lambda licence, basis, permitted, prohibited, storage, processing, never_in, never_outside, zones: replace(
        TERMS,
        licence=licence,
        legal_basis=basis,
        permitted=permitted,
        prohibited=prohibited,
        storage=storage,
        processing=processing,
        never_in=never_in,
        never_outside=never_outside,
        zones=zones,
    ),
    st.sampled_from(["MIT", "CC-BY-NC-4.0", "NOASSERTION", None]),
    st.sampled_from([None, {"basis": "consent", "reference": "r"}]),
    _purposes,
    _purposes,
    _places,
    _places,
    _places,
    _places,
    st.sampled_from([{}, {"nordic": ("SE", "NO")}]),
)
_lands = st.lists(st.sampled_from(["SE", "NO", "US", "GB", "XX", ""]), max_size=3).map(tuple)
_asked = st.builds(Purpose, st.sampled_from([*ACTIVITIES, "training"]), st.sampled_from([*USES, "any"]))
_actions = st.sampled_from(["store", "process", "copy"])


@given(_terms, _asked, _lands, st.dates(), _actions)
def test_each_answer_is_the_same_again_and_gives_at_least_one_sentence(
    terms: TrainingTerms, purpose: Purpose, lands: tuple[str, ...], day: datetime.date, action: Any
) -> None:
    first = decide(terms, purpose, Place("p", lands), day, action=action)
    assert first == decide(terms, purpose, Place("p", lands), day, action=action)
    assert first.reasons and all(reason.endswith(".") and ": " in reason for reason in first.reasons)


@given(_terms, _asked, _lands, st.dates(), _actions)
def test_what_is_allowed_is_allowed_by_every_clause(
    terms: TrainingTerms, purpose: Purpose, lands: tuple[str, ...], day: datetime.date, action: Any
) -> None:
    """Fails closed: known words, a known place, a day inside, a ground, an entry that permits."""
    if not decide(terms, purpose, Place("p", lands), day, action=action).allowed:
        return
    assert purpose.activity in ACTIVITIES and purpose.use in USES and action in ("store", "process")
    assert lands and set(lands) <= countries()
    assert datetime.date(2026, 1, 1) <= day <= datetime.date(2026, 12, 31)
    assert any(purpose.matches(entry) for entry in terms.permitted)
    assert not any(purpose.matches(entry) for entry in terms.prohibited)
    assert terms.licence != "NOASSERTION" or terms.legal_basis
    assert not {"MARS"} & {*terms.never_in, *terms.never_outside}


@given(_terms, _asked, _lands, _actions, st.sampled_from(["SE", "US", "EEA", "nordic", "MARS"]))
def test_one_more_prohibition_never_permits(
    terms: TrainingTerms, purpose: Purpose, lands: tuple[str, ...], action: Any, zone: str
) -> None:
    place = Place("p", lands)
    if decide(terms, purpose, place, DAY, action=action).allowed:
        return
    for stricter in (
        replace(terms, never_in=(*terms.never_in, zone)),
        replace(terms, prohibited=(*terms.prohibited, "research")),
        replace(terms, legal_basis=None),
    ):
        assert not decide(stricter, purpose, place, DAY, action=action).allowed
