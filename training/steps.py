"""The steps of the main job as plain functions over a workspace: what flows name and order, and notebooks may call.

Each step is idempotent: what is there is not made again, and what it made is in the lineage before it returns.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from data_contracts.canonical import sha256
from data_contracts.catalog.leases import hold
from data_contracts.catalog.lineage import Node
from data_contracts.catalog.tables import PartitionVersion, Tables, ingest_id
from data_contracts.catalog.terms_chain import put_terms
from data_contracts.contract import Contract
from data_contracts.curation import curate, curation_id, curation_rows
from data_contracts.errors import DataRefused, ObjectExists, ObjectMissing, PolicyRefused
from data_contracts.ingest import IngestResult, ingest_partition
from data_contracts.policy import Purpose
from data_contracts.sources import Source, SourcePartition
from training.planning import RunConfig, make_plan
from training.rounds.contribution import Contribution
from training.rounds.plan import Plan
from training.rounds.run import every_version
from training.shards import tokenizers
from training.shards.removing import remove_forbidden
from training.shards.rows import CuratedRows, curated_rows, curation_key
from training.shards.sharding import Outlook, Sharded, look_ahead, require_lawful, shard
from training.shards.tokenizers import TokenizerRecord
from training.workspace import Workspace

Only = Literal["changed", "missing", "all"]


def admit(
    workspace: Workspace, contract: Contract, source: str | None = None, published: dt.datetime | None = None
) -> str:
    """Bring a contract into use: find its tables' permitted place, keep its text there, put its terms into force.

    Returns the place's name. The terms of an earlier publication do not replace those of a later one. Shards leave the
    regions where new terms no longer let them lie.

    Raises:
        PolicyRefused: no place may hold the data set.
        DataRefused: the data set is ordered by publication, and nothing says when this source was published.
    """
    place = workspace.table_place(contract).name
    known = workspace.keep_contract(contract, source, published)
    if known.current.sha != contract.sha:
        return place
    for _ in range(5):
        try:
            before = sum(1 for _ in workspace.home.list("terms"))
            if put_terms(workspace.home, contract.id, contract.terms, workspace.owner).sequence > before:
                remove_forbidden(workspace, [contract.id])
            return place
        except ObjectExists:
            continue
    raise ObjectExists(f"{contract.id}: five other writers extended the chain of terms first; run this again")


@dataclass(frozen=True)
class Outstanding:
    """A source compared with the tables: what is to be done, and how many partitions are as they should be."""

    todo: tuple[SourcePartition, ...]
    unchanged: int


def outstanding(
    workspace: Workspace,
    contract: Contract,
    source: Source,
    only: Only = "changed",
    partitions: Sequence[str] = (),
    published: dt.datetime | None = None,
) -> Outstanding:
    """Return the partitions to ingest: `changed` (new, other bytes or contract), `missing` (never ingested), or `all`.

    Raises:
        DataRefused: a named partition is not in the source.
    """
    found = source.partitions()
    unknown = sorted(set(partitions) - {p.value for p in found})
    if unknown:
        raise DataRefused(
            f"{contract.id}: no partition {', '.join(unknown)}; the source has {', '.join(p.value for p in found)}"
        )
    chosen = [p for p in found if not partitions or p.value in partitions]
    versions = workspace.tables(contract).versions()
    if contract.sequence == "publication" and published is not None:
        # What matters is what became of this publication; others of the partition stand beside it.
        versions = [v for v in versions if v.sequence == int(published.timestamp() * 1_000_000)]
    newest: dict[str, PartitionVersion] = {v.partition: v for v in versions}

    def due(partition: SourcePartition) -> bool:
        known = newest.get(partition.value)
        if only == "all" or known is None:
            return True
        if only == "missing":
            return False
        return known.ingest_id != ingest_id(contract.sha, partition.value, partition.source_sha)

    todo = tuple(p for p in chosen if due(p))
    return Outstanding(todo, len(chosen) - len(todo))


@dataclass(frozen=True)
class Examples:
    """Rows that a rule refused: how many, and some of them by source file, record and id; never their values."""

    rule: str
    rows: int
    examples: tuple[str, ...]


def quarantine_examples(workspace: Workspace, dataset: str, partition: str, limit: int = 3) -> list[Examples]:
    """Return what was refused of the newest version of a partition, by rule, the commonest first."""
    tables = workspace.tables(workspace.contract(dataset))
    versions = sorted(tables.versions(partition), key=lambda v: v.published_at)
    if not versions or not versions[-1].rows_quarantined:
        return []
    rows = tables.read_quarantine(versions[-1]).select(["reasons", "source_file", "source_line", "record_id"])
    found: dict[str, list[str]] = {}
    for row in rows.to_pylist():
        for rule in row["reasons"]:
            found.setdefault(rule, []).append(f"{row['source_file']}:{row['source_line']} ({row['record_id']})")
    return sorted(
        (Examples(rule, len(places), tuple(places[:limit])) for rule, places in found.items()),
        key=lambda e: (-e.rows, e.rule),
    )


def ingest_one(
    workspace: Workspace,
    contract: Contract,
    source: Source,
    partition: SourcePartition,
    published: dt.datetime | None = None,
    holder: str = "causeway ingest",
) -> IngestResult:
    """Ingest one partition and record where it came from, file by file, beside its table.

    One process at a time works on a partition; `holder` is what the others are told of it.

    Raises:
        Busy: another process works on this partition.
    """
    place = workspace.table_place(contract).name
    secret = workspace.keys.secret(f"dataset-{contract.slug}")
    name = f"source/{contract.id}/{partition.value}@{partition.source_sha[:12]}"
    files = [Node(f"file/{contract.id}/{f.name}@{f.sha[:12]}", {"bytes": f.size}) for f in partition.files]
    lineage = workspace.lineage(place)
    tables = workspace.tables(contract)
    with (
        hold(tables.store, partition_lease(contract.id, partition.value), holder),
        lineage.job("ingest", [Node(name, {"files": len(files), "bytes": partition.size}), *files]) as job,
    ):
        now = dt.datetime.now(dt.UTC)
        others = beside(workspace, contract)
        result = ingest_partition(
            contract, source, partition, tables, secret, now, publication=published, others=others
        )
        v = result.version
        facts = {
            "verdict": v.verdict,
            "rows_in": v.rows_in,
            "accepted": v.rows_accepted,
            "quarantined": v.rows_quarantined,
        }
        job.outputs.append(Node(partition_node(v.dataset, v.partition, v.ingest_id), facts))
    return result


def beside(workspace: Workspace, contract: Contract) -> Callable[[str], Tables]:
    """Return what gives the tables of another data set, for the foreign keys of a contract: those at the same place.

    It raises DataRefused for a data set that is not registered, PolicyRefused for one whose tables lie elsewhere.
    """

    def others(dataset: str) -> Tables:
        other = workspace.contract(dataset)
        here, there = workspace.table_place(contract).name, workspace.table_place(other).name
        if here != there:
            raise PolicyRefused(
                f"{contract.id}: a foreign key leads to {dataset}, whose tables lie at {there} and not at {here}; "
                "keys do not leave the place of their tables, so permit one place for both, or drop the key"
            )
        return workspace.tables(other)

    return others


def partition_lease(dataset: str, partition: str) -> str:
    """Return the name of the lease on a partition; values from data never become paths."""
    return f"ingest/{dataset.replace('/', '--')}/{sha256(partition.encode())[:16]}"


def partition_node(dataset: str, partition: str, name: str) -> str:
    """Return the lineage name of a partition version."""
    return f"partition/{dataset}/{partition}@{name[:12]}"


def curate_set(workspace: Workspace, contract: Contract) -> tuple[dict[str, Any], bool]:
    """Curate a data set's current partitions; return the summary and whether anything had to be done."""
    tables = workspace.tables(contract)
    secret = workspace.keys.secret(f"dataset-{contract.slug}")
    rows = curation_rows(contract, tables, secret)
    key = curation_key(contract, curation_id(contract, rows))
    try:
        summary: dict[str, Any] = tables.store.get_json(key)
        return summary, False
    except ObjectMissing:
        pass
    versions = [v for v in tables.current().values() if v.rows_accepted]
    inputs = [Node(partition_node(v.dataset, v.partition, v.ingest_id), {}) for v in versions]
    with workspace.lineage(workspace.table_place(contract).name).job("curate", inputs) as job:
        result = curate(contract, rows, secret)
        if result.log.num_rows:
            tables.append_curation(result.log)
        reasons: dict[str, int] = {}
        for action, reason in zip(
            result.log.column("action").to_pylist(), result.log.column("reason").to_pylist(), strict=True
        ):
            if action == "remove":
                reasons[reason] = reasons.get(reason, 0) + 1
        summary = {
            "format": 1,
            "dataset": contract.id,
            "curation_id": result.curation_id,
            "kept": result.kept,
            "removed": result.removed,
            "redacted": result.redacted,
            "reasons": dict(sorted(reasons.items())),
        }
        job.outputs.append(Node(f"curation/{result.curation_id[:12]}", summary))
    # The summary is the mark that the log is whole: it is written last.
    tables.store.ensure_json(key, summary)
    return summary, True


