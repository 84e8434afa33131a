"""Which shard in which region: where policy allows, balanced to the sites' speed, moving the least."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from data_contracts.policy import Decision, Purpose, decide
from data_contracts.terms import TrainingTerms
from training.sites import Site


@dataclass(frozen=True)
class Unit:
    """What is placed as a whole: one split of one partition version. `text_bytes` stands for its cost."""

    dataset: str
    partition: str
    ingest_id: str
    split: str
    text_bytes: int

    @property
    def name(self) -> str:
        """Data set, partition, version and split: what one unit is known by."""
        return f"{self.dataset}/{self.partition}@{self.ingest_id[:12]}/{self.split}"


@dataclass(frozen=True)
class Assignment:
    """A unit and the site it goes to, or None with the reasons why no site may hold it."""

    unit: Unit
    site: Site | None
    reasons: tuple[str, ...]


def may_hold(terms: TrainingTerms, purpose: Purpose, site: Site, on_date: dt.date) -> Decision:
    """Ask the policy whether a site may store the data and process it for this purpose."""
    store = decide(terms, purpose, site.place, on_date, action="store")
    process = decide(terms, purpose, site.place, on_date, action="process")
    asked = (store, process)
    allowed = store.allowed and process.allowed
    # A refusal lists what refuses, not the clauses that would have permitted the other half.
    reasons = [r for d in asked if allowed or not d.allowed for r in d.reasons]
    return Decision(allowed, tuple(dict.fromkeys(reasons)))


def place(
    units: Sequence[Unit],
    sites: Sequence[Site],
    terms: Mapping[str, TrainingTerms],
    purposes: Mapping[str, Purpose],
    on_date: dt.date,
    existing: Mapping[str, str] | None = None,
) -> list[Assignment]:
    """Assign every unit to one site; `terms` by data set, `purposes` by split, `existing` maps unit names to sites.

    A unit that already lies at a site which may still hold it stays. The others go, largest first, to the permitted
    site that would be least busy: bytes over speed. The result does not depend on the order of the arguments.
    """
    existing = existing or {}
    units, sites = sorted(units, key=lambda u: u.name), sorted(sites, key=lambda s: s.name)
    asked: dict[tuple[str, str, str], Decision] = {}

    def answer(unit: Unit, site: Site) -> Decision:
        key = (unit.dataset, unit.split, site.name)
        if key not in asked:
            asked[key] = may_hold(terms[unit.dataset], purposes[unit.split], site, on_date)
        return asked[key]

    load = {(s.name, split): 0.0 for s in sites for split in purposes}
    chosen: dict[str, Assignment] = {}
    by_name = {s.name: s for s in sites}
    for unit in units:
        site = by_name.get(existing.get(unit.name, ""))
        if site and answer(unit, site).allowed:
            chosen[unit.name] = Assignment(unit, site, answer(unit, site).reasons)
            load[site.name, unit.split] += unit.text_bytes / site.tokens_per_s
    for unit in sorted(units, key=lambda u: (-u.text_bytes, u.name)):
        if unit.name in chosen:
            continue
        allowed = [s for s in sites if answer(unit, s).allowed]
        if not allowed:
            reasons = tuple(f"{s.name}: {r}" for s in sites for r in answer(unit, s).reasons)
            chosen[unit.name] = Assignment(unit, None, reasons)
            continue
        best = min(allowed, key=lambda s: (load[s.name, unit.split] + unit.text_bytes / s.tokens_per_s, s.name))
        load[best.name, unit.split] += unit.text_bytes / best.tokens_per_s
        chosen[unit.name] = Assignment(unit, best, answer(unit, best).reasons)
    return [chosen[unit.name] for unit in units]
