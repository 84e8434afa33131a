"""Commands on contracts: infer one, check, show, compare and try them, and bring them to and from other forms."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from flows.commands import Json, print_json, print_table

if TYPE_CHECKING:
    from data_contracts.contract import Contract
    from data_contracts.ruling.context import RuleContext


def check(*files: Path, odcs_only: bool = False, json: Json = False) -> int:
    """Check contracts against ODCS and our terms; every fault with its line, column and the fix.

    Exits 1 when a contract has a fault.

    Examples:
        causeway contracts check data_contracts/library/software-python-source.yaml
        causeway contracts check orders.odcs.yaml --odcs-only

    Parameters
    ----------
    odcs_only:
        Check against the standard alone; what keeps data from being taken in under the contract is noted.
    """
    from data_contracts.contracting.document import check as check_one
    from data_contracts.errors import ContractError

    if not files:
        raise ContractError("no contract was named; for example: causeway contracts check my-contract.yaml")
    found = [check_one(path, odcs_only=odcs_only) for path in files]
    if json:
        print_json([_checked(one) for one in found])
    else:
        for one in found:
            for fault in one.faults:
                print(fault)
            if not one.faults:
                print(f"{one.path}: {one.id} {one.version}: ok, {one.columns} properties")
            for note in one.notes:
                print(f"  note: {note}")
    return 1 if any(one.faults for one in found) else 0


def _checked(one: Any) -> dict[str, Any]:
    known = {"file": str(one.path), "ok": not one.faults, "id": one.id, "version": one.version}
    return {**known, "properties": one.columns, "faults": list(one.faults), "notes": list(one.notes)}


def init(source: str, *, out: Path | None = None, id: str = "", rows: int = 100_000, json: Json = False) -> int:
    """Infer a first contract from a file, folder or http address; every guess is marked, terms are never guessed.

    The contract is written to --out, or printed. Its rules are then tried on the source, so that a guess that does not
    hold is seen at once; nothing is taken in.

    Examples:
        causeway contracts init incidents.csv --out incidents.yaml
        causeway contracts init https://example.org/notes.jsonl --id industry/notes --out notes.yaml

    Parameters
    ----------
    source:
        CSV, JSON, JSON Lines, Parquet, Arrow, XML or text; a folder of them; or the address of one.
    out:
        Where to write the contract; a file that is there stays as it is.
    id:
        The data set's name, such as industry/notes; otherwise made from the source's name.
    rows:
        Look at so many records at most.
    """
    from data_contracts.contracting.fetching import fetch, is_url
    from data_contracts.contracting.inference import infer
    from data_contracts.errors import DataRefused

    if out is not None and out.exists():
        raise DataRefused(f"{out}: is there already; name another file, or remove it")
    with tempfile.TemporaryDirectory() as folder:
        place = fetch(source, Path(folder)) if is_url(source) else Path(source)
        found = infer(place, id=id, rows=rows)
        tried = _try_guesses(found.text, place, Path(folder))
    if out is not None:
        out.write_text(found.text, encoding="utf-8")
    if json:
        facts = {"rows": found.rows, "whole": found.whole, "columns": found.columns, "guesses": list(found.guesses)}
        rest = {"open": list(found.open), "tried": tried, "contract": found.text, "file": str(out) if out else None}
        print_json(facts | rest)
        return 0
    if out is None:
        print(found.text)
        return 0
    seen = f"{'all' if found.whole else 'the first'} {found.rows:,} records"
    print(f"{out}: {found.columns} columns from {seen}, {len(found.guesses)} guesses, each marked '# guessed'.")
    print(f"Tried on the source: {tried['rows_in']:,} records, {tried['quarantined']:,} would go to quarantine.")
    for rule, count in tried["rules"].items():
        print(f"  {rule}: {count:,}")
    print(f"Left to decide: {len(found.open)} terms (TODO). Next: causeway contracts check {out}")
    return 0


def _try_guesses(text: str, source: Path, folder: Path) -> dict[str, Any]:
    """Try the guessed rules on the source; the terms are undecided yet, so they are left out."""
    from data_contracts.contract import load_contract
    from data_contracts.contracting.trial import try_contract
    from data_contracts.sources import open_source

    path = folder / "inferred.yaml"
    path.write_text(text.partition("  - property: trainingTerms\n")[0], encoding="utf-8")
    contract = load_contract(path, require_terms=False)
    trial = try_contract(contract, open_source(contract, str(source)), examples=0)
    rules = {verdict.rule: verdict.failing for verdict in trial.rows if verdict.failing}
    return {"rows_in": sum(p.rows_in for p in trial.partitions), "quarantined": trial.quarantined, "rules": rules}


def show(contract: Path, *, json: Json = False) -> int:
    """Show a contract to a person: columns, rules, reader, and what its terms permit.

    Examples:
        causeway contracts show data_contracts/library/healthcare-medquad.yaml
    """
    from data_contracts.contracting.document import read_document
    from data_contracts.contracting.summary import summary

    found = summary(read_document(contract))
    if json:
        print_json(asdict(found))
        return 0
    print(f"{found.id} {found.version} (ODCS {found.api_version}): {found.name}")
    for label, text in found.facts:
        print(f"  {label}: {text}")
    columns = ["property", "type", "is", "options", "classification"]
    print_table("properties", columns, [[c.name, c.type, c.flags, c.options, c.classification] for c in found.columns])
    if found.rules:
        print_table("rules", ["rule", "kind", "what"], [list(rule) for rule in found.rules])
    if found.terms:
        print_table("terms", ["clause", "says"], [list(line) for line in found.terms])
    for stop in found.stops:
        print(f"note: {stop}")
    return 0


def changes(
    old: Path, new: Path, *, fail_on: Literal["breaking", "any", "never"] = "breaking", json: Json = False
) -> int:
    """Show what changed between two versions of a contract, and whom it breaks: producers, consumers, or the terms.

    Exits 0 when nothing breaks, 1 when something does; --fail-on any exits 1 on every change.

    Examples:
        causeway contracts changes contract-1.yaml contract-2.yaml
        causeway contracts changes contract-1.yaml contract-2.yaml --fail-on any --json

    Parameters
    ----------
    fail_on:
        breaking: exit 1 when a change breaks somebody; any: on every change; never: always 0.
    """
    from data_contracts.contracting.changes import changes as compare
    from data_contracts.contracting.changes import next_version
    from data_contracts.contracting.document import read_document

    before, after = read_document(old), read_document(new)
    found = compare(before, after)
    breaking = [change for change in found if change.breaks]
    was, now = str(before.plain["version"]), str(after.plain["version"])
    asked = next_version(found, was)
    if json:
        document = {"changes": [asdict(c) for c in found], "breaking": len(breaking), "version": now}
        print_json(document | {"versionAskedFor": asked})
    elif found:
        rows = [[change.path, change.what, ", ".join(change.breaks) or "-"] for change in found]
        print_table(f"{before.plain['id']} {was} to {now}", ["where", "what", "breaks"], rows)
        print(f"{len(found)} changes, {len(breaking)} of them break; the next version is {asked}, this one says {now}.")
    else:
        print(f"{after.path}: says the same as {before.path}")
    return 0 if fail_on == "never" else int(bool(breaking if fail_on == "breaking" else found))


def test(
    contract: Path,
    source: str,
    *,
    partition: list[str] | None = None,
    examples: int = 3,
    allow_quarantine: bool = False,
    home: Path | None = None,
    json: Json = False,
) -> int:
    """Try a contract on a source: every verdict of every rule, and nothing is written.

    Exits 1 when a record would go to quarantine or a partition would be refused. A contract without terms can be
    tried too: nothing is used.

    Examples:
        causeway contracts test data_contracts/library/healthcare-medquad.yaml ../medquad
        causeway contracts test my-contract.yaml my-folder --partition 2026-03-01 --json

    Parameters
    ----------
    source:
        Where the data lies: a file, a folder, or what docs/sources.md lists.
    partition:
        Only this partition; may be repeated.
    examples:
        Show so many failing records a rule; values of classified columns are hidden.
    allow_quarantine:
        Exit 1 only when a partition would be refused.
    home:
        The folder whose data sets foreign keys lead to, and whose earlier partition drift is measured against.
    """
    from data_contracts.contract import load_contract
    from data_contracts.contracting.trial import try_contract
    from data_contracts.sources import open_source, place_of

    loaded = load_contract(contract, require_terms=False)
    data = open_source(loaded, place_of(source))
    beyond = (_beyond(loaded, home),) if home is not None else ()
    trial = try_contract(loaded, data, partition or (), examples, *beyond)
    failed = bool(trial.refused) or (bool(trial.quarantined) and not allow_quarantine)
    if json:
        print_json({"passed": not failed, "quarantined": trial.quarantined, "refused": trial.refused} | asdict(trial))
        return int(failed)
    columns = ["partition", "verdict", "rows in", "accepted", "quarantined"]
    parts = [[p.partition, p.verdict, p.rows_in, p.accepted, p.quarantined] for p in trial.partitions]
    shown = [row for row in parts if row[1] != "accepted" or row[4]] if len(parts) > 20 else parts
    print_table(f"{trial.dataset} {trial.version}", columns, shown)
    if len(shown) < len(parts):
        print(f"  {len(parts) - len(shown)} partitions in which every record passes are not listed")
    rows = [[v.rule, v.failing, v.description, _examples(v.examples)] for v in trial.rows]
    print_table("row rules", ["rule", "failing", "what", "examples"], rows)
    if trial.batches:
        batches = [
            [b.partition, b.rule, "holds" if b.passed else f"fails ({b.severity})", b.detail]
            for b in trial.batches
            if not b.passed or len(parts) <= 20
        ]
        print_table("batch rules", ["partition", "rule", "verdict", "found"], batches)
    total = sum(p.rows_in for p in trial.partitions)
    print(
        f"{total:,} records, {trial.quarantined:,} would go to quarantine, {trial.refused} of {len(parts)} partitions"
        f" would be refused; {trial.seconds:.1f} s, nothing written"
    )
    return int(failed)


def _beyond(contract: Contract, home: Path) -> Callable[[str], RuleContext]:
    """What rules may ask of a home's data sets; a data set that was never taken in there has no earlier partition."""
    from data_contracts.referencing import context_of
    from training.steps import beside
    from training.workspace import Workspace

    workspace = Workspace.open(home)
    own = workspace.contract(contract.id) if contract.id in workspace.datasets() else contract
    tables = workspace.tables(own)
    # As an ingest would ask, and no further: keys do not leave the place of their tables here either.
    others = beside(workspace, own)
    return lambda partition: context_of(contract, tables, partition, others)