def make_tokenizer(workspace: Workspace, config: RunConfig, sets: Sequence[CuratedRows]) -> TokenizerRecord:
    """Train the run's tokenizer, or bring the one it names.

    Raises:
        PolicyRefused: a data set may be held in no region for the run's purpose, or none may train a tokenizer; nothing
            has been written.
    """
    require_lawful(workspace, sets, Purpose.parse(config.purpose))
    if isinstance(config.tokenizer, str):
        return tokenizers.bring(workspace, Path(config.tokenizer))
    purpose = Purpose.parse(config.purpose)
    record = tokenizers.train(workspace, sets, purpose, config.tokenizer, config.tokenizer_sample_bytes)
    inputs = [Node(f"curation/{d['curation_id'][:12]}", {}) for d in record.document["datasets"]]
    output = Node(f"tokenizer/{record.tokenizer.sha[:12]}", {"vocab_size": record.tokenizer.vocab_size})
    workspace.lineage().emit_once("tokenize", record.tokenizer.sha, inputs, [output])
    return record


def dry_run(workspace: Workspace, config: RunConfig) -> Outlook:
    """Say where a run's shards would go and why; nothing is written, and no tokenizer is trained.

    Raises:
        CausewayError: the data sets are not ready to be sharded.
    """
    sets, purpose = read_sets(workspace, config.datasets), Purpose.parse(config.purpose)
    tokenizer = None
    if isinstance(config.tokenizer, str):
        tokenizer, _ = tokenizers.read_file(Path(config.tokenizer))
    else:
        # Where none may be trained, the outlook says why, region by region.
        with suppress(PolicyRefused):
            known = tokenizers.trained_before(workspace, sets, purpose, config.tokenizer, config.tokenizer_sample_bytes)
            tokenizer = known.tokenizer if known else None
    return look_ahead(workspace, sets, purpose, tokenizer)


