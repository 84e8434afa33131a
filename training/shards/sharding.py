"""Curated rows -> shards in the regions that may hold them, and the data set versions that list them.

What lies where it may not goes first. Then the placement is carried out: a unit stays, is moved from another region,
or is written from its table; and what was moved leaves where it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from data_contracts.catalog.lineage import Node
from data_contracts.errors import CausewayError, PolicyRefused
from data_contracts.policy import Purpose
from training.shards.estimating import arrow_bytes, density
from training.shards.inventory import (
    Held,
    SameRows,
    Shelf,
    existing_manifests,
    named_by_runs,
    read_shelves,
    whole_units,
)
from training.shards.manifest import DatasetVersion, Manifest, ShardRef
from training.shards.moving import move
from training.shards.placement import Assignment, Placement, Standing, Unit, may_hold, place, purposes
from training.shards.removing import Removal, forbidden, orphans, record_and_remove, remove
from training.shards.rows import CuratedRows, terms_in_force
from training.shards.writer import UnitFacts, write_unit
from training.tokenizer import Tokenizer
from training.workspace import Workspace, today

__all__ = [
    "Outlook",
    "Sharded",
    "existing_manifests",
    "look_ahead",
    "purposes",
    "require_lawful",
    "require_places",
    "shard",
]


@dataclass(frozen=True)
class Sharded:
    """What sharding did: a version per data set, every manifest in it, how many are new, and what had no place.

    `moved` of them came from another region; `removals` left where the terms no longer let them lie, on record;
    `removed` counts these, the copies that were moved away, and files that no manifest named.
    """

    versions: tuple[DatasetVersion, ...]
    manifests: tuple[Manifest, ...]
    written: int
    moved: int
    removed: int
    removals: tuple[Removal, ...]
    placement: Placement

    @property
    def homeless(self) -> tuple[Assignment, ...]:
        """What has no place."""
        return self.placement.homeless


@dataclass(frozen=True)
class Outlook:
    """What sharding would do: where everything goes and why, where its tokens lie now, what must go at once.

    `measured`: tokens are estimated with the run's tokenizer, not by a rule of thumb.
    """

    placement: Placement
    held: dict[str, list[Held]]
    removals: tuple[Removal, ...]
    measured: bool


def look_ahead(
    workspace: Workspace, sets: Sequence[CuratedRows], purpose: Purpose, tokenizer: Tokenizer | None
) -> Outlook:
    """Decide where each unit goes; nothing is written. Without a tokenizer every unit counts as new.

    Raises:
        PolicyRefused: the terms in force are not those of a data set's contract.
    """
    return _look(workspace, sets, purpose, tokenizer, keep=False)


def _look(
    workspace: Workspace, sets: Sequence[CuratedRows], purpose: Purpose, tokenizer: Tokenizer | None, keep: bool
) -> Outlook:
    terms = terms_in_force(workspace.terms(), sets)
    shelves = read_shelves(workspace, terms)
    removals = tuple(forbidden(shelves, terms, today()))
    gone = {(r.region, r.key) for r in removals}
    lying = [o for shelf in shelves for o in shelf.lying if (o.region.name, o.key) not in gone]
    whole = whole_units(lying)
    same = SameRows(sets)
    units: list[Unit] = []
    held: dict[str, list[Held]] = {}
    near: dict[str, set[str]] = {}
    for one in sets:
        ratio = density(workspace, one, tokenizer, keep)
        mine = [h for h in whole if tokenizer is not None and h.manifests[0].dataset == one.contract.id]
        for rows in one.units:
            tokens = max(1, round(rows.text_bytes * ratio))
            version = one.versions[rows.partition]
            unit = Unit(one.contract.id, rows.partition, version.ingest_id, rows.split, tokens, 0)
            there = [
                h for h in mine if (h.manifests[0].partition, h.manifests[0].split) == (rows.partition, rows.split)
            ]
            there = [h for h in there if tokenizer is not None and h.manifests[0].tokenizer == tokenizer.sha]
            near[unit.name] = {h.region.name for h in there}
            found = [h for h in there if tokenizer is not None and same.holds(h.manifests[0], tokenizer.sha)]
            if found:
                held[unit.name] = found
            known = sum(m.arrow_bytes for m in found[0].manifests) if found else None
            units.append(replace(unit, arrow_bytes=known or arrow_bytes(tokens, rows.records, tokenizer)))
    standing = _standing(workspace, sets, shelves, held, near, gone)
    placement = place(units, workspace.sites, terms, purposes(purpose), today(), standing)
    return Outlook(placement, held, removals, tokenizer is not None)


def _standing(
    workspace: Workspace,
    sets: Sequence[CuratedRows],
    shelves: Sequence[Shelf],
    held: dict[str, list[Held]],
    near: dict[str, set[str]],
    gone: set[tuple[str, str]],
) -> Standing:
    lying = {name: {h.region.name for h in found} for name, found in held.items()}
    bounded = any(shelf.region.capacity_bytes is not None for shelf in shelves)
    named = named_by_runs(workspace) if bounded and held else set()
    kept = {
        name: {h.region.name for h in found if any((o.region.name, o.key) in named for o in h.shards)}
        for name, found in held.items()
    }
    taken = {}
    for shelf in shelves:
        region = shelf.region.name
        free = {o.arrow_key for o in shelf.lying if (region, o.key) in gone}
        for name, found in held.items():
            if region not in kept[name]:
                free |= {o.arrow_key for h in found if h.region.name == region for o in h.shards}
        taken[region] = sum(size for key, size in shelf.sizes.items() if key not in free)
    tables = {one.contract.id: workspace.table_place(one.contract) for one in sets}
    return Standing(tables, lying, near, taken, kept)


def require_lawful(workspace: Workspace, sets: Sequence[CuratedRows], purpose: Purpose) -> None:
    """Check that every data set can be trained on in some region, before anything is made for it.

    Raises:
        PolicyRefused: a data set may be held in no region for this purpose, gives every region's reasons; or the terms
            in force are not those of its contract.
    """
    terms = terms_in_force(workspace.terms(), sets)
    lines = []
    for one in sets:
        splits = {u.split for u in one.units}
        asked = [
            (region, may_hold(terms[one.contract.id], purposes(purpose)[split], region, today()))
            for split in sorted({"train"} & splits or splits)
            for region in workspace.sites.regions
        ]
        if asked and not any(decision.allowed for _, decision in asked):
            lines += _nowhere(one.contract.id, purpose, [f"{r.name}: {s}" for r, d in asked for s in d.reasons])
    if lines:
        raise PolicyRefused("\n".join(lines))


def _nowhere(dataset: str, purpose: Purpose, reasons: Sequence[str]) -> list[str]:
    return [f"{dataset}: no region may hold it for {purpose}:", *(f"  {r}" for r in dict.fromkeys(reasons))]


def require_places(placement: Placement, purpose: Purpose) -> None:
    """Check that every data set can be trained on somewhere, and that there is room for all of it.

    Held-out rows that may not be evaluated anywhere are left out, and named by whoever shows the placement.

    Raises:
        PolicyRefused: a data set may be held in no region for this purpose; gives every region's reasons.
        CausewayError: the regions that may hold something have too little room for it.
    """
    lines = []
    for dataset in sorted({a.unit.dataset for a in placement.homeless}):
        mine = [a for a in placement.assignments if a.unit.dataset == dataset]
        wanted = [a for a in mine if a.unit.split == "train"] or mine
        reasons = [r for a in wanted if a.how == "may go nowhere" for r in a.reasons]
        lines += _nowhere(dataset, purpose, reasons) if reasons else []
    if lines:
        raise PolicyRefused("\n".join(lines))
    full = [a for a in placement.homeless if a.how == "has no room"]
    if full:
        shown = [f"  {a.unit.name}: {' '.join(a.reasons)}" for a in full[:10]]
        more = [f"  and {len(full) - 10:,} more"] if len(full) > 10 else []
        raise CausewayError("\n".join(["there is no room for all shards; nothing is written:", *shown, *more]))


def shard(
    workspace: Workspace,
    sets: Sequence[CuratedRows],
    tokenizer: Tokenizer,
    purpose: Purpose,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Sharded:
    """Remove what may no longer lie where it lies, move and write the rest, and name the data set versions.

    A step that was interrupted, or whose store failed, goes on when this is called again.

    Raises:
        PolicyRefused: a data set may be held in no region for this purpose, or the terms in force are not those of
            its contract; nothing has been written.
        CausewayError: the regions have too little room; nothing has been written.
        StoreError: a store failed.
    """
    outlook = _look(workspace, sets, purpose, tokenizer, keep=True)
    removals = record_and_remove(workspace, outlook.removals, workspace.terms().sha)
    require_places(outlook.placement, purpose)
    by_set = {one.contract.id: one for one in sets}
    manifests: list[Manifest] = []
    written = moved = 0
    placed = [a for a in outlook.placement.assignments if a.region is not None]
    for done, assignment in enumerate(placed):
        progress(done, len(placed))
        one, held = by_set[assignment.unit.dataset], outlook.held.get(assignment.unit.name, [])
        made, new = _carry_out(workspace, assignment, one, held, tokenizer, purpose)
        manifests += made
        written += new
        moved += len(made) if assignment.how == "moves" else 0
    progress(len(placed), len(placed))
    versions = tuple(_version(one, tokenizer, manifests) for one in sorted(sets, key=lambda s: s.contract.id))
    for version in versions:
        version.write(workspace.home)
    removed = len(removals) + _let_go(workspace, outlook) + remove(orphans(read_shelves(workspace, by_set), by_set))
    return Sharded(versions, tuple(manifests), written, moved, removed, removals, outlook.placement)


def _carry_out(
    workspace: Workspace,
    assignment: Assignment,
    one: CuratedRows,
    held: Sequence[Held],
    tokenizer: Tokenizer,
    purpose: Purpose,
) -> tuple[list[Manifest], int]:
    """Bring one unit to where it goes; return its manifests there and how many are new."""
    unit, region = assignment.unit, assignment.region
    assert region is not None
    # What takes hours may reach the day on which the terms end.
    decision = may_hold(workspace.terms().of(unit.dataset), purposes(purpose)[unit.split], region, today())
    if not decision.allowed:
        raise PolicyRefused(f"{unit.name}: {region.name} may no longer hold it: {' '.join(decision.reasons)}")
    facts = UnitFacts(
        dataset=unit.dataset,
        partition=unit.partition,
        ingest_id=unit.ingest_id,
        curation_id=one.curation_id,
        split="train" if unit.split == "train" else "held-out",
        region=region.name,
        terms_sha=one.contract.terms.sha,
        purpose=str(purpose),
        decision=decision.reasons,
    )
    store = workspace.sites.region_store(region.name)
    here = [h for h in held if h.region == region]
    for found in here:
        if all((m.curation_id, m.terms_sha, m.purpose) == (*_named(facts),) for m in found.manifests):
            return list(found.manifests), 0
    if assignment.how == "is written":
        made = write_unit(store, one.batches(unit.partition, unit.split), tokenizer, facts)
        return made, len(made)
    start = here[0] if here else next(h for h in held if h.region.name == assignment.source)
    made = [replace(m, **{k: getattr(facts, k) for k in _OWN}, recorded_sha="") for m in start.manifests]

    def record(old: Manifest, new: Manifest) -> None:
        node = Node(f"shard/{new.sha[:12]}", {"region": new.region})
        key = f"{old.sha} to {new.sha}"
        workspace.lineage().emit_once("move", key, [Node(f"shard/{old.sha[:12]}", {})], [node])

    move(start, store, made, workspace.root / "cache" / "moving", record)
    return made, len(made)


# What the manifests of one unit differ in from region to region and from run to run.
_OWN = ("region", "curation_id", "terms_sha", "purpose", "decision")


def _named(facts: UnitFacts) -> tuple[str, str, str]:
    return facts.curation_id, facts.terms_sha, facts.purpose


def _let_go(workspace: Workspace, outlook: Outlook) -> int:
    """Remove the copies of units in other regions than they are in now, unless a run names them; return how many."""
    goes = {a.unit.name: a.region for a in outlook.placement.assignments if a.region is not None}
    leaving = [
        one
        for name, found in outlook.held.items()
        if name in goes
        for h in found
        if h.region != goes[name]
        for one in h.shards
    ]
    if not leaving:
        return 0
    named = named_by_runs(workspace)
    going = {(o.region.name, o.key): o for o in leaving if (o.region.name, o.key) not in named}
    datasets = {o.manifest.dataset for o in leaving}
    stay = {
        (o.region.name, o.arrow_key)
        for shelf in read_shelves(workspace, datasets)
        for o in shelf.lying
        if (o.region.name, o.key) not in going
    }
    for one in going.values():
        if (one.region.name, one.arrow_key) not in stay:
            one.store.delete(one.arrow_key)
        one.store.delete(one.key)
    return len(going)


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
