"""Records that were parsed one by one, typed a block at a time: much faster than value by value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.contract import Contract
from data_contracts.sources.records import SOURCE_LINE, RawRecord, batches, typed_batches

_BLOCK_ROWS, _BLOCK_BYTES = 16_384, 16 << 20
# Below this many records of one file a block of columns costs more than it saves.
_FEW = 64
_PLAIN = {str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_()}


def in_order(found: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Yield the records of one file's batches as one batch, by their numbers."""
    parts = list(found)
    if len(parts) < 2:
        yield from parts
        return
    table = pa.Table.from_batches(parts)
    yield from table.take(pc.sort_indices(table.column(SOURCE_LINE))).combine_chunks().to_batches()


def typed_records(contract: Contract, records: Iterable[RawRecord]) -> Iterator[pa.RecordBatch]:
    """Yield records typed as `records.batches` does, and in their order, but by columns where a file has many."""
    block: list[RawRecord] = []
    few: list[RawRecord] = []
    held = 0
    for record in records:
        if block and record.file != block[0].file:
            if len(block) < _FEW:
                few += block
            else:
                yield from batches(contract, few)
                yield from _typed(contract, block)
                few = []
            block = []
        block.append(record)
        held += _size(record)
        if len(block) + len(few) >= _BLOCK_ROWS or held >= _BLOCK_BYTES:
            yield from batches(contract, few)
            yield from _typed(contract, block)
            block, few, held = [], [], 0
    yield from batches(contract, few)
    yield from _typed(contract, block)


def _size(record: RawRecord) -> int:
    texts = sum([len(value) for value in record.values.values() if type(value) is str])
    return texts + (len(record.raw) if record.raw else 0)


def _typed(contract: Contract, block: Sequence[RawRecord]) -> Iterator[pa.RecordBatch]:
    """Yield records of one file; those whose columns mix types, or hold lists and objects, value by value."""
    good = [record for record in block if record.fault is None]
    columns = _columns(contract, good) if len(good) >= _FEW else None
    if columns is None:
        yield from batches(contract, block)
        return
    numbers = pa.array([record.line for record in good], pa.int64())
    found = typed_batches(contract, columns, block[0].file, numbers)
    bad = [record for record in block if record.fault is not None]
    yield from in_order([*found, *batches(contract, bad)]) if bad else found


def _columns(contract: Contract, good: Sequence[RawRecord]) -> dict[str, pa.Array] | None:
    columns: dict[str, pa.Array] = {}
    for prop in contract.properties:
        values: list[Any] = [record.values.get(prop.name) for record in good]
        kinds = {type(value) for value in values} - {type(None)}
        if not kinds:
            continue
        if len(kinds) > 1 or (kind := kinds.pop()) not in _PLAIN:
            return None
        try:
            columns[prop.name] = pa.array(values, _PLAIN[kind])
        except (ValueError, OverflowError, pa.ArrowException):
            # A whole number of more than 64 bits, or half of a surrogate pair.
            return None
    return columns
