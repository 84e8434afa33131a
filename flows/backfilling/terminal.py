"""A backfill at the terminal: execute it here or on the workers, show it to its end, say what to do next."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.commands import print_json

if TYPE_CHECKING:
    from data_contracts.backfill.record import Record
    from data_contracts.backfill.state import State
    from training.workspace import Workspace


def go(workspace: Workspace, record: Record, inline: bool, detach: bool, json: bool) -> int:
    """Execute a backfill, here or on the workers, and show it to its end."""
    from data_contracts.catalog.leases import Busy
    from data_contracts.errors import CausewayError
    from flows.server import deployed

    home = workspace.root
    on_workers = not inline and deployed(home)
    if detach and not on_workers:
        raise CausewayError("no workers to leave it to; run: causeway up")
    if not json:
        print(f"backfill {record.plan.id}: {len(record.plan.items)} partitions", flush=True)
    try:
        if on_workers:
            _start_on_workers(home, record)
            if not detach:
                watch(record, json)
        elif inline:
            asyncio.run(_inline(workspace, record, json))
        else:
            _in_this_process(home, record, json)
    except Busy as error:
        if not json:
            print(f"{error.holder} executes it already; watching")
        watch(record, json)
    return ended(record, json)


def _start_on_workers(home: Path, record: Record) -> None:
    from flows.server import use_running

    use_running(home)
    from flows.backfilling.starting import start_deployed

    asyncio.run(start_deployed(record))


def _in_this_process(home: Path, record: Record, json: bool) -> None:
    from flows.server import use_running

    use_running(home)
    from data_contracts.errors import DataRefused
    from flows.backfill import backfill as flow

    with _Lines(json):
        try:
            asyncio.run(flow(str(home), resume=record.plan.id))
        except DataRefused:
            # What became of each item is in the store, and shown from there.
            return


async def _inline(workspace: Workspace, record: Record, json: bool) -> None:
    from data_contracts.backfill.state import state_of
    from flows.backfilling.executor import Executor
    from flows.backfilling.inline import Inline, finish
    from flows.backfilling.page import line

    said = [0.0]

    def heard(state: State) -> None:
        if not json and time.monotonic() - said[0] > 2:
            said[0] = time.monotonic()
            print(line(state), file=sys.stderr, flush=True)

    state = await Executor(record, Inline(workspace, record), heard).run()
    if state.settled and state.word == "running":
        await asyncio.to_thread(finish, workspace, record)
        state = state_of(record.plan, record.progress())


class _Lines:
    """While a flow runs in this process, its progress is printed to stderr, a line when it changes."""

    def __init__(self, silent: bool) -> None:
        self._silent = silent
        self._said = ""

    def __enter__(self) -> None:
        from flows.progress import Event, listen

        def heard(event: Event) -> None:
            if not self._silent and event.detail != self._said:
                self._said = event.detail
                print(event.detail, file=sys.stderr, flush=True)

        listen(heard)

    def __exit__(self, *_: object) -> None:
        from flows.progress import listen

        listen(None)


def watch(record: Record, json: bool) -> None:
    """Show a backfill until it ends or stops; Ctrl-C ends the watching only."""
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    from data_contracts.backfill.state import state_of
    from flows.backfilling.page import coloured, line

    console = Console(stderr=True)
    said = ""

    def stand() -> State:
        return state_of(record.plan, record.progress())

    def picture(state: State) -> Group:
        squares = [coloured(one) for one in sorted(state.items, key=lambda o: (o.item.partition, o.item.published))]
        rows = ["".join(squares[k : k + 60]) for k in range(0, min(len(squares), 1800), 60)]
        causes = [Text(f"{c.count} x {c.example}"[:160], style="red") for c in state.causes[:5]]
        return Group(line(state), *(Text.from_markup(row) for row in rows), *causes)

    state = stand()
    if sys.stderr.isatty() and not json:
        with Live(picture(state), console=console, refresh_per_second=4) as live:
            while state.word == "running":
                time.sleep(1)
                state = stand()
                live.update(picture(state))
        return
    while state.word == "running":
        if not json and line(state) != said:
            said = line(state)
            print(said, file=sys.stderr, flush=True)
        time.sleep(1)
        state = stand()


def ended(record: Record, json: bool) -> int:
    from data_contracts.backfill.state import state_of
    from flows.backfilling.page import line

    state = state_of(record.plan, record.progress())
    if json:
        print_json(document(state))
    else:
        print(f"backfill {state.plan.id} of {state.plan.dataset}: {line(state)}")
        for cause in state.causes:
            print(f"  {cause.count} x {cause.example}")
        then = {"failed": "retry", "stopped": "resume", "paused": "resume"}.get(state.word)
        if then:
            print(f"then: causeway backfill {then} {state.plan.id}")
    return 1 if state.word in ("failed", "stopped") else 0


def document(state: State) -> dict[str, Any]:
    rows = [
        {
            "partition": one.item.partition,
            "published": one.item.published,
            "status": one.status,
            "outcome": one.outcome.ended if one.outcome else "",
            "attempts": one.attempt if one.outcome else 0,
            "reason": one.item.reason,
            "message": one.outcome.message if one.outcome else "",
        }
        for one in state.items
    ]
    causes = [{"count": c.count, "cause": c.cause, "example": c.example} for c in state.causes]
    return {
        "id": state.plan.id,
        "dataset": state.plan.dataset,
        "word": state.word,
        "said": state.said,
        **state.counts,
        "left_s": state.left_s,
        "causes": causes,
        "rows": rows,
    }