def _examples(found: Any) -> str:
    return "\n".join(f"{e.file}:{e.record}" + (f" {e.shown}" if e.shown is not None else "") for e in found)


def export(
    contract: Path,
    *,
    form: Literal["json-schema", "gx"] = "json-schema",
    out: Path | None = None,
    json: Json = False,
) -> int:
    """Export a contract as the JSON schema of one record, or as a Great Expectations suite.

    What the other form cannot say is told on standard error, rule by rule.

    Examples:
        causeway contracts export data_contracts/library/healthcare-medquad.yaml --form json-schema
        causeway contracts export data_contracts/library/healthcare-medquad.yaml --form gx --out suite.json

    Parameters
    ----------
    form:
        json-schema, or gx: a suite as Great Expectations 1.x writes it.
    out:
        Where to write it; otherwise it is printed.
    """
    from data_contracts.contract import load_contract
    from data_contracts.contracting.exporting import gx_suite, json_schema

    made = (gx_suite if form == "gx" else json_schema)(load_contract(contract, require_terms=False))
    text = dumps(made.document, indent=2, ensure_ascii=False, default=str)
    if out is not None:
        out.write_text(text + "\n", encoding="utf-8")
    if json:
        print_json({"file": str(out) if out else None, "document": made.document, "notes": list(made.notes)})
        return 0
    print(f"{out}: written" if out else text)
    for note in made.notes:
        print(f"not said: {note}", file=sys.stderr)
    return 0


