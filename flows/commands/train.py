"""Train a run, and pause, resume or cancel one that is under way."""

from __future__ import annotations

import asyncio
from pathlib import Path

from flows.commands import DEFAULT_HOME, Home, Json, print_json
from flows.who import user


def train(run_file: Path, *, home: Home = DEFAULT_HOME, loader_log: Path | None = None, json: Json = False) -> int:
    """Train the run of a run.toml over its sites; sharded first where it is not. Run again, it goes on.

    Examples:
        causeway train run.toml
    """
    from flows.display import Display
    from flows.server import use_running
    from training.planning import load_run_config

    config = load_run_config(run_file)
    use_running(home)
    with Display():
        from flows.shard import shard as shard_flow
        from flows.train import Trained
        from flows.train import train as flow

        async def work() -> Trained:
            _, plan = await shard_flow(str(home.absolute()), config)
            log = str(loader_log.absolute()) if loader_log else None
            return await flow(str(home.absolute()), plan.run, log)

        done = asyncio.run(work())
    if json:
        print_json({"run": done.run, "rounds": done.rounds, "state": done.state, "ended": done.ended})
        return 0
    made = f"run {done.run}: {done.rounds} rounds committed, state {done.state}"
    if done.ended == "paused":
        print(f"{made}: paused; causeway train resume {done.run}")
    elif done.ended == "cancelled":
        print(f"{made}: cancelled; it does not go on")
    else:
        print(f"{made}. Next: causeway evaluate {done.run}")
    return 0


def pause(run: str, *, reason: str = "", home: Home = DEFAULT_HOME) -> int:
    """Let a run end after the round under way: its sites stop there, all at the same round, and lose nothing.

    Examples:
        causeway train pause demo-1a2b3c4d --reason "power cut until Monday"

    Parameters
    ----------
    reason:
        Why; shown wherever the run is.
    """
    from training.rounds import control
    from training.rounds.plan import read_plan
    from training.workspace import Workspace

    workspace = Workspace.open(home)
    made = control.pause(workspace.home, read_plan(workspace.home, run), user(), reason)
    print(f"run {run} is {made.words}; it ends after round {made.round}. To go on: causeway train resume {run}")
    return 0


def resume(run: str, *, reason: str = "", home: Home = DEFAULT_HOME) -> int:
    """Let a paused run go on from its chain, by its deployment where this folder's server has one.

    Examples:
        causeway train resume demo-1a2b3c4d

    Parameters
    ----------
    reason:
        Why; shown wherever the run is.
    """
    from flows.server import running, use_running
    from training.rounds import control
    from training.rounds.plan import read_plan
    from training.workspace import Workspace

    workspace = Workspace.open(home)
    made = control.resume(workspace.home, read_plan(workspace.home, run), user(), reason)
    started = None
    if running(home):
        use_running(home)
        from flows.remote import continue_training

        started = asyncio.run(continue_training(run))
    if started is None:
        print(f"run {run} is {made.words}; no train deployment here: run causeway train with its run.toml to go on")
        return 0
    flow_run, new = started
    how = "started" if new else "at work already"
    print(f"run {run} is {made.words}; {how}: flow run {flow_run.name} {flow_run.id}")
    return 0


def cancel(run: str, *, reason: str = "", home: Home = DEFAULT_HOME) -> int:
    """End a run for good at the rounds it has; they stay, and can be evaluated and exported.

    Examples:
        causeway train cancel demo-1a2b3c4d --reason "the licence ended"

    Parameters
    ----------
    reason:
        Why; shown wherever the run is.
    """
    from training.rounds import control
    from training.rounds.plan import read_plan
    from training.workspace import Workspace

    workspace = Workspace.open(home)
    made = control.cancel(workspace.home, read_plan(workspace.home, run), user(), reason)
    print(f"run {run} is {made.words}; its sites end after the round that they are in")
    return 0
