"""The one checker of policy: it re-reads every store, table, tokenizer and contribution and counts violations.

It asks the terms in force, not what was decided when things were written: nothing in Causeway reports zero
violations without it. One object that should not be where it is counts once, however many clauses it breaks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from data_contracts import licences
from data_contracts.catalog.store import Store
from data_contracts.catalog.tables import Tables
from data_contracts.catalog.terms_chain import TermsHead
from data_contracts.errors import CausewayError
from data_contracts.policy import Purpose, decide, decide_derived
from data_contracts.terms import TrainingTerms
from training.rounds import contribution as contributions
from training.rounds.plan import read_plan
from training.shards.manifest import Manifest, read_manifest, read_version
from training.shards.placement import may_hold
from training.shards.sharding import purposes
from training.shards.writer import open_shard
from training.sites import Site
from training.workspace import Workspace, today

_TABLE = re.compile(r"(tables|docs|contracts|curations)/([^/]+)/")


@dataclass(frozen=True)
class Violation:
    """One object that the terms do not permit where or as it is."""

    object: str
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class Checked:
    """What the checker read, and what it found."""

    objects: int
    violations: tuple[Violation, ...]


def check_policy(workspace: Workspace) -> Checked:
    """Re-read everything in the workspace and return every violation of the terms in force."""
    head = workspace.terms()
    objects, found = 0, []
    for place in workspace.sites.places:
        store = workspace.store(place.name)
        for checks in (_tables(store, place, head), _shards(workspace, store, place, head)):
            for violation in checks:
                objects += 1
                if violation is not None:
                    found.append(violation)
    for checks in (_tokenizers(workspace, head), _contributions(workspace, head), _evaluations(workspace, head)):
        for violation in checks:
            objects += 1
            if violation is not None:
                found.append(violation)
    return Checked(objects, tuple(found))


def _tables(store: Store, place: Site, head: TermsHead) -> Iterator[Violation | None]:
    """Tables, quarantine, Data Docs: where they lie; and the licence of every accepted row."""
    folders = sorted({m.group(2) for key, _ in store.list("") if (m := _TABLE.match(key))})
    for slug in folders:
        dataset = slug.replace("--", "/")
        what = f"{store.url}/tables/{slug}"
        terms = head.terms.get(dataset)
        if terms is None:
            yield Violation(what, (f"{dataset}: no terms are in force for it.",))
            continue
        asked = [decide(terms, None, place.place, today(), action=a) for a in ("store", "process")]
        refused = tuple(dict.fromkeys(r for d in asked if not d.allowed for r in d.reasons))
        yield Violation(what, refused) if refused else None
        yield from _licences(Tables(store, slug), terms, what)


def _licences(tables: Tables, terms: TrainingTerms, what: str) -> Iterator[Violation | None]:
    column = terms.licence_column
    if column is None:
        return
    for version in tables.current().values():
        if not version.rows_accepted:
            continue
        rows = tables.read_accepted(version, ["record_id", column])
        known = {
            v: bool(v) and licences.permitted(v, terms.licences_allowed) for v in set(rows.column(column).to_pylist())
        }
        for record_id, licence in zip(
            rows.column("record_id").to_pylist(), rows.column(column).to_pylist(), strict=True
        ):
            allowed = known[licence]
            reason = f"licence.allowed: {licence!r} is not on the list."
            yield None if allowed else Violation(f"{what}/accepted record {record_id}", (reason,))


def _shards(workspace: Workspace, store: Store, place: Site, head: TermsHead) -> Iterator[Violation | None]:
    """Shards: where they lie, for what, and that no held-out or withdrawn record is in a training shard."""
    keys = [key for key, _ in store.list("shards")]
    named: set[str] = set()
    allowed_records: dict[tuple[str, str], set[str]] = {}
    for key in (k for k in keys if k.endswith(".json")):
        what = f"{store.url}/{key}"
        try:
            manifest = read_manifest(store, key)
        except CausewayError as error:
            yield Violation(what, (str(error),))
            continue
        named.add(manifest.arrow_key)
        terms = head.terms.get(manifest.dataset)
        if terms is None:
            yield Violation(what, (f"{manifest.dataset}: no terms are in force for it.",))
            continue
        purpose = purposes(Purpose.parse(manifest.purpose))[manifest.split]
        decision = may_hold(terms, purpose, place, today())
        if not decision.allowed:
            yield Violation(what, decision.reasons)
            continue
        yield _records(workspace, store, manifest, what, allowed_records)
    for key in (k for k in keys if k.endswith(".arrow") and k not in named):
        yield Violation(
            f"{store.url}/{key}", ("a shard without a manifest: nothing says what it is or why it may be here.",)
        )


def _records(
    workspace: Workspace,
    store: Store,
    manifest: Manifest,
    what: str,
    cache: dict[tuple[str, str], set[str]],
) -> Violation | None:
    """Compare a shard's records with the accepted rows of its split: by name, not by trust in its manifest."""
    key = (manifest.ingest_id, manifest.split)
    if (manifest.dataset, "") not in cache:
        _remember(workspace, manifest.dataset, cache)
    accepted = cache.get(key)
    if accepted is None:
        return Violation(what, (f"its partition version {manifest.ingest_id[:12]} is not in the tables.",))
    try:
        strangers = set(open_shard(store.path(manifest.arrow_key)).record_ids) - accepted
    except CausewayError as error:
        return Violation(what, (str(error),))
    if strangers:
        first = sorted(strangers)[0]
        return Violation(
            what, (f"{len(strangers)} records are not accepted {manifest.split} rows, the first {first}.",)
        )
    return None


