"""`causeway`: the command line. Each command is imported when it is used."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cyclopts import App

# Module and function, and the line that `causeway --help` shows: written here so that help imports no command.
COMMANDS = {
    "demo": ("demo:demo", "The whole main job on real data, on this machine."),
    "ingest": ("data:ingest", "Take in a source under a contract: validate, quarantine, publish."),
    "backfill": ("data:backfill", "Ingest what is missing (or changed, or all) of a data set again."),
    "curate": ("data:curate", "Remove duplicates, redact personal data; each change with its reason."),
    "quarantine": ("data:quarantine", "Why records were refused, with examples."),
    "shard": ("runs:shard", "Place and write a run's shards where the terms permit."),
    "train": ("runs:train", "Train a run over its sites; run again, it goes on."),
    "evaluate": ("runs:evaluate", "Held-out bits per byte, before and after, by data set."),
    "export": ("runs:export", "Write a run's model as a Hugging Face directory."),
    "verify": ("runs:verify", "Recompute a run's chain and name what is damaged."),
    "check": ("runs:check", "Count violations of the terms in every store."),
    "report": ("runs:report", "Write a run's HTML report again."),
    "status": ("operate:status", "Data sets, quarantine, shards, runs."),
    "ui": ("operate:ui", "The Prefect UI of this folder, until Ctrl-C."),
    "serve": ("operate:serve", "Ingest on a schedule, until Ctrl-C."),
}


def main() -> None:
    """Run the command line; errors that a person can act on are printed without a traceback, and exit 2."""
    if sys.argv[1:] in (["--version"], ["version"]):
        # Answered before anything is imported: scripts ask often.
        from importlib.metadata import version

        print(f"causeway {version('causeway')}")
        return
    from data_contracts.errors import CausewayError

    try:
        code = app_of()(result_action="return_value")
    except CausewayError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("stopped; run the same command again to go on", file=sys.stderr)
        raise SystemExit(130) from None
    raise SystemExit(code if isinstance(code, int) else 0)


def app_of() -> App:
    """Return the cyclopts application."""
    from cyclopts import App

    app = App(
        name="causeway",
        help="Governed data in, one model out, across data centers that share nothing but object storage.",
        version_flags=["--version"],
        help_format="plaintext",
    )
    for name, (where, text) in COMMANDS.items():
        app.command(f"flows.commands.{where}", name=name, help=text)
    contracts = App(name="contracts", help="Contracts: check.")
    contracts.command("flows.commands.data:contracts_check", name="check", help="Check contracts; every fault named.")
    lineage = App(name="lineage", help="Lineage: from a model back to source files, and from a record to its rounds.")
    lineage.command("flows.commands.lineage:show", name="show", help="From a model back to its source files.")
    lineage.command("flows.commands.lineage:record", name="record", help="From a record to the rounds that used it.")
    sites = App(name="sites", help="Sites: list.")
    sites.command("flows.commands.operate:sites_list", name="list", help="Regions, jurisdictions, stores, work pools.")
    for group in (contracts, lineage, sites):
        app.command(group)
    return app


if __name__ == "__main__":
    main()
