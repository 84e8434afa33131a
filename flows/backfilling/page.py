"""What people see of a backfill: its plan before it starts, one page while it runs. Markdown, as Prefect shows it."""

from __future__ import annotations

from data_contracts.backfill.plan import BackfillPlan
from data_contracts.backfill.state import ItemState, State

SQUARES = {"waiting": "⬜", "running": "🟦", "done": "🟩", "refused": "🟧", "failed": "🟥"}
_ROW = 25
_GRID = 1000  # more squares than this are no picture any more
_LISTED = 200


def plan_page(plan: BackfillPlan) -> str:
    """Return the plan: what will be done and why, what is left alone and why, what it is expected to take."""
    lines = [f"## Backfill {plan.id} of {plan.dataset}", "", summary(plan), ""]
    lines += ["| # | partition | bytes | contract | why |", "|--:|---|--:|---|---|"]
    lines += [
        f"| {i.number} | {i.name} | {i.bytes:,} | {i.contract_version} | {_cell(i.reason)} |"
        for i in plan.items[:_LISTED]
    ]
    if len(plan.items) > _LISTED:
        lines.append(f"| | {len(plan.items) - _LISTED} more: `causeway backfill status {plan.id} --json` | | | |")
    if plan.skipped:
        lines += ["", f"### Left alone: {len(plan.skipped)}", "", "| partition | why |", "|---|---|"]
        lines += [f"| {s.partition} {s.published[:10]} | {_cell(s.reason)} |" for s in plan.skipped[:_LISTED]]
        if len(plan.skipped) > _LISTED:
            lines.append(f"| {len(plan.skipped) - _LISTED} more | |")
    return "\n".join(lines)


def summary(plan: BackfillPlan) -> str:
    """Return a plan in one sentence."""
    takes = f", about {words(plan.estimate_s)} by past runs" if plan.estimate_s else ""
    return (
        f"{len(plan.items)} partitions ({plan.only}), {plan.bytes:,} bytes, {plan.order} first,"
        f" {plan.max_active} at once, through {plan.through}{takes}; {len(plan.skipped)} left alone."
    )


def progress_page(state: State) -> str:
    """Return where a backfill stands: counts, time left, a square a partition, failures by cause."""
    plan, counts = state.plan, state.counts
    left = "" if state.left_s is None or state.ended else f", about {words(state.left_s)} left"
    lines = [
        f"## Backfill {plan.id} of {plan.dataset}: {state.word}{left}",
        "",
        " ".join(f"{SQUARES[s]} {n:,} {s}" for s, n in counts.items()) + f" of {len(state.items):,}",
        "",
    ]
    if state.said:
        lines += [f"Last order: {_cell(state.said)}", ""]
    if len(state.items) <= _GRID:
        by_partition = sorted(state.items, key=lambda one: (one.item.partition, one.item.published))
        for first in range(0, len(by_partition), _ROW):
            row = by_partition[first : first + _ROW]
            names = " to ".join(dict.fromkeys(f"`{one.item.name}`" for one in (row[0], row[-1])))
            lines += ["".join(SQUARES[one.status] for one in row) + f" {names}", ""]
    if state.causes:
        lines += ["### Failures by cause", "", "| count | cause | example | partitions |", "|--:|---|---|---|"]
        for cause in state.causes:
            names = ", ".join(cause.partitions[:6]) + (" ..." if len(cause.partitions) > 6 else "")
            lines.append(f"| {cause.count} | {_cell(cause.cause)} | {_cell(cause.example)} | {names} |")
        lines.append("")
    now = [one for one in state.items if one.status == "running"]
    if now:
        lines.append("Running: " + ", ".join(one.item.name for one in now[:12]))
    lines += ["", f"`causeway backfill watch {plan.id}`, `pause`, `resume`, `cancel`, `retry`."]
    return "\n".join(lines)


def line(state: State) -> str:
    """Return where a backfill stands in one line, for logs and terminals."""
    counts = state.counts
    left = "" if state.left_s is None or state.ended else f", about {words(state.left_s)} left"
    done = counts["done"] + counts["refused"] + counts["failed"]
    bad = "".join(f", {counts[s]} {s}" for s in ("refused", "failed") if counts[s])
    return f"{state.word}: {done} of {len(state.items)}, {counts['running']} running{bad}{left}"


def coloured(one: ItemState) -> str:
    """Return an item's square for a terminal, in rich's markup."""
    colour = {"waiting": "bright_black", "running": "blue", "done": "green", "refused": "yellow", "failed": "red"}
    return f"[{colour[one.status]}]■[/]"


def words(seconds: float) -> str:
    """Return a span of time as a person says it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _cell(text: str) -> str:
    return text.replace("|", "/").replace("\n", " ")[:300]