def read_sets(workspace: Workspace, datasets: Sequence[str]) -> list[CuratedRows]:
    """Read the curated rows of data sets by name."""
    return [
        curated_rows(contract, workspace.tables(contract), workspace.keys.secret(f"dataset-{contract.slug}"))
        for contract in (workspace.contract(name) for name in sorted(set(datasets)))
    ]


def make_shards(
    workspace: Workspace,
    config: RunConfig,
    sets: Sequence[CuratedRows],
    record: TokenizerRecord,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Sharded:
    """Place and write the shards of a run's data sets, and record shard and version lineage."""
    made = shard(workspace, sets, record.tokenizer, Purpose.parse(config.purpose), progress)
    tokenizer = Node(f"tokenizer/{record.tokenizer.sha[:12]}", {})
    lineage = workspace.lineage()
    for version in made.versions:
        mine = [m for m in made.manifests if m.dataset == version.dataset]
        for m in mine:
            inputs = [
                Node(partition_node(m.dataset, m.partition, m.ingest_id), {}),
                Node(f"curation/{m.curation_id[:12]}", {}),
                tokenizer,
            ]
            facts = {"region": m.region, "split": m.split, "tokens": m.tokens, "records": m.records}
            lineage.emit_once("shard", m.sha, inputs, [Node(f"shard/{m.sha[:12]}", facts)])
        output = Node(f"version/{version.dataset}@{version.sha[:12]}", {"shards": len(mine)})
        lineage.emit_once("version", version.sha, [Node(f"shard/{m.sha[:12]}", {}) for m in mine], [output])
    return made


def plan_run(workspace: Workspace, config: RunConfig, made: Sharded, vocab_size: int) -> Plan:
    """Freeze the plan of a run over what was sharded."""
    plan = make_plan(workspace, config, made.versions, vocab_size)
    inputs = [Node(f"version/{d.dataset}@{d.version[:12]}", {}) for d in plan.datasets]
    inputs.append(Node(f"tokenizer/{plan.tokenizer[:12]}", {}))
    workspace.lineage().emit_once("plan", plan.sha, inputs, [Node(model_node(plan.run, 0), {"state": plan.snapshot0})])
    return plan


def model_node(run: str, number: int) -> str:
    """Return the lineage name of the model after a round."""
    return f"model/{run}@{number}"


def record_round(workspace: Workspace, plan: Plan, number: int, state_sha: str, inputs: Sequence[Contribution]) -> None:
    """Put one committed round into the lineage; repeating it is harmless."""
    versions = every_version(workspace.home, plan)
    lineage = workspace.lineage()
    sent = []
    for one in inputs:
        h = one.header
        node = Node(
            f"contribution/{one.sha[:12]}", {"site": h.site, "round": h.round, "tokens": h.tokens, "loss": h.loss}
        )
        used = [Node(f"version/{d}@{sha[:12]}", {}) for sha, d in versions.items() if d in h.tokens_by_dataset]
        lineage.emit_once("train", one.sha, [Node(model_node(plan.run, number - 1), {}), *used], [node])
        sent.append(node)
    key = f"{plan.run}/{number}"
    output = Node(model_node(plan.run, number), {"state": state_sha})
    lineage.emit_once(
        "merge", key, [*sent, Node(model_node(plan.run, number - 1), {})], [Node(f"round/{key}", {}), output]
    )
