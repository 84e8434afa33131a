"""Commands on data: ingest, curate."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Literal

from flows.commands import DEFAULT_HOME, Home, Json, print_json, print_table


def ingest(
    contract: Path,
    source: str,
    *,
    home: Home = DEFAULT_HOME,
    only: Literal["changed", "missing", "all"] = "changed",
    partition: list[str] | None = None,
    max_active: int = 2,
    oracle: bool = False,
    published: str = "",
    json: Json = False,
) -> int:
    """Take in the partitions of a source that are new or changed: validate, quarantine, publish.

    Examples:
        causeway ingest data_contracts/library/healthcare-medquad.yaml ../medquad
        causeway ingest my-contract.yaml my-folder --only missing

    Parameters
    ----------
    contract:
        The data set's ODCS contract.
    source:
        A file or folder, or env: for the packages of this Python environment.
    only:
        changed: new bytes or contract; missing: never ingested; all: every partition.
    partition:
        Only this partition; may be repeated.
    oracle:
        Let Great Expectations run the same rules; it must agree.
    published:
        When its owner published this source (2020-03-25); for data sets that are ordered by publication.
    """
    from data_contracts.sources import place_of
    from flows.server import use_running

    use_running(home)
    from flows.ingest import ingest as flow

    where = place_of(source)
    done = asyncio.run(
        flow(
            str(home.absolute()), str(contract.absolute()), where, only, partition or [], max_active, oracle, published
        )
    )
    if json:
        print_json({k: v for k, v in vars(done).items() if k != "rows"} | {"rows": done.rows})
        return 0
    if done.rows:
        columns = ["partition", "outcome", "rows_in", "accepted", "quarantined", "reasons"]
        print_table(done.dataset, columns, [[row[c] for c in columns] for row in done.rows])
    refused = sum(row["outcome"] == "refused" for row in done.rows)
    print(
        f"{done.dataset}: {done.partitions} partitions ingested, {done.unchanged} unchanged"
        + (f", {refused} of them refused: see causeway quarantine {done.dataset}" if refused else "")
    )
    return 0


def curate(*datasets: str, home: Home = DEFAULT_HOME, json: Json = False) -> int:
    """Remove exact duplicates and redact personal data; every change keeps its reason. Default: every data set.

    Examples:
        causeway curate healthcare/medquad
    """
    from flows.server import use_running
    from training.workspace import Workspace

    use_running(home)
    from flows.curate import curate as flow

    names = list(datasets) or Workspace.open(home).datasets()
    done = asyncio.run(flow(str(home.absolute()), names))
    if json:
        print_json(done)
        return 0
    rows = [[d, s["kept"], s["removed"], s["redacted"], ", ".join(s["reasons"]) or "-"] for d, s in done.items()]
    print_table("curated", ["data set", "kept", "removed", "redacted", "reasons"], rows)
    return 0
