"""The `versions` table as plain rows: what a summary of ten thousand partition versions needs, read once."""

from __future__ import annotations

from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake.exceptions import DeltaError, TableNotFoundError
from pyarrow import ArrowInvalid

from data_contracts.catalog.reading import read_files, table_files
from data_contracts.catalog.tables import Tables
from data_contracts.errors import StoreError


class VersionRow(NamedTuple):
    """The part of a partition version that a summary needs; rows sort as versions do, oldest first by partition."""

    partition: str
    sequence: int
    ingest_id: str
    attempt_id: str
    verdict: str
    rows_accepted: int
    rows_quarantined: int
    contract_version: str
    published_at: str


def version_rows(tables: Tables) -> list[VersionRow]:
    """Return every version ever published, oldest first within each partition.

    A local table's files are read without pyarrow.dataset, whose import alone (it brings pandas) takes 0.2 s.

    Raises:
        StoreError: the table cannot be read.
    """
    uri, names = tables.uri("versions"), list(VersionRow._fields)
    try:
        target = tables.open("versions")
        if tables.store.root is None:
            files = table_files(target, f"tables/{tables.slug}/versions")
            parts = [read_files(tables.store, files, pa.schema(target.schema().to_arrow()), names)]
        else:
            parts = [pq.ParquetFile(path).read(names) for path in target.file_uris()]
    except TableNotFoundError:
        return []
    except (DeltaError, OSError, ArrowInvalid) as error:
        raise StoreError(f"{uri}: cannot be read: {error}") from error
    columns = ([part.column(name).to_pylist() for name in names] for part in parts)
    rows = [VersionRow(*row) for part in columns for row in zip(*part, strict=True)]
    # An override of a publication has the rank of what it overrides, and was published later.
    return sorted(rows, key=lambda r: (r.partition, r.sequence, r.ingest_id, r.attempt_id, r.published_at))


def newest_and_in_force(rows: list[VersionRow]) -> tuple[dict[str, VersionRow], dict[str, VersionRow]]:
    """Return each partition's newest version, refused or not, and the one in force, from sorted rows."""
    return {row.partition: row for row in rows}, {row.partition: row for row in rows if row.verdict != "refused"}
