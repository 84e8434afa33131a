"""One object store: a local directory, or any URL that `obstore` opens.

Keys are relative POSIX paths. Objects that last are either named by their content or created once
(`create`), so a repeated put is harmless and a race has one winner.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, ObjectStore, from_url

from data_contracts.canonical import canonical_json, sha256
from data_contracts.errors import ObjectExists, ObjectMissing, StoreError

_SEGMENT = r"(?!\.\.?(?:/|\Z))[^/\\\x00-\x1f\x7f]+"
_KEY = re.compile(f"{_SEGMENT}(?:/{_SEGMENT})*")


@dataclass(frozen=True)
class Store:
    """An object store rooted at `url`: a directory path or `s3://bucket/prefix` and the like.

    `root` is the local directory when the store is one: what must be memory-mapped or handed to a library that
    takes paths uses it.
    """

    url: str
    _inner: ObjectStore = field(repr=False, compare=False)
    root: Path | None = None

    @classmethod
    def open(cls, url: str | Path) -> Store:
        """Open a store; a local directory is made if it is not there.

        Raises:
            StoreError: the directory cannot be made or the URL cannot be opened.
        """
        text = str(url)
        try:
            if "://" not in text:
                root = Path(text).absolute()
                root.mkdir(parents=True, exist_ok=True)
                return cls(str(root), LocalStore(prefix=root), root)
            return cls(text, from_url(text))
        except (OSError, BaseError) as error:
            raise StoreError(
                f"{text}: this store cannot be opened: {error}; check the path and its permissions"
            ) from error

    def uri(self, key: str) -> str:
        """Return the path or URL of a key, for libraries that open it themselves (Delta)."""
        return f"{self.url.rstrip('/')}/{_checked(key)}"

    def path(self, key: str) -> Path:
        """Return the local path of an object, for memory mapping.

        Raises:
            StoreError: the store is not a local directory.
        """
        if self.root is None:
            raise StoreError(f"{self.url}: not a local directory, so {key} cannot be mapped into memory")
        return self.root / _checked(key)

    def get(self, key: str, sha: str | None = None) -> bytes:
        """Return an object's bytes, checked against `sha` when it is given.

        Raises:
            ObjectMissing: there is no such object.
            StoreError: the bytes are not those that `sha` names, or the store failed.
        """
        try:
            data = bytes(obstore.get(self._inner, _checked(key)).bytes())
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise ObjectMissing(f"{self.url}/{key}: no such object") from error
        except (BaseError, OSError) as error:
            raise StoreError(f"{self.url}/{key}: cannot be read: {error}") from error
        if sha is not None and sha256(data) != sha:
            raise StoreError(f"{self.url}/{key}: damaged: sha256 is {sha256(data)}, recorded as {sha}")
        return data

    def create(self, key: str, data: bytes) -> None:
        """Put an object only if none is there; of several racing writers exactly one succeeds.

        Raises:
            ObjectExists: an object is there.
            StoreError: the store failed; whether the object was written is then unknown: read it back.
        """
        try:
            obstore.put(self._inner, _checked(key), data, mode="create", use_multipart=False)
        except AlreadyExistsError as error:
            raise ObjectExists(f"{self.url}/{key}: an object is already there") from error
        except (BaseError, OSError) as error:
            raise StoreError(f"{self.url}/{key}: cannot be written: {error}") from error

    def ensure(self, key: str, data: bytes) -> bool:
        """Put an immutable object; return False when the same bytes were there already.

        Raises:
            ObjectExists: other bytes are there under this key.
        """
        try:
            self.create(key, data)
            return True
        except ObjectExists:
            if self.get(key) != data:
                raise
            return False

    def put(self, key: str, data: bytes) -> None:
        """Put a replaceable object (leases, indexes); readers see the old bytes or the new, never a mixture."""
        try:
            obstore.put(self._inner, _checked(key), data)
        except (BaseError, OSError) as error:
            raise StoreError(f"{self.url}/{key}: cannot be written: {error}") from error

    def put_file(self, key: str, path: Path) -> None:
        """Put the bytes of a local file, in parts when it is large."""
        try:
            obstore.put(self._inner, _checked(key), path)
        except (BaseError, OSError) as error:
            raise StoreError(f"{self.url}/{key}: cannot be written: {error}") from error

    def delete(self, key: str) -> None:
        """Delete an object; one that is not there is no error."""
        try:
            obstore.delete(self._inner, _checked(key))
        except FileNotFoundError:
            pass
        except (BaseError, OSError) as error:
            raise StoreError(f"{self.url}/{key}: cannot be deleted: {error}") from error

    def exists(self, key: str) -> bool:
        """Say whether an object lies under the key."""
        try:
            obstore.head(self._inner, _checked(key))
            return True
        except (FileNotFoundError, NotADirectoryError):
            return False
        except (BaseError, OSError) as error:
            raise StoreError(f"{self.url}/{key}: cannot be asked for: {error}") from error

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """Yield (key, size in bytes) of every object under a folder prefix, sorted by key."""
        found: list[tuple[str, int]] = []
        try:
            for chunk in obstore.list(self._inner, prefix=prefix.rstrip("/") or None):
                found.extend((str(item["path"]), int(item["size"])) for item in chunk)
        except (BaseError, OSError) as error:
            raise StoreError(f"{self.url}/{prefix}: cannot be listed: {error}") from error
        yield from sorted(found)

    def folders(self, prefix: str) -> tuple[str, ...]:
        """Return the names of the folders directly below a folder prefix, sorted, without reading what is in them."""
        try:
            found = obstore.list_with_delimiter(self._inner, prefix=prefix.rstrip("/") or None)["common_prefixes"]
        except (BaseError, OSError) as error:
            raise StoreError(f"{self.url}/{prefix}: cannot be listed: {error}") from error
        return tuple(sorted(str(path).rstrip("/").rsplit("/", 1)[-1] for path in found))

    def get_json(self, key: str, sha: str | None = None) -> Any:
        """Return a JSON object's value.

        Raises:
            StoreError: missing, damaged, or not JSON.
        """
        import json

        try:
            return json.loads(self.get(key, sha))
        except ValueError as error:
            raise StoreError(f"{self.url}/{key}: damaged: not JSON ({error})") from error

    def ensure_json(self, key: str, value: Any) -> str:
        """Put an immutable JSON document in canonical form; return its sha256."""
        data = canonical_json(value)
        self.ensure(key, data)
        return sha256(data)


def _checked(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise StoreError(
            f"{key!r} is not a key: a relative path without '.', '..', empty parts, '\\' and control characters"
        )
    return key