def import_(
    file: Path,
    *,
    form: Literal["parquet", "json-schema", "gx", "frictionless"] | None = None,
    out: Path | None = None,
    id: str = "",
    resource: str = "",
    json: Json = False,
) -> int:
    """Import a first contract from a Parquet or JSON schema, a Great Expectations suite or a Frictionless package.

    The contract is written to --out, or printed. Terms are never taken over: they stand as TODO.

    Examples:
        causeway contracts import datapackage.json --out orders.yaml
        causeway contracts import suite.json --form gx --id industry/orders --out orders.yaml

    Parameters
    ----------
    form:
        What the file is; otherwise the file says it.
    resource:
        The table of a Frictionless package; otherwise its first.
    """
    from data_contracts.contracting.importing import import_contract
    from data_contracts.errors import DataRefused

    if out is not None and out.exists():
        raise DataRefused(f"{out}: is there already; name another file, or remove it")
    found = import_contract(file, form, id=id, resource=resource)
    if out is not None:
        out.write_text(found.text, encoding="utf-8")
    if json:
        facts = {"form": found.form, "columns": found.columns, "notes": list(found.notes), "open": list(found.open)}
        print_json(facts | {"file": str(out) if out else None, "contract": found.text})
        return 0
    if out is None:
        print(found.text)
        return 0
    print(f"{out}: {found.columns} columns from a {found.form} description.")
    for note in found.notes:
        print(f"  not taken over: {note}")
    print(f"Left to decide: {len(found.open)} (TODO). Next: causeway contracts check {out}")
    return 0


