"""Commands on the tables of data sets: what lies there, what changed, and a copy of it."""

from __future__ import annotations

import datetime as dt
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from flows.commands import DEFAULT_HOME, Home, Json, print_json, print_table

if TYPE_CHECKING:
    from data_contracts.catalog.difference import Difference
    from data_contracts.catalog.tables import PartitionVersion, Tables
    from data_contracts.terms import TrainingTerms
    from training.workspace import Workspace

# Wider values are cut in tables for a person; --json has them whole.
_WIDTH = 60


def list_(*, home: Home = DEFAULT_HOME, json: Json = False) -> int:
    """List the data sets: where their tables lie, partitions, versions, accepted rows in force, newest publication.

    Examples:
        causeway table list
        causeway table list --json
    """
    from training.workspace import Workspace

    workspace = Workspace.open(home)
    found: list[dict[str, Any]] = []
    for name in workspace.datasets():
        contract = workspace.contract(name)
        versions = workspace.tables(contract).versions()
        current = {v.partition: v for v in versions if v.verdict != "refused"}
        found.append(
            {
                "dataset": name,
                "place": workspace.table_place(contract).name,
                "partitions": len(current),
                "versions": len(versions),
                "rows": sum(v.rows_accepted for v in current.values()),
                "newest": max((v.published_at for v in versions), default=None),
            }
        )
    if json:
        print_json(found)
        return 0
    columns = ["data set", "tables at", "partitions", "versions", "rows", "newest (UTC)"]
    rows = [[*list(f.values())[:5], _minute(f["newest"] or "never")] for f in found]
    print_table(str(workspace.root), columns, rows)
    return 0


def history(dataset: str, partition: str | None = None, *, home: Home = DEFAULT_HOME, json: Json = False) -> int:
    """Show every version of a data set's partitions, oldest first: which is current, verdict, counts, who overrode.

    A version is named by its ingest_id or the beginning of it. Where the contract orders by publication, the order is
    that of the publication, whenever it arrived.

    Examples:
        causeway table history healthcare/medquad
        causeway table history healthcare/medquad 1_CancerGov_QA --json
    """
    _, tables = _tables(home, dataset)
    versions = tables.versions(partition)
    if partition is not None and not versions:
        tables.version(partition)  # refuses, and names the nearest
    current = {v.partition: v for v in versions if v.verdict != "refused"}
    found = [
        vars(v) | {"current": current.get(v.partition) == v, "publication": _publication(tables, v)} for v in versions
    ]
    if json:
        print_json(found)
        return 0
    columns = ["partition", "version", "verdict", "in", "accepted", "quarantined", "contract", "sequence"]
    columns += ["published (UTC)", "source sha"]
    overridden = any(v.approved_by for v in versions)
    rows = []
    for v, entry in zip(versions, found, strict=True):
        verdict = f"{v.verdict}, current" if entry["current"] else v.verdict
        counts = [v.rows_in, v.rows_accepted, v.rows_quarantined]
        order = _minute(entry["publication"]) if entry["publication"] else str(v.sequence)
        row = [v.partition, v.ingest_id[:12], verdict, *counts, v.contract_version, order, _minute(v.published_at)]
        by = [f"{v.approved_by}: {v.approved_why}" if v.approved_by else ""] if overridden else []
        rows.append([*row, v.source_sha[:12], *by])
    print_table(f"{dataset}: {len(versions):,} versions", [*columns, *(["overridden by"] if overridden else [])], rows)
    return 0


def show(
    dataset: str,
    partition: str,
    *,
    version: str = "",
    limit: int = 20,
    columns: str = "",
    home: Home = DEFAULT_HOME,
    json: Json = False,
) -> int:
    """Show accepted rows of one version of a partition: the current one, or an older one, which stays readable.

    Examples:
        causeway table show healthcare/medquad 1_CancerGov_QA --limit 5
        causeway table show healthcare/medquad 1_CancerGov_QA --version 4f0c --columns question

    Parameters
    ----------
    version:
        An ingest_id or the beginning of it; default: the current version.
    limit:
        Rows, from the first record_id on.
    columns:
        Names with commas between them; default: those of the version's contract.
    """
    from data_contracts.catalog.rows import content_columns, read_rows, version_contract
    from data_contracts.identity import json_value

    _, tables = _tables(home, dataset)
    chosen = tables.version(partition, version)
    wanted = _names(columns) or [*content_columns(version_contract(tables, chosen)), "record_id"]
    table = read_rows(tables, chosen, wanted)
    rows = [{name: json_value(value) for name, value in row.items()} for row in table.slice(0, limit).to_pylist()]
    if json:
        print_json({"dataset": dataset, "version": vars(chosen), "rows": table.num_rows, "shown": rows})
        return 0
    print_table(_title(chosen), wanted, [[_cut(row[name]) for name in wanted] for row in rows])
    print(f"{len(rows):,} of {table.num_rows:,} rows")
    return 0


