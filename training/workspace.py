"""One `--home` folder: the home store, the sites' stores, the keys, and the contracts in use. What the CLI opens first.

home/            plans, chains, snapshots, data set versions, terms in force, lineage
sites/<name>/    one store a site: shards, contributions, and the tables of data sets that must lie there
keys/            0600, outside every store
prefect/         the embedded Prefect server's database
cache/<region>/  shards of a region whose store is no local directory; may be deleted

The stores may be object stores elsewhere (sites.toml); the folder is always a local one.
"""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from urllib.parse import quote

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from data_contracts.catalog.lineage import Lineage
from data_contracts.catalog.registry import Registered, contract_file, kept_contract, read_registered, register
from data_contracts.catalog.store import Store
from data_contracts.catalog.tables import Tables
from data_contracts.catalog.terms_chain import TermsHead, read_terms
from data_contracts.contract import Contract
from data_contracts.errors import CausewayError, DataRefused, PolicyRefused
from data_contracts.policy import Action, decide, permitted_place
from data_contracts.signing import KeyRing, public_hex
from training.shards.cache import ShardCache
from training.sites import Site, Sites, load_sites

_TABLES_NEED: tuple[Action, ...] = ("store", "process")
SHIPPED_SITES = Path(__file__).parent.parent / "deployments" / "sites.toml"


def today() -> dt.date:
    """Return the day that policy is asked about: today, in UTC."""
    return dt.datetime.now(dt.UTC).date()


def cache_bytes() -> int | None:
    """Return what each cache folder may hold, as CAUSEWAY_CACHE_GB says in 10^9 bytes; None without it.

    Raises:
        CausewayError: it is no positive number.
    """
    text = os.environ.get("CAUSEWAY_CACHE_GB", "")
    try:
        found = float(text or 1)
    except ValueError:
        found = -1.0
    if not 0 < found < 1e9:
        raise CausewayError(f"CAUSEWAY_CACHE_GB: {text[:40]!r} is not a number of 10^9 bytes, such as 200 or 0.5")
    return round(found * 1e9) if text else None


