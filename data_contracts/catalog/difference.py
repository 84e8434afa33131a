"""What differs between two versions of a partition, by key: rows added, removed and changed, and in which columns.

Arrow and numpy over whole columns: a key becomes a number, and numbers are counted and looked up. Null equals null, as
in SQL's IS NOT DISTINCT FROM. Memory: both versions, and some ten numbers a row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.catalog.rows import content_columns, read_rows, version_contract
from data_contracts.catalog.tables import PartitionVersion, Tables
from data_contracts.errors import DataRefused
from data_contracts.odcs import nearest

Numbers = np.ndarray[Any, np.dtype[np.int64]]
Mask = np.ndarray[Any, np.dtype[np.bool_]]
KeyKind = Literal["primary key", "record_id", "chosen"]

# Rows that are fetched at once to be compared: bounds the copies of text.
_BLOCK = 1 << 18


@dataclass(frozen=True)
class Difference:
    """Two tables compared. `rows_from` = unchanged + changed + removed, `rows_to` = unchanged + changed + added.

    `changed_columns` counts changed rows by column, most first. `columns_from` and `columns_to` are those that only one
    side has: null on the other. `duplicates_from` and `duplicates_to` count keys that stand more than once; their rows
    cannot be paired, so those that differ count as removed and added. The four tables hold examples; rows of
    `changed_from` and `changed_to` belong together.
    """

    key: tuple[str, ...]
    rows_from: int
    rows_to: int
    added: int
    removed: int
    changed: int
    unchanged: int
    changed_columns: Mapping[str, int]
    columns_from: tuple[str, ...]
    columns_to: tuple[str, ...]
    duplicates_from: int
    duplicates_to: int
    added_rows: pa.Table
    removed_rows: pa.Table
    changed_from: pa.Table
    changed_to: pa.Table


def compare_versions(
    tables: Tables, old: PartitionVersion, new: PartitionVersion, key: Sequence[str] = (), limit: int = 10
) -> tuple[Difference, KeyKind]:
    """Compare two versions of a partition by `key`, by default the primary key, and say which key it was.

    Without one key of the same columns on both sides, rows are matched by record_id: the same key values in columns
    that were renamed, or, without any primary key, the same content; changed content is then removed and added.

    Raises:
        DataRefused: a version was refused, its contract is not kept, or `key` names a column that neither has.
    """
    sides = [version_contract(tables, v) for v in (old, new)]
    columns = [content_columns(contract) for contract in sides]
    kind: KeyKind = "chosen"
    if not key:
        same = sides[0].primary_key == sides[1].primary_key and bool(sides[1].primary_key)
        key, kind = (sides[1].primary_key, "primary key") if same else (("record_id",), "record_id")
    _check_key(key, [*columns[0], *columns[1], "record_id"])
    extra = ["record_id"] if "record_id" in key else []
    left, right = (read_rows(tables, v, [*own, *extra]) for v, own in zip((old, new), columns, strict=True))
    return difference(left, right, key, limit), kind


def difference(old: pa.Table, new: pa.Table, key: Sequence[str], limit: int = 10) -> Difference:
    """Compare two tables by the columns of `key`; at most `limit` examples of each kind.

    Columns with one name must have one type. Floats are compared as numbers: NaN equals NaN, 0.0 equals -0.0.

    Raises:
        DataRefused: neither table has a column of `key`.
    """
    names = list(dict.fromkeys([*old.column_names, *new.column_names]))
    _check_key(key, names)
    columns_from = tuple(name for name in old.column_names if name not in new.column_names)
    columns_to = tuple(name for name in new.column_names if name not in old.column_names)
    old, new = _widened(old, new, names), _widened(new, old, names)
    new = new.cast(old.schema)
    codes_old, codes_new = _codes(old, new, key)
    keys = 1 + int(max(codes_old.max(initial=-1), codes_new.max(initial=-1)))
    count_old, count_new = np.bincount(codes_old, minlength=keys), np.bincount(codes_new, minlength=keys)

    removed, added = count_new[codes_old] == 0, count_old[codes_new] == 0
    single = (count_old == 1) & (count_new == 1)
    pairs_old = np.flatnonzero(single[codes_old])
    where = np.zeros(keys, np.int64)
    where[codes_new] = np.arange(new.num_rows)
    pairs_new = where[codes_old[pairs_old]]
    others = [name for name in names if name not in key]
    changed, by_column = _changed(old, new, pairs_old, pairs_new, others)

    repeated = (count_old > 0) & (count_new > 0) & ~single
    many_old, many_new = np.flatnonzero(repeated[codes_old]), np.flatnonzero(repeated[codes_new])
    left_old, left_new = _left_over(old.take(pa.array(many_old)), new.take(pa.array(many_new)), names)
    removed[many_old[left_old]] = True
    added[many_new[left_new]] = True

    shown = pa.array(pairs_old[changed][:limit]), pa.array(pairs_new[changed][:limit])
    return Difference(
        key=tuple(key),
        rows_from=old.num_rows,
        rows_to=new.num_rows,
        added=int(added.sum()),
        removed=int(removed.sum()),
        changed=int(changed.sum()),
        unchanged=old.num_rows - int(removed.sum()) - int(changed.sum()),
        changed_columns=dict(sorted(by_column.items(), key=lambda entry: -entry[1])),
        columns_from=columns_from,
        columns_to=columns_to,
        duplicates_from=int((count_old > 1).sum()),
        duplicates_to=int((count_new > 1).sum()),
        added_rows=new.take(pa.array(np.flatnonzero(added)[:limit])),
        removed_rows=old.take(pa.array(np.flatnonzero(removed)[:limit])),
        changed_from=old.take(shown[0]),
        changed_to=new.take(shown[1]),
    )


def _check_key(key: Sequence[str], names: Sequence[str]) -> None:
    for name in key:
        if name not in names:
            listed = ", ".join(dict.fromkeys(names))
            raise DataRefused(f"no column {name!r} to match rows by{nearest(name, names)}; there are {listed}")


def _widened(table: pa.Table, other: pa.Table, names: Sequence[str]) -> pa.Table:
    """Return the table with all the columns of both: nulls in those that it lacks, and floats that compare as numbers.

    Arrow tells -0.0 from 0.0 and one NaN from another when it hashes.
    """
    columns = []
    for name in names:
        if name in table.column_names:
            column = table[name]
            if pa.types.is_floating(column.type):
                column = pc.add(column, pa.scalar(0.0, column.type))
                column = pc.if_else(pc.is_nan(column), pa.scalar(float("nan"), column.type), column)
        else:
            column = pa.nulls(table.num_rows, other[name].type)
        columns.append(column)
    return pa.table(columns, names=list(names))


def _codes(old: pa.Table, new: pa.Table, columns: Sequence[str]) -> tuple[Numbers, Numbers]:
    """Return a number from 0 on for each row: equal numbers for rows of either table with equal values."""
    whole: Numbers = np.zeros(old.num_rows + new.num_rows, np.int64)
    for name in columns:
        both = pa.chunked_array([*old[name].chunks, *new[name].chunks], old[name].type)
        encoded = both.dictionary_encode(null_encoding="encode")
        parts = [chunk.indices.to_numpy(zero_copy_only=False) for chunk in encoded.chunks]
        codes = np.concatenate([np.zeros(0, np.int64), *parts]).astype(np.int64)
        if whole.any():
            # Both factors are below the number of rows, so the product fits.
            codes = np.unique(whole * (1 + codes.max()) + codes, return_inverse=True)[1]
        whole = codes
    return whole[: old.num_rows], whole[old.num_rows :]


def _changed(
    old: pa.Table, new: pa.Table, pairs_old: Numbers, pairs_new: Numbers, columns: Sequence[str]
) -> tuple[Mask, dict[str, int]]:
    """Compare the rows that belong together, column by column; return which differ and how many by column."""
    changed: Mask = np.zeros(len(pairs_old), np.bool_)
    by_column: dict[str, int] = {}
    for name in columns:
        count = 0
        for start in range(0, len(pairs_old), _BLOCK):
            block = slice(start, start + _BLOCK)
            differs = _differs(old[name].take(pa.array(pairs_old[block])), new[name].take(pa.array(pairs_new[block])))
            changed[block] |= differs
            count += int(differs.sum())
        if count:
            by_column[name] = count
    return changed, by_column


def _differs(left: pa.ChunkedArray, right: pa.ChunkedArray) -> Mask:
    unequal = pc.fill_null(pc.not_equal(left, right), False)
    if pa.types.is_floating(left.type):
        both_nan = pc.and_(pc.fill_null(pc.is_nan(left), False), pc.fill_null(pc.is_nan(right), False))
        unequal = pc.and_not(unequal, both_nan)
    differs: Mask = pc.or_(unequal, pc.xor(pc.is_null(left), pc.is_null(right))).to_numpy().astype(np.bool_)
    return differs


def _left_over(old: pa.Table, new: pa.Table, columns: Sequence[str]) -> tuple[Mask, Mask]:
    """Cancel equal rows of two multisets against each other; return which rows of each are left."""
    codes_old, codes_new = _codes(old, new, columns)
    kinds = 1 + int(max(codes_old.max(initial=-1), codes_new.max(initial=-1)))
    count_old, count_new = np.bincount(codes_old, minlength=kinds), np.bincount(codes_new, minlength=kinds)
    return _occurrence(codes_old) >= count_new[codes_old], _occurrence(codes_new) >= count_old[codes_new]


def _occurrence(codes: Numbers) -> Numbers:
    """Return for each entry how many equal ones stand before it."""
    order = np.argsort(codes, kind="stable")
    ordered = codes[order]
    first = np.flatnonzero(np.diff(ordered, prepend=-1))
    found: Numbers = np.zeros(len(codes), np.int64)
    found[order] = np.arange(len(codes)) - np.repeat(first, np.diff(np.append(first, len(codes))))
    return found
