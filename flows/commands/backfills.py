"""Backfills as they stand: list, status, watch."""

from __future__ import annotations

from flows.commands import DEFAULT_HOME, Home, Json, print_json, print_table

_SHOWN = 20


def listed(dataset: str | None = None, *, home: Home = DEFAULT_HOME, json: Json = False) -> int:
    """List backfills, the newest first.

    Examples:
        causeway backfill list
        causeway backfill list healthcare/covid19-daily-reports --json
    """
    from data_contracts.backfill.state import state_of
    from training.backfilling import backfills
    from training.workspace import Workspace

    states = [state_of(r.plan, r.progress()) for r in backfills(Workspace.open(home), dataset)]
    if json:
        wanted = ("id", "dataset", "only", "through", "reason", "asked_by", "asked_at")
        print_json([{k: getattr(s.plan, k) for k in wanted} | {"word": s.word, **s.counts} for s in states])
        return 0
    rows = [
        [s.plan.id, s.plan.dataset, s.plan.only, s.word, len(s.items), s.counts["done"], s.counts["refused"],
         s.counts["failed"], s.plan.asked_by, s.plan.asked_at[:19], s.plan.reason]
        for s in states
    ]  # fmt: skip
    columns = ["id", "data set", "only", "stands", "partitions", "done", "refused", "failed", "by", "at (UTC)", "why"]
    print_table("backfills", columns, rows)
    return 0


def status(name: str, *, home: Home = DEFAULT_HOME, json: Json = False) -> int:
    """Show where a backfill stands: counts, failures by cause, every partition that is not done.

    Examples:
        causeway backfill status bf-0dea10eb70
    """
    from data_contracts.backfill.state import state_of
    from flows.backfilling.page import line, summary
    from flows.backfilling.terminal import document
    from training.backfilling import open_backfill
    from training.workspace import Workspace

    record = open_backfill(Workspace.open(home), name)
    state = state_of(record.plan, record.progress())
    if json:
        print_json(document(state) | {"plan": state.plan.document()})
        return 0
    print(f"{state.plan.id} of {state.plan.dataset}: {line(state)}")
    print(f"asked for by {state.plan.asked_by} at {state.plan.asked_at}: {state.plan.reason or 'no reason given'}")
    print(summary(state.plan))
    if state.said:
        print(f"last order: {state.said}")
    open_ = [one for one in state.items if one.status != "done"]
    rows = [
        [one.item.number, one.item.name, one.status, one.attempt, (one.outcome.message if one.outcome else "")[:100]]
        for one in open_[:_SHOWN]
    ]
    if rows:
        print_table("not done", ["#", "partition", "stands", "attempt", "last said"], rows)
    if len(open_) > _SHOWN:
        print(f"... and {len(open_) - _SHOWN} more (--json shows all)")
    for cause in state.causes:
        print(f"{cause.count} x {cause.cause}: {', '.join(cause.partitions[:6])}")
    return 0


def watch(name: str, *, home: Home = DEFAULT_HOME, json: Json = False) -> int:
    """Watch a backfill to its end: a square a partition, failures by cause, time left. Ctrl-C ends the watching only.

    Examples:
        causeway backfill watch bf-0dea10eb70
    """
    from flows.backfilling.terminal import ended
    from flows.backfilling.terminal import watch as show
    from training.backfilling import open_backfill
    from training.workspace import Workspace

    record = open_backfill(Workspace.open(home), name)
    show(record, json)
    return ended(record, json)
