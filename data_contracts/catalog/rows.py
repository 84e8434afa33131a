"""The rows of one version as its own contract has them: the table has the columns of all contracts of all time."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import pyarrow as pa

from data_contracts.catalog.registry import kept_contract
from data_contracts.catalog.store import Store
from data_contracts.catalog.tables import PartitionVersion, Tables
from data_contracts.contract import Contract
from data_contracts.errors import DataRefused
from data_contracts.odcs import nearest
from data_contracts.validation import accepted_schema


def version_contract(tables: Tables, version: PartitionVersion) -> Contract:
    """Return the contract under which a version was published.

    Raises:
        DataRefused: it is not kept beside the tables.
    """
    return _kept(tables.store, tables.slug, version.contract_sha)


@lru_cache(maxsize=64)
def _kept(store: Store, slug: str, sha: str) -> Contract:
    # Named by its content, and slow to check: history and export ask for the same few again and again.
    return kept_contract(store, slug, sha)


def content_columns(contract: Contract) -> list[str]:
    """Return the columns that say something of a record: the contract's, and its side of the split."""
    return [*(column.name for column in contract.properties), "split"]


def read_rows(tables: Tables, version: PartitionVersion, columns: Sequence[str] | None = None) -> pa.Table:
    """Return a version's accepted rows, sorted by record_id, by default with all columns of its own contract.

    Raises:
        DataRefused: the version was refused, its contract is not kept, or it has no such column.
    """
    schema = accepted_schema(version_contract(tables, version))
    names = schema.names if columns is None else list(columns)
    for name in names:
        if name not in schema.names:
            raise DataRefused(
                f"{version.dataset}: partition {version.partition}, version {version.ingest_id[:12]} has no column"
                f" {name!r}{nearest(name, schema.names)}; it has {', '.join(schema.names)}"
            )
    if not version.rows_accepted and version.verdict != "refused":
        # The table may never have seen the columns of a contract under which nothing was accepted.
        return schema.empty_table().select(names)
    return tables.read_accepted(version, names)


def version_before(tables: Tables, version: PartitionVersion) -> PartitionVersion:
    """Return the version next below in sequence that was not refused and has other bytes or another contract.

    Raises:
        DataRefused: there is none.
    """
    older = [
        other
        for other in tables.versions(version.partition)
        if other.verdict != "refused" and other.rank < version.rank and other.ingest_id != version.ingest_id
    ]
    if not older:
        raise DataRefused(
            f"{version.dataset}: partition {version.partition}: no version before {version.ingest_id[:12]} was"
            " accepted, so there is nothing to compare it with"
        )
    return older[-1]
