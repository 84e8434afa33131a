"""Late work that is carried to a later round: never lost, never applied twice, never both carried and made again."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.numpy import load

from data_contracts.errors import RoundError
from tests.training.making import Run, contribute, make_run, write_commit
from tests.training.test_codec_run import finish, headers, replanned
from tests.training.test_overlap import assert_exact, begin, committed, exists, handed_by
from tests.training.test_worker import CONFIG, planned
from training.rounds import contribution as contributions
from training.rounds import ledger
from training.rounds.commit import ChainState, check_against
from training.rounds.contribution import Contribution, carried
from training.rounds.plan import Overlap, Plan
from training.shards.schedule import unroll
from training.verify import verify_run
from training.workspace import Workspace

__all__ = ["planned"]
torch.set_num_threads(1)
RULE = {"lost_region": "reweight", "quorum": 2, "late": "carry"}


def again(run: Run, state: ChainState, one: Contribution) -> Contribution:
    return carried(one, state.round + 1, state.head, state.state_sha, "", run.key(one.header.site))


def check(run: Run, state: ChainState, one: Contribution) -> None:
    check_against(run.plan, state, one.header, "", "it")


def test_late_work_is_booked_once_by_the_round_that_applies_it(tmp_path: Path) -> None:
    run = make_run(tmp_path, membership=RULE)
    late = contribute(run, run.start, "west")
    first = [contribute(run, run.start, site) for site in ("east", "north")]
    _, after = write_commit(run, run.start, first)
    moved = again(run, after, late)
    assert (moved.header.round, moved.header.made_for, moved.header.format) == (2, 1, 4)
    assert moved.payload == late.payload
    second = [*(contribute(run, after, site) for site in ("east", "north")), moved]
    document, last = write_commit(run, after, second)
    assert [i.get("made_for") for i in document["inputs"]] == [None, None, 1]
    entries = ledger.entries(run.plan, [(1, first), (2, second)])
    assert {e.round for e in entries if e.site == "west"} == {2}
    # Booked, its ranges are not the chain's next any more.
    with pytest.raises(RoundError, match="claims lane .* the chain stands at"):
        check(run, last, again(run, last, late))


def test_what_a_round_may_not_apply_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path, membership={**RULE, "carry_rounds": 1})
    late = contribute(run, run.start, "west")
    state, states = run.start, [run.start]
    for _ in range(2):
        _, state = write_commit(run, state, [contribute(run, state, s) for s in ("east", "north")])
        states.append(state)
    check(run, states[1], again(run, states[1], late))
    with pytest.raises(RoundError, match="made for round 1; round 3 applies work of at most 1 rounds before it"):
        check(run, states[2], again(run, states[2], late))
    with pytest.raises(RoundError, match="made for round 2; round 2 applies"):
        check(run, states[1], contribute(run, states[1], "west", made_for=2))
    with pytest.raises(RoundError, match="4 steps where round 1 had 3"):
        check(run, states[1], contribute(run, states[1], "west", made_for=1, steps=4))

    discarding = make_run(tmp_path / "b", membership={**RULE, "late": "discard"})
    _, after = write_commit(
        discarding, discarding.start, [contribute(discarding, discarding.start, s) for s in ("east", "north")]
    )
    with pytest.raises(RoundError, match="the plan says late = 'discard': train it again"):
        check(discarding, after, again(discarding, after, contribute(discarding, discarding.start, "west")))

    curriculum = [{"from_round": 2, "weights": {"test/notes": 2.0}}]
    mixed = make_run(tmp_path / "c", membership=RULE, curriculum=curriculum)
    _, after = write_commit(mixed, mixed.start, [contribute(mixed, mixed.start, s) for s in ("east", "north")])
    with pytest.raises(RoundError, match="from round 2 on other data are trained on"):
        check(mixed, after, again(mixed, after, contribute(mixed, mixed.start, "west")))


def test_a_growing_round_takes_the_steps_of_the_round_that_the_work_was_made_for(tmp_path: Path) -> None:
    run = make_run(tmp_path, membership=RULE, lengths=[{"from_round": 2, "steps": 5}])
    late = contribute(run, run.start, "west")
    _, after = write_commit(run, run.start, [contribute(run, run.start, s) for s in ("east", "north")])
    check(run, after, again(run, after, late))
    assert again(run, after, late).header.steps == 3


def test_overlap_and_carried_work_exclude_each_other(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="overlap goes with late = 'discard' only"):
        make_run(tmp_path, membership=RULE, overlap=Overlap(delay_steps=1))
    plan = make_run(tmp_path).plan
    assert "carry_rounds" not in plan.body()["membership"]


def slow_north(planned: Path, folder: Path, **rule: Any) -> tuple[Workspace, Plan]:
    kept = {"lost_region": "reweight", "quorum": 2, "grace_floor_s": 0.5, "late": "carry", **rule}
    membership = CONFIG.membership.model_copy(update=kept)
    return replanned(planned, folder, rounds=4, codec="topk-4096-64-2", membership=membership)


def optimizer_steps(workspace: Workspace, plan: Plan, number: int) -> int:
    kept = workspace.store("north").get(f"runs/{plan.run}/inner/north-{number:06d}.safetensors")
    return int(load(kept)["steps"])


def standing(workspace: Workspace, plan: Plan, until: int) -> Callable[[], bool]:
    """North stands still late in round 2 until the others have committed round `until`."""

    def held_up() -> bool:
        while [len(s) for s in handed_by(workspace, "north", 2).values()] == [8] and not exists(workspace, plan, until):
            time.sleep(0.02)
        return False

    return held_up


def waiting(workspace: Workspace, plan: Plan) -> Callable[[], bool]:
    """The others wait before round 3 until north has contributed to it."""

    def gate() -> bool:
        while exists(workspace, plan, 2) and not contributions.find(workspace.store("north"), plan.run, 3, "north"):
            time.sleep(0.02)
        return False

    return gate


@pytest.mark.parametrize("stopped", [False, True])
def test_a_slow_site_is_carried_to_the_next_round_and_goes_on(planned: Path, tmp_path: Path, stopped: bool) -> None:
    workspace, plan = slow_north(planned, tmp_path / "home")
    slow = standing(workspace, plan, 2)
    others = begin(workspace, plan, "east", "west", stop=waiting(workspace, plan))
    if stopped:
        # It ends with its late work published, before it knows that it was late.
        ended = lambda: slow() or bool(contributions.find(workspace.store("north"), plan.run, 2, "north"))  # noqa: E731
        finish(begin(workspace, plan, "north", stop=ended))
    finish([*begin(workspace, plan, "north", stop=slow), *others])
    assert verify_run(workspace, plan.run).ok
    history = committed(workspace, plan)
    assert ledger.entries(plan, history)
    assert [[h.site for h in inputs] for inputs in headers(workspace, plan)][1] == ["east", "west"]
    (north,) = (h for h in headers(workspace, plan)[2] if h.site == "north")
    assert (north.made_for, north.round, north.steps) == (2, 3, 6)
    assert [unroll(north.claims)] == list(handed_by(workspace, "north", 2).values())
    # Nothing was trained twice: in round 3 it only brought that.
    assert handed_by(workspace, "north", 3) == {}
    (last,) = (h for h in headers(workspace, plan)[3] if h.site == "north")
    assert (last.inner, last.feedback, last.made_for) == ("kept", "kept", 0)
    assert [optimizer_steps(workspace, plan, number) for number in (3, 4)] == [12, 18]
    names = {key.rsplit("/", 1)[1] for key, _ in workspace.store("north").list(f"runs/{plan.run}/inner")}
    assert names == {"north-000003.safetensors", "north-000004.safetensors"}


def test_work_that_is_too_old_to_be_carried_is_issued_again(planned: Path, tmp_path: Path) -> None:
    workspace, plan = slow_north(planned, tmp_path / "home", carry_rounds=1)

    def held_back() -> bool:
        """The others wait before round 4 until north has begun it."""
        while exists(workspace, plan, 3) and not handed_by(workspace, "north", 4):
            time.sleep(0.02)
        return False

    others = begin(workspace, plan, "east", "west", stop=held_back)
    finish([*begin(workspace, plan, "north", stop=standing(workspace, plan, 3)), *others])
    assert_exact(workspace, plan)
    sites = [[h.site for h in inputs] for inputs in headers(workspace, plan)]
    assert sites[1] == sites[2] == ["east", "west"]
    (north,) = (h for h in headers(workspace, plan)[3] if h.site == "north")
    assert north.made_for == 0
    assert [unroll(north.claims)] == list(handed_by(workspace, "north", 2).values())
    assert (north.inner, north.feedback) == ("kept", "kept")
    # As if the work that did not count had never been there.
    assert optimizer_steps(workspace, plan, 4) == 12
