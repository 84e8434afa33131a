"""Is a shard what its manifest says, and are its records the curated rows it names? The tables are asked."""

from __future__ import annotations

from collections.abc import Iterator

from data_contracts.canonical import sha256
from data_contracts.catalog.store import Store
from data_contracts.catalog.tables import PartitionVersion, Tables
from training.shards.manifest import Manifest
from training.shards.rows import read_log
from training.shards.writer import open_shard
from training.workspace import Workspace


class CuratedIds:
    """The record ids that each curation keeps of each partition version; read when first asked for, then kept."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._tables: dict[str, tuple[Tables, dict[str, PartitionVersion]]] = {}
        self._accepted: dict[tuple[str, str], dict[str, set[str]]] = {}
        self._removed: dict[tuple[str, str], set[tuple[str, str]]] = {}

    def of(self, dataset: str, ingest_id: str, curation_id: str, split: str) -> set[str] | None:
        """Return the ids of one split of one partition version under one curation; None: there is no such version.

        Raises:
            CausewayError: the tables or the curation's log are missing or damaged.
        """
        tables, versions = self._open(dataset)
        version = versions.get(ingest_id)
        if version is None:
            return None
        if (dataset, curation_id) not in self._removed:
            log = read_log(tables, curation_id).to_pylist()
            removed = {(entry["record_id"], entry["ingest_id"]) for entry in log if entry["action"] == "remove"}
            self._removed[dataset, curation_id] = removed
        if (dataset, ingest_id) not in self._accepted:
            found: dict[str, set[str]] = {}
            rows = tables.read_accepted(version, ["record_id", "split"]) if version.rows_accepted else None
            for row in rows.to_pylist() if rows is not None else ():
                found.setdefault(row["split"], set()).add(row["record_id"])
            self._accepted[dataset, ingest_id] = found
        gone = {record for record, ingest in self._removed[dataset, curation_id] if ingest == ingest_id}
        return self._accepted[dataset, ingest_id].get(split, set()) - gone

    def _open(self, dataset: str) -> tuple[Tables, dict[str, PartitionVersion]]:
        if dataset not in self._tables:
            tables = self._workspace.tables(self._workspace.contract(dataset))
            kept = {v.ingest_id: v for v in tables.versions() if v.verdict != "refused"}
            self._tables[dataset] = tables, kept
        return self._tables[dataset]


def misfits(key: str, manifest: Manifest, region: str) -> Iterator[str]:
    """Yield why a manifest may not lie under this key in this region: a sentence each."""
    if manifest.key != key:
        yield f"its name is not that of its content, {manifest.key}: it was changed or moved."
    if manifest.region != region:
        yield f"its manifest says region {manifest.region}, and it lies in {region}."


def strangers(store: Store, arrow_key: str, manifest: Manifest, ids: CuratedIds) -> Iterator[str]:
    """Yield what is wrong with a shard's Arrow file: other bytes, or records that are no curated rows of its split.

    Raises:
        CausewayError: the file is missing or no shard, or the tables cannot be read.
    """
    found = sha256(store.get(arrow_key))
    if found != manifest.arrow_sha256:
        yield f"its Arrow file is damaged: sha256 is {found}, recorded as {manifest.arrow_sha256}."
        return
    m = manifest
    curated = ids.of(m.dataset, m.ingest_id, m.curation_id, m.split)
    if curated is None:
        yield f"its partition version {m.ingest_id[:12]} is not in the tables."
        return
    others = sorted(set(open_shard(store.path(arrow_key)).record_ids) - curated)
    if others:
        yield f"{len(others)} records are not curated {m.split} rows, the first {others[0]}."
