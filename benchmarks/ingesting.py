"""One ingest of a workload, as the validation benchmark times it and as a process of its own that is measured."""

from __future__ import annotations

import datetime
import shutil
from pathlib import Path

from data_contracts.catalog.store import Store
from data_contracts.catalog.tables import Tables
from data_contracts.contract import load_contract
from data_contracts.ingest import IngestResult, ingest_partition
from data_contracts.sources import open_source

SECRET = b"k" * 32


def ingest(contract_path: Path, data: Path, tables: Path) -> IngestResult:
    """Ingest the one partition of a workload into new tables."""
    shutil.rmtree(tables, ignore_errors=True)
    contract = load_contract(contract_path)
    source = open_source(contract, str(data))
    (partition,) = source.partitions()
    found = Tables(Store.open(tables), contract.slug)
    return ingest_partition(contract, source, partition, found, SECRET, datetime.datetime.now(datetime.UTC))
