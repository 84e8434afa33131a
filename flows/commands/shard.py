"""`causeway shard`: place a run's shards, or say where they would go and why."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.commands import DEFAULT_HOME, Home, Json, print_json, print_table

if TYPE_CHECKING:
    from training.planning import RunConfig
    from training.shards.outlook import Outlook
    from training.shards.sharding import Sharded


def shard(run_file: Path, *, dry_run: bool = False, home: Home = DEFAULT_HOME, json: Json = False) -> int:
    """Place the shards of a run.toml where the terms permit and the run ends soonest, and freeze its plan.

    What lies well stays, what lies elsewhere is moved, the rest is tokenized. Shards that may no longer lie where they
    do are removed first, on record. Interrupted, it goes on when it is run again.

    Examples:
        causeway shard run.toml --dry-run
        causeway shard run.toml

    Parameters
    ----------
    run_file:
        The run.toml: data sets, purpose, tokenizer.
    dry_run:
        Write nothing; say for each data set where it may go and why not elsewhere, what would move, for how long and
        for how much, and when each region would end. Exits 1 when something has no place.
    """
    from training.planning import load_run_config

    config = load_run_config(run_file)
    if dry_run:
        return _dry_run(home, config, json)
    from flows.server import use_running

    use_running(home)
    from flows.shard import placed
    from flows.shard import shard as flow

    made, plan = asyncio.run(flow(str(home.absolute()), config))
    if json:
        counts = {"shards": len(made.manifests), "written": made.written, "moved": made.moved, "removed": made.removed}
        removals = [one.document() for one in made.removals]
        print_json({"run": plan.run, **counts, "placed": placed(made), "removals": removals})
        return 0
    rows = [
        [d, region, tokens] for d, by_region in placed(made).items() for region, tokens in sorted(by_region.items())
    ]
    print_table(f"run {plan.run}", ["data set", "region", "tokens"], rows)
    _show_what_went(made)
    print(
        f"{made.written} shards written, {made.moved} of them from another region; {len(made.manifests)} in all."
        f" Next: causeway train {run_file}"
    )
    return 0


def _show_what_went(made: Sharded) -> None:
    for one in made.removals:
        print(f"removed {one.key} from {one.region}: {' '.join(one.reasons)}")
    for assignment in made.homeless:
        print(f"no place for {assignment.unit.name}: {' '.join(assignment.reasons)}")


def _dry_run(home: Path, config: RunConfig, json: bool) -> int:
    from training.shards.explaining import document_of
    from training.steps import dry_run
    from training.workspace import Workspace

    outlook = dry_run(Workspace.open(home), config)
    if json:
        print_json(document_of(outlook))
    else:
        _show(outlook)
    return 1 if outlook.placement.homeless else 0


def _show(outlook: Outlook) -> None:
    from training.shards.explaining import flows_of

    placement = outlook.placement
    rows: list[list[Any]] = [
        [a.dataset, a.split, a.region, "yes", ""]
        if a.decision.allowed
        else [a.dataset, a.split, a.region, "no", " ".join(a.decision.reasons)]
        for a in placement.answers
    ]
    print_table("Where it may go", ["data set", "split", "region", "may", "why not"], rows)
    flows = flows_of(outlook)
    rows = [
        [
            *(f.dataset, f.split, f"{f.how} from {f.source}" if f.source else f.how, f.region, f.units, f.tokens),
            *(_size(f.bytes_moved), _time(f.seconds), f"{f.cost:,.2f}"),
        ]
        for f in flows
    ]
    columns = ["data set", "split", "how", "region", "units", "tokens", "bytes moved", "time", "cost"]
    print_table("Where it goes", columns, rows)
    rows = [
        [name, sum(f.tokens for f in flows if f.region == name and f.split == "train"), _time(seconds)]
        for name, seconds in sorted(placement.finish_s.items())
    ]
    print_table("Once through the training tokens", ["region", "tokens", "ends after"], rows)
    for one in outlook.removals:
        print(f"leaves {one.region}: {one.key}: {' '.join(one.reasons)}")
    for a in placement.homeless:
        print(f"{a.unit.name} {a.how}: {' '.join(a.reasons)}")
    if not outlook.measured:
        print("Tokens are estimated at 4 bytes each: the run's tokenizer has not been trained yet.")
    moved = sum(f.bytes_moved for f in flows)
    print(
        f"The last region ends after {_time(placement.end_s)}; no placement ends before"
        f" {_time(placement.finish_bound_s)}. {_size(moved)} cross a link, for {sum(f.cost for f in flows):,.2f}."
        " Nothing has been written."
    )


def _size(size: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:,.0f} {unit}" if unit == "B" else f"{size:,.1f} {unit}"
        size /= 1000
    return f"{size:,.1f} TB"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:,.1f} s"
    if seconds < 7200:
        return f"{seconds / 60:,.1f} min"
    return f"{seconds / 3600:,.1f} h"
