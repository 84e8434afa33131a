"""Split a stream of records by the row rules of a contract, then judge the partition by its batch rules.

Memory holds a few batches, and what `keyset` says of the keys that must be unique: it does not grow with the rows.
While one batch is worked on, a thread makes the next.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.ahead import read_ahead
from data_contracts.arrowtext import Bytes, hex_texts
from data_contracts.batchchecks import BatchCheck, BatchResult
from data_contracts.catalog.tables import QUARANTINE_SCHEMA
from data_contracts.contract import Contract
from data_contracts.identity import Mask, RecordIds, key_hashes, splits
from data_contracts.keyset import KeySet
from data_contracts.rules import batch_rules
from data_contracts.ruling.context import NOTHING, RuleContext
from data_contracts.sources.records import RAW, SOURCE_FILE, SOURCE_LINE, source_schema
from data_contracts.splitting import Failures, RowSplitter, any_of

DUPLICATE_KEY = "primaryKey.duplicate"
# For fewer batches that are there already a thread is not worth its start.
_FEW = 4
# A trial shares its memory with no tables: of most sources no key need go to a file.
_JUDGED_KEYS = 1 << 20
_REPEATS = {DUPLICATE_KEY: "an earlier record of this partition has the same primary key"}
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
    secret: bytes | None,
    on_accepted: Callable[[pa.Table], None] | None,
    on_quarantined: Callable[[pa.Table], None],
    *,
    ingest_id: str = "",
    attempt_id: str = "",
    context: RuleContext = NOTHING,
    examples: int | None = None,
) -> Report:
    """Hand on the accepted rows (`accepted_schema`) and the others (`QUARANTINE_SCHEMA`), batch by batch; report.

    A refused row carries every rule that it fails. Of rows with one primary key the first counts and the later ones
    fail `primaryKey.duplicate`. The verdict is 'refused' when a batch rule of severity error fails, else 'empty' when
    there was no row. Without a `secret` rows are only judged: they get no record_id and no split; without
    `on_accepted` nobody wants the good ones; with `examples` so many refused rows of each rule are handed on, and the
    others are only counted. `context` has what rules ask beyond the rows. `bytes_in` is UTF-8 bytes
    of the text column and bytes of undecodable records.
    """
    splitter = RowSplitter(contract, context)
    ids = RecordIds(secret, contract, partition) if secret is not None else None
    keys = (KeySet() if ids is not None else KeySet(_JUDGED_KEYS)) if contract.primary_key else None
    counters = [BatchCheck(rule, contract, context) for rule in batch_rules(contract, context)]
    constants = _Constants({"partition": partition, "ingest_id": ingest_id, "attempt_id": attempt_id})
    schema = accepted_schema(contract)
    reasons: Counter[str] = Counter()
    shown: Counter[str] = Counter()
    rows_in = rows_accepted = bytes_in = 0
    for batch, failures in _judged(splitter, batches, ids is not None):
        named, known = _no_ids(batch) if ids is None else ids.of(batch)
        if keys is not None:
            hashes, keyed = key_hashes(contract, batch) if ids is None else (named, known)
            if keyed.all():
                repeated = keys.add(hashes)
            else:
                repeated = np.zeros(batch.num_rows, dtype=np.bool_)
                repeated[keyed] = keys.add(hashes[keyed])
            if repeated.any():
                failures[DUPLICATE_KEY] = pa.array(repeated)
        refused = any_of(failures)
        reasons.update({name: mask.true_count for name, mask in failures.items()})
        sizes = _text_bytes(contract, batch)
        rows_in += batch.num_rows
        bytes_in += (pc.sum(sizes).as_py() or 0) + (pc.sum(pc.binary_length(batch.column(RAW))).as_py() or 0)

        whole = pa.RecordBatch.from_pydict(
            {
                **_columns(batch),
                "record_id": hex_texts(named, known),
                "text_bytes": sizes,
                "source_file": batch.column(SOURCE_FILE),
                "source_line": batch.column(SOURCE_LINE),
            }
        )
        count = batch.num_rows - (refused.true_count if refused is not None else 0)
        rows_accepted += count
        if count and (counters or on_accepted is not None):
            good = whole if refused is None else whole.filter(pc.invert(refused))
            sides = pa.nulls(good.num_rows, pa.string()) if ids is None else splits(contract, good)
            columns = {**_columns(good), **constants.of(good.num_rows), "split": sides}
            rows = pa.table({name: columns[name] for name in schema.names}, schema=schema)
            for counter in counters:
                counter.add(rows)
            if on_accepted is not None:
                on_accepted(rows)
        if refused is not None:
            bad = pa.array(
                np.flatnonzero(refused.to_numpy(zero_copy_only=False))
                if examples is None
                else _examples(failures, shown, examples)
            )
            if len(bad):
                rest = whole.take(bad)
                why = splitter.quarantined(rest, {name: mask.take(bad) for name, mask in failures.items()}, _REPEATS)
                columns = {**_columns(rest), **constants.of(rest.num_rows), **_columns(why)}
                on_quarantined(
                    pa.table({name: columns[name] for name in QUARANTINE_SCHEMA.names}, schema=QUARANTINE_SCHEMA)
                )
    results = tuple(counter.judge(rows_in, rows_accepted) for counter in counters)
    refusing = any(not result.passed and result.rule.severity == "error" for result in results)
    verdict: Verdict = "refused" if refusing else "accepted" if rows_in else "empty"
    return Report(
        rows_in, rows_accepted, rows_in - rows_accepted, dict(sorted(reasons.items())), results, verdict, bytes_in
    )


def _examples(failures: Failures, shown: Counter[str], most: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the first rows of each rule of which fewer than `most` were shown, and count them."""
    wanted: set[int] = set()
    for name, mask in failures.items():
        if shown[name] < most:
            rows = np.flatnonzero(mask.to_numpy(zero_copy_only=False))[: most - shown[name]]
            shown[name] += len(rows)
            wanted.update(rows.tolist())
    return np.array(sorted(wanted), dtype=np.int64)


