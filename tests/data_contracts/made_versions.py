"""Versions of partitions for the tests of tables, made as an ingest makes them: contract, source file, one row."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_contracts.catalog.registry import register
from data_contracts.catalog.store import Store
from data_contracts.catalog.tables import PartitionVersion, Tables
from data_contracts.contract import Contract
from data_contracts.ingest import ingest_partition
from data_contracts.sources import open_source
from tests.data_contracts.making import KEYED, SECRET, column, make_contract, write_lines

READER = {"format": "jsonl", "partition": {"from": "path", "pattern": r"([^/]+)\.jsonl$"}}
DAY, CONTENT = KEYED[1], KEYED[2]
# Three schemas of one data set over time: the second renames two columns, the third adds one.
FIRST = (*KEYED, column("count", "integer"))
RENAMED = (column("name", primaryKey=True, primaryKeyPosition=1), DAY, CONTENT, column("cases", "integer"))
WIDER = (*RENAMED, column("active", "integer"))
UNKEYED = (column("key"), DAY, CONTENT)


@dataclass(frozen=True)
class Made:
    """A data set in a folder, to which versions are published; its tables lie there too, or in the store `at`."""

    folder: Path
    at: str = ""

    @property
    def tables(self) -> Tables:
        return Tables(Store.open(self.at or self.folder / "store"), "test--notes")

    def contract(self, columns: Sequence[Any] = KEYED, **more: Any) -> Contract:
        return make_contract(self.folder / "in", columns, reader=READER, **more)

    def publish(
        self, rows: Sequence[Any], contract: Contract | None = None, day: str = "monday", published: str | None = None
    ) -> PartitionVersion:
        """Ingest rows as one partition; `published` is a day, for contracts that order by publication."""
        contract = contract or self.contract()
        write_lines(self.folder / "data" / f"{day}.jsonl", rows)
        source = open_source(contract, str(self.folder / "data"))
        part = next(part for part in source.partitions() if part.value == day)
        moment = dt.datetime.fromisoformat(published).replace(tzinfo=dt.UTC) if published else None
        register(self.tables.store, contract, str(self.folder / "data"), moment)
        now = dt.datetime(2026, 3, 4, 5, 6, 7, tzinfo=dt.UTC)
        return ingest_partition(contract, source, part, self.tables, SECRET, now, publication=moment).version


def notes(**texts: str) -> list[dict[str, Any]]:
    """Rows of key and content."""
    return [{"key": key, "content": text} for key, text in texts.items()]
