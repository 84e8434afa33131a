"""One shard's Arrow file on this machine, mapped into memory and checked block by block as blocks are first touched.

A block is a fixed stretch of the file whose SHA-256 the manifest names. The file is the store's own, or a sparse one
in a cache folder, into which blocks are fetched; beside that lies `<name>.have`, one byte a block, 1 once its bytes
are written. Bytes are trusted by this process only after it compared them itself, so a file that a crash or another
process left behind may hold anything.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import resource
import weakref
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from data_contracts.errors import StoreError
from training.shards.manifest import Manifest
from training.shards.writer import buffer_offsets

Array = np.ndarray[Any, Any]
_GAP = 8  # blocks: a request costs what 2 MiB do, at a store in the same building or far away
Fetch = Callable[[int, int], Iterable[memoryview]]


class UnreadableShard(StoreError):
    """A shard is missing, or its bytes are not those its manifest names: trying again will not help."""


class ShardFile:
    """A mapped shard. `checked[b]`: block b is here and its bytes are those that the manifest names.

    `fetch(start, length)` yields bytes of the object in the store; None when the file is the store's own. `gone`: it
    left the cache; what is mapped stays readable. Threads may check different blocks at once.
    """

    def __init__(self, path: Path, manifest: Manifest, fetch: Fetch | None = None) -> None:
        self.path = path
        self.manifest = manifest
        self.gone = False
        self._fetch = fetch
        # A manifest of format 1 names no blocks: the whole file is one.
        self._digests = manifest.blocks or (manifest.arrow_sha256,)
        self.shift = (manifest.block_bytes - 1).bit_length() if manifest.blocks else 62
        self._block_bytes = 1 << self.shift
        size = manifest.arrow_bytes
        if size == 0 or len(self._digests) != -(-size // self._block_bytes):
            raise UnreadableShard(
                f"{path}: its manifest names {len(self._digests)} blocks for {size} bytes; restore it"
            )
        self._writing = None if fetch is None else _sized(path, size)
        self.data = _mapped(path, size)
        self._view = self.data.data
        self._have = None
        if self._writing is not None:
            # Written through this descriptor, never by name: another process may put a new file in its place.
            weakref.finalize(self, os.close, self._writing)
            os.close(_sized(_have(path), self.blocks))
            self._have = _mapped(_have(path), self.blocks, write=True)
        self.checked: Array = np.zeros(self.blocks, dtype=np.bool_)
        self._offsets: tuple[int, int | None] | None = None

    @property
    def blocks(self) -> int:
        """How many blocks the file has."""
        return len(self._digests)

    def offsets(self) -> tuple[int, int | None]:
        """Return the bytes at which tokens and loss mask begin; the file must be whole when its manifest is old."""
        if self._offsets is None:
            m = self.manifest
            self._offsets = (m.token_offset, m.mask_offset) if m.blocks else buffer_offsets(self.path)
        return self._offsets

    def span(self, block: int, end: int) -> tuple[int, int]:
        """Return the bytes (start, end) of blocks `block`..`end` - 1."""
        return block * self._block_bytes, min(end * self._block_bytes, self.manifest.arrow_bytes)

    def missing(self, blocks: Array) -> Array:
        """Return those of `blocks` whose bytes are not here yet."""
        return blocks[:0] if self._have is None else blocks[self._have[blocks] == 0]

    def check(self, block: int, end: int) -> None:
        """Check blocks `block`..`end` - 1, fetching those that are not here or are not right.

        Raises:
            UnreadableShard: a block of the store is not what the manifest names; names it.
            StoreError: the store failed.
        """
        wrong = None
        missing = [b for b in range(block, end) if not (self.checked[b] or self._is_right(b))]
        while missing:
            # What is here between two that are not is fetched again where that costs less than another request.
            many = next((k for k in range(1, len(missing)) if missing[k] > missing[k - 1] + _GAP), len(missing))
            wrong = wrong or self._bring(missing[0], missing[many - 1] + 1)
            missing = missing[many:]
        if wrong is not None:
            raise wrong

    def touch(self) -> bool:
        """Note that the file is in use; False when its name was taken from it, for another to have its room."""
        if self._writing is not None:
            if os.fstat(self._writing).st_nlink == 0:
                return False
            os.utime(self._writing)
        return True

    def _is_right(self, block: int) -> bool:
        if self._have is not None and not self._have[block]:
            return False
        start, end = self.span(block, block + 1)
        right = hashlib.sha256(self._view[start:end]).hexdigest() == self._digests[block]
        if right:
            self.checked[block] = True
        return right

    def _bring(self, block: int, end: int) -> UnreadableShard | None:
        """Fetch blocks and write those that are right; return what is wrong with the first that is not."""
        if self._fetch is None:
            return self._damaged(block)  # the store's own file
        start, stop = self.span(block, end)
        wrong, b = None, block
        room, digest, parts = self._length(b), hashlib.sha256(), list[memoryview]()
        for piece in self._fetch(start, stop - start):
            while b < end and len(piece):
                part, piece = piece[:room], piece[room:]
                digest.update(part)
                parts.append(part)
                room -= len(part)
                if not room:
                    if digest.hexdigest() == self._digests[b]:
                        self._keep(b, parts)
                    else:
                        wrong = wrong or self._damaged(b)
                    b += 1
                    room, digest, parts = self._length(b) if b < end else 0, hashlib.sha256(), []
        return wrong or (self._damaged(b) if b < end else None)

    def _length(self, block: int) -> int:
        start, end = self.span(block, block + 1)
        return end - start

    def _keep(self, block: int, parts: list[memoryview]) -> None:
        assert self._writing is not None and self._have is not None
        start, end = self.span(block, block + 1)
        try:
            done = os.pwritev(self._writing, parts, start)
            rest = memoryview(b"".join(parts))[done:] if done < end - start else memoryview(b"")
            while rest:
                done += (more := os.pwrite(self._writing, rest, start + done))
                rest = rest[more:]
        except OSError as error:
            raise StoreError(f"{self.path}: cannot be written: {error}; make room or set --cache-gb") from error
        self._have[block] = 1
        self.checked[block] = True

    def _damaged(self, block: int) -> UnreadableShard:
        start, end = self.span(block, block + 1)
        return UnreadableShard(
            f"{self.path}: damaged: bytes {start} to {end} have another sha256 than its manifest says"
            f" ({self._digests[block]}); restore it or shard the data set again"
        )


def remove(path: Path) -> None:
    """Delete a cached file; who has it mapped keeps it."""
    _have(path).unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def allow_files(count: int) -> None:
    """Let this process map more than `count` shards: each keeps a descriptor, and a process begins with 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if count > soft // 4 and soft < hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _have(path: Path) -> Path:
    return path.with_suffix(".have")


def _sized(path: Path, size: int) -> int:
    """Open a file of `size` bytes, made of zeros that take no room where there is none; return its descriptor."""
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        if os.fstat(file).st_size != size:
            os.ftruncate(file, size)
        return file
    except OSError as error:
        raise StoreError(f"{path}: cannot be made: {error}; check the cache folder and its permissions") from error


def _mapped(path: Path, size: int, write: bool = False) -> Array:
    try:
        with path.open("r+b" if write else "rb") as file:
            if os.fstat(file.fileno()).st_size != size:
                raise UnreadableShard(f"{path}: damaged: not the {size} bytes that its manifest says; restore it")
            view = mmap.mmap(file.fileno(), size, access=mmap.ACCESS_WRITE if write else mmap.ACCESS_READ)
    except FileNotFoundError as error:
        raise UnreadableShard(f"{path}: shard is missing; restore it or shard the data set again") from error
    except OSError as error:
        raise StoreError(f"{path}: cannot be mapped into memory: {error}; check its permissions") from error
    return np.frombuffer(view, dtype=np.uint8)
