"""The contracts of a data set, and the sources they were registered with.

    contracts/<slug>/<sha>.yaml     a contract's text, under its hash
    contracts/<slug>/current.json   {format, sha, source, entries: [{sha, version, source, published}, ...]}

A data set that is ordered by arrival has one entry: the contract and source of the last ingest. One that is ordered by
publication has one for each publication of the whole, oldest first; the last is in force.
"""

from __future__ import annotations

import datetime as dt
import tempfile
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

from data_contracts.canonical import canonical_json, document_sha
from data_contracts.catalog.store import Store
from data_contracts.contract import Contract, load_contract
from data_contracts.errors import DataRefused, ObjectMissing

FORMAT = 2


@dataclass(frozen=True)
class SourceEntry:
    """One source of a data set under one contract version; `published` is ISO 8601 in UTC, '' where arrival decides."""

    sha: str
    version: str
    source: str
    published: str = ""

    @property
    def moment(self) -> dt.datetime | None:
        """When the owner published it."""
        return dt.datetime.fromisoformat(self.published) if self.published else None


@dataclass(frozen=True)
class Registered:
    """What is registered for a data set, oldest publication first; the last entry is in force."""

    slug: str
    entries: tuple[SourceEntry, ...]

    @property
    def current(self) -> SourceEntry:
        """The contract and source in force."""
        return self.entries[-1]


def read_registered(store: Store, slug: str) -> Registered | None:
    """Return what a store has registered for a data set, or None."""
    key = f"contracts/{slug}/current.json"
    if not store.exists(key):
        return None
    document = store.get_json(key)
    entries = document.get("entries") or [{"sha": document["sha"], "version": "", "source": document.get("source")}]
    return Registered(slug, tuple(SourceEntry(**{**e, "source": e.get("source") or ""}) for e in entries))


def register(
    store: Store, contract: Contract, source: str | None = None, published: dt.datetime | None = None
) -> Registered:
    """Keep a contract's text and register its source; without `source` the known one stays.

    Raises:
        DataRefused: the contract orders by publication, and nothing says when this source was published.
    """
    text = f"contracts/{contract.slug}/{contract.sha}.yaml"
    if not store.exists(text):
        # Comments are not part of a contract's hash: the first text that has it stays.
        store.ensure(text, contract.path.read_bytes())
    known = read_registered(store, contract.slug)
    if contract.sequence == "publication":
        entries = _by_publication(contract, known, source, published)
    else:
        place = source or (known.current.source if known else "")
        entries = (SourceEntry(contract.sha, contract.version, place),)
    found = Registered(contract.slug, entries)
    if found != known:
        head = {"format": FORMAT, "sha": found.current.sha, "source": found.current.source or None}
        document = {**head, "entries": [asdict(entry) for entry in entries]}
        store.put(f"contracts/{contract.slug}/current.json", canonical_json(document))
    return found


def _by_publication(
    contract: Contract, known: Registered | None, source: str | None, published: dt.datetime | None
) -> tuple[SourceEntry, ...]:
    entries = {e.published: e for e in (known.entries if known else ()) if e.published}
    if published is None:
        same = [e for e in entries.values() if e.sha == contract.sha and source in (None, e.source)]
        if len(same) != 1:
            raise DataRefused(
                f"{contract.id}: its contract orders versions by publication, and nothing says when this source was"
                " published; give --published DATE (the day or moment of its publication)"
            )
        return tuple(entries[name] for name in sorted(entries))
    moment = published if published.tzinfo else published.replace(tzinfo=dt.UTC)
    name = moment.astimezone(dt.UTC).isoformat(timespec="seconds")
    place = source or (entries[name].source if name in entries else "")
    entries[name] = SourceEntry(contract.sha, contract.version, place, name)
    return tuple(entries[name] for name in sorted(entries))


def kept_contract(store: Store, slug: str, sha: str) -> Contract:
    """Load a contract by its hash, as it was registered.

    Raises:
        DataRefused: no such contract was ever in use for the data set.
    """
    return load_contract(contract_file(store, slug, sha))


def contract_file(store: Store, slug: str, sha: str) -> Path:
    """Return a file with a kept contract's text: the store's own, or of a remote store a copy while this process lives.

    Raises:
        DataRefused: no such contract was ever in use for the data set.
    """
    key = f"contracts/{slug}/{sha}.yaml"
    try:
        if store.root is None:
            return _copy(store, key)
        if store.exists(key):
            return store.path(key)
    except ObjectMissing:
        pass
    raise DataRefused(
        f"{slug.replace('--', '/')}: contract {sha[:12]} is not kept at {store.delta()[0]}; restore {key}"
    )


@lru_cache(maxsize=1)
def _copies() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="causeway-contracts-")


@lru_cache(maxsize=1024)
def _copy(store: Store, key: str) -> Path:
    # Named by its content, so a copy is never old; the same data set may lie in several stores.
    path = Path(_copies().name) / document_sha(store.url) / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(store.get(key))
    return path
