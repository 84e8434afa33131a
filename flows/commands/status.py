"""`causeway status`: what is there, how fresh it is, and what needs a person. One function a section."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.commands import DEFAULT_HOME, Home, Json, print_json, print_table

if TYPE_CHECKING:
    from data_contracts.notices import Notice
    from training.status import BackfillState, DatasetState, RunState, ShardState

EMPTY = """\
{root}: nothing here yet. To begin:

  causeway demo --quick               the whole main job on real data, on this machine
  causeway contracts check CONTRACT   check a contract of your own; 33 data sets have theirs in data_contracts/library/
  causeway ingest CONTRACT SOURCE     take in your data under it

Another folder is named by --home FOLDER or CAUSEWAY_HOME."""


def status(*, home: Home = DEFAULT_HOME, json: Json = False) -> int:
    """Show data sets and how fresh they are, quarantine, shards by site, runs, and what needs a person.

    Fresh or late goes by the contract's `frequency` and `latency`. Nothing is made, and no server is asked. Exit code 0
    whatever is found: `needs` in the JSON is empty when nothing needs a person.

    Examples:
        causeway status
        causeway status --json
    """
    datasets: list[DatasetState] = []
    shards: list[ShardState] = []
    fills: list[BackfillState] = []
    runs: list[RunState] = []
    needs: list[Notice] = []
    # Opening a folder makes it; asking must not.
    if home.exists():
        from training.status import backfill_states, dataset_states, noticed, run_states, shard_states
        from training.workspace import Workspace

        workspace = Workspace.open(home)
        datasets, late_or_refused = dataset_states(workspace, datetime.now(UTC))
        shards = shard_states(workspace)
        fills, stuck = backfill_states(workspace)
        runs, unreadable = run_states(workspace)
        needs = [*late_or_refused, *stuck, *unreadable, *noticed(workspace)]
    if json:
        print_json(
            {
                "home": str(home.absolute()),
                "datasets": [asdict(state) for state in datasets],
                "quarantined": sum(state.quarantined for state in datasets),
                "shards": [asdict(state) for state in shards],
                "backfills": [asdict(state) for state in fills],
                "runs": [asdict(state) for state in runs],
                "needs": [asdict(notice) for notice in needs],
            }
        )
    elif not (datasets or runs or needs):
        print(EMPTY.format(root=home.absolute()))
    else:
        _show_datasets(home.absolute(), datasets)
        if any(state.shards for state in shards):
            _show_shards(shards)
        if fills:
            _show_backfills(fills)
        if runs:
            _show_runs(runs)
        _show_needs(needs)
    return 0


def _show_datasets(root: Path, states: list[DatasetState]) -> None:
    rows: list[list[Any]] = [
        [
            state.dataset,
            state.tables_at,
            state.partitions,
            len(state.refused),
            state.accepted,
            state.quarantined,
            _contracts(state),
            state.freshness.newest or "",
            state.freshness.words,
        ]
        for state in states
    ]
    columns = ["data set", "at", "partitions", "refused", "accepted", "quarantined", "contract", "newest", "freshness"]
    print_table(f"{root}", columns, rows)
    quarantined, seen = sum(s.quarantined for s in states), sum(s.accepted + s.quarantined for s in states)
    if seen:
        print(
            f"Quarantine: {quarantined:,} of {seen:,} records ({100 * quarantined / seen:.2g} %), each with its reasons"
        )


def _contracts(state: DatasetState) -> str:
    """Say which contract versions the partitions in force came under, when it is not simply the one in force."""
    if not set(state.contract_versions) - {state.contract_version}:
        return state.contract_version
    used = ", ".join(f"{version}: {count:,}" for version, count in state.contract_versions.items())
    return f"{state.contract_version} ({used})"


def _show_shards(states: list[ShardState]) -> None:
    rows: list[list[Any]] = [[s.site, s.region, s.shards, f"{s.arrow_bytes / 1e6:,.1f}"] for s in states]
    print_table("shards", ["site", "region", "shards", "MB"], rows)


def _show_backfills(states: list[BackfillState]) -> None:
    rows: list[list[Any]] = [
        [s.id, s.dataset, s.only, f"{s.settled:,} of {s.items:,}", s.stands, s.asked_by, s.asked_at[:16]]
        for s in states
    ]
    print_table("backfills", ["id", "data set", "only", "partitions", "stands", "by", "at (UTC)"], rows)


def _show_runs(states: list[RunState]) -> None:
    rows: list[list[Any]] = [
        [s.run, s.purpose, s.rounds, s.planned, s.why or s.state, _codecs(s.codecs)] for s in states
    ]
    print_table("runs", ["run", "purpose", "rounds", "of", "state", "codec"], rows)


def _codecs(codecs: Mapping[str, str]) -> str:
    """Say the codec of a run's updates, or each site's where they differ."""
    if len(set(codecs.values())) == 1:
        return next(iter(codecs.values()))
    return ", ".join(f"{site} {codec}" for site, codec in codecs.items())


def _show_needs(needs: list[Notice]) -> None:
    if not needs:
        print("Nothing needs a person.")
        return
    rows: list[list[Any]] = [[n.kind, n.subject, n.since[:16].replace("T", " "), n.message] for n in needs]
    print_table("needs a person", ["what", "about", "since (UTC)", "what to do"], rows)
