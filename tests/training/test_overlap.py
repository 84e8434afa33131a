"""Runs that train while a round is on its way: real sites and stores, to the same bytes whatever happens to a site."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from data_contracts.catalog.terms_chain import put_terms, read_terms
from tests.training.making import contribute, make_run, write_commit
from tests.training.test_codec_run import finish, headers, replanned
from tests.training.test_worker import (
    CONFIG,
    SITES,
    as_in_a_process,
    chain,
    planned,
    process,
    recount,
    wait_for,
    worker,
)
from training.planning import RunConfig
from training.process import Stopped
from training.rounds import ledger
from training.rounds.amendment import write_amendment
from training.rounds.fragments import names_in
from training.rounds.overlap import claims_of, clock_of, early_steps, taken
from training.rounds.plan import Overlap, Plan
from training.rounds.run import replay, start_state
from training.shards.schedule import in_batches, unroll
from training.verify import verify_run
from training.workspace import Workspace

__all__ = ["as_in_a_process", "planned"]
torch.set_num_threads(1)
BOTH = {"overlap": Overlap(fragments=2, delay_steps=2), "rounds": 4, "codec": "topk-4096-64-2"}


def begin(
    workspace: Workspace, plan: Plan, *sites: str, stop: Callable[[], bool] = lambda: False
) -> list[threading.Thread]:
    """Start sites as threads; one that is stopped just ends."""

    def work(site: str) -> None:
        try:
            worker(workspace, plan, site, stop).run()
        except Stopped:
            return

    threads = [threading.Thread(target=work, args=(site,)) for site in sites]
    for thread in threads:
        thread.start()
    return threads


def committed(workspace: Workspace, plan: Plan) -> list[tuple[int, list[Any]]]:
    state = start_state(workspace.home, plan)
    return [(s.round, inputs) for s, _, inputs in replay(workspace.home, plan, state)]


def handed_by(workspace: Workspace, site: str, number: int) -> dict[str, list[tuple[int, int]]]:
    """What the loader of a site handed out in a round, by attempt; a line may be half written still."""
    found: dict[str, list[tuple[int, int]]] = {}
    for file in sorted((workspace.root / "log").glob(f"*-{site}-*.ndjson")):
        for line in file.read_text().splitlines():
            if '"handed"' in line and line.endswith("}") and f'"round": {number},' in line:
                attempt = line.split('"attempt": "', 1)[1].split('"', 1)[0]
                places = line.split('"places": [', 1)[1].split("]], ", 1)[0]
                pairs = [tuple(map(int, p.strip("[], ").split(", "))) for p in places.split("], [")]
                found.setdefault(attempt, []).extend(pairs)  # type: ignore[arg-type]
    return found


def assert_exact(workspace: Workspace, plan: Plan) -> None:
    """The chain verifies, its ledger has no gap, and some attempt handed out each committed span whole, in order."""
    found = verify_run(workspace, plan.run)
    assert found.ok, found.problems
    history = committed(workspace, plan)
    assert ledger.entries(plan, history)
    for number, inputs in history:
        for one in inputs:
            spans = handed_by(workspace, one.header.site, number).values()
            assert unroll(one.header.claims) in spans, f"no attempt of {one.header.site} handed out round {number}"


@pytest.mark.usefixtures("as_in_a_process")
def test_two_runs_are_equal_and_a_site_stopped_in_its_early_steps_leaves_no_trace(
    planned: Path, tmp_path: Path
) -> None:
    calm, plan = replanned(planned, tmp_path / "calm", **BOTH)
    finish(begin(calm, plan, *SITES))
    assert_exact(calm, plan)
    assert recount(calm, plan) == 3 * 4 * 6 * 2
    # Each round's payload is its fragment, and not more.
    parts = [names_in(plan, {n: np.zeros(s) for n, s in shapes_of(calm, plan).items()}, r) for r in (1, 2)]
    assert set(parts[0]) | set(parts[1]) == shapes_of(calm, plan).keys()
    sizes = [{h.payload_bytes for h in inputs} for inputs in headers(calm, plan)]
    assert sizes[0] == sizes[2] != sizes[1] == sizes[3]
    assert {h.inner for inputs in headers(calm, plan)[1:] for h in inputs} == {"kept"}

    wild, _ = replanned(planned, tmp_path / "wild", **BOTH)
    # Alone, it cannot go beyond its early steps of round 2; then it is stopped in those of round 3.
    finish(begin(wild, plan, "north", stop=lambda: bool(handed_by(wild, "north", 2))))
    (early,) = handed_by(wild, "north", 2).values()
    assert len(early) == plan.batch_windows
    others = begin(wild, plan, "east", "west")
    finish(begin(wild, plan, "north", stop=lambda: bool(handed_by(wild, "north", 3))))
    finish([*begin(wild, plan, "north"), *others])
    assert chain(wild, plan) == chain(calm, plan)
    assert recount(wild, plan) == 3 * 4 * 6 * 2


def shapes_of(workspace: Workspace, plan: Plan) -> dict[str, tuple[int, ...]]:
    state = start_state(workspace.home, plan)
    return {name[2:]: t.shape for name, t in state.tensors.items() if name.startswith("p.")}


def test_a_site_that_a_round_left_out_begins_its_span_again(planned: Path, tmp_path: Path) -> None:
    rule = CONFIG.membership.model_copy(update={"lost_region": "reweight", "quorum": 2, "grace_floor_s": 0.5})
    workspace, plan = replanned(planned, tmp_path / "home", **BOTH, membership=rule)

    def held_up() -> bool:
        """North stands still in round 2 until the others have committed it."""
        while [len(s) for s in handed_by(workspace, "north", 2).values()] == [8] and not exists(workspace, plan, 2):
            time.sleep(0.02)
        return False

    finish([*begin(workspace, plan, "north", stop=held_up), *begin(workspace, plan, "east", "west")])
    assert_exact(workspace, plan)
    assert [h.site for h in headers(workspace, plan)[1]] == ["east", "west"]
    late, again = (next(iter(handed_by(workspace, "north", n).values())) for n in (2, 3))
    # The early steps of round 3 followed claims that did not count; the whole span came after them.
    assert len(late) == 12
    assert len(again) == 2 * plan.batch_windows
    (north,) = (h for h in headers(workspace, plan)[2] if h.site == "north")
    assert unroll(north.claims) == late
    assert [a.split(".")[1:] for a in handed_by(workspace, "north", 3)] == [[], ["2"]]


def exists(workspace: Workspace, plan: Plan, number: int) -> bool:
    return workspace.home.exists(f"runs/{plan.run}/commits/{number:06d}.json")


@pytest.mark.parametrize(
    ("overlap", "changes"),
    [
        ({"fragments": 2}, {}),
        ({"delay_steps": 6, "alpha": 0.0}, {}),
        # What a site's own clock measured decides its steps: early steps may be too many, or others than it then takes.
        ({"delay_steps": 3}, {"pace": "speed"}),
    ],
)
def test_fragments_alone_a_delay_as_long_as_the_round_and_paces_by_speed_are_verified_runs(
    planned: Path, tmp_path: Path, overlap: dict[str, Any], changes: dict[str, Any]
) -> None:
    workspace, plan = replanned(planned, tmp_path / "home", overlap=Overlap(**overlap), rounds=3, **changes)
    finish(begin(workspace, plan, *SITES))
    assert_exact(workspace, plan)


def test_terms_that_change_while_a_round_is_on_its_way_begin_it_again(planned: Path, tmp_path: Path) -> None:
    workspace, plan = replanned(planned, tmp_path / "home", **BOTH)
    before = len(read_terms(workspace.home, plan.owner).chain)

    def changes() -> bool:
        """Once north has its early steps of round 2, and nobody else has contributed to round 1."""
        if len(read_terms(workspace.home, plan.owner).chain) == before:
            contract = workspace.contract("test/notes")
            put_terms(workspace.home, contract.id, replace(contract.terms, attribution="Nobody"), workspace.owner)
        return False

    def watched() -> bool:
        return bool(handed_by(workspace, "north", 2)) and changes()

    north = begin(workspace, plan, "north", stop=watched)
    wait_for(lambda: len(read_terms(workspace.home, plan.owner).chain) > before)
    finish([*north, *begin(workspace, plan, "east", "west")])
    assert_exact(workspace, plan)
    assert len(handed_by(workspace, "north", 1)) == len(handed_by(workspace, "north", 2)) == 2
    assert {h.inner for h in headers(workspace, plan)[1]} == {"kept"}


@pytest.mark.long
@pytest.mark.usefixtures("as_in_a_process")
def test_a_process_killed_in_its_early_steps_leaves_no_trace(planned: Path, tmp_path: Path) -> None:
    calm, plan = replanned(planned, tmp_path / "calm", **BOTH)
    finish(begin(calm, plan, *SITES))
    wild, _ = replanned(planned, tmp_path / "wild", **BOTH)
    victim = process(wild, plan, "north")
    wait_for(lambda: handed_by(wild, "north", 2))
    victim.kill()
    victim.wait()
    others = begin(wild, plan, "east", "west")
    victim = process(wild, plan, "north")
    wait_for(lambda: handed_by(wild, "north", 3))
    victim.kill()
    victim.wait()
    assert process(wild, plan, "north").wait(timeout=180) == 0
    finish(others)
    assert chain(wild, plan) == chain(calm, plan)
    assert_exact(wild, plan)


def test_a_plan_that_names_no_overlap_is_the_plan_of_before(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    assert "overlap" not in run.plan.body()
    assert make_run(tmp_path / "b", overlap=Overlap()).plan.sha == run.plan.sha
    assert make_run(tmp_path / "c", overlap={"delay_steps": 1}).plan.body()["overlap"] == {
        "fragments": 1,
        "delay_steps": 1,
        "alpha": 0.5,
    }


def test_a_delay_beyond_the_shortest_round_is_refused_at_planning() -> None:
    with pytest.raises(ValidationError, match="delay_steps 7 is beyond the 6 steps of the shortest round"):
        RunConfig.model_validate({**CONFIG.model_dump(), "steps": 6, "overlap": {"delay_steps": 7}})


REGIONS = {"bonn": "europe", "lyon": "europe", "oslo": "north"}


def test_early_steps_are_those_of_the_next_round_if_all_work_counts(tmp_path: Path) -> None:
    run = make_run(tmp_path, REGIONS, overlap={"delay_steps": 2})
    plan, start = run.plan, run.start
    given = [contribute(run, start, site) for site in REGIONS]
    early = {site: early_steps(plan, start, site) for site in REGIONS}
    _, after = write_commit(run, start, given)
    for site, steps in early.items():
        assert steps is not None
        assert steps.holds(after, in_batches(claims_of(plan, after, site), plan.batch_windows))
        assert steps.clock == clock_of(plan, after, site)
        assert len(steps.batches) == 2


def test_early_steps_do_not_hold_once_the_lanes_are_others_or_the_work_did_not_count(tmp_path: Path) -> None:
    rule = {"lost_region": "reweight", "quorum": 2}
    run = make_run(tmp_path, REGIONS, overlap={"delay_steps": 2}, membership=rule)
    plan, start = run.plan, run.start

    def holds(site: str, given: list[str], **changes: Any) -> bool:
        folder = tmp_path / "-".join([site, *given, *changes])
        again = make_run(folder, REGIONS, overlap={"delay_steps": 2}, membership=rule)
        _, after = write_commit(again, start, [contribute(run, start, s) for s in given], **changes)
        early = early_steps(plan, start, site)
        assert early is not None
        return early.holds(after, in_batches(claims_of(plan, after, site), plan.batch_windows))

    assert holds("bonn", ["bonn", "lyon"])  # another region's site was late
    assert not holds("oslo", ["bonn", "lyon"])
    amended = [write_amendment(run.home, plan, "remove-site", "lyon", "sold", run.key("owner"))]
    assert not holds("bonn", ["bonn", "lyon", "oslo"], amendments=amended)
    assert holds("oslo", ["bonn", "lyon", "oslo"], amendments=amended)


def test_no_steps_are_early_after_the_last_round_or_before_other_weights(tmp_path: Path) -> None:
    changed = [{"from_round": 2, "weights": {"test/notes": 2.0}}]
    run = make_run(tmp_path, overlap={"delay_steps": 2}, curriculum=changed)
    assert early_steps(run.plan, run.start, "east") is None
    run = make_run(tmp_path / "b", overlap={"delay_steps": 2}, rounds=1)
    assert early_steps(run.plan, run.start, "east") is None


def test_what_arrives_is_mixed_and_the_rest_stays() -> None:
    local = {"a": np.full(2, 1, np.float32), "b": np.full(2, 5, np.float32)}
    outer = {"a": np.full(2, 3, np.float32), "b": np.full(2, 9, np.float32)}
    assert {n: v[0] for n, v in taken(local, outer, ("a",), 0.25).items()} == {"a": 2.5, "b": 5}
    assert {n: v[0] for n, v in taken(local, outer, ("a",), None).items()} == {"a": 3, "b": 5}
