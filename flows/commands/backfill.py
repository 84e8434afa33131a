"""Backfills from the terminal: plan, run, and what one does to a backfill that is under way."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from flows.commands import DEFAULT_HOME, Home, Json, print_json, print_table
from flows.who import user

if TYPE_CHECKING:
    from data_contracts.backfill.plan import BackfillPlan
    from data_contracts.backfill.record import Verb

_SHOWN = 20


def backfill(
    dataset: str,
    *,
    only: Literal["missing", "failed", "restated", "stale-contract", "all"] = "missing",
    from_: str = "",
    to: str = "",
    partitions: list[str] | None = None,
    max_active: int = 4,
    order: Literal["oldest", "newest"] = "oldest",
    through: Literal["ingest", "curate", "shard"] = "ingest",
    run: Path | None = None,
    breaker: int = 5,
    reason: str = "",
    dry_run: bool = False,
    yes: bool = False,
    inline: bool = False,
    detach: bool = False,
    home: Home = DEFAULT_HOME,
    json: Json = False,
) -> int:
    """Take in again what is missing, failed, restated or stale of a data set; the plan is shown first.

    A backfill is one stored object: it goes on after any death with `causeway backfill resume ID`, and whoever asks
    for the same work gets the same backfill. With `causeway up` its partitions run on the workers of their place.

    Examples:
        causeway backfill software/python-source --only missing
        causeway backfill healthcare/covid19-daily-reports --from 2020-03-01 --to 2020-03-31 --only restated --dry-run
        causeway backfill healthcare/covid19-daily-reports --order newest --max-active 4 --through curate --yes

    Parameters
    ----------
    only:
        missing: never taken in; failed: refused, or failed in an earlier backfill; restated: the source has other
        bytes; stale-contract: taken in under an older contract; all: every partition.
    from_:
        The first partition, included.
    to:
        The last partition, included.
    partitions:
        Only these partitions; may be repeated.
    max_active:
        How many partitions are worked on at once.
    order:
        Which are taken first.
    through:
        How far: ingest, then curate, then shard (needs --run).
    run:
        The run.toml to shard for.
    breaker:
        So many failures in a row stop it.
    reason:
        Why; it is kept with the backfill.
    dry_run:
        Show the plan and store nothing.
    yes:
        Do not ask. Nothing is asked either where no terminal is.
    inline:
        Work in this process, with no Prefect run at all.
    detach:
        Leave it to the workers and return; needs causeway up.
    """
    from data_contracts.backfill.selection import Request
    from data_contracts.errors import DataRefused
    from flows.backfilling.terminal import go
    from training.backfilling import plan_backfill, start_backfill
    from training.workspace import Workspace

    workspace = Workspace.open(home)
    facts = None
    if through == "shard":
        from training.planning import load_run_config

        if run is None:
            raise DataRefused("--through shard needs --run run.toml: what to shard for, and for which purpose")
        facts = load_run_config(run).model_dump(mode="json")
    planned = plan_backfill(
        workspace,
        dataset,
        Request(only, from_, to, tuple(partitions or ()), order),
        through=through,
        max_active=max_active,
        breaker=breaker,
        reason=reason,
        asked_by=user(),
        run=facts,
    )
    record = planned.existing
    if record is not None:
        if not json:
            print(f"{record.plan.id}, asked for by {record.plan.asked_by} at {record.plan.asked_at}, does all of this")
    elif not json:
        _show_plan(planned.plan)
    if dry_run or (record is None and not planned.plan.items):
        if json:
            shown = record.plan if record is not None else planned.plan
            print_json({"id": "", "word": "planned", "plan": shown.document()})
        elif not dry_run:
            print(f"{dataset}: nothing to backfill; {len(planned.plan.skipped)} partitions are left alone")
        return 0
    if record is None:
        if not (yes or json) and sys.stdin.isatty() and not _confirmed():
            print("nothing was started")
            return 0
        record, _ = start_backfill(workspace, planned.plan)
    return go(workspace, record, inline, detach, json)


def _confirmed() -> bool:
    return input("Start it? [y/N] ").strip().lower() in ("y", "yes")


def _show_plan(plan: BackfillPlan) -> None:
    from flows.backfilling.page import summary

    if plan.items:
        rows = [[i.number, i.name, i.bytes, i.contract_version, i.reason] for i in plan.items[:_SHOWN]]
        print_table(f"{plan.dataset}: plan {plan.id}", ["#", "partition", "bytes", "contract", "why"], rows)
        if len(plan.items) > _SHOWN:
            print(f"... and {len(plan.items) - _SHOWN} more (--dry-run --json shows all)")
    why: dict[str, list[str]] = {}
    for one in plan.skipped:
        why.setdefault(one.reason, []).append(one.partition)
    for reason, found in why.items():
        listed = ", ".join(found[:4]) + (f" ... ({len(found)})" if len(found) > 4 else "")
        print(f"left alone: {listed}: {reason}")
    print(summary(plan))


def pause(name: str, *, reason: str = "", home: Home = DEFAULT_HOME) -> int:
    """Start no further partition of a backfill; those that are under way end.

    Examples:
        causeway backfill pause bf-0dea10eb70 --reason "the source is being moved"
    """
    return _order("pause", name, home, reason, "no further partition is started; causeway backfill resume goes on")


def cancel(name: str, *, reason: str = "", home: Home = DEFAULT_HOME) -> int:
    """End a backfill for good; what was published stays, what is under way is told to end.

    Examples:
        causeway backfill cancel bf-0dea10eb70 --reason "wrong data set"
    """
    return _order("cancel", name, home, reason, "cancelled; it does not go on")


def _order(verb: Verb, name: str, home: Path, reason: str, then: str) -> int:
    from data_contracts.backfill.state import state_of
    from data_contracts.errors import DataRefused
    from training.backfilling import open_backfill
    from training.workspace import Workspace

    record = open_backfill(Workspace.open(home), name)
    state = state_of(record.plan, record.progress())
    if state.ended:
        raise DataRefused(f"backfill {record.plan.id} has ended ({state.word}); there is nothing to {verb}")
    record.order(verb, user(), reason)
    print(f"backfill {record.plan.id}: {then}")
    return 0


def resume(
    name: str, *, inline: bool = False, detach: bool = False, home: Home = DEFAULT_HOME, json: Json = False
) -> int:
    """Go on with a backfill that was paused, stopped by its circuit breaker, or killed: exactly the rest is done.

    Examples:
        causeway backfill resume bf-0dea10eb70

    Parameters
    ----------
    inline:
        Work in this process, with no Prefect run at all.
    detach:
        Leave it to the workers and return.
    """
    from data_contracts.backfill.state import state_of
    from data_contracts.errors import DataRefused
    from flows.backfilling.terminal import go
    from training.backfilling import open_backfill
    from training.workspace import Workspace

    workspace = Workspace.open(home)
    record = open_backfill(workspace, name)
    state = state_of(record.plan, record.progress())
    if state.ended:
        then = "; causeway backfill retry tries the failed ones again" if state.word == "failed" else ""
        raise DataRefused(f"backfill {record.plan.id} has ended ({state.word}){then}")
    if state.word != "running":
        record.order("resume", user())
    return go(workspace, record, inline, detach, json)


def retry(
    name: str,
    *,
    refused: bool = False,
    reason: str = "",
    inline: bool = False,
    detach: bool = False,
    home: Home = DEFAULT_HOME,
    json: Json = False,
) -> int:
    """Try the failed partitions of a backfill again, each as a new attempt.

    Examples:
        causeway backfill retry bf-0dea10eb70
        causeway backfill retry bf-0dea10eb70 --refused --reason "the rule was mended"

    Parameters
    ----------
    refused:
        The refused partitions too; under the same contract their rules will refuse them again.
    reason:
        Why; it is kept with the backfill.
    inline:
        Work in this process, with no Prefect run at all.
    detach:
        Leave it to the workers and return.
    """
    from data_contracts.backfill.state import again, state_of
    from data_contracts.errors import DataRefused
    from flows.backfilling.terminal import go
    from training.backfilling import open_backfill
    from training.workspace import Workspace

    workspace = Workspace.open(home)
    record = open_backfill(workspace, name)
    state = state_of(record.plan, record.progress())
    if state.word == "cancelled":
        raise DataRefused(
            f"backfill {record.plan.id} was cancelled; plan another: causeway backfill {state.plan.dataset}"
        )
    wanted = again(state, refused)
    if not wanted:
        raise DataRefused(f"backfill {record.plan.id}: nothing of it has failed")
    record.order("retry", user(), reason, wanted)
    record.progress()
    return go(workspace, record, inline, detach, json)
