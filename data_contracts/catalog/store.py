"""One object store: a local directory, or any URL that `obstore` opens.

Keys are relative POSIX paths. Objects that last are either named by their content or created once
(`create`), so a repeated put is harmless and a race has one winner. A request to a remote store that gets no answer,
or is told to come later, is made again for `retry_s` seconds.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import LocalStore, ObjectStore

from data_contracts.canonical import canonical_json, sha256
from data_contracts.catalog import store_faults as faults
from data_contracts.catalog import store_transfer as transfer
from data_contracts.catalog import store_writing as writing
from data_contracts.catalog.store_opening import Remote, open_remote
from data_contracts.errors import ObjectExists, ObjectMissing, StoreError

T = TypeVar("T")
# Inside the class, `list` is the method.
_Pieces = list[bytes]
_Found = list[tuple[str, int]]
RETRY_S = 60.0
_SEGMENT = r"(?!\.\.?(?:/|\Z))[^/\\\x00-\x1f\x7f]+"
_KEY = re.compile(f"{_SEGMENT}(?:/{_SEGMENT})*")


@dataclass(frozen=True)
class Store:
    """An object store rooted at `url`: a directory path or `s3://bucket/prefix?endpoint=...` and the like.

    `url` opens the store anywhere and holds no secret; `inner` is what obstore calls it. `root` is the local directory
    when the store is one: what must be memory-mapped or handed to a library that takes paths uses it.
    """

    url: str
    inner: ObjectStore = field(repr=False, compare=False)
    root: Path | None = None
    remote: Remote | None = field(default=None, repr=False, compare=False)
    retry_s: float = field(default=RETRY_S, repr=False, compare=False)

    @classmethod
    def open(cls, url: str | Path, retry_s: float | None = None) -> Store:
        """Open a store; a local directory is made if it is not there, a remote store is not asked yet.

        `retry_s` is for how long a request is tried that gets no answer; default CAUSEWAY_STORE_RETRY_S, else 60.

        Raises:
            StoreError: the directory cannot be made, the URL cannot be opened, or there are no credentials for it.
        """
        text = str(url)
        if text.startswith("file:///"):
            text = text.removeprefix("file://")
        if "://" in text:
            remote = open_remote(text)
            patience = _patience() if retry_s is None else retry_s
            return cls(text, remote.once, remote=remote, retry_s=patience)
        try:
            root = Path(text).absolute()
            root.mkdir(parents=True, exist_ok=True)
            return cls(str(root), LocalStore(prefix=root), root)
        except (OSError, BaseError) as error:
            raise StoreError(
                f"{text}: this store cannot be opened: {error}; check the path and its permissions"
            ) from error

    def uri(self, key: str) -> str:
        """Return the path or URL of a key, without parameters: for messages and for libraries that open it (Delta)."""
        return f"{self._base}/{_checked(key)}"

    def delta(self) -> tuple[str, dict[str, str]]:
        """Return the URL of the store without parameters, and the storage options with which deltalake opens it.

        The options may hold secrets: hand them on, never print them.
        """
        return self._base, {} if self.remote is None else dict(self.remote.delta)

    @property
    def _base(self) -> str:
        return self.url.rstrip("/") if self.remote is None else self.remote.base

    def path(self, key: str) -> Path:
        """Return the local path of an object, for memory mapping.

        Raises:
            StoreError: the store is not a local directory.
        """
        if self.root is None:
            raise StoreError(f"{self._base}: not a local directory, so {key} cannot be mapped into memory")
        return self.root / _checked(key)

    def get(self, key: str, sha: str | None = None) -> bytes:
        """Return an object's bytes, checked against `sha` when it is given.

        Raises:
            ObjectMissing: there is no such object.
            StoreError: the bytes are not those that `sha` names, or the store failed.
        """
        # A file is read in a quarter of the time that the way through obstore's threads takes.
        once = (
            self.path(key).read_bytes
            if self.root is not None
            else lambda: bytes(obstore.get(self.inner, _checked(key)).bytes())
        )
        read = partial(self.request, "read", key, once)
        data: bytes = read()
        if sha is not None and sha256(data) != sha and self.remote is not None:
            data = read()  # it may have been the way
        if sha is not None and sha256(data) != sha:
            raise StoreError(f"{self._base}/{key}: damaged: sha256 is {sha256(data)}, recorded as {sha}")
        return data

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Return `length` bytes of an object from byte `start` on.

        Raises:
            ObjectMissing: there is no such object.
            StoreError: the object ends before, or the store failed.
        """
        return self.request("read", key, lambda: self._range(key, start, length))

    def stream(self, key: str, start: int, length: int) -> Iterator[memoryview]:
        """Yield `length` bytes of an object from byte `start` on, in pieces as they come, by one request.

        What breaks off is not tried again: the caller has what came, and asks for the rest.

        Raises:
            ObjectMissing: there is no such object.
            StoreError: the store failed, or broke off.
        """
        inner = self.inner if self.remote is None else self.remote.patient(length)
        asked = {"range": (start, start + length)}
        found = self.request("read", key, lambda: obstore.get(inner, _checked(key), options=asked))
        try:
            for piece in found.stream(min_chunk_size=1 << 20):
                yield memoryview(piece)
        except (BaseError, OSError) as error:
            raise faults.explain(error, f"{self._base}/{key}", "read", self.remote, self.retry_s) from None

    def get_ranges(self, key: str, starts: Sequence[int], lengths: Sequence[int]) -> _Pieces:
        """Return several ranges of one object, read at once; those that lie within 1 MiB by one request.

        Raises:
            ObjectMissing: there is no such object.
            StoreError: the object ends before one of them, or the store failed.
        """
        # An empty range is no request.
        asked = [(start, length) for start, length in zip(starts, lengths, strict=True) if length]
        at, long = [start for start, _ in asked], [length for _, length in asked]

        def read() -> _Pieces:
            if not asked:
                return []
            return [bytes(b) for b in obstore.get_ranges(self.inner, _checked(key), starts=at, lengths=long)]

        found = iter(self.request("read", key, read))
        pieces = [next(found) if length else b"" for length in lengths]
        for start, length, data in zip(starts, lengths, pieces, strict=True):
            self._whole(key, start, length, data)
        return pieces

    def fetch(self, key: str, path: Path, sha: str, size: int, progress: Callable[[int], None] | None = None) -> None:
        """Download an object of `size` bytes into `path`, which has it whole and right or not at all.

        Bytes arrive in `path`.part; an interrupted download continues there. `progress` is told how many bytes came.

        Raises:
            ObjectMissing: there is no such object.
            StoreError: the bytes are not those that `sha` names, or the store failed.
        """
        once, again = partial(self._range, key), partial(self.get_range, key)
        try:
            transfer.fetch(once, again, path, sha, size, f"{self._base}/{_checked(key)}", progress)
        except OSError as error:
            raise StoreError(
                f"{path}: cannot be written: {error.strerror}; make room, or choose another folder"
            ) from error

    def create(self, key: str, data: bytes) -> None:
        """Put an object only if none is there; of several racing writers exactly one succeeds.

        When the answer is lost, the object is read back: the same bytes are ours.

        Raises:
            ObjectExists: an object is there.
            StoreError: the store failed; whether the object was written is then unknown: read it back.
        """
        writing.create(self, key, data)

    def create_file(self, key: str, path: Path, sha: str) -> bool:
        """Put a file under a key that names its content (`sha`), in parts when it is large; False when it is there.

        Raises:
            ObjectExists: an object of another size is there.
            StoreError: the file's bytes are not those that `sha` names, or the store failed.
        """
        return writing.create_file(self, key, path, sha)

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
        writing.put(self, key, data)

    def put_file(self, key: str, path: Path, sha: str | None = None) -> None:
        """Put the bytes of a local file, in parts when it is large; nothing is there until all of it is.

        Raises:
            StoreError: the file's bytes are not those that `sha` names, or the store failed.
        """
        writing.put_file(self, key, path, sha)

    def delete(self, key: str) -> None:
        """Delete an object; one that is not there is no error."""
        with suppress(ObjectMissing):
            self.request("deleted", key, lambda: obstore.delete(self.inner, _checked(key)))

    def exists(self, key: str) -> bool:
        """Say whether an object lies under the key."""
        try:
            self.size(key)
            return True
        except ObjectMissing:
            return False

    def size(self, key: str) -> int:
        """Return an object's size in bytes.

        Raises:
            ObjectMissing: there is no such object.
        """
        return int(self._head(key)["size"])

    def modified(self, key: str) -> dt.datetime:
        """Return when an object was written, by its store's clock, which mostly tells whole seconds.

        Raises:
            ObjectMissing: there is no such object.
        """
        found: dt.datetime = self._head(key)["last_modified"]
        return found

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """Yield (key, size in bytes) of every object under a folder prefix, sorted by key."""

        def read() -> _Found:
            chunks = obstore.list(self.inner, prefix=prefix.rstrip("/") or None)
            return [(str(item["path"]), int(item["size"])) for chunk in chunks for item in chunk]

        yield from sorted(self.request("listed", prefix, read))

    def folders(self, prefix: str) -> tuple[str, ...]:
        """Return the names of the folders directly below a folder prefix, sorted, without reading what is in them."""
        folder = prefix.rstrip("/") or None
        found = self.request("listed", prefix, lambda: obstore.list_with_delimiter(self.inner, prefix=folder))
        return tuple(sorted(str(path).rstrip("/").rsplit("/", 1)[-1] for path in found["common_prefixes"]))

    def get_json(self, key: str, sha: str | None = None) -> Any:
        """Return a JSON object's value.

        Raises:
            StoreError: missing, damaged, or not JSON.
        """
        try:
            return json.loads(self.get(key, sha))
        except ValueError as error:
            raise StoreError(f"{self._base}/{key}: damaged: not JSON ({error})") from error

    def ensure_json(self, key: str, value: Any) -> str:
        """Put an immutable JSON document in canonical form; return its sha256."""
        data = canonical_json(value)
        self.ensure(key, data)
        return sha256(data)

    def _head(self, key: str) -> Any:
        return self.request("asked for", key, lambda: obstore.head(self.inner, _checked(key)))

    def request(self, verb: str, key: str, call: Callable[[], T]) -> T:
        """Call obstore; at a remote store again while it may help; its errors become ours ("cannot be" `verb`)."""
        what = f"{self._base}/{key}"
        try:
            if self.remote is None:
                return call()
            faults.note_use(what)
            found = faults.retry(call, self.retry_s, what)
            self.remote.seen.set()
            return found
        except AlreadyExistsError as error:
            if not faults.is_transient(error):
                raise ObjectExists(f"{what}: an object is already there") from error
            raise faults.explain(error, what, verb, self.remote, self.retry_s) from error
        except (BaseError, OSError) as error:
            ours = faults.explain(error, what, verb, self.remote, self.retry_s)
            if isinstance(ours, ObjectMissing) and self.remote is not None and not self.remote.seen.is_set():
                self._ask_for_bucket()
            # What obstore says may quote the request: its text stays out of ours and of the traceback.
            raise ours from (error if self.remote is None else None)

    def _ask_for_bucket(self) -> None:
        # A head that is answered 404 does not say which is not there: the object or the bucket.
        self.request("listed", "", lambda: next(iter(obstore.list(self.inner, chunk_size=1)), None))

    def _range(self, key: str, start: int, length: int) -> bytes:
        if length == 0:
            return b""
        data = bytes(obstore.get_range(self.inner, _checked(key), start=start, length=length))
        self._whole(key, start, length, data)
        return data

    def _whole(self, key: str, start: int, length: int, data: bytes) -> None:
        if len(data) != length:
            raise StoreError(f"{self._base}/{key}: ends at byte {start + len(data):,}, asked to {start + length:,}")


def _patience() -> float:
    text = os.environ.get("CAUSEWAY_STORE_RETRY_S", str(RETRY_S))
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found < 86400:
        raise StoreError(f"CAUSEWAY_STORE_RETRY_S: {text[:40]!r} is not a number of seconds from 0 to 86400")
    return found


def _checked(key: str) -> str:
    if not _KEY.fullmatch(key):
        raise StoreError(
            f"{key!r} is not a key: a relative path without '.', '..', empty parts, '\\' and control characters"
        )
    return key
