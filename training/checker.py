"""The one checker of policy: it re-reads every store, table, tokenizer and contribution and counts violations.

It asks the terms in force, not what was decided when things were written: nothing in Causeway reports zero
violations without it. One object that should not be where it is counts once, however many clauses it breaks, and so
does one that cannot be read. An object that no check here knows is a violation too: what cannot be accounted for may
be anything.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from data_contracts import licences
from data_contracts.catalog.store import Store
from data_contracts.catalog.tables import Tables
from data_contracts.catalog.terms_chain import TermsHead
from data_contracts.errors import CausewayError
from data_contracts.policy import Place, Purpose, decide, decide_derived, retained
from data_contracts.terms import TrainingTerms
from training.layout import TABLE_FOLDERS, Layout, evaluation_slug
from training.rounds import contribution as contributions
from training.rounds.plan import Plan, read_plan
from training.rounds.run import every_version
from training.shards.audit import Lying, read_content
from training.shards.curated_ids import CuratedIds
from training.shards.manifest import DatasetVersion, read_manifest, read_version
from training.shards.placement import may_hold
from training.shards.rows import ingested_on
from training.shards.verifying import judge, units
from training.sites import Site
from training.workspace import Workspace, today

UNKNOWN = "nothing says what it is or why it may be here."
# What reading a damaged object may raise: nothing that lies in a store may end the check.
_DAMAGE = (CausewayError, KeyError, TypeError, ValueError, AttributeError, IndexError, OSError)


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


@dataclass(frozen=True)
class _Shelf:
    """The store of one place, listed once; a check that answers for an object puts its key into `claimed`."""

    site: Site
    store: Store
    keys: tuple[str, ...]
    claimed: set[str] = field(default_factory=set)

    def under(self, folder: str) -> list[str]:
        return [key for key in self.keys if key.startswith(f"{folder}/")]

    def url(self, key: str) -> str:
        # Not `uri`, which would refuse a key that no writer of ours makes: it may be there.
        return f"{self.store.delta()[0].rstrip('/')}/{key}"


@dataclass(frozen=True)
class _Run:
    plan: Plan
    purpose: Purpose
    versions: tuple[DatasetVersion, ...]


_Found = Iterator[Violation | None]


def check_policy(workspace: Workspace) -> Checked:
    """Re-read everything in the workspace and return every violation of the terms in force.

    Raises:
        CausewayError: the terms in force cannot be read, so that nothing can be judged, or a store cannot be listed.
    """
    head = workspace.terms()
    shelves = [
        _Shelf(site, store, tuple(key for key, _ in store.list("")))
        for site in workspace.sites.places
        if site == _sharing(workspace, site)[0]
        for store in (workspace.store(site.name),)
    ]
    home, *sites = shelves
    apart = [_Shelf(*one, tuple(key for key, _ in one[1].list(""))) for one in _only_tables(workspace, shelves)]
    named = sorted({key.split("/")[1] for key in home.under("runs") if key.endswith("/plan.json")})
    objects, found = 0, dict[str, Violation]()
    for checked in _checks(workspace, head, home, sites, apart, named):
        objects += 1
        if checked is not None:
            found.setdefault(checked.object, checked)
    return Checked(objects, tuple(found.values()))


def _sharing(workspace: Workspace, site: Site) -> tuple[Site, ...]:
    """Return the sites whose store this is: those of its region, or home alone."""
    return (site,) if site.name == "home" else workspace.sites.region(site.region).sites


def _only_tables(workspace: Workspace, shelves: list[_Shelf]) -> list[tuple[Site, Store]]:
    """Return the stores that sites name for their tables alone."""
    known = {shelf.store.url for shelf in shelves}
    return [(site, store) for site, store in workspace.table_stores() if store.url not in known]


def _checks(
    workspace: Workspace, head: TermsHead, home: _Shelf, sites: list[_Shelf], apart: list[_Shelf], named: list[str]
) -> _Found:
    ids = CuratedIds(workspace)
    for shelf in (home, *sites, *apart):
        yield from _tables(shelf, head)
        yield from _shards(shelf, head, ids)
    yield from _tokenizers(workspace, home, head)
    for run in named:
        try:
            known = _run(workspace, run)
        except _DAMAGE as error:
            yield Violation(home.url(f"runs/{run}/plan.json"), (_words(error),))
            known = None
        for shelf in sites:
            yield from _contributions(workspace, shelf, head, run, known)
    for shelf in sites:
        yield from _evaluations(shelf, head)
    for shelf in (home, *sites):
        layout = Layout(shelf.site.name, named, [s.name for s in _sharing(workspace, shelf.site)])
        strays = (key for key in shelf.keys if key not in shelf.claimed and not layout.knows(key))
        yield from (Violation(shelf.url(key), (UNKNOWN,)) for key in strays)
    for shelf in apart:
        layout = Layout(shelf.site.name, ())
        strays = (key for key in shelf.keys if key not in shelf.claimed and not layout.knows(key))
        yield from (Violation(shelf.url(key), (UNKNOWN,)) for key in strays)


def _judge(what: str, reasons: Iterator[str]) -> Violation | None:
    """Gather the reasons against one object; that it cannot be read is one of them."""
    found: list[str] = []
    try:
        for reason in reasons:
            found.append(reason)
    except _DAMAGE as error:
        found.append(_words(error))
    return Violation(what, tuple(dict.fromkeys(found))) if found else None


def _words(error: Exception) -> str:
    # Another library's words may quote a row.
    return str(error) if isinstance(error, CausewayError) else f"damaged: cannot be read ({type(error).__name__})."


def _tables(shelf: _Shelf, head: TermsHead) -> _Found:
    """Tables, quarantine, Data Docs, contracts: where they lie; and the licence of every accepted row."""
    folders: dict[str, list[str]] = {}
    for kind in TABLE_FOLDERS:
        for slug in sorted({key.split("/")[1] for key in shelf.under(kind) if key.count("/") > 1}):
            folders.setdefault(slug, []).append(f"{kind}/{slug}")
    for slug, held in sorted(folders.items()):
        terms = head.terms.get(slug.replace("--", "/"))
        what = shelf.url(held[0])
        misplaced = _judge(what, _may_lie(terms, slug.replace("--", "/"), shelf.site))
        yield misplaced
        if misplaced is not None:
            shelf.claimed.update(key for folder in held for key in shelf.under(folder))
        elif terms is not None and f"tables/{slug}" in held:
            try:
                yield from _retention(Tables(shelf.store, slug), terms, what)
                yield from _licences(Tables(shelf.store, slug), terms, what)
            except _DAMAGE as error:
                yield Violation(what, (_words(error),))


def _may_lie(terms: TrainingTerms | None, dataset: str, site: Site) -> Iterator[str]:
    if terms is None:
        yield f"{dataset}: no terms are in force for it."
        return
    asked = [decide(terms, None, site.place, today(), action=action) for action in ("store", "process")]
    yield from (reason for decision in asked if not decision.allowed for reason in decision.reasons)


def _retention(tables: Tables, terms: TrainingTerms, what: str) -> _Found:
    if terms.retention is None:
        return
    for version in tables.current().values():
        if version.rows_accepted:
            decision = retained(terms, ingested_on(version), today())
            partition = f"{what}/accepted partition {version.partition}"
            yield None if decision.allowed else Violation(partition, decision.reasons)


def _licences(tables: Tables, terms: TrainingTerms, what: str) -> _Found:
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


def _shards(shelf: _Shelf, head: TermsHead, ids: CuratedIds) -> _Found:
    """Shards: where they lie, for what, and that no held-out, removed or withdrawn record is in a training shard."""
    found: list[Lying] = []
    for key in [k for k in shelf.under("shards") if k.endswith(".json")]:
        shelf.claimed.add(key)
        try:
            found.append(Lying(shelf.site.region, shelf.store, key, read_manifest(shelf.store, key)))
        except _DAMAGE as error:
            yield Violation(shelf.url(key), (_words(error),))
    shelf.claimed.update(one.arrow_key for one in found)
    for unit in units(sorted(found, key=lambda one: (one.unit, one.manifest.part, one.key))):
        contents = [read_content(one, ids) for one in unit]
        for one, problems in zip(unit, judge(unit, contents, ids, head.terms, shelf.site), strict=True):
            yield Violation(shelf.url(one.key), problems) if problems else None


def _tokenizers(workspace: Workspace, home: _Shelf, head: TermsHead) -> _Found:
    keys = [key for key in home.under("tokenizers") if key.count("/") == 1 and key.endswith(".json")]
    papers = {key for key in keys if key.endswith(".lineage.json")}
    for key in (k for k in keys if k not in papers):
        yield _judge(home.url(key), _tokenizer(workspace, key.removesuffix(".json"), papers, head))


def _tokenizer(workspace: Workspace, stem: str, papers: set[str], head: TermsHead) -> Iterator[str]:
    if f"{stem}.lineage.json" not in papers:
        yield "a tokenizer without papers: nothing says what it was trained on."
        return
    places = [s.place for s in workspace.sites.sites]
    for named in workspace.home.get_json(f"{stem}.lineage.json")["datasets"]:
        yield from _derived(workspace, head, named["dataset"], places)


def _derived(workspace: Workspace, head: TermsHead, dataset: str, places: list[Place]) -> Iterator[str]:
    terms = head.terms.get(dataset)
    if terms is None:
        yield f"{dataset}: no terms are in force for it."
        return
    decision = decide_derived(terms, workspace.sites.home.place, places, today())
    yield from () if decision.allowed else (f"{dataset}: {reason}" for reason in decision.reasons)


def _run(workspace: Workspace, run: str) -> _Run:
    plan = read_plan(workspace.home, run)
    named = every_version(workspace.home, plan)
    versions = tuple(read_version(workspace.home, dataset, sha) for sha, dataset in named.items())
    return _Run(plan, Purpose.parse(plan.purpose), versions)


def _contributions(workspace: Workspace, shelf: _Shelf, head: TermsHead, run: str, known: _Run | None) -> _Found:
    """Every contribution in a site's store: may the site train on what it trained on, and may the update leave?"""
    for key in [k for k in shelf.under(f"runs/{run}/contributions") if k.endswith(".json")]:
        shelf.claimed.add(key)
        if known is not None:
            yield _judge(shelf.url(key), _contribution(workspace, shelf, key, head, known))


