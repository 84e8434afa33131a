"""Foreign keys: values that must stand in another data set, or in another column of the same partition."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.checks.measures import Measured, share
from data_contracts.checks.spool import Spool, connection
from data_contracts.errors import DataRefused
from data_contracts.rowchecks import typed
from data_contracts.ruling.context import References
from data_contracts.ruling.kinds import BatchRule, RowRule


class KnownKeys:
    """The keys of a data set's rows in force, read when first asked for and kept: about 100 bytes each."""

    def __init__(self, references: References, dataset: str, to: Sequence[str], logical: Sequence[str]) -> None:
        self._ask = references, dataset, list(to), list(logical)
        self._known: set[tuple[Any, ...]] | None = None
        self._lock = threading.Lock()

    def lacks(self, keys: Sequence[tuple[Any, ...]]) -> list[bool]:
        """Say of each key whether it is not there.

        Raises:
            DataRefused: there is no such data set, or it has no such column.
        """
        with self._lock:
            if self._known is None:
                self._known = self._read()
        return [key not in self._known for key in keys]

    def _read(self) -> set[tuple[Any, ...]]:
        references, dataset, to, logical = self._ask
        known: set[tuple[Any, ...]] = set()
        for table in references(dataset, to):
            missing = [name for name in to if name not in table.column_names]
            if missing:
                raise DataRefused(
                    f"{dataset}: has no column {missing[0]}, which a foreign key leads to; correct the key"
                )
            unique = table.select(to).group_by(to).aggregate([]).combine_chunks()
            for batch in unique.to_batches():
                columns = [typed(batch.column(name), kind).to_pylist() for name, kind in zip(to, logical, strict=True)]
                known.update(zip(*columns, strict=True))
        return known


def foreign_key_fails(rule: RowRule, batch: pa.RecordBatch) -> pa.BooleanArray:
    """True where the key is no row of the other data set; a key with a NULL in it leads nowhere and passes.

    Raises:
        DataRefused: nothing was passed in that knows other data sets.
    """
    given = rule.arguments
    keys: KnownKeys | None = given.get("known")
    if keys is None:
        raise DataRefused(
            f"rule {rule.name}: the rows of {given['dataset']} are not at hand here; ingest at a home that has it"
        )
    names = given["columns"]
    codes, values = _encoded([batch.column(name) for name in names])
    lacking = np.asarray(keys.lacks(values), dtype=np.bool_)
    complete = np.logical_and.reduce([np.asarray(batch.column(name).is_valid()) for name in names])
    return pa.array(lacking[codes] & complete if len(values) else np.zeros(batch.num_rows, dtype=np.bool_))


def _encoded(columns: Sequence[pa.Array]) -> tuple[np.ndarray[Any, Any], list[tuple[Any, ...]]]:
    """Return for each row the position of its key among the different keys, and those."""
    coded = [column.dictionary_encode("encode") for column in columns]
    whole = np.zeros(len(columns[0]), dtype=np.int64)
    for column in coded:
        whole = whole * max(len(column.dictionary), 1) + np.asarray(column.indices, dtype=np.int64)
    _, first, codes = np.unique(whole, return_index=True, return_inverse=True)
    rows = pa.array(first)
    values = [column.take(rows).to_pylist() for column in columns]
    return codes, list(zip(*values, strict=True))


class Dangling:
    """How many rows have a key that no row of the partition has in the columns it leads to."""

    def __init__(self, rule: BatchRule) -> None:
        self.rule = rule
        self.children, self.parents = Spool(rule.arguments["from"]), Spool(rule.arguments["to"])

    def add(self, rows: pa.Table) -> None:
        """Keep both ends."""
        known = rows
        for name in self.children.columns:
            known = known.filter(pc.is_valid(known.column(name)))
        self.children.add(known)
        self.parents.add(rows)

    def result(self, rows_in: int, rows_accepted: int) -> Measured:
        """Count the keys without a row."""
        with self.children, self.parents:
            children, parents = self.children.dataset(), self.parents.dataset()
            if children is None or parents is None:
                return share(self.rule, 0, rows_accepted)
            with TemporaryDirectory(prefix="causeway-") as folder, connection(Path(folder)) as duck:
                duck.register("children", children)
                duck.register("parents", parents)
                ends = zip(self.children.columns, self.parents.columns, strict=True)
                same = " AND ".join(f'c."{one}" = p."{other}"' for one, other in ends)  # letters, digits and '_'
                query = f"SELECT count(*) FROM children c WHERE NOT EXISTS (SELECT 1 FROM parents p WHERE {same})"
                return share(self.rule, int(duck.execute(query).fetchall()[0][0]), rows_accepted)
