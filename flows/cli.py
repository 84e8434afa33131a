"""`causeway`: the command line. Each command is imported when it is used."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cyclopts import App

# Module and function, and the line that `causeway --help` shows: written here so that help imports no command.
COMMANDS = {
    "demo": ("demo:demo", "The whole main job on real data, on this machine."),
    "contracts init": ("contracts:init", "Infer a first contract from data; every guess marked."),
    "contracts check": ("contracts:check", "Check contracts; every fault named."),
    "contracts show": ("contracts:show", "A contract's columns, rules and terms."),
    "contracts changes": ("contracts:changes", "What changed between two versions, and whom it breaks."),
    "contracts test": ("contracts:test", "Try a contract on a source: every verdict, nothing written."),
    "contracts docs": ("contracts:docs", "A contract's page; with a source Data Docs of its rules too."),
    "contracts export": ("contracts:export", "As a JSON schema or a Great Expectations suite."),
    "contracts import": ("contracts:import_", "From a Parquet or JSON schema, a GX suite or a Frictionless package."),
    "policy explain": ("policy:explain", "May a data set be used so, there, on that day? By which clause?"),
    "ingest": ("data:ingest", "Take in a source under a contract: validate, quarantine, publish."),
    "sources add": ("sources:add", "Register where a data set's data is, under which contract, published when."),
    "sources list": ("sources:listed", "The registered sources of a data set."),
    "backfill": ("backfill:backfill", "Take in what is missing, failed, restated or stale of a data set."),
    "backfill list": ("backfills:listed", "Backfills, the newest first."),
    "backfill status": ("backfills:status", "Where a backfill stands, by partition and by cause."),
    "backfill watch": ("backfills:watch", "Watch a backfill to its end."),
    "backfill pause": ("backfill:pause", "Start no further partition of a backfill."),
    "backfill resume": ("backfill:resume", "Go on with a backfill: exactly the rest."),
    "backfill cancel": ("backfill:cancel", "End a backfill for good."),
    "backfill retry": ("backfill:retry", "Try the failed partitions of a backfill again."),
    "override request": ("override:request", "Ask a person whether a refused partition is published all the same."),
    "override list": ("override:waiting", "The override runs that wait for a person."),
    "override approve": ("override:approve", "Publish the refused partition that a run asks about."),
    "override reject": ("override:reject", "Leave the partition that a run asks about refused."),
    "curate": ("data:curate", "Remove duplicates, redact personal data; each change with its reason."),
    "quarantine": ("quarantine:quarantine", "Why records were refused, with examples. Also: show, retry."),
    "quarantine show": ("quarantine:show", "What is in quarantine now, by reason; sensitive values hidden."),
    "quarantine retry": ("quarantine:retry", "Judge quarantined records again; restate what changed."),
    "shard": ("shard:shard", "Place a run's shards where the terms permit; or --dry-run."),
    "shards list": ("shards:list_", "What lies where: data set, region, split, shards, tokens, bytes."),
    "shards verify": ("shards:verify", "Read every shard and check it: bytes, terms in force, curated rows."),
    "train": ("train:train", "Train a run over its sites; run again, it goes on. Also: pause, resume, cancel."),
    "watch": ("watch:watch", "Watch a run live, from any machine that can read the home store."),
    "train pause": ("train:pause", "Let a run end after the round under way."),
    "train resume": ("train:resume", "Let a paused run go on from its chain."),
    "train cancel": ("train:cancel", "End a run for good at the rounds it has."),
    "amend": ("amend:amend", "Change a run's sites, weights or data by a signed amendment."),
    "evaluate": ("runs:evaluate", "Held-out bits per byte, before and after, by data set."),
    "export": ("runs:export", "Write a run's model as a Hugging Face directory."),
    "verify": ("runs:verify", "Recompute a run's chain and name what is damaged."),
    "check": ("runs:check", "Count violations of the terms in every store."),
    "report": ("runs:report", "Write a run's HTML report again."),
    "table list": ("tables:list_", "Data sets: place, partitions, versions, rows, newest."),
    "table history": ("tables:history", "Every version: which is current, verdict, counts, who overrode."),
    "table show": ("tables:show", "Rows of the current or an older version of a partition."),
    "table diff": ("tables:diff", "Rows added, removed and changed between two versions, by key."),
    "table export": ("tables:export", "Copy accepted rows: Parquet, JSON lines, Hugging Face Dataset."),
    "lineage show": ("lineage:show", "From a model back to its source files."),
    "lineage record": ("lineage:record", "From a record to the rounds that used it."),
    "status": ("status:status", "Data sets, freshness, quarantine, shards, runs, what needs a person."),
    "sites list": ("sites:list_", "Regions, jurisdictions, stores, speeds, links."),
    "sites check": ("sites:check", "Which stores answer, which decide creates; clocks, speed, free space."),
    "sites add": ("sites:add", "Add a site to this folder's sites.toml."),
    "sites parity": ("parity:parity", "Compare this machine's accelerator with the CPU in float64."),
    "secrets auth": ("secrets:secrets_auth", "Make the user and password of this folder's Prefect server."),
    "secrets set": ("secrets:secrets_set", "Put a credential of a place into its Secret block, from standard input."),
    "secrets list": ("secrets:secrets_list", "Names of a place's credentials; never their values."),
    "up": ("deploy:up", "Start this folder's server and workers in the background, and deploy."),
    "down": ("deploy:down", "End what up has started."),
    "deploy": ("deploy:deploy", "Pools, deployments, schedules, automations as they should be; or --check."),
    "ui": ("operate:ui", "The Prefect UI of this folder, until Ctrl-C."),
    "serve": ("operate:serve", "Ingest on a schedule, until Ctrl-C."),
    "completion": ("completion:completion", "Print a completion script for bash, zsh or fish."),
}
GROUPS = {
    "contracts": "Contracts: init, check, show, changes, test, docs, export, import.",
    "lineage": "Lineage: from a model back to source files, and from a record to its rounds.",
    "secrets": "Secrets: the server's password, credentials of places.",
    "policy": "Policy: explain.",
    "override": "A person's decision on a refused partition: request, list, approve, reject.",
    "shards": "Shards: list, verify.",
    "sites": "Sites: list, check, add, parity.",
    "table": "Tables: list, history, show, diff, export.",
    "train": COMMANDS["train"][1],
    "quarantine": COMMANDS["quarantine"][1],
    "backfill": f"{COMMANDS['backfill'][1]} Also: list, status, watch, pause, resume, cancel, retry.",
    "sources": "Sources of data sets: add, list.",
}
HELP = "Governed data in, one model out, across data centers that share nothing but object storage."
EXIT_CODES = {
    0: "done, also when there was nothing to do",
    1: "the answer is no (as of check, verify), or an unexpected error (a traceback)",
    2: "refused or impossible: 'error: ...' says what, where and what to do",
    130: "stopped by Ctrl-C; run the same command again to go on",
}


def main() -> None:
    """Run the command line; errors that a person can act on are printed without a traceback, and exit 2."""
    if sys.argv[1:] in (["--version"], ["version"]):
        # Answered before anything is imported: scripts ask often.
        from importlib.metadata import version

        print(f"causeway {version('causeway')}")
        return
    from flows.interrupt import install

    install()
    from data_contracts.errors import CausewayError

    if sys.argv[1:2] == ["status"] and not {"--help", "-h"} & set(sys.argv):
        from flows.commands.light import without_pandas

        without_pandas()
    try:
        code = app_of(sys.argv[1:])(result_action="return_value")
    except CausewayError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print("stopped; run the same command again to go on", file=sys.stderr)
        raise SystemExit(130) from None
    raise SystemExit(code if isinstance(code, int) else 0)


def app_of(words: Sequence[str] = ()) -> App:
    """Return the cyclopts application for a command line; the command that `words` name has its whole help."""
    from cyclopts import App

    app = App(name="causeway", help=HELP, version_flags=["--version"], help_format="plaintext")
    # Commands would inherit it from the application.
    if not words or words[0].startswith("-"):
        app.help_epilogue = "Exit codes:\n" + "\n".join(f"  {code:<4} {text}" for code, text in EXIT_CODES.items())
    groups = {name: App(name=name, help=text) for name, text in GROUPS.items()}
    for group in groups.values():
        app.command(group)
    for name, (where, text) in COMMANDS.items():
        parent, _, last = name.rpartition(" ")
        target = groups.get(parent, app)
        if name in groups:
            # A group that is a command too: its function is what is called when no subcommand is named.
            if words[:1] == [name]:
                groups[name].help, groups[name].help_epilogue = texts(function_of(name))
                groups[name].default(function_of(name))
            continue
        if list(words[: name.count(" ") + 1]) == name.split(" "):
            description, examples = texts(function_of(name))
            target.command(function_of(name), name=last, help=description, help_epilogue=examples)
        else:
            target.command(f"flows.commands.{where}", name=last, help=text)
    return app


def function_of(name: str) -> Callable[..., Any]:
    """Import a command's function."""
    module, _, attribute = COMMANDS[name][0].partition(":")
    function: Callable[..., Any] = getattr(import_module(f"flows.commands.{module}"), attribute)
    return function


def texts(function: Callable[..., Any]) -> tuple[str, str]:
    """Return a command's description and its examples, one a line, from its docstring.

    cyclopts reads parameters out of docstrings and would run examples together in one paragraph.
    """
    doc = (inspect.getdoc(function) or "").partition("\nParameters\n---")[0]
    description, _, examples = doc.partition("\nExamples:\n")
    # Help is as wide as the terminal: lines of a paragraph are joined, paragraphs stay apart.
    paragraphs = [" ".join(paragraph.split()) for paragraph in description.strip().split("\n\n")]
    return "\n\n".join(paragraphs), "Examples:\n" + examples.rstrip() if examples.strip() else ""


if __name__ == "__main__":
    main()
