from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_contracts.errors import RoundError
from tests.training.making import Run, contribute, make_run, write_commit
from training.layout import Layout
from training.rounds.control import Control, cancel, control_key, pause, read_control, resume


def with_rounds(folder: Path, rounds: int) -> Run:
    run = make_run(folder, {"north": "europe"})
    state = run.start
    for _ in range(rounds):
        _, state = write_commit(run, state, [contribute(run, state, "north")])
    return run


def test_a_run_that_nobody_paused_is_running_and_has_no_object(tmp_path: Path) -> None:
    run = with_rounds(tmp_path, 0)
    assert read_control(run.home, run.plan.run) == Control()
    assert not Control().stops(1, begun=False)


def test_a_pause_ends_every_site_after_the_round_under_way(tmp_path: Path) -> None:
    run = with_rounds(tmp_path, 2)
    made = pause(run.home, run.plan, "ann", "power cut\nuntil Monday")
    assert read_control(run.home, run.plan.run) == made
    assert (made.state, made.round, made.by, made.reason) == ("paused", 3, "ann", "power cut until Monday")
    assert [made.stops(number, begun=True) for number in (2, 3, 4)] == [False, False, True]
    # A site that is started while the run is paused makes no round at all.
    assert made.stops(3, begun=False)


def test_the_object_has_a_format_and_a_place_in_the_home_store(tmp_path: Path) -> None:
    run = with_rounds(tmp_path, 1)
    pause(run.home, run.plan, "ann")
    key = control_key(run.plan.run)
    assert json.loads(run.home.get(key))["format"] == 1
    assert Layout("home", [run.plan.run]).knows(key)
    assert not Layout("north", [run.plan.run]).knows(key)


def test_a_second_pause_changes_nothing(tmp_path: Path) -> None:
    run = with_rounds(tmp_path, 1)
    first = pause(run.home, run.plan, "ann", "first")
    assert pause(run.home, run.plan, "bob", "second") == first


def test_a_resumed_run_goes_on(tmp_path: Path) -> None:
    run = with_rounds(tmp_path, 1)
    pause(run.home, run.plan, "ann")
    assert resume(run.home, run.plan, "bob").by == "bob"
    assert not read_control(run.home, run.plan.run).stops(2, begun=False)


@pytest.mark.parametrize("verb", [pause, resume])
def test_a_cancelled_run_is_never_paused_or_resumed(tmp_path: Path, verb: object) -> None:
    run = with_rounds(tmp_path, 1)
    pause(run.home, run.plan, "ann")
    cancel(run.home, run.plan, "ann", "the licence ended")
    assert read_control(run.home, run.plan.run).stops(1, begun=True)
    with pytest.raises(RoundError, match=r"was cancelled by ann at .*: the licence ended; .* another name or seed"):
        verb(run.home, run.plan, "bob")  # type: ignore[operator]


@pytest.mark.parametrize("verb", [pause, resume, cancel])
def test_a_finished_run_says_that_it_is_finished(tmp_path: Path, verb: object) -> None:
    run = with_rounds(tmp_path, 4)
    with pytest.raises(RoundError, match="is finished: all its 4 rounds are committed"):
        verb(run.home, run.plan, "ann")  # type: ignore[operator]
    assert not run.home.exists(control_key(run.plan.run))


@pytest.mark.parametrize(
    "document", [{"format": 2, "state": "running"}, {"format": 1, "state": "asleep"}, {"format": 1}, [1]]
)
def test_an_object_that_is_no_control_is_named_with_what_to_do(tmp_path: Path, document: object) -> None:
    run = with_rounds(tmp_path, 0)
    run.home.put(control_key(run.plan.run), json.dumps(document).encode())
    with pytest.raises(RoundError, match=r"control\.json: not a control of format 1 .* delete it"):
        read_control(run.home, run.plan.run)
