"""`causeway watch` on a chain: one picture, one document, a home store without a folder, Ctrl-C."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from data_contracts.canonical import canonical_json
from data_contracts.errors import CausewayError
from flows.commands import watch as command
from tests.training.making import Run, contribute, key_of, make_run, write_commit
from training.rounds.plan import write_plan
from training.watching import Picture, SiteNow, Watch


@pytest.fixture
def run(tmp_path: Path) -> Run:
    made = make_run(tmp_path)
    write_plan(made.home, made.plan, key_of("owner"))
    write_commit(made, made.start, [contribute(made, made.start, site) for site in ("east", "north", "west")])
    return made


def shown(picture: Picture) -> str:
    out = io.StringIO()
    Console(file=out, width=160, markup=False).print(command.drawn(picture))
    return " ".join(out.getvalue().replace("│", " ").split())


def test_a_home_store_is_watched_without_a_home_folder(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = str(tmp_path / "home")
    assert command.watch(store=where, json=True) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["run"], found["state"], found["round"], found["rounds"]) == (run.plan.run, "running", 1, 4)
    assert [site["heartbeat_s"] for site in found["sites"]] == [None, None, None]
    assert command.watch(run.plan.run, store=where, once=True) == 0
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert f"run {run.plan.run}: running, round 1 of 4" in said
    assert "last commit by east" in said
    assert "east member not seen" in said


def test_a_folder_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    with pytest.raises(CausewayError, match="name the --home folder, or the home store with --store"):
        command.watch(home=tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_the_picture_has_steps_losses_heartbeats_and_what_happened(run: Run) -> None:
    lease = {"attempt": "a", "beat": 1, "round": 2, "step": 2, "steps": 3, "tokens": 77, "loss": 1.25, "done": False}
    run.stores["east"].put(f"runs/{run.plan.run}/leases/east.json", canonical_json(lease))
    picture = Watch(run.home, run.plan.run, run.stores).look()
    said = shown(replace(picture, events=tuple((n, f"thing [red]{n}") for n in range(12)), round_s=2.0, eta_s=300.0))
    assert "2.0 s a round, about 5 min left" in said
    assert "2 of 3 77 1.250 64" in said
    assert "... 4 before" in said
    assert "round 11: thing [red]11" in said


@pytest.mark.parametrize(
    ("site", "words"),
    [
        (SiteNow("a", True, 64), "not seen"),
        (SiteNow("a", True, 64, heartbeat_s=3.0), "none in 3.0 s watched"),
        (SiteNow("a", True, 64, heartbeat_s=0.4, moved=True), "0.4 s ago"),
        (SiteNow("a", True, 64, heartbeat_s=44.0, moved=True), "44.0 s ago (silent)"),
        (SiteNow("a", True, 64, heartbeat_s=44.0, moved=True, done=True), "done"),
    ],
)
def test_a_heartbeat_is_said_as_it_is_known(site: SiteNow, words: str) -> None:
    assert command.heartbeat(site) == words


def test_ctrl_c_ends_the_watching_and_says_that_the_run_goes_on(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def pressed(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(command.time, "sleep", pressed)
    assert command.watch(store=str(tmp_path / "home")) == 0
    assert f"no longer watched; run {run.plan.run} goes on by itself" in capsys.readouterr().out
