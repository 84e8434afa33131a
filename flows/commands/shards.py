"""`causeway shards list` and `verify`: what lies in which region, and whether it is what it should be."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from flows.commands import DEFAULT_HOME, Home, Json, print_json, print_table

Regions = Annotated[tuple[str, ...], Parameter(name="--region", negative="", consume_multiple=False)]


def list_(*datasets: str, region: Regions = (), home: Home = DEFAULT_HOME, json: Json = False) -> int:
    """List what lies where: shards, records, tokens and bytes by data set, region and split.

    Examples:
        causeway shards list
        causeway shards list software/package-docs --region eu-north

    Parameters
    ----------
    region:
        Only this region; may be given several times.
    """
    from training.shards.verifying import chosen_regions, lying_in
    from training.workspace import Workspace

    workspace = Workspace.open(home)
    sums: dict[tuple[str, str, str], list[int]] = {}
    unreadable = []
    for one in chosen_regions(workspace, region):
        names: list[str | None] = [*datasets]
        for dataset in names or [None]:
            lying, damaged = lying_in(workspace, one.name, dataset)
            unreadable += damaged
            for manifest in (found.manifest for found in lying):
                entry = sums.setdefault((manifest.dataset, one.name, manifest.split), [0, 0, 0, 0])
                counts = (1, manifest.records, manifest.tokens, manifest.arrow_bytes)
                entry[:] = [a + b for a, b in zip(entry, counts, strict=True)]
    columns = ["data set", "region", "split", "shards", "records", "tokens", "bytes"]
    rows: list[list[Any]] = [[*names, *counts] for names, counts in sorted(sums.items())]
    if json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
    else:
        print_table("shards", columns, rows)
        for verdict in unreadable:
            print(f"{verdict.region}: {' '.join(verdict.problems)}")
    return 0


def verify(
    *datasets: str,
    region: Regions = (),
    workers: int | None = None,
    home: Home = DEFAULT_HOME,
    json: Json = False,
) -> int:
    """Read every shard in every region and check it: bytes against the manifest, terms in force, curated rows.

    Each thing that is wrong is one sentence. Exits 1 when something is.

    Examples:
        causeway shards verify
        causeway shards verify software/package-docs --region eu-north --json

    Parameters
    ----------
    region:
        Only this region; may be given several times.
    workers:
        Files that are read at once; by default one for each core.
    """
    import time

    from flows.progress import report
    from training.shards.verifying import verify_shards
    from training.workspace import Workspace

    began, found = time.monotonic(), []
    workspace = Workspace.open(home)

    def told(done: int, total: int) -> None:
        report("verify", done, total, "bytes")

    for verdict in verify_shards(workspace, region, datasets, workers=workers, progress=told):
        found.append(verdict)
        if verdict.problems and not json:
            print(f"{verdict.region}/{verdict.key}: {' '.join(verdict.problems)}", flush=True)
    wrong = [v for v in found if v.problems]
    size, seconds = sum(v.arrow_bytes for v in found), time.monotonic() - began
    if json:
        problems = [{"region": v.region, "key": v.key, "dataset": v.dataset, "problems": v.problems} for v in wrong]
        facts = {"shards": len(found), "bytes": size, "seconds": round(seconds, 3), "wrong": len(wrong)}
        print_json({**facts, "problems": problems})
    else:
        print(f"{len(found)} shards, {size / 1e6:,.1f} MB in {seconds:.1f} s: {len(wrong)} are not what they should be")
    return 1 if wrong else 0
