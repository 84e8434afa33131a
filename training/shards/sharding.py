"""Curated rows -> shards at the sites that may hold them, and the data set versions that list them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from data_contracts.catalog.store import Store
from data_contracts.errors import PolicyRefused
from data_contracts.policy import Purpose, decide
from training.shards.manifest import FORMAT, DatasetVersion, Manifest, ShardRef, read_manifest
from training.shards.placement import Assignment, Unit, place
from training.shards.rows import CuratedRows, terms_in_force
from training.shards.writer import UnitFacts, write_unit
from training.sites import Site
from training.tokenizer import Tokenizer
from training.workspace import Workspace, today


@dataclass(frozen=True)
class Sharded:
    """What sharding did: a version per data set, every manifest in it, how many are new, and what had no place."""

    versions: tuple[DatasetVersion, ...]
    manifests: tuple[Manifest, ...]
    written: int
    removed: int
    homeless: tuple[Assignment, ...]


def purposes(purpose: Purpose) -> dict[str, Purpose]:
    """Return what each split is used for: training for the purpose of the run, held-out rows to evaluate it."""
    return {"train": purpose, "held-out": Purpose("evaluation", purpose.use)}


def units_of(one: CuratedRows) -> list[Unit]:
    """Return what of a data set is placed: each split of each partition version that has rows left."""
    return [
        Unit(one.contract.id, u.partition, one.versions[u.partition].ingest_id, u.split, u.text_bytes)
        for u in one.units
    ]


@dataclass(frozen=True)
class Lying:
    """A manifest as it lies in a site's store: `site` is the store's own, whatever the manifest says."""

    site: Site
    store: Store
    key: str
    manifest: Manifest

    @property
    def whole(self) -> bool:
        """Whether it may be used again: in the region and under the name it says, with its Arrow file beside it."""
        m = self.manifest
        at_home = m.format == FORMAT and m.region == self.site.region and m.key == self.key
        return at_home and self.store.exists(m.arrow_key)


def existing_manifests(workspace: Workspace) -> list[Lying]:
    """Return every manifest in every site's store."""
    found = []
    for site in workspace.sites.sites:
        store = workspace.store(site.name)
        keys = [k for k, _ in store.list("shards") if k.endswith(".json")]
        found += [Lying(site, store, key, read_manifest(store, key)) for key in keys]
    return found


def plan_placement(workspace: Workspace, sets: Sequence[CuratedRows], purpose: Purpose) -> list[Assignment]:
    """Decide where each unit goes; nothing is written.

    Raises:
        PolicyRefused: the terms in force are not those of a data set's contract.
    """
    terms = terms_in_force(workspace.terms(), sets)
    units = [unit for one in sets for unit in units_of(one)]
    manifests = [one.manifest for one in existing_manifests(workspace) if one.whole]
    by_region = {site.region: site.name for site in workspace.sites.sites}
    lying = {Unit(m.dataset, m.partition, m.ingest_id, m.split, 0).name: by_region[m.region] for m in manifests}
    return place(units, workspace.sites.sites, terms, purposes(purpose), today(), lying)


