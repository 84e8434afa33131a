"""The commit protocol, enumerated: all interleavings of three writers, which die, hear no answer, find garbage.

Each step is one request of a store: contribute, look for the commit, list what the others have, copy an input, put the
snapshot, create the commit, read it back. In every state of every test: nobody stands in another history than a reader
who comes now; what was decided stays decided; each writer alone reaches the end of the run, were the others dead; an
invalid commit of a decided round was superseded by one other.
"""

from __future__ import annotations

import pytest

from tests.training.protocol import Faults, explore


def test_three_writers_with_a_crash_and_a_lost_answer_make_one_history_and_nobody_is_stuck() -> None:
    found = explore(1, Faults(crashes=1, lost=1))
    print(found)
    # Any of the three may commit: its own work, or with that of one or both of the others.
    assert found.histories == 12
    assert found.states > 100_000


def test_an_invalid_commit_at_any_moment_is_superseded_once() -> None:
    found = explore(1, Faults(invalid=1, kinds=("signed",)))
    print(found)
    # As above, or after the invalid commit, which the one that supersedes it names.
    assert found.histories == 24


@pytest.mark.long
def test_a_crash_a_lost_answer_and_an_invalid_commit_in_one_history() -> None:
    found = explore(1, Faults(crashes=1, lost=1, invalid=1))
    print(found)
    assert found.histories == 36


@pytest.mark.long
def test_over_two_rounds_writers_that_are_a_round_apart_make_one_history() -> None:
    found = explore(2, Faults())
    print(found)
    assert found.histories == 144


def test_the_enumeration_finds_two_histories_where_a_store_does_not_decide_creates() -> None:
    with pytest.raises(AssertionError, match="decided again|another history"):
        explore(1, Faults(), decides=False)


def test_the_enumeration_finds_who_is_stuck_where_a_plan_waits_for_a_site_that_is_gone() -> None:
    with pytest.raises(AssertionError, match="goes in a circle"):
        explore(1, Faults(), "wait")
