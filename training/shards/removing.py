"""Shards leave a region that may no longer hold them, at once and on record."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from data_contracts.catalog.store import Store
from data_contracts.errors import ObjectExists
from data_contracts.policy import Purpose, decide
from data_contracts.terms import TrainingTerms
from training.shards.inventory import Lying, Shelf, read_shelves
from training.shards.placement import may_hold, purposes
from training.sites import Region
from training.workspace import Workspace, today

FORMAT = 1


@dataclass(frozen=True)
class Removal:
    """One object that goes: a shard with its Arrow file, or an Arrow file that no manifest names; `key` in `region`."""

    region: str
    key: str
    dataset: str
    partition: str
    split: str
    bytes: int
    reasons: tuple[str, ...]
    store: Store = field(repr=False, compare=False)
    arrow_key: str = ""

    def document(self) -> dict[str, Any]:
        """Return what is put on record."""
        made = {name: getattr(self, name) for name in ("region", "key", "dataset", "partition", "split", "bytes")}
        return {**made, "reasons": list(self.reasons)}


def forbidden(shelves: Sequence[Shelf], terms: Mapping[str, TrainingTerms], on_date: dt.date) -> list[Removal]:
    """Return what of the data sets of `terms` lies where it may not: be stored, or processed for its purpose."""
    found = []
    for shelf in shelves:
        named: set[str] = set()
        for one in shelf.lying:
            m = one.manifest
            named.add(one.arrow_key)
            if m.dataset in terms:
                decision = may_hold(
                    terms[m.dataset], purposes(Purpose.parse(m.purpose))[m.split], shelf.region, on_date
                )
                if not decision.allowed:
                    found.append(_removal(shelf, one, decision.reasons))
        for dataset, one_terms in sorted(terms.items()):
            decision = decide(one_terms, None, shelf.region.place, on_date, action="store")
            if not decision.allowed:
                found += _unnamed(shelf, dataset, named, decision.reasons)
    return found


def orphans(shelves: Sequence[Shelf], datasets: Collection[str]) -> list[Removal]:
    """Return the Arrow files of data sets that no manifest names: what is left of a writer that died."""
    found = []
    for shelf in shelves:
        named = {one.arrow_key for one in shelf.lying}
        for dataset in sorted(datasets):
            found += _unnamed(shelf, dataset, named, ("no manifest names it.",))
    return found


def remove(removals: Sequence[Removal]) -> int:
    """Delete each object; return how many there were. A shard's manifest goes last, so that a half is found again."""
    for one in removals:
        if one.arrow_key:
            one.store.delete(one.arrow_key)
        one.store.delete(one.key)
    return len(removals)


def remove_forbidden(workspace: Workspace, datasets: Collection[str]) -> tuple[Removal, ...]:
    """Remove the shards of these data sets from where the terms in force no longer let them lie, and record it.

    Raises:
        PolicyRefused: no terms are in force for one of them.
        StoreError: a store failed; what was to go is on record, and the next call removes what is left.
    """
    head = workspace.terms()
    terms = {dataset: head.of(dataset) for dataset in datasets}
    found = forbidden(read_shelves(workspace, datasets), terms, today())
    return record_and_remove(workspace, found, head.sha)


def record_and_remove(workspace: Workspace, removals: Sequence[Removal], terms_head: str) -> tuple[Removal, ...]:
    """Put on record what goes, why, and under which terms; then remove it."""
    if removals:
        document = {
            "format": FORMAT,
            "at": f"{dt.datetime.now(dt.UTC):%Y-%m-%dT%H:%M:%SZ}",
            "terms_head": terms_head,
            "objects": [one.document() for one in removals],
        }
        number = 1 + sum(1 for _ in workspace.home.list("removals"))
        while True:
            try:
                workspace.home.ensure_json(f"removals/{number:06d}.json", document)
                break
            except ObjectExists:
                number += 1
        remove(removals)
    return tuple(removals)


def _removal(shelf: Shelf, one: Lying, reasons: tuple[str, ...]) -> Removal:
    m = one.manifest
    size = shelf.sizes.get(one.arrow_key, 0)
    region: Region = shelf.region
    return Removal(region.name, one.key, m.dataset, m.partition, m.split, size, reasons, shelf.store, one.arrow_key)


def _unnamed(shelf: Shelf, dataset: str, named: set[str], reasons: tuple[str, ...]) -> list[Removal]:
    folder = f"shards/{dataset.replace('/', '--')}/"
    keys = [k for k in shelf.sizes if k.startswith(folder) and k.endswith(".arrow") and k not in named]
    return [Removal(shelf.region.name, key, dataset, "", "", shelf.sizes[key], reasons, shelf.store) for key in keys]
