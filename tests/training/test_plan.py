from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from data_contracts.canonical import canonical_json
from data_contracts.errors import RoundError, StoreError
from data_contracts.signing import sign
from tests.training.making import Run, key_of, make_run
from training.rounds.plan import Plan, plan_key, read_plan, write_plan
from training.rounds.run import find_run


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made = make_run(tmp_path)
    write_plan(made.home, made.plan, key_of("owner"))
    return made


def test_a_plan_is_read_back_and_writing_it_again_is_harmless(run: Run) -> None:
    assert write_plan(run.home, run.plan, key_of("owner")) == run.plan.run
    assert read_plan(run.home, run.plan.run) == run.plan


def test_the_run_is_the_name_and_the_start_of_the_hash(run: Run) -> None:
    assert run.plan.run == f"small-{run.plan.sha[:8]}"


def test_every_field_is_part_of_what_a_run_is(run: Run) -> None:
    others = [{"seed": 6}, {"rounds": 5}, {"weights": {"x": 2.0}}, {"purpose": "commercial pre-training"}]
    names = {run.plan.model_copy(update=change).run for change in others}
    assert len(names | {run.plan.run}) == 5


def test_a_plan_that_says_nothing_newer_keeps_the_hash_it_had(run: Run) -> None:
    later = {"temperature": 2.0, "curriculum": [{"from_round": 2, "weights": {"test/notes": 1.0}}]}
    later |= {"unreadable": "skip", "order": 2, "feedback": 0.95, "weight_cap": 0.5, "clip": "median"}
    assert not later.keys() & run.plan.body().keys()
    for name, value in later.items():
        changed = Plan.model_validate({**run.plan.body(), name: value})
        assert changed.body() == {**run.plan.body(), name: value}
        assert changed.run != run.plan.run


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0},
        {"unreadable": "forget"},
        {"order": 3},
        {"curriculum": [{"from_round": 0, "weights": {"a": 1}}]},
        {"curriculum": [{"from_round": 2, "weights": {}}]},
        {"curriculum": [{"from_round": 2, "weights": {"a": -1}}]},
        {"codec": "zip"},
        {"codec": "topk-4096-63-2"},
        {"feedback": 1.5},
        {"weight_cap": 0},
        {"clip": "mean"},
    ],
)
def test_a_mixture_or_an_order_that_is_none_is_no_plan(run: Run, change: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(change))):
        Plan.model_validate({**run.plan.body(), **change})


def test_only_the_owner_writes_a_plan(run: Run) -> None:
    with pytest.raises(RoundError, match="not the plan's owner"):
        write_plan(run.home, run.plan, key_of("east"))


def test_a_changed_plan_is_refused(run: Run) -> None:
    key = plan_key(run.plan.run)
    document = run.home.get_json(key)
    run.home.put(key, canonical_json({**document, "rounds": 99}))
    with pytest.raises(RoundError, match=f"{key}: the signature"):
        read_plan(run.home, run.plan.run)
    run.home.put(key, canonical_json({k: v for k, v in document.items() if k != "signature"}))
    with pytest.raises(RoundError, match=f"{key}: unsigned"):
        read_plan(run.home, run.plan.run)
    run.home.put(key, canonical_json(sign({**document, "rounds": 99}, key_of("owner"))))
    with pytest.raises(RoundError, match=f"{key}: this plan's run is small-"):
        read_plan(run.home, run.plan.run)


def test_a_site_that_puts_itself_in_as_owner_is_caught_by_the_runs_name(run: Run) -> None:
    forged = run.plan.model_copy(update={"owner": run.plan.site("east").public_key})
    run.home.put(plan_key(run.plan.run), canonical_json(sign(forged.body(), key_of("east"))))
    with pytest.raises(RoundError, match="it was changed or moved"):
        read_plan(run.home, run.plan.run)


@pytest.mark.parametrize("data", [b"[]", b"{}", b'{"format":2}', b'"plan"'])
def test_what_is_no_plan_is_refused_by_name(run: Run, data: bytes) -> None:
    run.home.put(plan_key(run.plan.run), data)
    with pytest.raises(RoundError, match=f"{plan_key(run.plan.run)}: not a plan of format 1"):
        read_plan(run.home, run.plan.run)


def test_a_plan_that_is_not_json_is_named(run: Run) -> None:
    run.home.put(plan_key(run.plan.run), b"{")
    with pytest.raises(StoreError, match="plan.json: damaged: not JSON"):
        read_plan(run.home, run.plan.run)


def test_an_unknown_run_is_answered_with_those_there_are(run: Run) -> None:
    with pytest.raises(RoundError, match=f"no run 'nope'.*{run.plan.run}"):
        read_plan(run.home, "nope")


def test_one_run_needs_no_name_and_two_do(run: Run) -> None:
    assert find_run(run.home, None) == run.plan.run
    second = run.plan.model_copy(update={"seed": 6})
    write_plan(run.home, second, key_of("owner"))
    with pytest.raises(RoundError, match="2 runs: name one of"):
        find_run(run.home, None)
    assert find_run(run.home, second.run) == second.run


def test_an_unknown_field_or_a_bad_name_is_no_plan(run: Run) -> None:
    for change in ({"surprise": 1}, {"name": "../up"}, {"sites": []}, {"lanes": 32}, {"window": 1}):
        with pytest.raises(ValidationError):
            Plan.model_validate({**run.plan.body(), **change})


def test_a_site_that_is_not_in_the_plan_is_named(run: Run) -> None:
    with pytest.raises(RoundError, match="site 'south' is not in its plan"):
        run.plan.site("south")