def shard(
    workspace: Workspace,
    sets: Sequence[CuratedRows],
    tokenizer: Tokenizer,
    purpose: Purpose,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Sharded:
    """Write what is not there yet, drop what may no longer lie where it lies, and name the data set versions.

    Raises:
        PolicyRefused: a data set may be held at no site at all for this purpose, or the terms in force are not those
            of its contract; nothing has been written.
    """
    assignments = plan_placement(workspace, sets, purpose)
    for one in sets:
        mine = [a for a in assignments if a.unit.dataset == one.contract.id and a.unit.split == "train"]
        if mine and all(a.site is None for a in mine):
            why = "\n".join(f"  {r}" for r in dict.fromkeys(r for a in mine for r in a.reasons))
            raise PolicyRefused(f"{one.contract.id}: no site may hold it for {purpose}:\n{why}")
    removed = drop_forbidden(workspace, sets)
    by_set = {one.contract.id: one for one in sets}
    on_disk = _by_identity(workspace)
    manifests: list[Manifest] = []
    written = 0
    for done, assignment in enumerate(assignments):
        progress(done, len(assignments))
        unit, site = assignment.unit, assignment.site
        if site is None:
            continue
        one = by_set[unit.dataset]
        identity = (unit.dataset, unit.ingest_id, one.curation_id, unit.split, tokenizer.sha, site.region)
        found = on_disk.get((*identity, one.contract.terms.sha, str(purpose)))
        if found:
            manifests += found
            continue
        facts = UnitFacts(
            dataset=unit.dataset,
            partition=unit.partition,
            ingest_id=unit.ingest_id,
            curation_id=one.curation_id,
            split="train" if unit.split == "train" else "held-out",
            region=site.region,
            terms_sha=one.contract.terms.sha,
            purpose=str(purpose),
            decision=assignment.reasons,
        )
        store = workspace.sites.region_store(site.region)
        wrote = write_unit(store, one.batches(unit.partition, unit.split), tokenizer, facts)
        manifests += wrote
        written += len(wrote)
    progress(len(assignments), len(assignments))
    versions = tuple(_version(one, tokenizer, manifests) for one in sorted(sets, key=lambda s: s.contract.id))
    for version in versions:
        version.write(workspace.home)
    return Sharded(versions, tuple(manifests), written, removed, tuple(a for a in assignments if a.site is None))


def drop_forbidden(workspace: Workspace, sets: Sequence[CuratedRows]) -> int:
    """Delete shards of these data sets from stores whose place may no longer hold them; return how many.

    Arrow files that no manifest names go too: they are what is left of a writer that died.

    Raises:
        PolicyRefused: the terms in force are not those of a data set's contract.
    """
    terms = terms_in_force(workspace.terms(), sets)
    dropped = 0
    named: set[tuple[str, str]] = set()
    for one in existing_manifests(workspace):
        dataset = one.manifest.dataset
        # A shard that was moved lies in another folder than its manifest says.
        arrow = f"{one.key.rsplit('/', 1)[0]}/{one.manifest.arrow_sha256}.arrow"
        if dataset in terms and not decide(terms[dataset], None, one.site.place, today(), action="store").allowed:
            # The manifest last: a shard that is half deleted is found again.
            one.store.delete(arrow)
            one.store.delete(one.key)
            dropped += 1
        else:
            named.add((one.site.name, arrow))
    folders = [f"shards/{one.contract.slug}" for one in sets]
    for site in workspace.sites.sites:
        store = workspace.store(site.name)
        for key in [key for folder in folders for key, _ in store.list(folder)]:
            if key.endswith(".arrow") and (site.name, key) not in named:
                store.delete(key)
                dropped += 1
    return dropped


def _by_identity(workspace: Workspace) -> dict[tuple[str, ...], list[Manifest]]:
    """Return the shards of each unit that lies whole in a region: every part of it."""
    found: dict[tuple[str, ...], dict[int, Manifest]] = {}
    for m in (one.manifest for one in existing_manifests(workspace) if one.whole):
        identity = (m.dataset, m.ingest_id, m.curation_id, m.split, m.tokenizer, m.region, m.terms_sha, m.purpose)
        found.setdefault(identity, {})[m.part] = m
    return {
        identity: [parts[n] for n in sorted(parts)]
        for identity, parts in found.items()
        if all(len(parts) == m.parts for m in parts.values())
    }


def _version(one: CuratedRows, tokenizer: Tokenizer, manifests: Sequence[Manifest]) -> DatasetVersion:
    contract = one.contract
    return DatasetVersion(
        dataset=contract.id,
        contract_sha=contract.sha,
        contract_version=contract.version,
        terms=contract.terms.to_document(),
        terms_sha=contract.terms.sha,
        curation_id=one.curation_id,
        tokenizer=tokenizer.sha,
        partitions=tuple(
            {"partition": v.partition, "ingest_id": v.ingest_id, "sequence": v.sequence}
            for _, v in sorted(one.versions.items())
        ),
        shards=tuple(ShardRef.of(m) for m in manifests if m.dataset == contract.id),
    )
