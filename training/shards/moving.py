"""A unit's shards go from one region's store to another's: copied, verified, admitted, and only then let go.

Nothing is readable under its final name before it is whole: a store shows an object when all of it is there, and a
shard without a manifest does not exist. A copy that was interrupted goes on: bytes on their way from a remote store
wait in a file beside which they continue, and an Arrow file that has arrived is not sent again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from data_contracts.canonical import canonical_json
from data_contracts.catalog.store import Store
from data_contracts.catalog.store_transfer import sha256_file, sha256_of
from data_contracts.errors import ObjectMissing, StoreError
from training.shards.inventory import Held
from training.shards.manifest import Manifest


def move(
    held: Held,
    target: Store,
    manifests: Sequence[Manifest],
    staging: Path,
    record: Callable[[Manifest, Manifest], None],
    progress: Callable[[int], None] = lambda bytes_done: None,
) -> int:
    """Copy a unit's Arrow files to `target` and admit them there under `manifests`; return the bytes that were sent.

    `manifests` are those of the destination, part by part. `staging` is a local folder for bytes on their way from a
    store that is no local directory. `record` is told of the old and new manifest of each shard that moves, before the
    new one is written. The source stays as it is: whoever calls removes it. A unit that is in the region already is
    only admitted anew. `progress` is told how many bytes have arrived since it last was.

    Raises:
        StoreError: a store failed, or the source's bytes are not those of its manifest; calling again continues.
    """
    sent = 0
    for one, made in zip(held.shards, manifests, strict=True):
        here = one.region.name == made.region
        if not here and not arrived(target, made):
            _copy(one.store, one.arrow_key, target, made, staging)
            sent += made.arrow_bytes
        progress(made.arrow_bytes)
    for one, made in zip(held.shards, manifests, strict=True):
        if one.region.name != made.region:
            record(one.manifest, made)
        target.ensure(made.key, canonical_json(made.document()))
    return sent


def arrived(store: Store, manifest: Manifest) -> bool:
    """Say whether a manifest's Arrow file lies in a store, byte for byte; one that is damaged is deleted."""
    key, size = manifest.arrow_key, manifest.arrow_bytes
    try:
        if store.size(key) == size and _sha_of(store, key, size) == manifest.arrow_sha256:
            return True
    except ObjectMissing:
        return False
    store.delete(key)
    return False


def _copy(source: Store, key: str, target: Store, manifest: Manifest, staging: Path) -> None:
    sha, size = manifest.arrow_sha256, manifest.arrow_bytes
    if source.root is not None:
        target.put_file(manifest.arrow_key, source.path(key), sha)
    else:
        staging.mkdir(parents=True, exist_ok=True)
        path = staging / f"{sha}.arrow"
        source.fetch(key, path, sha, size)
        target.put_file(manifest.arrow_key, path, sha)
        path.unlink()
    if target.root is not None and _sha_of(target, manifest.arrow_key, size) != sha:
        raise StoreError(
            f"{target.uri(manifest.arrow_key)}: what arrived is not what {source.uri(key)} sent; run this again"
        )


def _sha_of(store: Store, key: str, size: int) -> str:
    if store.root is not None:
        return sha256_file(store.path(key))
    return sha256_of(lambda start, length: store.get_range(key, start, length), size)
