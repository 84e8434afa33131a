"""Commands on lineage: walks, not reconstructions."""

from __future__ import annotations

from flows.commands import DEFAULT_HOME, Home, Json, print_json, print_table


def show(model: str | None = None, *, home: Home = DEFAULT_HOME, files: bool = False, json: Json = False) -> int:
    """Walk from a model back to the source files it was made from, with counts.

    Examples:
        causeway lineage show
        causeway lineage show demo-1a2b3c4d
        causeway lineage show demo-1a2b3c4d@3 --files

    Parameters
    ----------
    model:
        A run (its newest model) or RUN@ROUND.
    files:
        List the source files too.
    """
    from data_contracts.catalog.lineage_index import rebuild_index, walk_back
    from training.rounds.plan import read_plan
    from training.rounds.run import find_run, newest_state
    from training.workspace import Workspace

    workspace = Workspace.open(home)
    run, _, number = (model or "").partition("@")
    run = find_run(workspace.home, run or None)
    plan = read_plan(workspace.home, run)
    node = f"model/{run}@{number or newest_state(workspace.home, plan).round}"
    index = workspace.root / "lineage.sqlite"
    rebuild_index([store for _, store in workspace.table_stores()], index)
    walk = walk_back(index, node)
    counts: dict[str, int] = {}
    for step in walk:
        counts[step.kind] = counts.get(step.kind, 0) + 1
    sources = [{"file": s.node.split("/", 1)[1], "bytes": s.facets.get("bytes", 0)} for s in walk if s.kind == "file"]
    size = sum(s["bytes"] for s in sources)
    if json:
        print_json(
            {"model": node, "counts": counts, "source_files": len(sources), "source_bytes": size}
            | ({"files": sources} if files else {})
        )
        return 0
    rows = [
        [kind, count]
        for kind, count in sorted(counts.items(), key=lambda item: min(s.depth for s in walk if s.kind == item[0]))
    ]
    print_table(f"{node}: what it was made from", ["kind", "nodes"], rows)
    print(f"{len(sources):,} source files, {size:,} bytes")
    if files:
        for source in sources:
            print(f"{source['bytes']:>10,}  {source['file']}")
    return 0


def record(record_id: str, *, run: str | None = None, home: Home = DEFAULT_HOME, json: Json = False) -> int:
    """Name the rounds that trained on a record, and the models that contain it: arithmetic on the chain, exact.

    Examples:
        causeway lineage record 4f0c2e0d9a7b4e1b8c3d5e6f70819203
    """
    from training.rounds.run import find_run
    from training.tracing import trace_record
    from training.workspace import Workspace

    workspace = Workspace.open(home)
    found = trace_record(workspace, find_run(workspace.home, run), record_id)
    if json:
        print_json({**found.document()})
        return 0
    print(f"record {record_id}: {found.where}")
    if found.trained:
        columns = ["round", "site", "data set", "epoch", "window of shard", "lane", "lane index"]
        rows = [[t.round, t.site, t.dataset, t.epoch, t.window, t.lane, t.index] for t in found.trained]
        print_table(f"run {found.run}", columns, rows)
        first = found.trained[0].round
        print(f"Contained in every model from {found.run}@{first} on: {len(found.rounds)} rounds trained on it.")
    else:
        print(f"No round of {found.run} trained on it; no model of that run contains it.")
    return 0