def _remember(workspace: Workspace, dataset: str, cache: dict[tuple[str, str], set[str]]) -> None:
    """Read the accepted record ids of every version of a data set, by (ingest_id, split)."""
    cache[dataset, ""] = set()
    tables = workspace.tables(workspace.contract(dataset))
    for version in tables.versions():
        if version.verdict == "refused" or (version.ingest_id, "train") in cache:
            continue
        rows = tables.read_accepted(version, ["record_id", "split"])
        for split in ("train", "held-out"):
            cache[version.ingest_id, split] = set()
        for record, split in zip(rows.column("record_id").to_pylist(), rows.column("split").to_pylist(), strict=True):
            cache[version.ingest_id, split].add(record)


def _tokenizers(workspace: Workspace, head: TermsHead) -> Iterator[Violation | None]:
    home = workspace.home
    keys = [k for k, _ in home.list("tokenizers") if k.count("/") == 1]
    papers = {k.removesuffix(".lineage.json") for k in keys if k.endswith(".lineage.json")}
    for stem in sorted(k.removesuffix(".json") for k in keys if not k.endswith(".lineage.json")):
        what = f"{home.url}/{stem}.json"
        if stem not in papers:
            yield Violation(what, ("a tokenizer without papers: nothing says what it was trained on.",))
            continue
        reasons: list[str] = []
        for named in home.get_json(f"{stem}.lineage.json")["datasets"]:
            reasons += _derived(workspace, head, named["dataset"])
        yield Violation(what, tuple(reasons)) if reasons else None


def _derived(workspace: Workspace, head: TermsHead, dataset: str) -> list[str]:
    terms = head.terms.get(dataset)
    if terms is None:
        return [f"{dataset}: no terms are in force for it."]
    places = [s.place for s in workspace.sites.sites]
    decision = decide_derived(terms, workspace.sites.home.place, places, today())
    return [] if decision.allowed else [f"{dataset}: {r}" for r in decision.reasons]


def _contributions(workspace: Workspace, head: TermsHead) -> Iterator[Violation | None]:
    """Every contribution in every site's store: may its site train on what it trained on, and may the update leave?"""
    home = workspace.home
    runs = sorted({k.split("/")[1] for k, _ in home.list("runs") if k.endswith("/plan.json")})
    for run in runs:
        plan = read_plan(home, run)
        purpose = Purpose.parse(plan.purpose)
        versions = {d.dataset: read_version(home, d.dataset, d.version) for d in plan.datasets}
        for site in workspace.sites.sites:
            store = workspace.store(site.name)
            for key, _ in store.list(f"runs/{run}/contributions"):
                if not key.endswith(".json"):
                    continue
                header = contributions.parse(store.get_json(key), f"{store.url}/{key}")
                reasons: list[str] = []
                for dataset in header.tokens_by_dataset:
                    terms = head.terms.get(dataset)
                    if terms is None or dataset not in versions or not versions[dataset].of(site.region, "train"):
                        reasons.append(f"{dataset}: not a data set that {site.name} holds under terms in force.")
                        continue
                    decision = may_hold(terms, purpose, site, today())
                    reasons += [] if decision.allowed else [f"{dataset}: {r}" for r in decision.reasons]
                    reasons += _derived(workspace, head, dataset)
                yield Violation(f"{store.url}/{key}", tuple(reasons)) if reasons else None


def _evaluations(workspace: Workspace, head: TermsHead) -> Iterator[Violation | None]:
    """Per-document results lie only where their documents may lie."""
    for site in workspace.sites.places:
        store = workspace.store(site.name)
        for key, _ in store.list("evaluations"):
            dataset = key.split("/")[-1].removesuffix(".parquet").replace("--", "/")
            terms = head.terms.get(dataset)
            what = f"{store.url}/{key}"
            if terms is None:
                yield Violation(what, (f"{dataset}: no terms are in force for it.",))
                continue
            decision = decide(terms, None, site.place, today(), action="store")
            yield None if decision.allowed else Violation(what, decision.reasons)
