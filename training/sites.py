"""Sites, the regions they lie in, and the links between them: where data may rest and models train. Reads `sites.toml`.

Sites of one region share one store: a shard that lies there is at hand for each of them.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data_contracts.catalog.store import Store
from data_contracts.catalog.store_opening import check_url
from data_contracts.errors import CausewayError, StoreError
from data_contracts.policy import Place
from training.inside import Dtype, Form, Inside

PoolType = Literal["process", "docker", "kubernetes"]
_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")


@dataclass(frozen=True)
class Site:
    """One data center.

    `store_url` is a URL, or a path relative to the `--home` folder; `tokens_per_s` is its relative speed, used to
    balance placement; `work_pool` is the Prefect pool whose workers run there, `pool_type` how they run (None: as the
    command says that makes the pools); `capacity_bytes` is what its store may hold of shards (None: no bound).
    `decides_creates` says that of several writers of a new key the store lets one win: no table lies where it is false,
    unless `tables_url` names another store, under the same jurisdictions, for them. `inside` is how it trains.
    """

    name: str
    region: str
    jurisdictions: tuple[str, ...]
    store_url: str
    work_pool: str
    tokens_per_s: float = 1.0
    accelerator: str = "cpu"
    pool_type: PoolType | None = None
    capacity_bytes: int | None = None
    decides_creates: bool = True
    tables_url: str | None = None
    inside: Inside = field(default_factory=Inside)

    @property
    def place(self) -> Place:
        """The place that policy is asked about."""
        return Place(self.name, self.jurisdictions)

    @property
    def holds_tables(self) -> bool:
        """Whether tables may lie here: in a store that decides creates."""
        return self.decides_creates or self.tables_url is not None


@dataclass(frozen=True)
class Region:
    """The sites that share one store under the same jurisdictions, sorted by name; shards lie in a region.

    `tokens_per_s` is the sum over its sites.
    """

    name: str
    sites: tuple[Site, ...]
    jurisdictions: tuple[str, ...]
    store_url: str
    capacity_bytes: int | None
    tokens_per_s: float

    @property
    def place(self) -> Place:
        """The place that policy is asked about."""
        return Place(self.name, self.jurisdictions)


@dataclass(frozen=True)
class Link:
    """The way from one place to another: its speed, its round-trip time, and what a GB (10^9 bytes) costs."""

    source: str
    target: str
    bytes_per_s: float
    rtt_s: float
    cost_per_gb: float


@dataclass(frozen=True)
class Sites:
    """The home store and the sites, sorted by name."""

    home: Site
    sites: tuple[Site, ...]
    root: Path
    links: tuple[Link, ...] = ()

    def site(self, name: str) -> Site:
        """Return a site by name.

        Raises:
            CausewayError: sites.toml has no such site; lists those it has.
        """
        for site in self.sites:
            if site.name == name:
                return site
        raise CausewayError(f"no site {name!r} in sites.toml; it has: {', '.join(s.name for s in self.sites)}")

    def store(self, site: Site) -> Store:
        """Open a site's store: that of its region's shards, and of what the site contributes."""
        return Store.open(site.store_url if "://" in site.store_url else self.root / site.store_url)

    @cached_property
    def regions(self) -> tuple[Region, ...]:
        """The regions of the sites, sorted by name."""
        return tuple(_region(name, self.sites) for name in sorted({s.region for s in self.sites}))

    def region(self, name: str) -> Region:
        """Return a region by name.

        Raises:
            CausewayError: no site lies in it; lists the regions there are.
        """
        for region in self.regions:
            if region.name == name:
                return region
        raise CausewayError(f"no region {name!r} in sites.toml; it has: {', '.join(r.name for r in self.regions)}")

    def region_store(self, region: str) -> Store:
        """Open the store that holds a region's shards.

        Raises:
            CausewayError: no site lies in the region.
        """
        return self.store(self.region(region).sites[0])

    def link(self, source: str, target: str) -> Link:
        """Return the way between two places, each `home` or a site.

        A link is stated for one direction and holds for the other one too, unless that is stated as well. Without one
        it is 1 Gbit/s, 50 ms and free; between places of one store nothing has to travel: 10 Gbit/s, 0 ms, free.

        Raises:
            CausewayError: sites.toml has no such place.
        """
        stated = self.stated_link(source, target)
        if stated is not None:
            return stated
        if self._end(source).store_url == self._end(target).store_url:
            return Link(source, target, 1.25e9, 0.0, 0.0)
        return Link(source, target, 1.25e8, 0.05, 0.0)

    def stated_link(self, source: str, target: str) -> Link | None:
        """Return the way between two places if sites.toml states it, in this direction or else in the other.

        Raises:
            CausewayError: sites.toml has no such place.
        """
        for name in (source, target):
            self._end(name)
        for way in ((source, target), (target, source)):
            for link in self.links:
                if (link.source, link.target) == way:
                    return Link(source, target, link.bytes_per_s, link.rtt_s, link.cost_per_gb)
        return None

    def _end(self, name: str) -> Site:
        return self.home if name == "home" else self.site(name)

    @property
    def places(self) -> tuple[Site, ...]:
        """Home first, then the sites: the order in which a data set's tables look for a permitted store."""
        return (self.home, *self.sites)


