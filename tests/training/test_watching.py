from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from data_contracts.canonical import canonical_json
from data_contracts.errors import RoundError
from tests.training.making import Run, contribute, key_of, make_run, write_commit
from training.rounds.amendment import write_amendment
from training.rounds.chain import commit_key
from training.rounds.commit import ChainState
from training.rounds.plan import write_plan
from training.rounds.run import newest_state
from training.watching import Watch

ALL = ("east", "north", "west")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made = make_run(tmp_path)
    write_plan(made.home, made.plan, key_of("owner"))
    return made


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def beat(run: Run, site: str, beats: int, **facts: Any) -> None:
    lease = {"format": 1, "site": site, "attempt": "a", "beat": beats, "round": 1, "step": 1, "steps": 3, "tokens": 9}
    key = f"runs/{run.plan.run}/leases/{site}.json"
    run.stores[site].put(key, canonical_json({**lease, "done": False, "loss": None, **facts}))


def told(run: Run, site: str, number: int, facts: Mapping[str, Any]) -> None:
    run.stores[site].put(f"runs/{run.plan.run}/telemetry/{number:06d}/{site}.json", canonical_json(facts))


def committed(run: Run, state: ChainState, sites: tuple[str, ...] = ALL, **more: Any) -> ChainState:
    return write_commit(run, state, [contribute(run, state, site) for site in sites], **more)[1]


def test_the_chain_is_followed_without_a_model_to_the_state_that_a_replay_finds(run: Run) -> None:
    watching = Watch(run.home, run.plan.run, {})
    assert watching.look().round == 0
    state = committed(run, run.start)
    committed(run, state)
    picture = watching.look()
    found, truth = watching.state, newest_state(run.home, run.plan)
    assert (found.head, found.state_sha) == (truth.head, truth.state_sha)
    assert (found.index, found.members) == (truth.index, truth.members)
    assert (picture.state, picture.round, picture.rounds) == ("running", 2, 4)
    tokens = {site: contribute(run, state, site).header.tokens for site in ALL}
    assert picture.tokens == 2 * sum(tokens.values())
    assert picture.loss == pytest.approx(2.5)
    assert {s.site: (s.trained, s.last_round, s.lanes) for s in picture.sites} == {
        site: (2 * tokens[site], 2, 64) for site in ALL
    }


def test_the_age_of_a_heartbeat_counts_from_when_it_was_seen_to_change(run: Run) -> None:
    clock = Clock()
    watching = Watch(run.home, run.plan.run, run.stores, clock)
    beat(run, "east", 7)
    beat(run, "north", 1)
    watching.look()
    clock.now = 5.0
    beat(run, "east", 8, step=2)
    east, north, west = watching.look().sites
    assert (east.heartbeat_s, east.moved, east.step) == (0.0, True, 2)
    assert (north.heartbeat_s, north.moved) == (5.0, False)
    assert west.heartbeat_s is None
    clock.now = 7.5
    assert watching.look().sites[0].heartbeat_s == 2.5


def test_what_changes_and_what_goes_wrong_is_said_with_its_round(run: Run) -> None:
    removed = write_amendment(run.home, run.plan, "remove-site", "west", "sold", key_of("owner"))
    watching = Watch(run.home, run.plan.run, {})
    assert watching.look().events == ((2, "remove-site west (sold), with the next commit"),)
    refused = [{"site": "west", "contribution": "k", "reason": "outlying"}]
    state = committed(run, run.start, ("east", "north"), amendments=[removed], refusals=refused)
    picture = watching.look()
    assert picture.events == (
        (1, "west refused: outlying"),
        (2, "remove-site west (sold)"),
        (2, "west leaves"),
    )
    assert [(s.site, s.member, s.lanes) for s in picture.sites] == [
        ("east", True, 64),
        ("north", True, 64),
        ("west", False, 0),
    ]
    assert state.members == ("east", "north")


def test_the_time_left_goes_by_rounds_seen_or_else_by_a_sites_own_clock(run: Run) -> None:
    clock = Clock()
    state = committed(run, run.start)
    told(
        run, "east", 1, {"spans": [["compute", 100.0, 108.0], ["wait", 108.0, 110.0]], "figures": {"utilisation": 0.8}}
    )
    watching = Watch(run.home, run.plan.run, run.stores, clock)
    picture = watching.look()
    assert (picture.round_s, picture.eta_s) == (10.0, 30.0)
    assert picture.sites[0].utilisation == 0.8
    for second in (10.0, 14.0):
        clock.now = second
        state = committed(run, state)
        picture = watching.look()
    assert (picture.round_s, picture.eta_s) == (4.0, 4.0)
    committed(run, state)
    assert (watching.look().state, watching.look().eta_s) == ("whole", None)


def test_a_chain_whose_past_does_not_fit_is_not_shown_as_if_it_did(run: Run) -> None:
    state = committed(run, run.start)
    committed(run, state)
    first = run.home.get(commit_key(run.plan.run, 1))
    run.home.put(commit_key(run.plan.run, 2), first)
    with pytest.raises(RoundError, match=r"000002\.json: its past is not the chain before it"):
        Watch(run.home, run.plan.run, {}).look()
