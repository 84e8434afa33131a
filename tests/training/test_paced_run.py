"""Runs whose rounds grow, whose sites differ in speed, and whose links differ: real sites and stores, in threads."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.test_codec_run import finish, headers
from tests.training.test_worker import CONFIG, SITES, as_in_a_process, chain, planned, recount, worker
from training import steps
from training.rounds.lengths import planned as planned_steps
from training.rounds.lengths import schedule_step, total_steps
from training.rounds.plan import Plan, read_plan
from training.verify import verify_run
from training.workspace import Workspace

__all__ = ["as_in_a_process", "planned"]
torch.set_num_threads(1)
SHIPPED = Path(__file__).parents[2] / "deployments" / "sites.toml"
LINKS = "".join(
    f'\n[[link]]\nfrom = "{site}"\nto = "home"\nmbit_s = {speed}\n'
    for site, speed in (("east", 200), ("north", 40_000))
)


def made(planned: Path, folder: Path, **changes: Any) -> tuple[Workspace, Plan]:
    """A copy of the planned folder whose links are stated, with a plan of its own."""
    shutil.copytree(planned, folder)
    (folder / "sites.toml").write_text(SHIPPED.read_text("utf-8") + LINKS, "utf-8")
    workspace = Workspace.open(folder)
    config = CONFIG.model_copy(update=changes)
    sets = steps.read_sets(workspace, config.datasets)
    record = steps.make_tokenizer(workspace, config, sets)
    shards = steps.make_shards(workspace, config, sets, record)
    plan = steps.plan_run(workspace, config, shards, record.tokenizer.vocab_size)
    return workspace, read_plan(workspace.home, plan.run)


def train(
    workspace: Workspace, plan: Plan, monkeypatch: pytest.MonkeyPatch, slow: dict[str, float] | None = None
) -> None:
    """Train to the end; the steps of `slow` sites take so many seconds more."""
    threads = []
    for site in SITES:
        one = worker(workspace, plan, site)
        if slow and site in slow:
            step, more = one.loop.step, slow[site]

            def slowed(*given: Any, step: Any = step, more: float = more) -> Any:
                time.sleep(more)
                return step(*given)

            monkeypatch.setattr(one.loop, "step", slowed)
        threads.append(threading.Thread(target=one.run))
    for thread in threads:
        thread.start()
    finish(threads)


@pytest.mark.usefixtures("as_in_a_process")
def test_rounds_grow_and_each_site_sends_with_its_codec_to_the_same_bytes_again(
    planned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes: dict[str, Any] = {"steps": 2, "growth": 1.6, "longest": 6, "rounds": 4, "codec": "auto"}
    one, plan = made(planned, tmp_path / "one", **changes)
    train(one, plan, monkeypatch)
    found = headers(one, plan)
    assert [{h.steps for h in inputs} for inputs in found] == [{2}, {3}, {5}, {6}]
    assert plan.inner["total_steps"] == total_steps(plan) == 16
    assert schedule_step(plan, 3, 0, 5) == 5
    assert {h.site: h.codec for h in found[0]} == {"east": "int4-128", "north": "int8-256", "west": "bf16"}
    assert {"seconds" in h.body() for inputs in found for h in inputs} == {False}
    assert verify_run(one, plan.run).ok
    assert recount(one, plan) == 16 * 3 * plan.batch_windows

    again, same = made(planned, tmp_path / "again", **changes)
    assert same == plan
    train(again, plan, monkeypatch)
    assert chain(again, plan) == chain(one, plan)


def test_a_slow_site_takes_fewer_steps_and_the_others_wait_less(
    planned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, plan = made(planned, tmp_path / "home", steps=16, rounds=3, pace="speed")
    train(workspace, plan, monkeypatch, {"east": 0.02, "north": 0.02, "west": 0.2})
    found = headers(workspace, plan)
    taken = [{h.site: h.steps for h in inputs} for inputs in found]
    assert [max(steps.values()) for steps in taken] == [planned_steps(plan, n) for n in (1, 2, 3)] == [16, 16, 16]
    assert taken[0]["west"] > 2 * taken[1]["west"] and taken[0]["west"] > 2 * taken[2]["west"]
    waits = [max(h.seconds for h in inputs) - min(h.seconds for h in inputs) for inputs in found]
    assert max(waits[1:]) < waits[0] / 2
    assert verify_run(workspace, plan.run).ok
    assert recount(workspace, plan) == sum(h.steps for inputs in found for h in inputs) * plan.batch_windows
