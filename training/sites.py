"""Sites: where data may rest and models train. Reads `sites.toml`."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from data_contracts.catalog.store import Store
from data_contracts.errors import CausewayError
from data_contracts.policy import Place

PoolType = Literal["process", "docker", "kubernetes"]
_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")


@dataclass(frozen=True)
class Site:
    """One data center.

    `store_url` is a URL, or a path relative to the `--home` folder; `tokens_per_s` is its relative speed, used to
    balance placement; `work_pool` is the Prefect pool whose workers run there, `pool_type` how they run (None: as the
    command says that makes the pools).
    """

    name: str
    region: str
    jurisdictions: tuple[str, ...]
    store_url: str
    work_pool: str
    tokens_per_s: float = 1.0
    accelerator: str = "cpu"
    pool_type: PoolType | None = None

    @property
    def place(self) -> Place:
        """The place that policy is asked about."""
        return Place(self.name, self.jurisdictions)


@dataclass(frozen=True)
class Sites:
    """The home store and the sites, sorted by name."""

    home: Site
    sites: tuple[Site, ...]
    root: Path

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
        """Open a site's store."""
        return Store.open(site.store_url if "://" in site.store_url else self.root / site.store_url)

    def region_store(self, region: str) -> Store:
        """Open the store that holds a region's shards.

        Raises:
            CausewayError: no site lies in the region.
        """
        for site in self.sites:
            if site.region == region:
                return self.store(site)
        raise CausewayError(f"no site in region {region!r} in sites.toml")

    @property
    def places(self) -> tuple[Site, ...]:
        """Home first, then the sites: the order in which a data set's tables look for a permitted store."""
        return (self.home, *self.sites)


class _StoreEntry(BaseModel):
    model_config = ConfigDict(extra="forbid")
    store: str
    jurisdictions: list[str] = Field(min_length=1)
    pool_type: PoolType | None = None


class _SiteEntry(_StoreEntry):
    name: str
    region: str
    work_pool: str | None = None
    tokens_per_s: float = Field(default=1.0, gt=0)
    accelerator: str = "cpu"


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")
    format: int = Field(ge=1, le=1)
    home: _StoreEntry
    site: list[_SiteEntry] = Field(min_length=1)


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
            )
        )
    regions = [s.region for s in sites]
    if len(set(regions)) != len(regions):
        # A region's order runs over all its shards; today each lies in one site's store.
        twice = sorted({r for r in regions if regions.count(r) > 1})
        raise CausewayError(f"{path}: two sites in region {', '.join(twice)}; give each site a region of its own")
    at_home = parsed.home
    home = Site(
        "home", "home", tuple(at_home.jurisdictions), at_home.store, work_pool="home", pool_type=at_home.pool_type
    )
    return Sites(home, tuple(sites), root)
