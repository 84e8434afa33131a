"""How `Store` writes: once of several writers, in parts when it is large, and compared with what was sent."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError

from data_contracts.canonical import sha256
from data_contracts.catalog import store_faults as faults
from data_contracts.catalog import store_transfer as transfer
from data_contracts.errors import ObjectExists, StoreError

if TYPE_CHECKING:
    from data_contracts.catalog.store import Store

# Up to here one request carries a body; above, parts do.
WHOLE_BYTES = 16 << 20
# A part is sent again for so long before the whole file is: Ctrl-C does not reach obstore while it tries.
_PART_RETRY_S = 5.0


def create(store: Store, key: str, data: bytes) -> None:
    """Put an object if none is there, as `Store.create` says."""
    remote, unsure = store.remote, False
    # No store takes parts on a condition, so a large body is one request too: with more time.
    inner = store.inner if remote is None or len(data) <= WHOLE_BYTES else remote.patient(len(data))
    store.uri(key)

    def attempt() -> None:
        nonlocal unsure
        try:
            obstore.put(inner, key, data, mode="create", use_multipart=False)
        except AlreadyExistsError as error:
            if unsure and not faults.is_transient(error) and _holds(store, key, data):
                return
            raise
        except BaseError:
            unsure = True
            raise

    store.request("written", key, attempt)
    if not _compares(store):
        _read_back(store, key, sha256(data), len(data))


def create_file(store: Store, key: str, path: Path, sha: str) -> bool:
    """Put a file under a key that names its content, as `Store.create_file` says."""
    what = store.uri(key)
    if store.root is not None:
        try:
            transfer.link_file(path, store.path(key), sha, what)
            return True
        except ObjectExists:
            pass
        except OSError as error:
            raise faults.explain(error, what, "written", None) from error
    elif not store.exists(key):
        # Two that race write the same bytes.
        put_file(store, key, path, sha)
        return True
    if store.size(key) != path.stat().st_size:
        raise ObjectExists(f"{what}: an object of another size is already there; delete it")
    return False


def put(store: Store, key: str, data: bytes) -> None:
    """Put a replaceable object."""
    store.uri(key)
    if store.remote is None or len(data) <= WHOLE_BYTES:
        store.request("written", key, lambda: obstore.put(store.inner, key, data))
    else:
        _put_parts(store, key, lambda: data)
    if not _compares(store):
        _read_back(store, key, sha256(data), len(data))


def put_file(store: Store, key: str, path: Path, sha: str | None) -> None:
    """Put the bytes of a local file, as `Store.put_file` says."""
    what = store.uri(key)
    if store.remote is None:
        body = path if sha is None else transfer.file_pieces(path, sha, what)
        store.request("written", key, lambda: obstore.put(store.inner, key, body))
        return
    _put_parts(store, key, lambda: transfer.file_pieces(path, sha, what))
    if not _compares(store):
        _read_back(store, key, sha or transfer.sha256_file(path), path.stat().st_size)


def _put_parts(store: Store, key: str, body: Callable[[], Any]) -> None:
    assert store.remote is not None
    inner = store.remote.patient(transfer.PIECE_BYTES * transfer.AT_ONCE, min(_PART_RETRY_S, store.retry_s))
    options = {"chunk_size": transfer.PIECE_BYTES, "max_concurrency": transfer.AT_ONCE}
    store.request("written", key, lambda: obstore.put(inner, key, body(), **options))


def _holds(store: Store, key: str, data: bytes) -> bool:
    try:
        return bytes(obstore.get(store.inner, key).bytes()) == data
    except FileNotFoundError:
        return False


def _compares(store: Store) -> bool:
    """Say whether nothing has to be read back: no network, or a store that checks each body against its sha256."""
    return store.remote is None or store.remote.verifies


def _read_back(store: Store, key: str, sha: str, size: int) -> None:
    if transfer.sha256_of(lambda start, length: store.get_range(key, start, length), size) != sha:
        raise StoreError(f"{store.uri(key)}: what was written is not what was sent; write it again")