@dataclass(frozen=True)
class Workspace:
    """A `--home` folder and its sites, opened."""

    root: Path
    sites: Sites
    keys: KeyRing
    _stores: dict[str, Store] = field(default_factory=dict, repr=False, compare=False)
    _caches: dict[str, ShardCache] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def open(cls, root: Path, sites_file: Path | None = None) -> Workspace:
        """Open a folder; without `sites_file`, `sites.toml` in it is used, else the one that is shipped.

        Raises:
            CausewayError: sites.toml cannot be read.
        """
        root = Path(root).absolute()
        own = root / "sites.toml"
        chosen = sites_file or (own if own.exists() else SHIPPED_SITES)
        return cls(root, load_sites(chosen, root), KeyRing(root / "keys"))

    @cached_property
    def home(self) -> Store:
        """The home store."""
        return self.store("home")

    @property
    def owner(self) -> Ed25519PrivateKey:
        """The key that signs plans, amendments and terms."""
        return self.keys.signer("owner")

    def site_key(self, name: str) -> Ed25519PrivateKey:
        """A site's key."""
        return self.keys.signer(f"site-{name}")

    def store(self, place: str) -> Store:
        """Open the store of `home` or of a site by name."""
        return self._opened(self._site(place).store_url)

    def tables_store(self, place: str) -> Store:
        """Open the store for tables of `home` or of a site: mostly its only one."""
        site = self._site(place)
        return self._opened(site.tables_url or site.store_url)

    def table_stores(self) -> Iterator[tuple[Site, Store]]:
        """Yield the places that may hold tables, home first, each with its store for them; a shared store once.

        Where a store does not decide creates, and no other is named for tables, there is none.
        """
        seen = set()
        for site in self.sites.places:
            url = site.tables_url or site.store_url
            if site.holds_tables and url not in seen:
                seen.add(url)
                yield site, self._opened(url)

    def shards(self, region: str) -> ShardCache:
        """Return a region's shards as local files; those of a remote store come into `cache/<region>`.

        CAUSEWAY_CACHE_GB bounds that folder, in 10^9 bytes; without it nothing does.
        """
        if region not in self._caches:
            store = self._opened(self.sites.region(region).store_url)
            self._caches[region] = ShardCache(store, self.cache_folder(region), cache_bytes())
        return self._caches[region]

    def cache_folder(self, region: str) -> Path | None:
        """Return the folder for shards of a region whose store is remote, or None where it is a local directory."""
        remote = "://" in self.sites.region(region).store_url
        return self.root / "cache" / quote(region, safe="").replace(".", "%2E") if remote else None

    def _site(self, place: str) -> Site:
        return self.sites.home if place == "home" else self.sites.site(place)

    def _opened(self, url: str) -> Store:
        # One client a store: its connections stay open from one request to the next.
        if url not in self._stores:
            self._stores[url] = Store.open(url if "://" in url else self.sites.root / url)
        return self._stores[url]

    def terms(self) -> TermsHead:
        """The terms in force."""
        return read_terms(self.home, public_hex(self.owner))

    def table_place(self, contract: Contract) -> Site:
        """Return where the data set's tables must lie: the first of home and the sites whose store the terms permit.

        Raises:
            PolicyRefused: no place whose store decides creates may store and process it, so it cannot be ingested.
        """
        places = {s.place: s for s in self.sites.places if s.holds_tables}
        try:
            chosen = permitted_place(contract.terms, list(places), today(), actions=_TABLES_NEED)
        except PolicyRefused as error:
            raise PolicyRefused(f"{contract.id}: {error}{self._undecided(contract)}") from error
        return places[chosen]

    def _undecided(self, contract: Contract) -> str:
        """Name the sites that policy would permit, and whose stores cannot hold tables."""
        found = []
        for site in self.sites.places:
            asked = [decide(contract.terms, None, site.place, today(), action=action) for action in _TABLES_NEED]
            if not site.holds_tables and all(decision.allowed for decision in asked):
                found.append(site.name)
        return (
            f"\n  its terms permit {', '.join(found)}, whose store does not decide creates (sites.toml): two writers of"
            " a table may both be told that they were first, and rows would be lost; give the site a store for its"
            " tables: tables = URL"
            if found
            else ""
        )

    def tables(self, contract: Contract) -> Tables:
        """Return the data set's tables at their permitted place."""
        return Tables(self.tables_store(self.table_place(contract).name), contract.slug)

    def lineage(self, place: str = "home") -> Lineage:
        """Return the lineage of one place: events that name source files lie beside the data set's tables."""
        return Lineage(self.tables_store(place))

    def keep_contract(
        self, contract: Contract, source: str | None = None, published: dt.datetime | None = None
    ) -> Registered:
        """Keep the contract's text beside the data set's tables, under its hash, and register its source.

        Raises:
            DataRefused: the data set is ordered by publication and `published` is missing, or its other publications
                must lie at another place.
        """
        place = self.table_place(contract).name
        store = self.tables_store(place)
        if contract.sequence == "publication":
            self._one_place(contract, place, store)
        known = register(store, contract, source or self._source_elsewhere(contract, store), published)
        for _, elsewhere in self.table_stores():
            # Terms that moved the tables elsewhere must not leave the old contract in use at the old place.
            key = f"contracts/{contract.slug}/current.json"
            if elsewhere.url != store.url and elsewhere.exists(key):
                elsewhere.delete(key)
        return known

    def _source_elsewhere(self, contract: Contract, store: Store) -> str | None:
        if read_registered(store, contract.slug) is not None:
            return None
        found = [read_registered(other, contract.slug) for _, other in self.table_stores()]
        return next((one.current.source for one in found if one is not None and one.current.source), None)

    def _one_place(self, contract: Contract, place: str, store: Store) -> None:
        for other, elsewhere in self.table_stores():
            known = read_registered(elsewhere, contract.slug)
            if known is not None and elsewhere.url != store.url:
                raise DataRefused(
                    f"{contract.id}: by version {contract.version} its tables lie at {place}, by version"
                    f" {known.current.version} at {other.name}; publications of one data set need one permitted place"
                )

    def contract(self, dataset: str) -> Contract:
        """Return the contract in force of a data set.

        Raises:
            DataRefused: the data set was never registered here; names those that were.
        """
        store, known = self.registered(dataset)
        return kept_contract(store, known.slug, known.current.sha)

    def source(self, dataset: str) -> tuple[str, str]:
        """Return the paths of a data set's contract and source in force.

        Raises:
            DataRefused: the data set was never registered here.
        """
        store, known = self.registered(dataset)
        return str(contract_file(store, known.slug, known.current.sha)), known.current.source

    def registered(self, dataset: str) -> tuple[Store, Registered]:
        """Return the store of a data set's tables, and its contracts and sources.

        Raises:
            DataRefused: the data set was never registered here; names those that were.
        """
        slug = dataset.replace("/", "--")
        for _, store in self.table_stores():
            known = read_registered(store, slug)
            if known is not None:
                return store, known
        listed = ", ".join(self.datasets()) or "none yet"
        raise DataRefused(
            f"no data set {dataset!r} in {self.root}; ingested so far: {listed}. Run: causeway ingest CONTRACT SOURCE"
        )

    def datasets(self) -> list[str]:
        """Return the data sets ingested here, by name."""
        found = set()
        for _, store in self.table_stores():
            for key, _ in store.list("contracts"):
                if key.endswith("/current.json"):
                    found.add(key.split("/")[1].replace("--", "/"))
        return sorted(found)
