"""What sharding would do, before anything is written: where every unit may go, goes, and lies now."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from data_contracts.errors import CausewayError, PolicyRefused
from data_contracts.policy import Purpose
from training.shards.estimating import arrow_bytes, density
from training.shards.inventory import Held, SameRows, Shelf, named_by_runs, read_shelves, whole_units
from training.shards.placement import Placement, Standing, Unit, may_hold, place, purposes
from training.shards.removing import Removal, forbidden
from training.shards.rows import CuratedRows, terms_in_force
from training.tokenizer import Tokenizer
from training.workspace import Workspace, today


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
    return decide_all(workspace, sets, purpose, tokenizer, keep=False)


def decide_all(
    workspace: Workspace, sets: Sequence[CuratedRows], purpose: Purpose, tokenizer: Tokenizer | None, keep: bool
) -> Outlook:
    terms = terms_in_force(workspace.terms(), sets)
    shelves = read_shelves(workspace, terms)
    removals = tuple(forbidden(shelves, terms, today()))
    gone = {(r.region, r.key) for r in removals}
    lying = [o for shelf in shelves for o in shelf.lying if (o.region.name, o.key) not in gone]
    whole = whole_units(lying)
    same = SameRows(sets)
    by_split: dict[tuple[str, ...], list[Held]] = {}
    for found in whole:
        m = found.manifests[0]
        if tokenizer is not None and m.tokenizer == tokenizer.sha:
            by_split.setdefault((m.dataset, m.partition, m.split), []).append(found)
    units: list[Unit] = []
    held: dict[str, list[Held]] = {}
    near: dict[str, set[str]] = {}
    for one in sets:
        ratio = density(workspace, one, tokenizer, keep)
        for rows in one.units:
            tokens = max(1, round(rows.text_bytes * ratio))
            version = one.versions[rows.partition]
            unit = Unit(one.contract.id, rows.partition, version.ingest_id, rows.split, tokens, 0)
            there = by_split.get((one.contract.id, rows.partition, rows.split), [])
            near[unit.name] = {h.region.name for h in there}
            mine = [h for h in there if same.holds(h.manifests[0])]
            if mine:
                held[unit.name] = mine
            known = sum(m.arrow_bytes for m in mine[0].manifests) if mine else None
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