def _contribution(workspace: Workspace, shelf: _Shelf, key: str, head: TermsHead, run: _Run) -> Iterator[str]:
    site = shelf.site
    header = contributions.parse(shelf.store.get_json(key), shelf.url(key))
    shelf.claimed.add(f"{key.rpartition('/')[0]}/{header.site}-{header.payload}.safetensors")
    # Sites of a region share its store.
    if header.site not in {s.name for s in _sharing(workspace, site)}:
        yield f"it is of site {header.site}, and lies at {site.name}."
    places = [Place(s.name, tuple(s.jurisdictions)) for s in run.plan.sites]
    held = {v.dataset for v in run.versions if v.of(site.region, "train")}
    for dataset in header.tokens_by_dataset:
        terms = head.terms.get(dataset)
        if terms is None or dataset not in held:
            yield f"{dataset}: not a data set that {site.name} holds under terms in force."
            continue
        decision = may_hold(terms, run.purpose, site, today())
        yield from () if decision.allowed else (f"{dataset}: {reason}" for reason in decision.reasons)
        yield from _derived(workspace, head, dataset, places)


def _evaluations(shelf: _Shelf, head: TermsHead) -> _Found:
    """Per-document results lie only where their documents may lie."""
    for key in shelf.under("evaluations"):
        slug = evaluation_slug(key)
        if slug is None:
            continue
        shelf.claimed.add(key)
        dataset = slug.replace("--", "/")
        terms = head.terms.get(dataset)
        if terms is None:
            yield Violation(shelf.url(key), (f"{dataset}: no terms are in force for it.",))
            continue
        decision = decide(terms, None, shelf.site.place, today(), action="store")
        yield None if decision.allowed else Violation(shelf.url(key), decision.reasons)
