"""Records that were parsed one by one, typed a block at a time: much faster than value by value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.contract import Contract
from data_contracts.sources.records import SOURCE_LINE, RawRecord, batches, typed_batches

BLOCK_ROWS = 16_384
_PLAIN = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}


def in_order(found: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield the records of one file's batches as one batch, by their numbers."""
    parts = list(found)
    if len(parts) < 2:
        yield from parts
        return
    table = pa.Table.from_batches(parts)
    yield from table.take(pc.sort_indices(table.column(SOURCE_LINE))).combine_chunks().to_batches()


def typed_block(
    contract: Contract,
    file: str,
    constants: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    numbers: Sequence[int],
    bad: Sequence[RawRecord] = (),
) -> Iterator[pa.RecordBatch]:
    """Yield a block of records in the order of their numbers: `rows` by column, `constants` where a row lacks one.

    `bad` are the records of the block that could not be decoded. A block whose columns mix types, or hold lists and
    objects, is typed value by value.
    """
    columns: dict[str, pa.Array] = {}
    plain = True
    for prop in contract.properties:
        constant = constants.get(prop.name)
        values = [row.get(prop.name, constant) for row in rows]
        kinds = {type(value) for value in values} - {type(None)}
        if not kinds:
            continue
        kind = kinds.pop()
        try:
            if kinds or kind not in _PLAIN:
                raise TypeError(kind)
            columns[prop.name] = pa.array(values, _PLAIN[kind])
        except (TypeError, ValueError, OverflowError, pa.ArrowException):
            # A whole number of more than 64 bits, half of a surrogate pair, values of several types.
            plain = False
            break
    if not plain:
        each = [RawRecord(file, n, {**constants, **row}) for n, row in zip(numbers, rows, strict=True)]
        yield from batches(contract, sorted([*each, *bad], key=lambda record: record.line))
        return
    good = typed_batches(contract, columns, file, pa.array(numbers, pa.int64())) if rows else iter(())
    yield from in_order([*good, *batches(contract, bad)]) if bad else good
