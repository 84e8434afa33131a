"""Commands on quarantine: why records were refused, with examples, and which of them pass now."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from flows.commands import DEFAULT_HOME, Home, Json, print_json, print_table


def quarantine(dataset: str, *, home: Home = DEFAULT_HOME, limit: int = 3, json: Json = False) -> int:
    """Show why records of a data set were refused: by reason, with examples by id and file, never their values.

    Examples:
        causeway quarantine software/python-source
    """
    from training.workspace import Workspace

    workspace = Workspace.open(home)
    tables = workspace.tables(workspace.contract(dataset))
    counts: dict[str, int] = {}
    examples: dict[str, list[str]] = {}
    refused = [v for v in tables.versions() if v.verdict == "refused"]
    # An override names the attempt that it overrides: its rows count once.
    for version in {v.attempt_id: v for v in [*tables.current().values(), *refused]}.values():
        for row in tables.read_quarantine(version).to_pylist():
            for reason in row["reasons"]:
                counts[reason] = counts.get(reason, 0) + 1
                if len(examples.setdefault(reason, [])) < limit:
                    examples[reason].append(f"{row['source_file']}:{row['source_line']} ({row['record_id']})")
    ordered = sorted(counts, key=lambda name: -counts[name])
    if json:
        print_json({name: {"rows": counts[name], "examples": examples[name]} for name in ordered})
        return 0
    rows = [[name, counts[name], "\n".join(examples[name])] for name in ordered]
    print_table(f"{dataset}: quarantine", ["reason", "rows", "examples"], rows)
    return 0


def show(
    dataset: str,
    *,
    partition: list[str] | None = None,
    limit: int = 3,
    home: Home = DEFAULT_HOME,
    json: Json = False,
) -> int:
    """Show what is in quarantine now, by reason, with examples and what of their values may be seen.

    A record counts while the newest attempt at its partition, or the version in force, refuses it. Values of columns
    that are classified as anything but public, open, internal or non-sensitive are hidden.

    Examples:
        causeway quarantine show healthcare/medquad
        causeway quarantine show healthcare/medquad --partition MPlusHerbsSupplements --limit 10

    Parameters
    ----------
    partition:
        Only this partition; may be repeated.
    limit:
        Show so many records a reason.
    """
    from data_contracts.quarantine import groups, resolved_counts
    from training.workspace import Workspace

    workspace = Workspace.open(home)
    contract = workspace.contract(dataset)
    tables = workspace.tables(contract)
    found = groups(contract, tables, partition or (), limit)
    resolved = resolved_counts(tables)
    if json:
        print_json({"dataset": dataset, "reasons": [asdict(group) for group in found], "resolved": resolved})
        return 0
    rows = []
    for group in found:
        examples = [f"{e.file}:{e.record}" + (f" {e.shown}" if e.shown else "") for e in group.examples]
        where = ", ".join(group.partitions[:3]) + (
            f" and {len(group.partitions) - 3} more" if group.partitions[3:] else ""
        )
        rows.append([group.reason, group.rows, group.description, where, "\n".join(examples)])
    print_table(f"{dataset}: quarantine", ["reason", "rows", "what", "partitions", "examples"], rows)
    print(
        f"Resolved so far: {resolved['accepted']:,} accepted by a later version, {resolved['gone']:,} no longer there."
    )
    return 0


def retry(
    dataset: str,
    *,
    partition: list[str] | None = None,
    contract: Path | None = None,
    dry_run: bool = False,
    home: Home = DEFAULT_HOME,
    json: Json = False,
) -> int:
    """Judge the records in quarantine again under the contract in force, and take their partitions in anew.

    Where the source or the contract changed, the partition is validated as a whole and published as a restated version;
    records that it accepts, or no longer has, are recorded as resolved. To try a contract that is not in force yet,
    name it: the records are then judged only.

    Examples:
        causeway quarantine retry healthcare/medquad --dry-run
        causeway quarantine retry healthcare/medquad --contract my-contract-2.yaml
        causeway quarantine retry healthcare/medquad --partition MPlusHerbsSupplements

    Parameters
    ----------
    partition:
        Only this partition; may be repeated.
    contract:
        Judge by this contract instead of the one in force; nothing is taken in.
    dry_run:
        Judge only.
    """
    from data_contracts.contract import load_contract
    from training.retrying import retry_quarantine
    from training.workspace import Workspace

    workspace = Workspace.open(home)
    tried = load_contract(contract) if contract else None
    found = retry_quarantine(workspace, dataset, partition or (), contract=tried, dry_run=dry_run)
    if json:
        print_json([asdict(one) for one in found])
        return 0
    columns = ["partition", "rows", "pass now", "fail still", "need the source", "ingest", "resolved", "gone"]
    rows = [
        [p.partition, p.rows, p.passing, p.failing, p.unknown, p.outcome or "-", p.resolved.accepted, p.resolved.gone]
        for p in found
    ]
    print_table(f"{dataset}: quarantine, judged again", columns, rows)
    resolved, passing = sum(p.resolved.accepted for p in found), sum(p.passing for p in found)
    if dry_run or contract:
        print(f"{passing:,} of {sum(p.rows for p in found):,} records would pass; nothing was taken in.")
    else:
        print(f"{resolved:,} records are resolved: a restated version accepts them.")
    return 0
