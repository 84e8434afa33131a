"""Sites of a run that is paused or cancelled: they end whole, and go on to the same bytes."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

import training.following
from tests.training.test_worker import SITES, chain, in_threads, opened, planned, process, wait_for, worker
from training.process import Stopped, only_worker
from training.rounds import contribution as contributions
from training.rounds.control import EXIT_PAUSED, cancel, pause, resume
from training.rounds.plan import Plan
from training.verify import verify_run
from training.worker import Paused
from training.workspace import Workspace

__all__ = ["planned"]


def ends(workspace: Workspace, plan: Plan, sites: tuple[str, ...] = SITES) -> dict[str, str]:
    """Run sites in threads; return how each ended."""
    found: dict[str, str] = {}

    def work(site: str) -> None:
        try:
            found[site] = f"whole at {worker(workspace, plan, site).run().round}"
        except Paused as error:
            found[site] = str(error)

    threads = [threading.Thread(target=work, args=(site,)) for site in sites]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=90)
    return found


def commits(workspace: Workspace, plan: Plan) -> list[str]:
    return [key[-11:] for key, _ in workspace.home.list(f"runs/{plan.run}/commits")]


def test_a_paused_run_ends_between_two_rounds_and_goes_on_to_the_same_bytes(planned: Path, tmp_path: Path) -> None:
    calm, plan = opened(planned, tmp_path / "calm")
    for thread in in_threads(calm, plan, SITES):
        thread.join(timeout=180)

    other, _ = opened(planned, tmp_path / "other")
    processes = {site: process(other, plan, site) for site in SITES}
    wait_for(lambda: commits(other, plan))
    made = pause(other.home, plan, "ann", "lunch")
    assert {site: p.wait(timeout=90) for site, p in processes.items()} == dict.fromkeys(SITES, EXIT_PAUSED)
    # Every site made the round under way, and none has begun another.
    assert commits(other, plan)[-1] == f"{made.round:06d}.json"
    assert not any(contributions.find(other.store(s), plan.run, made.round + 1, s) for s in SITES)

    resume(other.home, plan, "ann")
    assert ends(other, plan) == dict.fromkeys(SITES, "whole at 3")
    assert chain(other, plan) == chain(calm, plan)
    assert verify_run(other, plan.run).ok


def test_a_site_started_in_a_paused_run_makes_no_round(planned: Path, tmp_path: Path) -> None:
    workspace, plan = opened(planned, tmp_path / "home")
    pause(workspace.home, plan, "ann", "lunch")
    with pytest.raises(Paused, match=r"the run is paused by ann at .*: lunch"):
        worker(workspace, plan, "east").run()
    assert contributions.find(workspace.store("east"), plan.run, 1, "east") == []


def test_a_paused_site_does_not_wait_for_ever_for_one_that_is_gone(
    planned: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training.following, "PAUSE_PATIENCE_S", 1.0)
    workspace, plan = opened(planned, tmp_path / "home")
    east = workspace.store("east")

    def when_published() -> None:
        wait_for(lambda: contributions.find(east, plan.run, 1, "east"))
        pause(workspace.home, plan, "ann")

    threading.Thread(target=when_published).start()
    assert ends(workspace, plan, ("east",))["east"].startswith("the run is paused")
    # What it published lies there, and counts when all go on.
    (before,) = contributions.find(east, plan.run, 1, "east")
    resume(workspace.home, plan, "ann")
    assert ends(workspace, plan) == dict.fromkeys(SITES, "whole at 3")
    assert before in contributions.find(east, plan.run, 1, "east")
    assert verify_run(workspace, plan.run).ok


def test_the_sites_of_a_cancelled_run_end_and_none_starts_again(planned: Path, tmp_path: Path) -> None:
    workspace, plan = opened(planned, tmp_path / "home")

    def after_a_round() -> None:
        wait_for(lambda: commits(workspace, plan))
        cancel(workspace.home, plan, "ann", "the licence ended")

    threading.Thread(target=after_a_round).start()
    found = ends(workspace, plan)
    assert all(said.startswith("the run is cancelled by ann") for said in found.values()), found
    assert 1 <= len(commits(workspace, plan)) < plan.rounds
    assert process(workspace, plan, "east").wait(timeout=180) == EXIT_PAUSED


def test_a_second_process_of_a_site_that_waits_for_the_lock_can_be_stopped(planned: Path, tmp_path: Path) -> None:
    workspace, plan = opened(planned, tmp_path / "home")
    store = workspace.store("east")
    with only_worker(store, plan.run, "east", lambda: False):
        until = time.monotonic() + 0.3
        with pytest.raises(Stopped), only_worker(store, plan.run, "east", lambda: time.monotonic() > until):
            pass
    with only_worker(store, plan.run, "east", lambda: True):
        pass


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's signal is Linux's")
def test_a_site_dies_with_the_process_that_started_it() -> None:
    child = "import os, sys, time; from training.process import end_with; "
    child += "print(os.getpid(), end_with(os.getppid()), flush=True); time.sleep(600)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    started = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    assert started.stdout is not None
    pid, alive = started.stdout.readline().split()
    assert alive == "True"
    started.send_signal(signal.SIGKILL)
    started.wait()
    wait_for(lambda: gone(int(pid)))


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_a_site_whose_parent_died_before_it_began_ends_at_once(planned: Path, tmp_path: Path) -> None:
    workspace, plan = opened(planned, tmp_path / "home")
    command = [sys.executable, "-m", "training.worker", "--run", plan.run, "--site", "east", "--parent", "1"]
    command += ["--home-store", workspace.home.url, "--store", workspace.store("east").url]
    done = subprocess.run([*command, "--keys", str(workspace.keys.directory)], check=False, timeout=180)
    assert done.returncode == 3
    assert not list(workspace.store("east").list(f"runs/{plan.run}"))
