"""What the catalog tells rules beyond the rows of a partition: the one before it, and the rows of other data sets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import pyarrow as pa

from data_contracts.catalog.tables import Tables
from data_contracts.contract import Contract
from data_contracts.ruling.context import Reviews, RuleContext


def context_of(
    contract: Contract, tables: Tables, partition: str, others: Callable[[str], Tables] | None = None
) -> RuleContext:
    """Return the context of one partition. `others` gives the tables of a data set by id, for foreign keys.

    The partition before is the one with the greatest value below this one's (integers by their number), in the version
    that is in force; empty and refused ones do not count.
    """

    def previous(columns: Sequence[str]) -> tuple[str, pa.Table] | None:
        order = _order(contract)
        known = [v for v in tables.current().values() if v.rows_accepted and order(v.partition) < order(partition)]
        if not known:
            return None
        version = max(known, key=lambda v: order(v.partition))
        if not set(columns) <= set(tables.columns("accepted")):
            return None  # a column that no version had yet
        return version.partition, tables.read_accepted(version, list(columns) or ["record_id"])

    def references(dataset: str, columns: Sequence[str]) -> Iterator[pa.Table]:
        assert others is not None
        other = others(dataset)
        for version in other.current().values():
            if version.rows_accepted:
                yield other.read_accepted(version, columns)

    reviews = Reviews(tables.store, f"reviews/{tables.slug}")
    return RuleContext(references=None if others is None else references, previous=previous, reviews=reviews)


def _order(contract: Contract) -> Callable[[str], tuple[int, int, str]]:
    if contract.property(contract.partition_column).logical_type != "integer":
        return lambda value: (0, 0, value)
    return lambda value: (0, int(value), "") if value.lstrip("-").isdigit() else (1, 0, value)
