from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from prefect.states import Failed
from pydantic import ValidationError

from data_contracts.catalog.leases import Busy, Holder
from data_contracts.errors import DataRefused, StoreError
from flows.override import Approval, _may_pass, details, question
from tests.training.test_overriding import FEW, MANY, contract_of, ingest
from training.overriding import Case, case_of


@pytest.fixture
def case(tmp_path: Path) -> Case:
    made = contract_of(tmp_path)
    return case_of(ingest(tmp_path, made, FEW), made, "monday")


def test_the_question_says_why_it_was_refused_and_what_approving_changes(case: Case, tmp_path: Path) -> None:
    asked = question(case)
    assert "was refused: " in asked
    assert "does not hold, 1 rows. No version of it is in force." in asked
    assert "its 1 accepted rows become its current version; the 1 quarantined rows stay in quarantine" in asked
    made = contract_of(tmp_path)
    assert "accepted rows take its place" in question(case_of(ingest(tmp_path, made, MANY), made, "monday"))
    assert "but the newer publication stays current" in question(replace(case, replaces=False))


def test_the_details_name_places_of_quarantined_records_and_none_of_their_values(case: Case) -> None:
    shown = details(case)
    assert "monday.jsonl:2 (" in shown
    assert "| content.minLength | 1 |" in shown
    assert "apple" not in shown


def test_names_from_data_are_text_in_the_artifact(case: Case) -> None:
    odd = replace(case.refused, partition="<b>x</b>|y\n# z")
    heading = details(replace(case, refused=odd)).splitlines()[0]
    assert heading == "## test/notes, partition &lt;b>x&lt;/b>\\|y \\# z"


@pytest.mark.parametrize("wrong", [{"name": "A"}, {"name": "  "}, {"why": "short"}, {"why": " " * 20}])
def test_the_form_asks_for_a_name_and_a_reason(wrong: dict[str, str]) -> None:
    right = {"name": "Ann", "why": "a holiday, few reports"}
    assert not Approval.model_validate({"approve": False, **right}).approve
    with pytest.raises(ValidationError):
        Approval.model_validate({"approve": True, **right, **wrong})
    with pytest.raises(ValidationError, match="approve"):
        Approval.model_validate(right)


@pytest.mark.parametrize(
    ("error", "again"),
    [
        (Busy("ingest/x", Holder("an ingest", "host", "", "", 1, "")), True),
        (StoreError("no answer"), True),
        (DataRefused("another version came into force"), False),
    ],
)
def test_an_approval_is_tried_again_while_an_ingest_works_and_never_after_a_refusal(
    error: Exception, again: bool
) -> None:
    assert asyncio.run(_may_pass(None, None, Failed(data=error))) is again