def _region(name: str, sites: tuple[Site, ...]) -> Region:
    held = tuple(s for s in sites if s.region == name)
    capacities = [s.capacity_bytes for s in held if s.capacity_bytes is not None]
    speed = sum(s.tokens_per_s for s in held)
    return Region(name, held, held[0].jurisdictions, held[0].store_url, min(capacities, default=None), speed)


class _StoreEntry(BaseModel):
    model_config = ConfigDict(extra="forbid")
    store: str
    jurisdictions: list[str] = Field(min_length=1)
    pool_type: PoolType | None = None
    decides_creates: bool | None = None
    tables: str | None = None


class _SiteEntry(_StoreEntry):
    name: str
    region: str
    work_pool: str | None = None
    tokens_per_s: float = Field(default=1.0, gt=0)
    accelerator: str = "cpu"
    capacity_gb: float | None = Field(default=None, gt=0)
    ranks: int | None = Field(default=None, ge=1)
    form: Form | None = None
    dtype: Dtype | None = None
    threads: int | None = Field(default=None, ge=1)


class _LinkEntry(BaseModel):
    model_config = ConfigDict(extra="forbid")
    source: str = Field(alias="from")
    target: str = Field(alias="to")
    mbit_s: float = Field(default=1000.0, gt=0, allow_inf_nan=False)
    rtt_ms: float = Field(default=50.0, ge=0, allow_inf_nan=False)
    cost_per_gb: float = Field(default=0.0, ge=0, allow_inf_nan=False)


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")
    format: int = Field(ge=1, le=2)
    home: _StoreEntry
    site: list[_SiteEntry] = Field(min_length=1)
    link: list[_LinkEntry] = []