def judge(
    contract: Contract, accepted: pa.Table, rows_in: int, context: RuleContext = NOTHING
) -> tuple[BatchResult, ...]:
    """Judge a partition by its batch rules once more; `accepted` are its accepted rows, with the rules' columns."""
    counters = [BatchCheck(rule, contract, context) for rule in batch_rules(contract, context)]
    for batch in accepted.to_batches():
        for counter in counters:
            counter.add(pa.Table.from_batches([batch]))
    return tuple(counter.judge(rows_in, accepted.num_rows) for counter in counters)


def _judged(
    splitter: RowSplitter, batches: Iterable[pa.RecordBatch], hashing: bool
) -> Iterator[tuple[pa.RecordBatch, Failures]]:
    """Yield each batch and which of its rows fail which rules.

    Reading and the rules are Arrow's work and hold no lock of Python; hashing ids does, and takes as long as both. So
    a thread reads, and applies the rules too where ids are hashed or there is nothing to read.
    """
    ready = isinstance(batches, Sequence)
    if isinstance(batches, Sequence) and len(batches) < _FEW:
        yield from ((batch, splitter.failures(batch)) for batch in batches)
    elif hashing or ready:
        yield from read_ahead((batch, splitter.failures(batch)) for batch in batches)
    else:
        yield from ((batch, splitter.failures(batch)) for batch in read_ahead(batches))


class _Constants:
    """Columns of one value: made once for the longest batch, slices for the others."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._columns = {name: pa.array([value], pa.string()) for name, value in values.items()}

    def of(self, rows: int) -> dict[str, pa.Array]:
        for name, column in self._columns.items():
            if len(column) < rows:
                self._columns[name] = pa.repeat(column[0], rows)
        return {name: column.slice(0, rows) for name, column in self._columns.items()}


def _columns(rows: pa.RecordBatch | pa.Table) -> dict[str, Any]:
    return dict(zip(rows.schema.names, rows.columns, strict=True))


def _no_ids(batch: pa.RecordBatch) -> tuple[Bytes, Mask]:
    return np.zeros((batch.num_rows, 16), dtype=np.uint8), np.zeros(batch.num_rows, dtype=np.bool_)


def _text_bytes(contract: Contract, batch: pa.RecordBatch) -> pa.Array:
    columns = [batch.column(name).cast(pa.string()).cast(pa.binary()) for name in contract.terms.text_columns]
    sizes = [pc.fill_null(pc.binary_length(column), 0).cast(pa.int64()) for column in columns]
    return reduce(pc.add, sizes)