def diff(
    dataset: str,
    partition: str,
    *,
    from_: str = "",
    to: str = "",
    key: str = "",
    limit: int = 10,
    home: Home = DEFAULT_HOME,
    json: Json = False,
) -> int:
    """Compare two versions of a partition by key: rows added, removed, changed, and in which columns.

    Default: the current version against the one before it in sequence. Columns of the contract and the split are
    compared; one that only one version has is null in the other, and is named.

    Examples:
        causeway table diff healthcare/medquad 1_CancerGov_QA
        causeway table diff healthcare/medquad 1_CancerGov_QA --from 4f0c --key url

    Parameters
    ----------
    from_:
        An ingest_id or the beginning of it; default: the version before the other.
    to:
        An ingest_id or the beginning of it; default: the current version.
    key:
        Columns that name a row, with commas between them; default: the primary key, else record_id.
    limit:
        Examples of each kind.
    """
    from data_contracts.catalog.difference import compare_versions
    from data_contracts.catalog.rows import version_before

    _, tables = _tables(home, dataset)
    new = tables.version(partition, to)
    old = tables.version(partition, from_) if from_ else version_before(tables, new)
    found, kind = compare_versions(tables, old, new, _names(key), limit)
    note = ""
    if kind == "record_id":
        note = (
            "The two contracts have no primary key of the same columns: rows are matched by record_id. Without any key"
            " it stands for the content, so a row that changed is one removed and one added;"
            " --key with columns that name a row shows what changed in it."
        )
    if json:
        facts = {name: value for name, value in vars(found).items() if not name.endswith("_rows")}
        del facts["changed_from"], facts["changed_to"]
        whole = {"dataset": dataset, "partition": partition, "from": vars(old), "to": vars(new), "key_is": kind}
        print_json(whole | facts | {"note": note, "examples": _examples(found)})
        return 0
    print(f"from {_title(old)}, contract {old.contract_version}")
    print(f"to   {_title(new)}, contract {new.contract_version}")
    print(f"key: {', '.join(found.key)} ({kind})")
    if note:
        print(note)
    _print_difference(found)
    return 0


def export(
    dataset: str,
    to: Path,
    *,
    format: Literal["parquet", "jsonl", "dataset"] = "parquet",
    partition: list[str] | None = None,
    version: list[str] | None = None,
    home: Home = DEFAULT_HOME,
    json: Json = False,
) -> int:
    """Copy accepted rows to this machine: the current version of every partition, as accepted, before curation.

    What the terms ask of whoever holds the copy is said on standard error; nothing is overwritten.

    Examples:
        causeway table export healthcare/medquad medquad-rows
        causeway table export healthcare/medquad medquad.jsonl --format jsonl --partition 1_CancerGov_QA
        causeway table export healthcare/medquad medquad-dataset --format dataset

    Parameters
    ----------
    to:
        A folder (parquet, dataset) or a file (jsonl) that is not there yet.
    format:
        parquet: a file a partition; jsonl: one file; dataset: a Hugging Face Dataset on disk.
    partition:
        Only this partition; may be repeated.
    version:
        This version (an ingest_id or the beginning of it) in place of its partition's current one; may be repeated.
    """
    from data_contracts.catalog.exporting import export_rows, terms_lines, versions_to_export
    from data_contracts.catalog.rows import version_contract
    from data_contracts.policy import decide
    from flows.settings import QUIET
    from training.workspace import today

    for name, value in QUIET.items():
        os.environ.setdefault(name, value)  # the library `datasets` asks no hub
    workspace, tables = _tables(home, dataset)
    chosen = versions_to_export(tables, partition or [], version or [])
    stated: dict[str, tuple[str, TrainingTerms]] = {}
    for each in chosen:
        contract = version_contract(tables, each)
        stated.setdefault(each.terms_sha, (f"{dataset}, contract {contract.version}", contract.terms))
    in_force = workspace.terms().terms.get(dataset)
    if in_force is not None and in_force.sha not in stated:
        stated[in_force.sha] = (f"{dataset}, the terms in force", in_force)
    print("This is a copy, and its use and its place are yours to answer for. The terms:", file=sys.stderr)
    print(*terms_lines(list(stated.values())), sep="\n", file=sys.stderr)
    for whose, terms in stated.values():
        decision = decide(terms, None, workspace.sites.home.place, today(), action="store")
        for reason in () if decision.allowed else decision.reasons:
            print(f"warning: {whose}: {reason} Keep the copy where the terms permit.", file=sys.stderr)
    done = export_rows(tables, chosen, to, format)
    if json:
        print_json(vars(done) | {"dataset": dataset, "versions": [v.ingest_id for v in chosen]})
        return 0
    print(f"{done.to}: {done.rows:,} rows of {done.partitions:,} partitions as {format}, {done.bytes:,} bytes")
    return 0


