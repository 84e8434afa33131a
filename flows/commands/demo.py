"""`causeway demo`: the whole main job on this machine."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from flows.commands import DEFAULT_HOME, Home, Json, print_json, print_table


def demo(*, home: Home = DEFAULT_HOME, quick: bool = False, json: Json = False, loader_log: Path | None = None) -> int:
    """Run the whole main job on real data: the Python packages installed beside Causeway.

    It ingests three data sets under three contracts, trains one model over three sites, and ends with a table and the
    path of an HTML report. Run again, it makes nothing that is there already; interrupted, it goes on.

    Examples:
        causeway demo
        causeway demo --quick --home /tmp/first-light
        causeway demo --json

    Parameters
    ----------
    quick:
        Train half as long.
    loader_log:
        Folder for an independent log of what each site's loader handed out.
    """
    from flows.display import Display
    from flows.server import use_running

    use_running(home)
    with Display(train_weight=0.5 if quick else 1.0, sets=3):
        from flows import demo as job
        from flows.pipeline import pipeline

        log = str(loader_log.absolute()) if loader_log else None
        outcome = asyncio.run(pipeline(str(home.absolute()), job.inputs(), job.config(quick), log))
    document = outcome.document
    if json:
        print_json(document)
    else:
        _show(document)
    for problem in outcome.verification.problems:
        print(f"NOT VERIFIED: {problem}")
    for violation in outcome.policy.violations:
        print(f"VIOLATION: {violation.object}: {' '.join(violation.reasons)}")
    return 0 if outcome.verification.ok and not outcome.policy.violations else 1


def _show(d: dict[str, Any]) -> None:
    placed = d["tokens_placed"]
    rows = []
    for dataset, before in d["bits_per_byte_before"].items():
        where = ", ".join(f"{site} {tokens:,}" for site, tokens in sorted(placed.get(dataset, {}).items()))
        after, unigram = d["bits_per_byte_after"][dataset], d["bits_per_byte_unigram"][dataset]
        rows.append([dataset, where, f"{before:.3f}", f"{after:.3f}", f"{unigram:.3f}"])
    columns = ["data set", "tokens placed", "bits per byte before", "after", "unigram"]
    print_table(f"One model over {d['sites']} sites: run {d['run']}", columns, rows)
    print(
        f"Records: {d['records_accepted']:,} accepted, {d['records_quarantined']:,} quarantined with every reason,"
        f" {d['records_deduplicated']:,} left out as duplicates."
    )
    print(
        f"This time: {d['partitions_ingested']} of {d['partitions']} partitions ingested,"
        f" {d['shards_written']} of {d['shards']} shards written, {d['seconds']} s."
    )
    print(
        f"Training: {d['rounds']} rounds, {d['tokens']:,} tokens, {d['bytes_between_sites'] / 1e6:.1f} MB between"
        f" sites; chain {'verified' if d['chain_verified'] else 'NOT VERIFIED'},"
        f" {d['violations_of_policy']} violations of policy."
    )
    print(f"Model:  {_short(d['model'])}")
    print(f"Report: {_short(d['report'])}")


def _short(path: str) -> str:
    """Return a path as a person in this folder would type it."""
    inside = Path(path).is_relative_to(Path.cwd())
    return str(Path(path).relative_to(Path.cwd())) if inside else path
