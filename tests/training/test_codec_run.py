"""Runs whose updates cross packed: real sites, real stores, to the same bytes whatever happens to a site."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from data_contracts.catalog.store import Store
from tests.training.making import tensors
from tests.training.test_worker import CONFIG, SITES, as_in_a_process, chain, planned, process, wait_for, worker
from training import model as models
from training import steps
from training.inner import InnerLoop
from training.keeping import Kept
from training.process import Stopped
from training.recipe import InnerRecipe
from training.rounds import contribution as contributions
from training.rounds.codec import wire_bytes
from training.rounds.contribution import Header
from training.rounds.feedback import Feedback
from training.rounds.plan import Plan, read_plan
from training.rounds.run import replay, start_state
from training.verify import verify_run
from training.workspace import Workspace

__all__ = ["as_in_a_process", "planned"]
torch.set_num_threads(1)


def replanned(planned: Path, folder: Path, **changes: Any) -> tuple[Workspace, Plan]:
    """A copy of the planned folder with a plan of its own."""
    shutil.copytree(planned, folder)
    workspace = Workspace.open(folder)
    config = CONFIG.model_copy(update={"steps": 6, **changes})
    sets = steps.read_sets(workspace, config.datasets)
    record = steps.make_tokenizer(workspace, config, sets)
    made = steps.make_shards(workspace, config, sets, record)
    plan = steps.plan_run(workspace, config, made, record.tokenizer.vocab_size)
    return workspace, read_plan(workspace.home, plan.run)


def train(
    workspace: Workspace, plan: Plan, sites: tuple[str, ...] = SITES, stop: Callable[[], bool] = lambda: False
) -> list[threading.Thread]:
    def work(site: str) -> None:
        try:
            worker(workspace, plan, site, stop).run()
        except Stopped:
            return

    threads = [threading.Thread(target=work, args=(site,)) for site in sites]
    for thread in threads:
        thread.start()
    return threads


def finish(threads: list[threading.Thread]) -> None:
    for thread in threads:
        thread.join(timeout=60)
        assert not thread.is_alive()


def headers(workspace: Workspace, plan: Plan) -> list[list[Header]]:
    state = start_state(workspace.home, plan)
    return [[one.header for one in inputs] for _, _, inputs in replay(workspace.home, plan, state)]


@pytest.mark.usefixtures("as_in_a_process")
def test_a_killed_site_owes_what_it_owed_and_leaves_no_trace(planned: Path, tmp_path: Path) -> None:
    calm, plan = replanned(planned, tmp_path / "calm", codec="topk-4096-64-2")
    assert plan.feedback == 0.95
    finish(train(calm, plan))

    wild, again = replanned(planned, tmp_path / "wild", codec="topk-4096-64-2")
    assert again == plan
    victim = process(wild, plan, "north")
    wait_for(lambda: contributions.find(wild.store("north"), plan.run, 1, "north"))
    others = train(wild, plan, ("east", "west"))
    wait_for(lambda: contributions.find(wild.store("north"), plan.run, 2, "north"))
    victim.kill()
    victim.wait()
    finish([*train(wild, plan, ("north",)), *others])
    assert chain(wild, plan) == chain(calm, plan)
    assert verify_run(wild, plan.run).ok

    state = start_state(wild.home, plan)
    shapes = {name[2:]: tensor.shape for name, tensor in state.tensors.items() if name.startswith("p.")}
    for number, inputs in enumerate(headers(wild, plan), 1):
        assert {h.feedback for h in inputs} == {"new" if number == 1 else "kept"}
        assert {h.payload_bytes for h in inputs} == {wire_bytes(plan.codec, shapes)}


def test_what_a_site_lost_is_begun_again_and_it_says_so(planned: Path, tmp_path: Path) -> None:
    workspace, plan = replanned(planned, tmp_path / "home", codec="topk-4096-64-2", rounds=2)
    finish(train(workspace, plan, stop=lambda: workspace.home.exists(f"runs/{plan.run}/commits/000001.json")))
    workspace.store("north").delete(f"runs/{plan.run}/inner/north-000001.safetensors")
    workspace.store("north").delete(f"runs/{plan.run}/inner/north-000002.safetensors")
    for key in contributions.find(workspace.store("north"), plan.run, 2, "north"):
        workspace.store("north").delete(key)
    finish(train(workspace, plan))
    found = {h.site: (h.inner, h.feedback) for h in headers(workspace, plan)[1]}
    assert found == {"east": ("kept", "kept"), "north": ("clean", "clean"), "west": ("kept", "kept")}
    assert verify_run(workspace, plan.run).ok


def test_a_dense_codec_with_capped_shares_and_clipping_is_a_verified_run(planned: Path, tmp_path: Path) -> None:
    changes = {"codec": "int8-256", "feedback": 0.5, "weight_cap": 0.34, "clip": "median", "rounds": 2}
    workspace, plan = replanned(planned, tmp_path / "home", **changes)
    finish(train(workspace, plan))
    found = verify_run(workspace, plan.run)
    assert found.ok, found.problems
    for _, document, _ in replay(workspace.home, plan, start_state(workspace.home, plan)):
        assert max(i["weight"] for i in document["inputs"]) <= 0.34
        assert sorted(i["clip"] for i in document["inputs"])[1:] == [1.0, 1.0]


def test_discarded_work_is_forgotten_by_optimizer_and_feedback_alike(tmp_path: Path) -> None:
    spec = models.ModelSpec(vocab_size=300, hidden_size=16, layers=1, heads=2, intermediate_size=24, window=8)
    net = models.build(spec, 1)
    shapes = {name: value.shape for name, value in models.parameters_of(net).items()}

    def fresh() -> tuple[InnerLoop, Feedback]:
        return InnerLoop(net, InnerRecipe(), torch.device("cpu")), Feedback(0.95, shapes)

    loop, feedback = fresh()
    kept = Kept(Store.open(tmp_path / "north"), "run-1", "north", "a")
    windows = np.arange(16, dtype=np.int64).reshape(2, 8)
    owed = []
    for number in (1, 2):
        loop.step(windows, windows, number)
        feedback.settle(tensors(number, 1.0, shapes), tensors(number + 9, 1.0, shapes))
        kept.keep_inner(number, loop, feedback)
        owed.append({name: value.tobytes() for name, value in feedback.state().items()})
    assert owed[0] != owed[1]

    def loaded(number: int) -> tuple[int, dict[str, bytes]]:
        loop, feedback = fresh()
        assert kept.load_inner(number, loop)
        assert kept.load_feedback(number, feedback)
        return int(loop.state()["steps"]), {name: value.tobytes() for name, value in feedback.state().items()}

    assert loaded(2) == (2, owed[1])
    kept.copy_inner(1, 2)
    assert loaded(2) == (1, owed[0])
    kept.keep_inner(2, loop)  # of a plan without error feedback
    assert kept.load_inner(2, fresh()[0])
    assert not kept.load_feedback(2, fresh()[1])
