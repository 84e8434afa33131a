"""Who begins at a snapshot stands where a replay from round 1 does, and what is wrong there is never taken."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_contracts.errors import StoreError
from tests.training.making import Run, contribute, key_of, make_run, write_commit
from training.rounds import merge
from training.rounds.amendment import write_amendment, write_data_amendment
from training.rounds.chain import commit_key, snapshot_key
from training.rounds.commit import ChainState
from training.rounds.joining import begin_at_snapshots
from training.rounds.plan import CurriculumStep, Membership
from training.rounds.run import newest_round, newest_state, replay, start_state

SITES = {"east": "asia", "north": "europe", "south": "asia", "west": "america"}


def same(one: ChainState, other: ChainState) -> bool:
    """Compare every field, those of later versions too."""
    plain = [f.name for f in fields(ChainState) if f.name != "tensors"]
    different = [name for name in plain if getattr(one, name) != getattr(other, name)]
    assert not different
    assert one.tensors.keys() == other.tensors.keys()
    return all(np.array_equal(one.tensors[name], other.tensors[name]) for name in one.tensors)


def replayed(run: Run) -> ChainState:
    state = start_state(run.home, run.plan)
    for after, _, _ in replay(run.home, run.plan, state):
        state = after
    return state


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Nine rounds, a snapshot every second; a site leaves and returns, weights change twice, one is late once.

    Speeds and norms are among what the chain remembers.
    """
    curriculum = [CurriculumStep(from_round=3, weights={"test/notes": 2.0})]
    rule = Membership(lost_region="reweight")
    kept: dict[str, Any] = {"pace": "speed", "norm_bound": "robust"}
    made = make_run(tmp_path, SITES, rounds=12, snapshot_every=2, curriculum=curriculum, membership=rule, **kept)
    state = made.start
    for number in range(1, 10):
        amendments = []
        if number == 2:
            amendments = [write_amendment(made.home, made.plan, "remove-site", "south", "power cut", key_of("owner"))]
        if number == 5:
            weights = {"weights": {"test/notes": 1.0}}
            kind = "change-weights"
            amendments = [write_data_amendment(made.home, made.plan, kind, weights, "less", key_of("owner"))]
        if number == 6:
            amendments = [write_amendment(made.home, made.plan, "add-site", "south", "back", key_of("owner"))]
        present = [m for m in state.members if number != 4 or m != "west"]
        given = [contribute(made, state, site, seconds=1.0 + number) for site in present]
        document, state = write_commit(made, state, given, amendments=amendments)
        if number % 2 == 0:
            made.home.ensure(
                snapshot_key(made.plan.run, number, document["result"]), merge.pack_state(state.tensors)[0]
            )
    return made


def snapshots(run: Run) -> list[str]:
    return [key for key, _ in run.home.list(f"runs/{run.plan.run}/snapshots")]


def test_the_newest_snapshot_gives_every_field_that_a_replay_from_round_1_gives(run: Run) -> None:
    begun = next(begin_at_snapshots(run.home, run.plan))
    assert begun.round == 8
    (after, _, _) = next(replay(run.home, run.plan, begun))
    assert same(after, replayed(run))
    found, applied = newest_round(run.home, run.plan)
    assert same(found, replayed(run))
    assert applied == tuple(sorted(SITES))
    assert len(found.openings) == 2
    assert set(found.measured) == set(SITES)
    assert found.norms


def test_payloads_of_rounds_before_the_snapshot_are_not_needed(run: Run) -> None:
    whole = replayed(run)
    for after, _, inputs in list(replay(run.home, run.plan, run.start)):
        if after.round < 8:
            for one in inputs:
                run.home.delete(f"runs/{run.plan.run}/inputs/{one.header.payload}.safetensors")
    assert same(newest_state(run.home, run.plan), whole)


def test_a_snapshot_that_is_missing_or_damaged_is_passed_over(run: Run) -> None:
    whole = replayed(run)
    newest, older = snapshots(run)[-1], snapshots(run)[-2]
    run.home.put(newest, run.home.get(newest)[:-1] + b"?")
    assert next(begin_at_snapshots(run.home, run.plan)).round == 6
    assert same(newest_state(run.home, run.plan), whole)
    run.home.delete(newest)
    run.home.delete(older)
    assert list(begin_at_snapshots(run.home, run.plan)) == []
    assert same(newest_state(run.home, run.plan), whole)


def test_a_snapshot_that_no_commit_follows_is_not_begun_at(run: Run) -> None:
    run.home.delete(commit_key(run.plan.run, 9))
    assert next(begin_at_snapshots(run.home, run.plan)).round == 6
    # What follows must be a commit that holds: junk is not.
    run.home.put(commit_key(run.plan.run, 9), b"{}")
    assert newest_state(run.home, run.plan).round == 8


@pytest.mark.parametrize("number", [3, 8])
def test_a_commit_that_was_changed_is_no_way_to_a_snapshot_and_is_named(run: Run, number: int) -> None:
    key = commit_key(run.plan.run, number)
    run.home.put(key, run.home.get(key).replace(b'"absent":[]', b'"absent":["east"]'))
    assert list(begin_at_snapshots(run.home, run.plan)) == [] or number == 8
    with pytest.raises(StoreError, match=f"{key}: damaged"):
        newest_state(run.home, run.plan)


def test_an_invalid_commit_that_was_superseded_on_the_way_is_read_as_the_chain_has_it(tmp_path: Path) -> None:
    made = make_run(tmp_path, rounds=5, snapshot_every=2)
    made.home.put(commit_key(made.plan.run, 1), b"garbage")
    state = made.start
    for _ in range(3):
        document, state = write_commit(made, state, [contribute(made, state, site) for site in state.members])
        if state.round == 2:
            made.home.ensure(snapshot_key(made.plan.run, 2, document["result"]), merge.pack_state(state.tensors)[0])
    assert next(begin_at_snapshots(made.home, made.plan)).round == 2
    assert same(newest_state(made.home, made.plan), replayed(made))


def test_a_header_before_the_snapshot_that_is_gone_stops_that_way(run: Run) -> None:
    (_, _, inputs) = next(replay(run.home, run.plan, run.start))
    run.home.delete(f"runs/{run.plan.run}/inputs/{inputs[0].sha}.json")
    assert list(begin_at_snapshots(run.home, run.plan)) == []
    with pytest.raises(StoreError, match=inputs[0].sha):
        newest_state(run.home, run.plan)
