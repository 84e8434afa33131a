"""Commands that operate: status, sites, ui, serve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flows.commands import DEFAULT_HOME, Home, Json, print_json, print_table


def status(*, home: Home = DEFAULT_HOME, json: Json = False) -> int:
    """Show data sets, quarantine, shards by site and runs.

    Examples:
        causeway status
        causeway status --json
    """
    from training.workspace import Workspace

    workspace = Workspace.open(home)
    datasets: list[dict[str, Any]] = []
    for name in workspace.datasets():
        contract = workspace.contract(name)
        tables = workspace.tables(contract)
        current, history = tables.current(), tables.versions()
        refused = {v.partition for v in history if v.verdict == "refused"} - current.keys()
        datasets.append(
            {
                "dataset": name,
                "tables_at": workspace.table_place(contract).name,
                "partitions": len(current),
                "refused": sorted(refused),
                "accepted": sum(v.rows_accepted for v in current.values()),
                "quarantined": sum(v.rows_quarantined for v in current.values()),
                "newest": max((v.published_at for v in history), default=None),
            }
        )
    shards = {
        site.name: sum(k.endswith(".arrow") for k, _ in workspace.store(site.name).list("shards"))
        for site in workspace.sites.sites
    }
    runs = _runs(workspace)
    if json:
        print_json({"datasets": datasets, "shards": shards, "runs": runs})
        return 0
    rows = [
        [
            d["dataset"],
            d["tables_at"],
            d["partitions"],
            len(d["refused"]),
            d["accepted"],
            d["quarantined"],
            (d["newest"] or "")[:19],
        ]
        for d in datasets
    ]
    columns = ["data set", "tables at", "partitions", "refused", "accepted", "quarantined", "newest (UTC)"]
    print_table(f"{workspace.root}", columns, rows)
    print_table("shards", ["site", "shards"], [[s, n] for s, n in shards.items()])
    print_table(
        "runs", ["run", "purpose", "rounds", "of"], [[r["run"], r["purpose"], r["rounds"], r["planned"]] for r in runs]
    )
    return 0


def _runs(workspace: Any) -> list[dict[str, Any]]:
    from training.rounds.plan import read_plan

    found = []
    for run in sorted({k.split("/")[1] for k, _ in workspace.home.list("runs") if k.endswith("/plan.json")}):
        plan = read_plan(workspace.home, run)
        commits = {k.rsplit("/", 1)[1][:6] for k, _ in workspace.home.list(f"runs/{run}/commits")}
        found.append({"run": run, "purpose": plan.purpose, "rounds": len(commits), "planned": plan.rounds})
    return found


def sites_list(*, home: Home = DEFAULT_HOME, json: Json = False) -> int:
    """List the sites: region, jurisdictions, store, work pool.

    Examples:
        causeway sites list
    """
    from training.workspace import Workspace

    workspace = Workspace.open(home)
    places = workspace.sites.places
    rows = [[s.name, s.region, ", ".join(s.jurisdictions), s.store_url, s.work_pool, s.accelerator] for s in places]
    columns = ["site", "region", "jurisdictions", "store", "work pool", "accelerator"]
    if json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        print_table("sites", columns, rows)
    return 0


def ui(*, home: Home = DEFAULT_HOME, port: int = 4200) -> int:
    """Start the Prefect server of this folder and keep it up until Ctrl-C: its UI shows runs, logs and artifacts.

    Examples:
        causeway ui
        causeway ui --port 4300
    """
    import time

    from flows.server import server

    with server(home.absolute(), port) as url:
        print(f"Prefect UI: {url.removesuffix('/api')}   (Ctrl-C ends it)", flush=True)
        try:
            while True:
                time.sleep(1)
        except KeyboardInterrupt:
            return 0


def serve(contract: Path, source: str, *, home: Home = DEFAULT_HOME, every: float = 3600.0, port: int = 4200) -> int:
    """Run the ingest of a source on a schedule, with the Prefect server of this folder, until Ctrl-C.

    Examples:
        causeway serve data_contracts/library/software-package-docs.yaml env: --every 3600

    Parameters
    ----------
    every:
        Seconds from one scheduled run to the next.
    port:
        Port of the Prefect server, when none is up for this folder.
    """
    import os

    from data_contracts.contract import load_contract
    from flows.server import server

    loaded = load_contract(contract)
    with server(home.absolute(), port) as url:
        os.environ["PREFECT_API_URL"] = url
        from prefect.types.entrypoint import EntrypointType

        from flows.ingest import ingest

        where = source if source.startswith("env:") else str(Path(source).absolute())
        print(
            f"Serving ingest of {loaded.id} every {every:g} s; UI: {url.removesuffix('/api')}   (Ctrl-C ends it)",
            flush=True,
        )
        parameters = {"home": str(home.absolute()), "contract": str(contract.absolute()), "source": where}
        # By module, not by file: a flow loaded from its file cannot resolve its own annotations.
        ingest.serve(
            name=loaded.slug,
            interval=every,
            parameters=parameters,
            print_starting_message=False,
            limit=1,
            entrypoint_type=EntrypointType.MODULE_PATH,
        )
    return 0
