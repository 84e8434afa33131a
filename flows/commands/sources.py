"""Where the data of a data set is: register sources without taking anything in, and list them."""

from __future__ import annotations

from pathlib import Path

from flows.commands import DEFAULT_HOME, Home, Json, print_json, print_table


def add(contract: Path, source: str, *, published: str = "", home: Home = DEFAULT_HOME, json: Json = False) -> int:
    """Register a source under a contract; `causeway backfill` then takes in what is missing of it.

    A data set that is ordered by publication (`sequence: publication`) has one source for each publication of the
    whole, each under a contract version of its own; the latest is in force.

    Examples:
        causeway sources add my-contract.yaml my-folder
        causeway sources add contract-1.yaml as-first-published --published 2020-03-25

    Parameters
    ----------
    source:
        A file or folder, a URL (s3://, gs://, az://, sqlite:///, adbc+...), hf: and a name, or env: for the packages
        of this Python environment.
    published:
        When its owner published it.
    """
    from data_contracts.contract import load_contract
    from data_contracts.moments import moment_of
    from data_contracts.sources import open_source, place_of
    from training.steps import admit
    from training.workspace import Workspace

    workspace = Workspace.open(home)
    loaded = load_contract(contract)
    where = place_of(source)
    partitions = len(open_source(loaded, where).partitions())
    place = admit(workspace, loaded, where, moment_of(published))
    if json:
        print_json({"dataset": loaded.id, "version": loaded.version, "source": where, "partitions": partitions})
    else:
        print(f"{loaded.id} {loaded.version}: {where}, {partitions} partitions; its tables lie at {place}.")
        print(f"Next: causeway backfill {loaded.id}")
    return 0


def listed(dataset: str | None = None, *, home: Home = DEFAULT_HOME, json: Json = False) -> int:
    """List registered sources: contract version, publication, place; the last of a data set is in force.

    Examples:
        causeway sources list
        causeway sources list healthcare/covid19-daily-reports --json
    """
    from training.workspace import Workspace

    workspace = Workspace.open(home)
    columns = ["data set", "contract", "published", "source"]
    rows = [
        [name, entry.version or entry.sha[:12], entry.published, entry.source]
        for name in ([dataset] if dataset else workspace.datasets())
        for entry in workspace.registered(name)[1].entries
    ]
    if json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        print_table("sources", columns, rows)
    return 0
