"""A history that was decided is never decided again: damage stops, it does not fork."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from data_contracts.errors import RoundError, StoreError
from tests.training.making import Run, contribute, make_run, write_commit
from training.rounds.chain import Slot, advance, commit_key
from training.rounds.commit import build
from training.rounds.merge import parameters
from training.rounds.run import newest_state

ALL = ("east", "north", "west")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made = make_run(tmp_path)
    state = made.start
    for _ in range(3):
        _, state = write_commit(made, state, [contribute(made, state, site) for site in ALL])
    return made


def test_a_lost_commit_in_the_middle_stops_every_reader_and_is_named(run: Run) -> None:
    run.home.delete(commit_key(run.plan.run, 2))
    with pytest.raises(StoreError, match=r"000002\.json: missing; later rounds follow it"):
        newest_state(run.home, run.plan)


def test_a_damaged_commit_in_the_middle_stops_every_reader_and_is_named(run: Run) -> None:
    path = run.home.path(commit_key(run.plan.run, 2))
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(StoreError, match=r"000002\.json: damaged: .*later rounds follow it"):
        newest_state(run.home, run.plan)


def test_what_no_member_signed_does_not_count_as_a_later_round(run: Run) -> None:
    run.home.create(commit_key(run.plan.run, 9), b'{"inputs":[],"amendments":[],"committer":"east"}')
    state = newest_state(run.home, run.plan)
    assert state.round == 3
    assert isinstance(advance(run.home, run.plan, state), Slot)


def test_under_wait_a_commit_without_a_live_site_is_invalid(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    given = [contribute(run, run.start, site) for site in ("east", "north")]
    facts = {"closed_by": "all"}
    with pytest.raises(RoundError, match="the plan waits for west"):
        build(
            run.plan,
            run.start,
            given,
            terms_head=given[0].header.terms_head,
            refusals=[],
            amendments=[],
            deadline=facts,
            committer="east",
        )


def test_a_contribution_of_ten_times_the_models_norm_is_outlying(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    huge = {name: np.full_like(tensor, 1e6) for name, tensor in parameters(run.start.tensors).items()}
    given = [contribute(run, run.start, "east", huge), *(contribute(run, run.start, s) for s in ("north", "west"))]
    with pytest.raises(RoundError, match="east: outlying"):
        write_commit(run, run.start, given)
