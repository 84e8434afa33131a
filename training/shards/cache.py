"""A region's shards as local files: the store's own when it is a directory, else a bounded cache on disk.

Nothing is handed out before its bytes were compared with what the manifest names, once a process and block by block as
they are touched, so opening costs the same for any amount of data. A cache folder holds sparse `<sha256>.arrow` files;
it may be shared by processes, deleted, or left by a crash: its content is never trusted. While it has room, a miss
fetches ever longer stretches, since an epoch needs every byte; when it is full, only the blocks that were asked for.
"""

from __future__ import annotations

import fcntl
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from data_contracts.canonical import sha256
from data_contracts.catalog.store import Store
from data_contracts.errors import ObjectMissing, StoreError
from training.shards import stretches
from training.shards.blocks import Array, Fetch, ShardFile, UnreadableShard, allow_files, remove
from training.shards.manifest import Manifest, ShardRef, read_manifest
from training.shards.stretches import DENSE, SMALL, STRETCH, Needs, Stretch

_FETCHERS = 8
_PIECE = 4 << 20
_TRIES = 3
_TOUCH_S = 1.0


class ShardCache:
    """The shards of one region's store. `folder` holds what came from a store that is no local directory.

    `limit_bytes` bounds the folder; least recently used shards leave it first. Threads may share one.
    """

    def __init__(self, store: Store, folder: Path | None = None, limit_bytes: int | None = None) -> None:
        if store.root is None and folder is None:
            raise StoreError(f"{store.url}: not a local directory, so its shards need a cache folder: --cache DIR")
        self.store = store
        self.folder = None if store.root is not None else folder
        self.limit_bytes = limit_bytes
        self.drops = 0  # counts files that have left the cache: who keeps ShardFiles looks again when it changes
        self._files: dict[str, ShardFile] = {}
        self._lock = threading.RLock()
        self._pool: ThreadPoolExecutor | None = None
        self._under_way: dict[tuple[ShardFile, int], Future[None]] = {}
        self._coming = 0  # bytes that were asked for
        self._reach = 1
        self._touched = 0.0
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)

    def path(self, ref: ShardRef) -> Path:
        """Return the local path of a shard's whole Arrow file, its bytes checked once a process.

        Raises:
            UnreadableShard: the shard is missing, or its bytes are not those that its manifest names.
            StoreError: the store failed, or the shard alone is larger than the cache may be.
        """
        file = self.open(ref)
        if self.folder is not None and self.limit_bytes is not None and ref.arrow_bytes > self.limit_bytes:
            raise StoreError(
                f"{file.path}: {ref.arrow_bytes} bytes are needed whole, and the cache may hold {self.limit_bytes};"
                " give it more: --cache-gb"
            )
        self.bring([(file, np.arange(file.blocks))])
        return file.path

    def open(self, ref: ShardRef) -> ShardFile:
        """Return a shard's file, mapped; none of its bytes are checked yet.

        Raises:
            UnreadableShard: manifest or file is missing or damaged.
            StoreError: the store failed.
        """
        with self._lock:
            found = self._files.get(ref.arrow_sha256)
            if found is not None and not found.gone:
                return found
        file = self._opened(ref)
        with self._lock:
            found = self._files.get(ref.arrow_sha256)
            if found is None or found.gone:
                found = self._files[ref.arrow_sha256] = file
            return found

    def open_all(self, refs: Sequence[ShardRef]) -> list[ShardFile | UnreadableShard]:
        """Return the files of shards, opened side by side, or why one cannot be.

        Raises:
            StoreError: the store failed.
        """

        def one(ref: ShardRef) -> ShardFile | UnreadableShard:
            try:
                return self.open(ref)
            except UnreadableShard as error:
                return error

        if len(refs) < 2:
            return [one(ref) for ref in refs]
        with self._lock:
            pool = self._workers()
        return list(pool.map(one, refs))

    def bring(self, needs: Needs) -> None:
        """Have blocks, int64 [k] of each file, here and checked; what is under way already is waited for.

        Raises:
            UnreadableShard: a block is not what its manifest names, after several tries.
            StoreError: the store failed.
        """
        while True:
            futures = self.ask(needs)
            pending = set(futures)
            while True:
                if all(file.checked[blocks].all() for file, blocks in needs):
                    return  # what still comes, or failed, is only read ahead
                if not pending:
                    break
                # A stretch may be long; its blocks are here one after the other.
                pending = wait(pending, 0.005, FIRST_COMPLETED).not_done
            errors = [error for future in futures if (error := future.exception()) is not None]
            if errors:
                raise min(errors, key=lambda e: isinstance(e, UnreadableShard))

    def ask(self, needs: Needs) -> list[Future[None]]:
        """Begin to bring blocks, in the background; return what to wait for."""
        futures: list[Future[None]] = []
        with self._lock:
            new = []
            for file, blocks in needs:
                blocks = np.unique(blocks[~file.checked[blocks]])
                waiting = {b: self._under_way[file, b] for b in blocks.tolist() if (file, b) in self._under_way}
                futures += set(waiting.values())
                blocks = blocks[[b not in waiting for b in blocks.tolist()]] if waiting else blocks
                if len(blocks):
                    new.append((file, blocks))
            if new:
                futures += self._begin(new)
        return futures

    def touch(self, files: Callable[[], Sequence[ShardFile]]) -> None:
        """Note that files are in use; does nothing within a second of the last time, or without a cache folder."""
        now = time.monotonic()
        if self.folder is None or now - self._touched < _TOUCH_S:
            return
        self._touched = now
        for file in files():
            if not file.touch():
                self._drop(file)

    def close(self, wait: bool = False) -> None:
        """End what works in the background, or let it come to its end; files that were handed out stay mapped."""
        with self._lock:
            pool, self._pool = self._pool, None
        if pool is not None:
            pool.shutdown(cancel_futures=not wait)

    def _begin(self, needs: list[tuple[ShardFile, Array]]) -> list[Future[None]]:
        runs = stretches.of(needs, 1, STRETCH + 1)
        if self.folder is not None and any(len(file.missing(blocks)) for file, blocks in needs):
            # As a reader of files does: the more was missed in a row, the longer the next stretch.
            ahead = self._rest(needs) or stretches.of(needs, self._reach, DENSE)
            self._reach = min(STRETCH, 2 * self._reach)
            if self._make_room(stretches.size(ahead), evict=False):
                runs = ahead
            else:
                self._make_room(stretches.size(runs), evict=True, keep={file.path for file, _ in needs})
        futures = []
        for file, start, end in runs:
            coming = stretches.size([(file, start, end)]) if self.limit_bytes is not None else 0
            self._coming += coming
            future = self._workers().submit(self._check, file, start, end, coming)
            futures.append(future)
            for block in range(start, end):
                self._under_way.setdefault((file, block), future)
        return futures

    def _rest(self, needs: list[tuple[ShardFile, Array]]) -> list[Stretch]:
        """Return all that is missing of a small region, in the longest stretches; nothing of a larger one."""
        if sum(file.manifest.arrow_bytes for file in self._files.values()) > SMALL:
            return []
        wanted = dict(needs)
        for file in self._files.values():
            missing = file.missing(np.arange(file.blocks))
            missing = missing[[(file, block) not in self._under_way for block in missing.tolist()]]
            if len(missing):
                wanted[file] = np.union1d(wanted.get(file, missing), missing)
        return stretches.of(list(wanted.items()), 1, 1)

    def _check(self, file: ShardFile, start: int, end: int, coming: int) -> None:
        try:
            for left in reversed(range(_TRIES)):
                try:
                    file.check(start, end)
                    return
                except UnreadableShard:
                    if not left:
                        raise
                    time.sleep(0.1)
        finally:
            with self._lock:
                self._coming -= coming
                for block in range(start, end):
                    self._under_way.pop((file, block), None)

    def _workers(self) -> ThreadPoolExecutor:
        if self._pool is None:
            threads = min(_FETCHERS, os.cpu_count() or 1) if self.folder is None else _FETCHERS
            self._pool = ThreadPoolExecutor(threads, thread_name_prefix="shards")
        return self._pool

    def _opened(self, ref: ShardRef) -> ShardFile:
        allow_files(len(self._files))
        for left in reversed(range(_TRIES)):
            try:
                manifest = self._manifest(ref)
                if manifest.arrow_sha256 != ref.arrow_sha256:
                    raise UnreadableShard(f"{self.store.url}/{ref.key}: names another file than {ref.arrow_sha256}")
                if self.folder is None:
                    return ShardFile(self.store.path(ref.arrow_key), manifest)
                with _locked(self.folder / ".lock"):
                    path = self.folder / f"{ref.arrow_sha256}.arrow"
                    return ShardFile(path, manifest, self._fetcher(ref.arrow_key))
            except UnreadableShard:
                if not left:
                    raise
                time.sleep(0.1)
        raise AssertionError

    def _manifest(self, ref: ShardRef) -> Manifest:
        try:
            return read_manifest(self.store, ref.key, ref.manifest_sha256)
        except ObjectMissing as error:
            raise UnreadableShard(f"{error}; restore it or shard the data set again") from error
        except StoreError as error:
            if sha256(self.store.get(ref.key)) != ref.manifest_sha256:
                raise UnreadableShard(f"{error}; restore it or shard the data set again") from error
            raise

    def _fetcher(self, key: str) -> Fetch:
        def fetch(start: int, length: int) -> Iterator[memoryview]:
            done = 0
            try:
                if length > _PIECE:
                    try:
                        for piece in self.store.stream(key, start, length):
                            done += len(piece)
                            yield piece
                    except ObjectMissing:
                        raise
                    except StoreError:
                        pass
                while done < length:  # what broke off, by requests that are tried again
                    rest = self.store.get_range(key, start + done, min(_PIECE, length - done))
                    done += len(rest)
                    yield memoryview(rest)
            except ObjectMissing as error:
                raise UnreadableShard(f"{error}; restore it or shard the data set again") from error
            except StoreError as error:
                if self.store.size(key) < start + length:
                    raise UnreadableShard(f"{error}; restore it or shard the data set again") from error
                raise

        return fetch

    def _make_room(self, needed: int, evict: bool, keep: Collection[Path] = ()) -> bool:
        """Say whether `needed` bytes fit the folder; make room by dropping what was used least lately, `keep` last."""
        if self.folder is None or self.limit_bytes is None:
            return True
        with _locked(self.folder / ".lock"):
            held = []
            for entry in os.scandir(self.folder):
                if entry.name.endswith(".arrow"):
                    status = entry.stat()
                    path = Path(entry.path)
                    held.append((path in keep, status.st_mtime, status.st_blocks * 512, path))
            over = sum(size for _, _, size, _ in held) + self._coming + needed - self.limit_bytes
            for _, _, size, path in sorted(held) if evict else ():
                if over <= 0:
                    break
                remove(path)
                over -= size
                file = self._files.get(path.stem)
                if file is not None:
                    self._drop(file)
            return over <= 0

    def _drop(self, file: ShardFile) -> None:
        with self._lock:
            file.gone = True
            self.drops += 1
            if self._files.get(file.path.stem) is file:
                del self._files[file.path.stem]


@contextmanager
def _locked(path: Path) -> Iterator[Any]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield file
