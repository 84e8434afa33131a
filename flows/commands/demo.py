"""`causeway demo`: the whole main job on this machine."""

from __future__ import annotations

import asyncio
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from flows.commands import DEFAULT_HOME, Home, Json, print_json, print_table


def demo(
    *,
    home: Home = DEFAULT_HOME,
    quick: bool = False,
    deployed: bool = False,
    json: Json = False,
    loader_log: Path | None = None,
) -> int:
    """Run the whole main job on real data: the Python packages installed beside Causeway.

    It ingests three data sets under three contracts, trains one model over three sites, and ends with a table and the
    path of an HTML report. Run again, it makes nothing that is there already; interrupted, it goes on.

    Examples:
        causeway demo
        causeway demo --quick --home /tmp/first-light
        causeway demo --json
        causeway demo --deployed

    Parameters
    ----------
    quick:
        Train half as long.
    deployed:
        Run it by deployments: causeway up starts a server and a worker for each of the three sites' pools, and a site
        trains in a run of its own. They stay up; causeway down ends them.
    loader_log:
        Folder for an independent log of what each site's loader handed out.
    """
    if deployed:
        return _deployed(home.absolute(), quick, json, loader_log)
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


def _deployed(home: Path, quick: bool, json: bool, loader_log: Path | None) -> int:
    """Start what is not up, run the deployment `pipeline/pipeline`, follow it to its end."""
    from json import loads

    from data_contracts.errors import CausewayError
    from flows.commands.deploy import up
    from flows.server import deployed as is_up
    from flows.server import use_running

    if not is_up(home):
        print("starting a server and the sites' workers", file=sys.stderr, flush=True)
        with redirect_stdout(sys.stderr):
            up(home=home)
    use_running(home)
    from flows import demo as job
    from flows.pipeline import outcome_file
    from flows.remote import follow

    config = job.config(quick)
    parameters = {
        "inputs": [one.model_dump(mode="json") for one in job.inputs()],
        "config": config.model_dump(mode="json"),
        "loader_log": str(loader_log.absolute()) if loader_log else None,
    }
    state = asyncio.run(follow("pipeline/pipeline", parameters, f"pipeline {config.name}"))
    if not state.is_completed():
        raise CausewayError(f"the pipeline ended {state.name}: {state.message}")
    document = loads(outcome_file(home, config.name).read_text("utf-8"))
    if json:
        print_json(document)
    else:
        _show(document)
    return 0 if document["chain_verified"] and not document["violations_of_policy"] else 1


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
