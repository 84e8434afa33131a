"""Split a stream of records by the row rules of a contract, then judge the partition by its batch rules.

Memory holds one batch, and 16 bytes a row for each key that must be unique.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.batchchecks import BatchCheck, BatchResult
from data_contracts.canonical import canonical_json
from data_contracts.catalog.tables import QUARANTINE_SCHEMA
from data_contracts.contract import Contract
from data_contracts.identity import json_value, record_ids, splits
from data_contracts.rules import RowRule, batch_rules, failing, row_rules
from data_contracts.sources.records import FAULT, RAW, SOURCE_FILE, SOURCE_LINE, source_schema

DUPLICATE_KEY = "primaryKey.duplicate"
Verdict = Literal["accepted", "refused", "empty"]


@dataclass(frozen=True)
class Report:
    """What validation found. `reasons` maps a row rule to the number of rows that fail it; a row may fail several."""

    rows_in: int
    rows_accepted: int
    rows_quarantined: int
    reasons: Mapping[str, int]
    batch_results: tuple[BatchResult, ...]
    verdict: Verdict
    bytes_in: int


def accepted_schema(contract: Contract) -> pa.Schema:
    """Return the schema of accepted rows: the contract's columns, then who the row is and where it came from."""
    columns = [source_schema(contract).field(prop.name) for prop in contract.properties]
    ours = [
        ("record_id", pa.string()),
        ("split", pa.string()),
        ("text_bytes", pa.int64()),
        ("partition", pa.string()),
        ("ingest_id", pa.string()),
        ("attempt_id", pa.string()),
        ("source_file", pa.string()),
        ("source_line", pa.int64()),
    ]
    return pa.schema([*columns, *(pa.field(name, kind) for name, kind in ours)])


def validate(
    contract: Contract,
    batches: Iterable[pa.RecordBatch],
    partition: str,
    secret: bytes,
    on_accepted: Callable[[pa.Table], None],
    on_quarantined: Callable[[pa.Table], None],
    *,
    ingest_id: str = "",
    attempt_id: str = "",
) -> Report:
    """Hand on the accepted rows (`accepted_schema`) and the others (`QUARANTINE_SCHEMA`), batch by batch; report.

    A refused row carries every rule that it fails. Of rows with one primary key the first counts and the later ones
    fail `primaryKey.duplicate`. The verdict is 'refused' when a batch rule of severity error fails, else 'empty' when
    there was no row. `bytes_in` is UTF-8 bytes of the text column and bytes of undecodable records.
    """
    rules = row_rules(contract)
    counters = [BatchCheck(rule, contract) for rule in batch_rules(contract)]
    reasons: Counter[str] = Counter()
    seen: dict[bytes, int] = {}
    keys: set[bytes] = set()
    rows_in = rows_accepted = bytes_in = 0
    for batch in batches:
        ids = record_ids(secret, contract, partition, batch, seen)
        failures = {rule.name: _mask(failing(rule, batch)) for rule in rules}
        failures[DUPLICATE_KEY] = _repeated(ids, keys)
        refused = np.logical_or.reduce(list(failures.values()))
        reasons.update({name: int(mask.sum()) for name, mask in failures.items() if mask.any()})
        rows_in += batch.num_rows
        rows_accepted += int((~refused).sum())
        sizes = _text_bytes(contract, batch)
        bytes_in += (pc.sum(sizes).as_py() or 0) + (pc.sum(pc.binary_length(batch.column(RAW))).as_py() or 0)

        origin = {
            "partition": _constant(partition, batch),
            "ingest_id": _constant(ingest_id, batch),
            "attempt_id": _constant(attempt_id, batch),
            "source_file": batch.column(SOURCE_FILE),
            "source_line": batch.column(SOURCE_LINE),
        }
        record_id = pa.array(ids, pa.string())
        if not refused.all():
            columns = {prop.name: batch.column(prop.name) for prop in contract.properties}
            columns |= {
                "record_id": record_id,
                "split": pa.array(splits(contract, batch)),
                "text_bytes": sizes,
                **origin,
            }
            good = pa.table(columns, schema=accepted_schema(contract)).filter(pa.array(~refused))
            for counter in counters:
                counter.add(good)
            on_accepted(good)
        if refused.any():
            bad = np.flatnonzero(refused)
            names = list(failures)
            failed = [[name for name in names if failures[name][row]] for row in bad]
            columns = {"record_id": record_id, **origin}
            table = pa.table(columns).take(pa.array(bad))
            table = table.append_column("reasons", pa.array(failed, pa.list_(pa.string())))
            rows = batch.take(pa.array(bad))
            table = table.append_column("detail", pa.array(_details(rules, rows, failed), pa.string()))
            table = table.append_column("raw", pa.array(_raws(contract, rows), pa.string()))
            on_quarantined(table.select(QUARANTINE_SCHEMA.names).cast(QUARANTINE_SCHEMA))
    results = tuple(counter.judge(rows_in, rows_accepted) for counter in counters)
    refusing = any(not result.passed and result.rule.severity == "error" for result in results)
    verdict: Verdict = "refused" if refusing else "accepted" if rows_in else "empty"
    return Report(
        rows_in, rows_accepted, rows_in - rows_accepted, dict(sorted(reasons.items())), results, verdict, bytes_in
    )