def docs(
    contract: Path,
    *,
    source: str = "",
    out: Path = Path("contract-docs"),
    json: Json = False,
) -> int:
    """Write a contract's page, and with a source Great Expectations' Data Docs of its rules over that source.

    The page is one self-contained HTML file for the people who give and use the data: columns, rules, terms in words.
    Data Docs hold counts and row numbers, no values. Great Expectations holds the whole source in memory.

    Examples:
        causeway contracts docs data_contracts/library/healthcare-medquad.yaml --out medquad-docs
        causeway contracts docs my-contract.yaml --source my-folder --out my-docs

    Parameters
    ----------
    source:
        Also run the rules over this source, and write Data Docs and the verdicts.
    out:
        The folder to write to.
    """
    import pyarrow as pa

    from data_contracts.contract import load_contract
    from data_contracts.contracting.document import read_document
    from data_contracts.contracting.page import page
    from data_contracts.contracting.summary import summary
    from data_contracts.contracting.trial import try_contract
    from data_contracts.sources import open_source, place_of

    found = summary(read_document(contract))
    trial, links = None, []
    out.mkdir(parents=True, exist_ok=True)
    if source:
        from data_contracts.expectations import run_expectations
        from data_contracts.sources.records import source_schema

        loaded = load_contract(contract, require_terms=False)
        data = open_source(loaded, place_of(source))
        trial = try_contract(loaded, data)
        schema = source_schema(loaded)
        tables = [pa.Table.from_batches(list(data.read(part)), schema) for part in data.partitions()]
        run_expectations(loaded, tables, out / "data-docs")
        links.append(("Great Expectations Data Docs", "data-docs/index.html"))
    file = out / "contract.html"
    file.write_text(page(found, trial, links), encoding="utf-8")
    if json:
        print_json({"page": str(file), "dataDocs": str(out / "data-docs" / "index.html") if source else None})
    else:
        print(f"{file}: written" + (f"; {out / 'data-docs' / 'index.html'}: Data Docs" if source else ""))
    return 0
