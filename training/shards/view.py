"""A region's shards as a Hugging Face `Dataset`: for any other trainer, and for a look at what a region holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from data_contracts.catalog.store import Store
from data_contracts.errors import StoreError
from training.shards.cache import ShardCache
from training.shards.manifest import ShardRef
from training.shards.writer import open_shard

if TYPE_CHECKING:
    import datasets


def as_dataset(source: Store | ShardCache, shards: Sequence[ShardRef]) -> datasets.Dataset:
    """Open shards of one data set as a `datasets.Dataset`; the tokens stay mapped.

    Columns: record_id, tokens, text_bytes, and trained (1 where a token has a loss) where the shards have a mask.
    `source` is a region's store when it is a local directory, or a cache that brings shards of any store here.

    Raises:
        StoreError: no shard was named, or one cannot be opened, or its bytes are not those its manifest names.
    """
    import datasets
    from datasets.table import MemoryMappedTable

    cache = source if isinstance(source, ShardCache) else ShardCache(source)
    if not shards:
        raise StoreError(f"{cache.store.url}: no shards to open; is the region right?")
    parts: list[Any] = []
    for ref in shards:
        path = cache.path(ref)
        table = open_shard(path).table.replace_schema_metadata(None)
        parts.append(datasets.Dataset(MemoryMappedTable(table, str(path))))
    return datasets.concatenate_datasets(parts)