def _tables(home: Path, dataset: str) -> tuple[Workspace, Tables]:
    from training.workspace import Workspace

    workspace = Workspace.open(home)
    return workspace, workspace.tables(workspace.contract(dataset))


def _publication(tables: Tables, version: PartitionVersion) -> str | None:
    """Return when a version's owner published it, where that is its sequence."""
    from data_contracts.catalog.rows import version_contract

    if version_contract(tables, version).sequence != "publication":
        return None
    return dt.datetime.fromtimestamp(version.sequence / 1_000_000, dt.UTC).isoformat()


def _minute(moment: str) -> str:
    return moment[:16].replace("T", " ")


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _title(version: PartitionVersion) -> str:
    return f"{version.dataset} {version.partition}, version {version.ingest_id[:12]} ({version.verdict})"


def _cut(value: Any) -> str:
    text = "" if value is None else " ".join(str(value).split())
    return text if len(text) <= _WIDTH else text[: _WIDTH - 1] + "…"


def _value(value: Any) -> str:
    return "null" if value is None else _cut(value)


def _examples(found: Difference) -> dict[str, list[Any]]:
    from data_contracts.identity import json_value

    def rows(table: Any) -> list[dict[str, Any]]:
        return [{name: json_value(value) for name, value in row.items()} for row in table.to_pylist()]

    def change(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
        columns = {name: [old[name], new[name]] for name in old if old[name] != new[name]}
        return {"key": {name: new[name] for name in found.key}, "columns": columns}

    changed = [change(*pair) for pair in zip(rows(found.changed_from), rows(found.changed_to), strict=True)]
    return {"added": rows(found.added_rows), "removed": rows(found.removed_rows), "changed": changed}


def _print_difference(found: Difference) -> None:
    for names, side in ((found.columns_from, "from"), (found.columns_to, "to")):
        if names:
            print(f"only '{side}' has: {', '.join(names)} (null on the other side)")
    for count, side in ((found.duplicates_from, "from"), (found.duplicates_to, "to")):
        if count:
            print(f"{count:,} keys stand more than once in '{side}'; rows of such keys are compared as multisets")
    print(f"{found.rows_from:,} rows -> {found.rows_to:,} rows")
    print(f"{found.added:,} added, {found.removed:,} removed, {found.changed:,} changed, {found.unchanged:,} unchanged")
    if found.changed_columns:
        print_table("changed", ["column", "rows"], [[name, count] for name, count in found.changed_columns.items()])
    examples = _examples(found)
    rows = [
        [kind, ", ".join(_cut(row[name]) for name in found.key), _cut(_content(row, found.key))]
        for kind in ("added", "removed")
        for row in examples[kind]
    ]
    for row in examples["changed"]:
        said = "\n".join(f"{name}: {_value(old)} -> {_value(new)}" for name, (old, new) in row["columns"].items())
        rows.append(["changed", ", ".join(_cut(v) for v in row["key"].values()), said])
    if rows:
        print_table("examples", ["", ", ".join(found.key), "row"], rows)


def _content(row: Mapping[str, Any], key: tuple[str, ...]) -> str:
    return ", ".join(f"{name}: {value}" for name, value in row.items() if value is not None and name not in key)