def judge(contract: Contract, accepted: pa.Table, rows_in: int) -> tuple[BatchResult, ...]:
    """Judge a partition by its batch rules once more; `accepted` are its accepted rows, with the rules' columns."""
    counters = [BatchCheck(rule, contract) for rule in batch_rules(contract)]
    for batch in accepted.to_batches():
        for counter in counters:
            counter.add(pa.Table.from_batches([batch]))
    return tuple(counter.judge(rows_in, accepted.num_rows) for counter in counters)


def _mask(failed: pa.BooleanArray | pa.ChunkedArray) -> np.ndarray[Any, np.dtype[np.bool_]]:
    return np.asarray(failed.to_numpy(zero_copy_only=False), dtype=np.bool_)


def _repeated(ids: list[str | None], keys: set[bytes]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    repeated = np.zeros(len(ids), dtype=np.bool_)
    for row, name in enumerate(ids):
        if name is not None:
            key = bytes.fromhex(name)
            repeated[row] = key in keys
            keys.add(key)
    return repeated


def _text_bytes(contract: Contract, batch: pa.RecordBatch) -> pa.Array:
    columns = [batch.column(name).cast(pa.string()).cast(pa.binary()) for name in contract.terms.text_columns]
    sizes = [pc.fill_null(pc.binary_length(column), 0).cast(pa.int64()) for column in columns]
    return reduce(pc.add, sizes)


def _constant(value: str, batch: pa.RecordBatch) -> pa.Array:
    return pa.array([value] * batch.num_rows, pa.string())


def _details(rules: tuple[RowRule, ...], rows: pa.RecordBatch, failed: list[list[str]]) -> list[str]:
    said = {rule.name: rule.description for rule in rules}
    said[DUPLICATE_KEY] = "an earlier record of this partition has the same primary key"
    decodes = {rule.name for rule in rules if rule.kind == "decodes"}
    faults = rows.column(FAULT).to_pylist()
    return [
        canonical_json({name: (fault or "") if name in decodes else said[name] for name in names}).decode()
        for names, fault in zip(failed, faults, strict=True)
    ]


def _raws(contract: Contract, rows: pa.RecordBatch) -> list[str]:
    """The row as canonical JSON, or the bytes that could not be decoded in hex: nothing that arrived is lost."""
    raws = rows.column(RAW).to_pylist()
    names = [prop.name for prop in contract.properties]
    values = rows.select(names).to_pylist()
    return [
        canonical_json({name: json_value(value) for name, value in row.items()}).decode() if raw is None else raw.hex()
        for row, raw in zip(values, raws, strict=True)
    ]
