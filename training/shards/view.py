"""A region's shards as a Hugging Face `Dataset`: for any other trainer, and for a look at what a site holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from data_contracts.catalog.store import Store
from data_contracts.errors import StoreError
from training.shards.manifest import ShardRef
from training.shards.writer import open_shard

if TYPE_CHECKING:
    import datasets


def as_dataset(store: Store, shards: Sequence[ShardRef]) -> datasets.Dataset:
    """Open shards as one `datasets.Dataset` with columns record_id, tokens, text_bytes; the tokens stay mapped.

    Raises:
        StoreError: no shard was named, or one cannot be opened.
    """
    import datasets
    from datasets.table import MemoryMappedTable

    if not shards:
        raise StoreError(f"{store.url}: no shards to open; is the region right?")
    parts: list[Any] = []
    for ref in shards:
        path = store.path(ref.arrow_key)
        table = open_shard(path).table.replace_schema_metadata(None)
        parts.append(datasets.Dataset(MemoryMappedTable(table, str(path))))
    return datasets.concatenate_datasets(parts)
