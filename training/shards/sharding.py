"""Curated rows -> shards in the regions that may hold them, and the data set versions that list them.

What lies where it may not goes first. Then the placement is carried out: a unit stays, is moved from another region,
or is written from its table; and what was moved leaves where it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

from data_contracts.catalog.lineage import Node
from data_contracts.catalog.terms_chain import TermsHead
from data_contracts.errors import PolicyRefused
from data_contracts.policy import Purpose
from training.shards.inventory import existing_manifests, named_by_runs, read_shelves
from training.shards.manifest import DatasetVersion, Manifest, ShardRef
from training.shards.moving import move
from training.shards.outlook import Outlook, decide_all, look_ahead, require_lawful, require_places
from training.shards.placement import Assignment, Placement, may_hold, purposes
from training.shards.removing import Removal, orphans, record_and_remove, remove
from training.shards.rows import CuratedRows
from training.shards.writer import UnitFacts, write_unit
from training.tokenizer import Tokenizer
from training.workspace import Workspace, today

__all__ = ["Outlook", "Sharded", "existing_manifests", "look_ahead", "purposes", "require_lawful", "shard"]

# Copies at once: each waits for its stores most of the time.
_AT_ONCE = 8
# The terms in force are read again this long after they were.
_TERMS_S = 10.0


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
    outlook = decide_all(workspace, sets, purpose, tokenizer, keep=True)
    removals = record_and_remove(workspace, outlook.removals, workspace.terms().sha)
    require_places(outlook.placement, purpose)
    placed = [a for a in outlook.placement.assignments if a.region is not None]
    step = _Step(workspace, {one.contract.id: one for one in sets}, outlook, tokenizer, purpose)
    made: dict[str, tuple[list[Manifest], int]] = {}
    # Copies wait for the network, side by side; what is written takes all cores, one unit after the other.
    with ThreadPoolExecutor(_AT_ONCE, thread_name_prefix="move") as pool:
        copied = [a for a in placed if a.how != "is written"]
        for done, (assignment, result) in enumerate(zip(copied, pool.map(step.carry_out, copied), strict=True)):
            progress(done, len(placed))
            made[assignment.unit.name] = result
    for assignment in (a for a in placed if a.how == "is written"):
        progress(len(made), len(placed))
        made[assignment.unit.name] = step.carry_out(assignment)
    progress(len(placed), len(placed))
    manifests = [m for a in placed for m in made[a.unit.name][0]]
    versions = tuple(_version(one, tokenizer, manifests) for one in sorted(sets, key=lambda s: s.contract.id))
    for version in versions:
        version.write(workspace.home)
    removed = len(removals) + _let_go(workspace, outlook)
    removed += remove(orphans(read_shelves(workspace, step.sets), step.sets))
    moved = sum(len(made[a.unit.name][0]) for a in placed if a.how == "moves")
    written = sum(new for _, new in made.values())
    return Sharded(versions, tuple(manifests), written, moved, removed, removals, outlook.placement)


@dataclass
class _Step:
    """One carrying out of an outlook."""

    workspace: Workspace
    sets: dict[str, CuratedRows]
    outlook: Outlook
    tokenizer: Tokenizer
    purpose: Purpose
    _terms: tuple[float, TermsHead] | None = field(default=None, repr=False)

    def carry_out(self, assignment: Assignment) -> tuple[list[Manifest], int]:
        """Bring one unit to where it goes; return its manifests there and how many are new."""
        unit, region = assignment.unit, assignment.region
        assert region is not None
        one, held = self.sets[unit.dataset], self.outlook.held.get(unit.name, [])
        facts = UnitFacts(
            dataset=unit.dataset,
            partition=unit.partition,
            ingest_id=unit.ingest_id,
            curation_id=one.curation_id,
            split="train" if unit.split == "train" else "held-out",
            region=region.name,
            terms_sha=one.contract.terms.sha,
            purpose=str(self.purpose),
            decision=self._ask_again(assignment),
        )
        store = self.workspace.sites.region_store(region.name)
        here = [h for h in held if h.region == region]
        for found in here:
            if all(_named(m) == _named(facts) for m in found.manifests):
                return list(found.manifests), 0
        if assignment.how == "is written":
            made = write_unit(store, one.batches(unit.partition, unit.split), self.tokenizer, facts)
            return made, len(made)
        start = here[0] if here else next(h for h in held if h.region.name == assignment.source)
        made = [replace(m, **{name: getattr(facts, name) for name in _OWN}) for m in start.manifests]
        move(start, store, made, self.workspace.root / "cache" / "moving", self._record)
        return made, len(made)

    def _ask_again(self, assignment: Assignment) -> tuple[str, ...]:
        """Return why the unit may lie there; what takes hours may reach the day on which the terms end or change."""
        unit, region = assignment.unit, assignment.region
        assert region is not None
        now = time.monotonic()
        if self._terms is None or now - self._terms[0] > _TERMS_S:
            self._terms = now, self.workspace.terms()
        terms = self._terms[1].of(unit.dataset)
        decision = may_hold(terms, purposes(self.purpose)[unit.split], region, today())
        if not decision.allowed:
            raise PolicyRefused(f"{unit.name}: {region.name} may no longer hold it: {' '.join(decision.reasons)}")
        return decision.reasons

    def _record(self, old: Manifest, new: Manifest) -> None:
        node = Node(f"shard/{new.sha[:12]}", {"region": new.region})
        source = Node(f"shard/{old.sha[:12]}", {})
        self.workspace.lineage().emit_once("move", f"{old.sha} to {new.sha}", [source], [node])


# What the manifests of one unit differ in from region to region and from run to run.
_OWN = ("region", "curation_id", "terms_sha", "purpose", "decision")


def _named(of: Manifest | UnitFacts) -> tuple[str, str, str]:
    return of.curation_id, of.terms_sha, of.purpose


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
