"""Objects in S3, Google Cloud Storage or Azure as files: listed at once, downloaded when they are read.

Credentials come from the environment (AWS_*, GOOGLE_*, AZURE_*), as for every store of Causeway.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import BaseError
from obstore.store import ObjectStore, from_url

from data_contracts.errors import DataRefused, StoreError
from data_contracts.sources.records import SourceFile

_URL = re.compile(r"(s3|s3a|gs|az|azure|adl|abfs|abfss)://")
# What is kept of downloads at a time: a partition is hashed before and after it is read.
_KEPT_BYTES = 4 << 30


def is_remote(location: str) -> bool:
    """Say whether a location is the URL of an object store."""
    return _URL.match(location) is not None


@dataclass(frozen=True)
class RemoteFolder:
    """The objects under a URL's prefix, or the one object that the URL names."""

    location: str
    _store: ObjectStore = field(repr=False, compare=False)
    _kept: _Downloads = field(repr=False, compare=False)

    @classmethod
    def open(cls, location: str) -> RemoteFolder:
        """Open a location.

        Raises:
            DataRefused: the URL names no store.
        """
        try:
            return cls(location, from_url(location), _Downloads())
        except (BaseError, OSError, ValueError, TypeError) as error:
            raise DataRefused(f"{location}: cannot be opened: {error}; check the URL and the credentials") from error

    def files(self, globs: tuple[str, ...]) -> Iterator[SourceFile]:
        """Yield the objects whose path below the location fits a glob, sorted.

        Raises:
            StoreError: the store cannot be reached, or does not permit it.
        """
        from data_contracts.sources.files import fits

        found = self._list()
        for name, item in sorted(found.items()):
            hidden = any(part.startswith(".") for part in name.split("/"))
            if not hidden and any(fits(glob, name) for glob in globs):
                yield RemoteObject(
                    name, _Stored(self._store, name, item, f"{self.location.rstrip('/')}/{name}"), self._kept
                )
        parent, _, name = self.location.rstrip("/").rpartition("/")
        if not found and is_remote(f"{parent}/") and name:
            store = RemoteFolder.open(parent)._store
            try:
                item = obstore.head(store, name)
            except FileNotFoundError:
                return
            except (BaseError, OSError) as error:
                raise _unreachable(self.location, error) from error
            yield RemoteObject(name, _Stored(store, name, item, self.location), self._kept)

    def _list(self) -> dict[str, Any]:
        try:
            return {str(item["path"]): item for chunk in obstore.list(self._store) for item in chunk}
        except (BaseError, OSError) as error:
            raise _unreachable(self.location, error) from error


def _unreachable(location: str, error: Exception) -> StoreError:
    # A store that does not answer may answer soon: this is tried again, a refusal is not.
    return StoreError(f"{location}: cannot be reached: {error}; check the URL and the credentials")


@dataclass(frozen=True)
class _Stored:
    """One object: `item` is what the store said of it (size, e_tag, last_modified) when it was listed."""

    store: ObjectStore
    key: str
    item: Any
    url: str

    def download(self, target: Path) -> None:
        """Write the object's bytes to a file.

        Raises:
            DataRefused: gone, or no longer the object that was listed.
            StoreError: the store cannot be reached.
        """
        try:
            found = obstore.get(self.store, self.key)
            self.same(found.meta)
            with target.open("wb") as stream:
                for block in found.stream(8 << 20):
                    stream.write(block)
        except FileNotFoundError as error:
            raise DataRefused(f"{self.url}: no longer there; restore it, or list the partitions again") from error
        except (BaseError, OSError) as error:
            raise _unreachable(self.url, error) from error
        size = target.stat().st_size
        if size != self.item["size"]:
            raise DataRefused(f"{self.url}: {size} bytes came, {self.item['size']} were listed; try again")

    def same(self, now: Any) -> None:
        """Compare what the store says now with what it said when the object was listed.

        Raises:
            DataRefused: size, entity tag or time differ.
        """
        # A store without entity tags still knows when an object was written.
        keys = ("size", "e_tag") if self.item.get("e_tag") else ("size", "last_modified")
        if any(now.get(key) != self.item.get(key) for key in keys):
            raise DataRefused(f"{self.url}: changed since it was listed; ingest it again when its writer is done")


class _Downloads:
    """Files that were downloaded, in a folder that goes with the process; the oldest leave when they are too many."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="causeway-objects-")
        self._kept: OrderedDict[str, int] = OrderedDict()
        self._lock = threading.Lock()

    def path(self, stored: _Stored) -> Path:
        """Return the local copy of an object, downloaded if it is not kept."""
        # The suffix stays: it says how the file is compressed.
        name = hashlib.sha256(stored.url.encode()).hexdigest()[:32] + "-" + stored.key.rsplit("/", 1)[-1][-80:]
        target = Path(self._folder.name) / name
        with self._lock:
            if name in self._kept and target.is_file():
                self._kept.move_to_end(name)
                return target
            draft = target.with_name(f".{name}")
            stored.download(draft)
            draft.rename(target)
            self._kept[name] = stored.item["size"]
            while len(self._kept) > 1 and sum(self._kept.values()) > _KEPT_BYTES:
                # A reader that has it open goes on reading it.
                Path(self._folder.name, self._kept.popitem(last=False)[0]).unlink(missing_ok=True)
            return target


class RemoteObject(SourceFile):
    """An object as a source file: its bytes are downloaded when `path` or `sha` is first asked for."""

    def __init__(self, name: str, stored: _Stored, kept: _Downloads) -> None:
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "size", int(stored.item["size"]))
        object.__setattr__(self, "_stored", stored)
        object.__setattr__(self, "_kept", kept)

    _stored: _Stored
    _kept: _Downloads

    @property
    def path(self) -> Path:
        """Where its copy lies."""
        return self._kept.path(self._stored)

    @property
    def tag(self) -> str:
        """What the store says of this version of the object."""
        return str(self._stored.item.get("e_tag") or self._stored.item.get("last_modified"))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RemoteObject) and self._stored.url == other._stored.url

    def __hash__(self) -> int:
        return hash(self._stored.url)

    def __repr__(self) -> str:
        return f"RemoteObject({self._stored.url!r})"

    def check_unchanged(self) -> None:
        """Ask the store whether the object is still the one that was listed.

        Raises:
            DataRefused: it changed, or is gone.
            StoreError: the store cannot be reached.
        """
        try:
            now = obstore.head(self._stored.store, self._stored.key)
        except FileNotFoundError as error:
            raise DataRefused(f"{self._stored.url}: no longer there; restore it") from error
        except (BaseError, OSError) as error:
            raise _unreachable(self._stored.url, error) from error
        self._stored.same(now)
