"""Large files to and from a store: in pieces, checked by sha256, continued where they were interrupted."""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from data_contracts.errors import ObjectExists, StoreError

PIECE_BYTES = 8 << 20
# Pieces under way at once; with one being written they bound the memory of a transfer: 40 MiB.
AT_ONCE = 4
Read = Callable[[int, int], bytes]


def file_pieces(path: Path, sha: str | None, what: str) -> Iterator[bytes]:
    """Yield a file's bytes; the end of it raises when they were not those that `sha` names.

    Raises:
        StoreError: the file's bytes are others: the upload that reads them is not completed then.
    """
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(PIECE_BYTES):
            digest.update(piece)
            yield piece
    if sha is not None and digest.hexdigest() != sha:
        raise StoreError(
            f"{what}: not written: sha256 of {path} is {digest.hexdigest()}, expected {sha}; make it again"
        )


def sha256_file(path: Path) -> str:
    """Return the sha256 of a file's bytes, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def sha256_of(read: Read, size: int) -> str:
    """Return the sha256 of an object of `size` bytes that `read(start, length)` reads, in hex."""
    digest = hashlib.sha256()
    for at in range(0, size, PIECE_BYTES):
        digest.update(read(at, min(PIECE_BYTES, size - at)))
    return digest.hexdigest()


def link_file(path: Path, target: Path, sha: str, what: str) -> None:
    """Copy a file to where nothing is, whole or not at all.

    Raises:
        ObjectExists: a file is there.
        StoreError: the bytes are not those that `sha` names.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    # The store's listing leaves out names that end in '#' and digits: files that are not whole yet.
    draft = target.with_name(f"{target.name}#{secrets.randbelow(10**12)}")
    try:
        with draft.open("wb") as stream:
            for piece in file_pieces(path, sha, what):
                stream.write(piece)
        os.link(draft, target)
    except FileExistsError as error:
        raise ObjectExists(f"{what}: an object is already there") from error
    finally:
        draft.unlink(missing_ok=True)


def fetch(
    once: Read, again: Read, path: Path, sha: str, size: int, what: str, progress: Callable[[int], None] | None = None
) -> None:
    """Download an object of `size` bytes into `path`; what `path`.part holds already is kept, if it is right.

    Bytes arrive in order, so that the part is always a beginning of the object; it is renamed when it is whole and its
    sha256 is `sha`. Of two processes that fetch into the same path the second waits, and finds it done. `once(start,
    length)` reads a range without patience, in a thread; what fails is read by `again`, which waits for the store.

    Raises:
        StoreError: the bytes are not those that `sha` names, or the store failed; the part stays in the second case.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    with _only(part) as stream:
        if path.exists():
            return  # another process was first
        for begun_before in (True, False):
            digest = hashlib.sha256()
            kept = _digest(stream, digest, size) if begun_before else 0
            stream.seek(kept)
            stream.truncate()
            if kept and progress is not None:
                progress(kept)
            for piece in _pieces(once, again, kept, size):
                stream.write(piece)
                digest.update(piece)
                if progress is not None:
                    progress(len(piece))
            if digest.hexdigest() == sha:
                break
            if not kept:
                part.unlink()
                raise StoreError(f"{what}: damaged: sha256 is {digest.hexdigest()}, recorded as {sha}")
            # A part of another attempt may be wrong where the object is not: once more, from the beginning.
            if progress is not None:
                progress(-size)
        stream.flush()
        os.fsync(stream.fileno())
        part.rename(path)


@contextmanager
def _only(part: Path) -> Iterator[BinaryIO]:
    while True:
        with part.open("ab+") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            try:
                same = os.path.samestat(os.fstat(stream.fileno()), part.stat())
            except FileNotFoundError:
                same = False
            if not same:
                # The one that held it has renamed it: this is its file now, not ours.
                continue
            yield stream
            if part.exists() and part.stat().st_size == 0:
                part.unlink()
            return


def _digest(stream: BinaryIO, digest: hashlib._Hash, size: int) -> int:
    stream.seek(0)
    kept = 0
    while kept < size and (piece := stream.read(min(PIECE_BYTES, size - kept))):
        digest.update(piece)
        kept += len(piece)
    return kept


def _pieces(once: Read, again: Read, start: int, size: int) -> Iterator[bytes]:
    """Yield ranges in order, a few of them under way at once."""
    wanted = deque((at, min(PIECE_BYTES, size - at)) for at in range(start, size, PIECE_BYTES))
    under_way: deque[tuple[int, int, Future[bytes]]] = deque()
    pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="causeway-fetch")
    try:
        while wanted or under_way:
            while wanted and len(under_way) < AT_ONCE:
                at, length = wanted.popleft()
                under_way.append((at, length, pool.submit(once, at, length)))
            at, length, future = under_way.popleft()
            try:
                piece = future.result()
            except Exception:
                piece = again(at, length)
            yield piece
    finally:
        # Ctrl-C: what is under way ends by itself within the time of one request.
        pool.shutdown(wait=False, cancel_futures=True)