def load_sites(path: Path, root: Path) -> Sites:
    """Read sites.toml; relative store paths are under `root`, the `--home` folder.

    Raises:
        CausewayError: the file is missing, not TOML, or has a wrong, unknown or repeated entry; names the entry.
    """
    try:
        raw: dict[str, Any] = tomllib.loads(path.read_text())
        parsed = _File.model_validate(raw)
    except OSError as error:
        raise CausewayError(
            f"{path}: cannot be read: {error.strerror}; put a sites.toml into the --home folder"
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CausewayError(f"{path}: not TOML: {error}") from error
    except ValidationError as error:
        lines = [f"{path}: {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise CausewayError("\n".join(lines)) from error
    if parsed.format == 1:
        _check_old(path, parsed)
    sites: list[Site] = []
    for entry in sorted(parsed.site, key=lambda e: e.name):
        if not _NAME.fullmatch(entry.name) or entry.name == "home":
            raise CausewayError(f"{path}: site name {entry.name!r}: use a-z, 0-9 and '-', not 'home'")
        if any(s.name == entry.name for s in sites):
            raise CausewayError(f"{path}: site {entry.name!r} stands twice")
        sites.append(
            Site(
                name=entry.name,
                region=entry.region,
                jurisdictions=tuple(entry.jurisdictions),
                store_url=entry.store,
                work_pool=entry.work_pool or entry.name,
                tokens_per_s=entry.tokens_per_s,
                accelerator=entry.accelerator,
                pool_type=entry.pool_type,
                capacity_bytes=None if entry.capacity_gb is None else round(entry.capacity_gb * 1e9),
                decides_creates=entry.decides_creates is not False,
                tables_url=entry.tables,
                inside=Inside(entry.ranks, entry.form, entry.dtype, entry.threads),
            )
        )
    at_home = parsed.home
    if at_home.decides_creates is False or at_home.tables is not None:
        raise CausewayError(
            f"{path}: home holds the chain and tables: its store has to decide creates, and is the only one"
        )
    home = Site(
        "home", "home", tuple(at_home.jurisdictions), at_home.store, work_pool="home", pool_type=at_home.pool_type
    )
    _check_stores(path, home, sites)
    return Sites(home, tuple(sites), root, _links(path, parsed.link, sites))


def _check_old(path: Path, parsed: _File) -> None:
    new = {"capacity_gb", "decides_creates", "tables", "ranks", "form", "dtype", "threads"}
    for entry in (parsed.home, *parsed.site, *parsed.link):
        found = sorted({"link"} if isinstance(entry, _LinkEntry) else new & entry.model_fields_set)
        if found:
            raise CausewayError(f"{path}: format 1 has no {found[0]}; write: format = 2")


def _check_stores(path: Path, home: Site, sites: list[Site]) -> None:
    for site in (home, *sites):
        for url in (site.store_url, site.tables_url or ""):
            try:
                check_url(url if "://" in url else "")
            except StoreError as error:
                raise CausewayError(f"{path}: {site.name}: {error}") from None
    for k, one in enumerate(sites):
        for other in sites[k + 1 :]:
            both = f"{path}: sites {one.name!r} and {other.name!r}"
            same = one.region == other.region
            if same and (one.store_url, set(one.jurisdictions)) != (other.store_url, set(other.jurisdictions)):
                # Every site of a region trains from the same shards, under the same laws.
                raise CausewayError(
                    f"{both} are in region {one.region!r} but differ in store or jurisdictions; give them the same"
                    " ones, or give each a region of its own"
                )
            stated = {c for c in (one.capacity_bytes, other.capacity_bytes) if c is not None}
            if same and len(stated) == 2:
                raise CausewayError(f"{both} share a store but differ in capacity_gb; state it once")
            if not same and one.store_url == other.store_url:
                raise CausewayError(
                    f"{both} share the store {one.store_url!r} but not the region; a store lies in one region"
                )


def _links(path: Path, entries: list[_LinkEntry], sites: list[Site]) -> tuple[Link, ...]:
    known, found = {"home", *(s.name for s in sites)}, list[Link]()
    for entry in entries:
        what = f"{path}: link from {entry.source!r} to {entry.target!r}"
        strange = sorted({entry.source, entry.target} - known)
        if strange:
            raise CausewayError(
                f"{what}: {strange[0]!r} is neither home nor a site; there are {', '.join(sorted(known))}"
            )
        if entry.source == entry.target:
            raise CausewayError(f"{what}: a link joins two places")
        if any((k.source, k.target) == (entry.source, entry.target) for k in found):
            raise CausewayError(f"{what} stands twice")
        speed = entry.mbit_s * 1e6 / 8
        found.append(Link(entry.source, entry.target, speed, entry.rtt_ms / 1e3, entry.cost_per_gb))
    return tuple(found)
