"""What amendments of the data do to a chain; those of its sites are in test_closing.py, the owner's checks in
test_amending.py."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from data_contracts.canonical import canonical_json
from data_contracts.errors import RoundError
from data_contracts.signing import sign
from tests.training.making import Run, contribute, key_of, make_run, write_commit
from training.rounds.amendment import (
    Amendment,
    folder,
    list_amendments,
    read_amendment,
    write_amendment,
    write_data_amendment,
)
from training.rounds.commit import ChainState, check_against
from training.rounds.plan import CurriculumStep, PlanDataset
from training.rounds.run import every_version, newest_state
from training.rounds.segments import in_force

ALL = ("east", "north", "west")
NOTES, MORE = "0" * 64, "a" * 64


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(tmp_path)


def amend(run: Run, kind: str, **facts: Any) -> Amendment:
    return write_data_amendment(run.home, run.plan, kind, facts, "because", key_of("owner"))


def committed(run: Run, state: ChainState, *amendments: Amendment) -> ChainState:
    return write_commit(run, state, [contribute(run, state, s) for s in ALL], amendments=list(amendments))[1]


def test_an_amendment_is_in_force_from_the_round_after_the_commit_that_names_it(run: Run) -> None:
    more = amend(run, "add-version", dataset="test/more", version=MORE, weights={"test/more": 2})
    state = committed(run, committed(run, run.start), more)
    (opened,) = state.openings
    assert (opened.round, opened.index, opened.amendments) == (3, state.index, (more,))
    found = in_force(run.plan, state.openings)
    assert (dict(found.versions), found.weights) == ({NOTES: "test/notes", MORE: "test/more"}, {"test/more": 2.0})
    assert newest_state(run.home, run.plan).openings == state.openings
    assert every_version(run.home, run.plan) == {NOTES: "test/notes", MORE: "test/more"}


def test_a_site_that_joins_later_is_no_member_until_an_amendment_adds_it(tmp_path: Path) -> None:
    run = make_run(tmp_path, later=["west"])
    assert run.start.members == ("east", "north")
    with pytest.raises(RoundError, match="site 'west' is no member in round 1"):
        check_against(run.plan, run.start, contribute(run, run.start, "west").header, "", "it")
    added = write_amendment(run.home, run.plan, "add-site", "west", "the machines came", key_of("owner"))
    early = [contribute(run, run.start, site) for site in ("east", "north")]
    state = write_commit(run, run.start, early, amendments=[added])[1]
    assert state.members == ALL
    assert committed(run, state).round == 2
    assert "later" not in make_run(tmp_path / "other").plan.body()


@pytest.mark.parametrize(("later", "why"), [(["mars"], "mars cannot join later"), (list(ALL), "one has to begin")])
def test_those_that_join_later_are_sites_of_the_plan_and_not_all_of_them(
    tmp_path: Path, later: list[str], why: str
) -> None:
    with pytest.raises(ValidationError, match=why):
        make_run(tmp_path, later=later)


def test_a_contribution_names_only_data_sets_in_force(run: Run) -> None:
    more = contribute(run, run.start, "east", tokens_by_dataset={"test/more": 14})
    with pytest.raises(RoundError, match="not those of the data sets in force"):
        check_against(run.plan, run.start, more.header, "", "it")
    added = amend(run, "add-version", dataset="test/more", version=MORE, weights={})
    withdrawn = amend(run, "withdraw-version", dataset="test/notes", version=NOTES)
    state = committed(run, run.start, added, withdrawn)
    check_against(run.plan, state, contribute(run, state, "east", tokens_by_dataset={"test/more": 14}).header, "", "it")
    with pytest.raises(RoundError, match="not those of the data sets in force"):
        check_against(run.plan, state, contribute(run, state, "east").header, "", "it")


def test_an_amendment_that_changes_nothing_by_then_stops_no_chain(run: Run) -> None:
    gone = [amend(run, "withdraw-version", dataset="test/notes", version=sha) for sha in (MORE, NOTES, NOTES)]
    back = amend(run, "add-version", dataset="test/notes", version=NOTES, weights={})
    unknown = amend(run, "change-weights", weights={"test/nobody": 3.0})
    state = committed(run, run.start, *gone, back, unknown)
    assert dict(in_force(run.plan, state.openings).versions) == {NOTES: "test/notes"}


def test_the_curriculum_opens_segments_and_an_amendment_has_the_last_word(tmp_path: Path) -> None:
    steps = [CurriculumStep(from_round=r, weights={"test/notes": w}) for r, w in ((1, 5.0), (3, 7.0))]
    run = make_run(
        tmp_path, curriculum=steps, datasets=[PlanDataset(dataset="test/notes", version=NOTES, terms_sha="")]
    )
    assert in_force(run.plan, ()).weights == {"test/notes": 5.0}
    state = committed(run, run.start)
    assert state.openings == ()
    state = committed(run, state)
    assert [(o.round, o.amendments) for o in state.openings] == [(3, ())]
    assert in_force(run.plan, state.openings).weights == {"test/notes": 7.0}
    state = committed(run, state, amend(run, "change-weights", weights={"test/notes": 1.0}))
    assert in_force(run.plan, state.openings).weights == {"test/notes": 1.0}


@pytest.mark.parametrize(
    ("facts", "why"),
    [
        ({"kind": "change-weights", "weights": {}}, "it names no weights"),
        ({"kind": "change-weights", "weights": {"a": -1}}, "a weight is 0 or more, not a=-1.0"),
        ({"kind": "change-weights", "weights": {"a": "heavy"}}, "could not convert"),
        ({"kind": "change-weights"}, "weights"),
        ({"kind": "add-version", "dataset": "test/more", "weights": {}}, "version"),
        ({"kind": "rename", "site": "east"}, "amendment 'rename' of format 2 is not known here"),
        ({"kind": "remove-site", "site": "east"}, "amendment 'remove-site' of format 2 is not known here"),
        ({"kind": "change-weights", "weights": {"a": 1}, "format": 1}, "of format 1 is not known here"),
        ({"kind": "change-weights", "weights": {"a": 1}, "format": 3}, "of format 3 is not known here"),
    ],
)
def test_what_is_no_amendment_is_refused_and_never_ignored(run: Run, facts: dict[str, Any], why: str) -> None:
    body = {"format": 2, "run": run.plan.run, "sequence": 1, "reason": "", **facts}
    run.home.create(f"{folder(run.plan.run)}/000001.json", canonical_json(sign(body, key_of("owner"))))
    with pytest.raises(RoundError, match=why):
        list_amendments(run.home, run.plan)


def test_an_amendment_is_found_by_its_hash_and_says_in_words_what_it_does(run: Run) -> None:
    made = [
        amend(run, "change-weights", weights={"test/notes": 2, "test/more": 0.5}),
        amend(run, "withdraw-version", dataset="test/notes", version=NOTES),
    ]
    assert [read_amendment(run.home, run.plan.run, a.sha) for a in made] == made
    assert [a.words for a in made] == [
        "change-weights test/more=0.5 test/notes=2",
        "withdraw-version test/notes@000000000000",
    ]
