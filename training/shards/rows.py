"""The rows of a data set that may be trained on or evaluated with: current, curated, redacted."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from data_contracts.catalog.tables import PartitionVersion, Tables
from data_contracts.contract import Contract
from data_contracts.curation import curation_id, curation_rows, training_rows
from data_contracts.errors import DataRefused


@dataclass(frozen=True)
class CuratedRows:
    """`rows`: record_id, ingest_id, partition, split, text. `versions` are the current ones with accepted rows."""

    contract: Contract
    curation_id: str
    rows: pa.Table
    versions: dict[str, PartitionVersion]

    def of(self, split: str) -> pa.Table:
        """Return the rows of one split."""
        import pyarrow.compute as pc

        return self.rows.filter(pc.equal(self.rows.column("split"), split))


def curated_rows(contract: Contract, tables: Tables) -> CuratedRows:
    """Read a data set's curated rows.

    Raises:
        DataRefused: nothing was accepted, or the current partitions have not been curated; says what to run.
    """
    versions = {p: v for p, v in tables.current().items() if v.rows_accepted}
    if not versions:
        raise DataRefused(f"{contract.id}: no partition has accepted rows; run: causeway ingest CONTRACT SOURCE")
    rows = curation_rows(contract, tables)
    name = curation_id(contract, rows)
    if not tables.store.exists(curation_key(contract, name)):
        raise DataRefused(f"{contract.id}: its current partitions are not curated; run: causeway curate {contract.id}")
    return CuratedRows(contract, name, training_rows(rows, tables.read_curation(name)), versions)


def curation_key(contract: Contract, name: str) -> str:
    """Key of the summary that marks a curation as whole (its log may be empty)."""
    return f"curations/{contract.slug}/{name}.json"
