"""What lies in the regions' stores: manifests as they lie there, units that are whole, shards that a run names."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from data_contracts.catalog.store import Store
from data_contracts.errors import CausewayError
from training.rounds.amendment import list_amendments
from training.rounds.plan import read_plan
from training.shards.manifest import FORMAT, Manifest, read_manifest, read_version
from training.shards.rows import CuratedRows, read_log
from training.sites import Region
from training.workspace import Workspace

# Requests at once to a store that answers after a tenth of a second.
_AT_ONCE = 16


@dataclass(frozen=True)
class Lying:
    """A manifest as it lies in a region's store: `region` is the store's own, whatever the manifest says.

    `whole`: it may be used again, for it is in the region and under the name it says, beside an Arrow file of its size.
    """

    region: Region
    store: Store
    key: str
    manifest: Manifest
    whole: bool

    @property
    def arrow_key(self) -> str:
        """Key of the file beside it, wherever the two were moved to."""
        return f"{self.key.rpartition('/')[0]}/{self.manifest.arrow_sha256}.arrow"


@dataclass(frozen=True)
class Shelf:
    """The shards of one region: `sizes` has the bytes of every object under `shards/`, `lying` every manifest."""

    region: Region
    store: Store
    sizes: dict[str, int]
    lying: tuple[Lying, ...]


@dataclass(frozen=True)
class Held:
    """A unit as it lies whole in one region: its shards by part."""

    region: Region
    shards: tuple[Lying, ...]

    @property
    def manifests(self) -> tuple[Manifest, ...]:
        """The manifests by part."""
        return tuple(one.manifest for one in self.shards)


def read_shelves(workspace: Workspace, datasets: Collection[str] | None = None) -> list[Shelf]:
    """Read what lies in every region; only the manifests of `datasets` where those are given.

    Raises:
        StoreError: a store cannot be listed, or a manifest is damaged; names it.
    """
    slugs = None if datasets is None else {d.replace("/", "--") for d in datasets}
    shelves = []
    for region in workspace.sites.regions:
        store = workspace.sites.region_store(region.name)
        sizes = dict(store.list("shards"))
        keys = [k for k in sizes if k.endswith(".json") and (slugs is None or k.split("/")[1] in slugs)]

        def read(key: str, region: Region = region, store: Store = store, sizes: dict[str, int] = sizes) -> Lying:
            m = read_manifest(store, key)
            beside = sizes.get(f"{key.rpartition('/')[0]}/{m.arrow_sha256}.arrow") == m.arrow_bytes
            return Lying(region, store, key, m, beside and (m.format, m.region, m.key) == (FORMAT, region.name, key))

        with ThreadPoolExecutor(_AT_ONCE if store.root is None else 1) as pool:
            shelves.append(Shelf(region, store, sizes, tuple(pool.map(read, keys))))
    return shelves


def existing_manifests(workspace: Workspace) -> list[Lying]:
    """Return every manifest in every region's store."""
    return [one for shelf in read_shelves(workspace) for one in shelf.lying]


def whole_units(lying: Iterable[Lying]) -> list[Held]:
    """Return the units of which every part is there, under one curation, one set of terms and one purpose."""
    found: dict[tuple[str, ...], dict[int, Lying]] = {}
    for one in lying:
        m = one.manifest
        if one.whole:
            named = (m.region, m.dataset, m.partition, m.ingest_id, m.curation_id, m.split, m.tokenizer)
            found.setdefault((*named, m.terms_sha, m.purpose), {})[m.part] = one
    return [
        Held(next(iter(parts.values())).region, tuple(parts[n] for n in sorted(parts)))
        for _, parts in sorted(found.items())
        if all(len(parts) == one.manifest.parts for one in parts.values())
    ]


class SameRows:
    """Says whether a unit of a data set has the rows it had under another curation: then its tokens are the same.

    Accepted rows are named by the ingest id; what a curation did to them stands in its log.
    """

    def __init__(self, sets: Sequence[CuratedRows]) -> None:
        self._sets = {one.contract.id: one for one in sets}
        self._logs: dict[tuple[str, str], dict[str, list[tuple[Any, ...]]] | None] = {}

    def holds(self, manifest: Manifest) -> bool:
        """Say whether a manifest's shard is of a current partition version and of the rows it has today."""
        one = self._sets.get(manifest.dataset)
        version = None if one is None else one.versions.get(manifest.partition)
        if one is None or version is None or version.ingest_id != manifest.ingest_id:
            return False
        if manifest.curation_id == one.curation_id:
            return True
        was, now = self._log(one, manifest.curation_id), self._log(one, one.curation_id)
        if was is None or now is None:
            return False
        return was.get(version.ingest_id, []) == now.get(version.ingest_id, [])

    def _log(self, one: CuratedRows, curation: str) -> dict[str, list[tuple[Any, ...]]] | None:
        """Return what a curation did by ingest id; None where its log is gone."""
        key = (one.contract.id, curation)
        if key not in self._logs:
            try:
                log = one.log if curation == one.curation_id else read_log(one.tables, curation)
            except CausewayError:
                self._logs[key] = None
                return None
            columns = [log.column(name).to_pylist() for name in ("ingest_id", "record_id", "action", "reason", "count")]
            found: dict[str, list[tuple[Any, ...]]] = {}
            for ingest, *entry in sorted(zip(*columns, strict=True), key=str):
                found.setdefault(ingest, []).append(tuple(entry))
            self._logs[key] = found
        return self._logs[key]


def named_by_runs(workspace: Workspace) -> set[tuple[str, str]]:
    """Return (region, manifest key) of every shard that the plan of a run, or an amendment of it, names.

    A run may go on, be verified or be traced at any time, so these stay where they are.

    Raises:
        CausewayError: a plan or a version cannot be read; names it.
    """
    home = workspace.home
    versions: set[tuple[str, str]] = set()
    for run in home.folders("runs"):
        if home.exists(f"runs/{run}/plan.json"):
            plan = read_plan(home, run)
            versions |= {(d.dataset, d.version) for d in plan.datasets}
            versions |= {(a.dataset, a.version) for a in list_amendments(home, plan) if a.version}
    shards = (s for dataset, sha in sorted(versions) for s in read_version(home, dataset, sha).shards)
    return {(s.region, s.key) for s in shards}
