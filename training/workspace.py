"""One `--home` folder: the home store, the sites' stores, the keys, and the contracts in use. What the CLI opens first.

home/            plans, chains, snapshots, data set versions, terms in force, lineage
sites/<name>/    one store a site: shards, contributions, and the tables of data sets that must lie there
keys/            0600, outside every store
prefect/         the embedded Prefect server's database
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from data_contracts.catalog.lineage import Lineage
from data_contracts.catalog.registry import Registered, contract_file, kept_contract, read_registered, register
from data_contracts.catalog.store import Store
from data_contracts.catalog.tables import Tables
from data_contracts.catalog.terms_chain import TermsHead, read_terms
from data_contracts.contract import Contract
from data_contracts.errors import DataRefused, PolicyRefused
from data_contracts.policy import permitted_place
from data_contracts.signing import KeyRing, public_hex
from training.sites import Site, Sites, load_sites

SHIPPED_SITES = Path(__file__).parent.parent / "deployments" / "sites.toml"


def today() -> dt.date:
    """Return the day that policy is asked about: today, in UTC."""
    return dt.datetime.now(dt.UTC).date()


@dataclass(frozen=True)
class Workspace:
    """A `--home` folder and its sites, opened."""

    root: Path
    sites: Sites
    keys: KeyRing

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
        return self.sites.store(self.sites.home)

    @property
    def owner(self) -> Ed25519PrivateKey:
        """The key that signs plans, amendments and terms."""
        return self.keys.signer("owner")

    def site_key(self, name: str) -> Ed25519PrivateKey:
        """A site's key."""
        return self.keys.signer(f"site-{name}")

    def store(self, place: str) -> Store:
        """Open the store of `home` or of a site by name."""
        return self.home if place == "home" else self.sites.store(self.sites.site(place))

    def terms(self) -> TermsHead:
        """The terms in force."""
        return read_terms(self.home, public_hex(self.owner))

    def table_place(self, contract: Contract) -> Site:
        """Return where the data set's tables must lie: the first of home and the sites whose store the terms permit.

        Raises:
            PolicyRefused: no place may store and process it, so it cannot be ingested.
        """
        places = {s.place: s for s in self.sites.places}
        try:
            chosen = permitted_place(contract.terms, list(places), today(), actions=("store", "process"))
        except PolicyRefused as error:
            raise PolicyRefused(f"{contract.id}: {error}") from error
        return places[chosen]

    def tables(self, contract: Contract) -> Tables:
        """Return the data set's tables at their permitted place."""
        return Tables(self.store(self.table_place(contract).name), contract.slug)

    def lineage(self, place: str = "home") -> Lineage:
        """Return the lineage of one place: events that name source files lie beside the data set's tables."""
        return Lineage(self.store(place))

    def keep_contract(
        self, contract: Contract, source: str | None = None, published: dt.datetime | None = None
    ) -> Registered:
        """Keep the contract's text beside the data set's tables, under its hash, and register its source.

        Raises:
            DataRefused: the data set is ordered by publication and `published` is missing, or its other publications
                must lie at another place.
        """
        place = self.table_place(contract).name
        store = self.store(place)
        if contract.sequence == "publication":
            self._one_place(contract, place)
        known = register(store, contract, source or self._source_elsewhere(contract, store), published)
        for other in self.sites.places:
            # Terms that moved the tables elsewhere must not leave the old contract in use at the old place.
            elsewhere, key = self.store(other.name), f"contracts/{contract.slug}/current.json"
            if elsewhere.url != store.url and elsewhere.exists(key):
                elsewhere.delete(key)
        return known

    def _source_elsewhere(self, contract: Contract, store: Store) -> str | None:
        if read_registered(store, contract.slug) is not None:
            return None
        found = [read_registered(self.store(p.name), contract.slug) for p in self.sites.places]
        return next((one.current.source for one in found if one is not None and one.current.source), None)

    def _one_place(self, contract: Contract, place: str) -> None:
        for other in self.sites.places:
            known = read_registered(self.store(other.name), contract.slug)
            if known is not None and self.store(other.name).url != self.store(place).url:
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
        for place in self.sites.places:
            known = read_registered(self.store(place.name), slug)
            if known is not None:
                return self.store(place.name), known
        listed = ", ".join(self.datasets()) or "none yet"
        raise DataRefused(
            f"no data set {dataset!r} in {self.root}; ingested so far: {listed}. Run: causeway ingest CONTRACT SOURCE"
        )

    def datasets(self) -> list[str]:
        """Return the data sets ingested here, by name."""
        found = set()
        for place in self.sites.places:
            for key, _ in self.store(place.name).list("contracts"):
                if key.endswith("/current.json"):
                    found.add(key.split("/")[1].replace("--", "/"))
        return sorted(found)
