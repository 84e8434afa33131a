"""Which of the accepted rows are trained on: exact duplicates removed, personal data redacted, each with its reason.

The result depends on the rows alone, never on their order of arrival: in a cluster of equal texts the row with the
least (partition, record_id) is kept. A cluster that reaches into the held-out side leaves training entirely, because
a model that has seen a held-out text cannot be judged by it.
"""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.canonical import document_sha
from data_contracts.catalog.tables import CURATION_SCHEMA, Tables
from data_contracts.contract import Contract
from data_contracts.errors import DataRefused
from data_contracts.identity import normalise_text
from data_contracts.redaction import moved_spans, redact
from data_contracts.trained import left_out, trained_text

ALGORITHM = "exact-nfc-whitespace-1"
DUPLICATE, HELD_OUT_DUPLICATE = "duplicate", "duplicate.held-out"
_ROW_COLUMNS = ("record_id", "ingest_id", "partition", "split", "text")
# Present where the terms leave out rows by the classification of a column: the reason, or NULL.
_LEFT_OUT = "left_out"
# Present where a loss mask is wanted: the characters of the text that have a loss.
_SPANS = "spans"


@dataclass(frozen=True)
class CurationResult:
    """One curation: `log` follows `CURATION_SCHEMA`.

    `kept` and `removed` add up to the rows; `redacted` are those of the kept in which something is replaced.
    """

    curation_id: str
    log: pa.Table
    kept: int
    removed: int
    redacted: int


def curation_rows(contract: Contract, tables: Tables, secret: bytes | None = None) -> pa.Table:
    """Return the accepted rows of all current partitions: record_id, ingest_id, partition, split, text.

    The text is that of the terms' template, each column treated as its classification asks; `secret` is the data set's,
    needed where one is pseudonymised. Where rows are left out by classification, the column `left_out` holds why.

    Raises:
        DataRefused: a column is pseudonymised and there is no secret.
    """
    ours, names = _ROW_COLUMNS[:-1], contract.terms.text_columns
    columns = [*ours, *(name for name in names if name not in ours)]
    versions = [version for version in tables.current().values() if version.rows_accepted]
    parts = [_trained(contract, tables.read_accepted(version, columns), secret) for version in versions]
    drops = "drop-row" in contract.terms.pii_classifications.values()
    schema = pa.schema([(name, pa.string()) for name in (*_ROW_COLUMNS, *([_LEFT_OUT] if drops else []))])
    return pa.concat_tables([schema.empty_table(), *(part.select(schema.names).cast(schema) for part in parts)])


def _trained(contract: Contract, rows: pa.Table, secret: bytes | None) -> pa.Table:
    made = {name: rows.column(name) for name in _ROW_COLUMNS[:-1]} | {"text": trained_text(contract, rows, secret)}
    reason = left_out(contract, rows)
    return pa.table(made | {_LEFT_OUT: pa.nulls(rows.num_rows, pa.string()) if reason is None else reason})


def curate(contract: Contract, rows: pa.Table, secret: bytes) -> CurationResult:
    """Decide on every row of `curation_rows` and say why, in a log sorted by (partition, record_id, action, reason).

    `cluster` is an HMAC with the data set's secret of the text after redaction, NFC and white-space folding: the log
    tells which rows are equal and nothing of what they say. Rows without text are kept as they are; rows that are left
    out by the classification of a column take no part in clusters.

    Raises:
        DataRefused: `rows` lacks a column.
    """
    _check_columns(rows)
    text = rows.column("text").combine_chunks().cast(pa.string())
    text, counts = redact(text, contract.terms.pii)
    columns = [rows.column(name).to_pylist() for name in ("partition", "record_id", "ingest_id", "split")]
    identities = [_Row(*values) for values in zip(*columns, strict=True)]
    clusters: dict[str, list[_Row]] = {}
    classified = rows.column(_LEFT_OUT).to_pylist() if _LEFT_OUT in rows.column_names else [None] * rows.num_rows
    for row, words, reason in zip(identities, text.to_pylist(), classified, strict=True):
        if words is not None and reason is None:
            key = hmac.digest(secret, normalise_text(words).encode(), "sha256")[:16].hex()
            clusters.setdefault(key, []).append(row)

    name = curation_id(contract, rows)
    log: list[dict[str, Any]] = []
    removed: set[tuple[str, str]] = set()
    for row, reason in zip(identities, classified, strict=True):
        if reason is not None:
            removed.add((row.record_id, row.ingest_id))
            log.append(_entry(name, row, "remove", reason, None, None, 1))
    for cluster, members in clusters.items():
        for row, kept, reason in _duplicates(members):
            removed.add((row.record_id, row.ingest_id))
            log.append(_entry(name, row, "remove", reason, cluster, kept.record_id, 1))
    touched = set()
    for kind, found in sorted(counts.items()):
        for row, count in zip(identities, found.to_pylist(), strict=True):
            if count and (row.record_id, row.ingest_id) not in removed:
                touched.add((row.record_id, row.ingest_id))
                log.append(_entry(name, row, "redact", f"pii.{kind}", None, None, count))
    table = pa.Table.from_pylist(log, CURATION_SCHEMA)
    table = table.sort_by([(column, "ascending") for column in ("partition", "record_id", "action", "reason")])
    return CurationResult(name, table, rows.num_rows - len(removed), len(removed), len(touched))


def curation_id(contract: Contract, rows: pa.Table) -> str:
    """Name a curation: sha256 of (algorithm, contract sha, sorted ingest ids), so the same inputs have one name."""
    return curation_of(contract, pc.unique(rows.column("ingest_id")).to_pylist())


def curation_of(contract: Contract, ingest_ids: Iterable[str]) -> str:
    """Name the curation of these partition versions' rows."""
    return document_sha([ALGORITHM, contract.sha, sorted(set(ingest_ids))])


def training_rows(rows: pa.Table, log: pa.Table) -> pa.Table:
    """Return the rows that a curation keeps, of both splits, with its redactions applied to `text`.

    `rows` may be a part of what was curated; entries of the log about others are passed over. A column `spans`
    (`template.spans`) is kept, and follows its text.

    Raises:
        DataRefused: a column is missing, or the log asks for a redaction that finds something else than it recorded.
    """
    _check_columns(rows)
    removed = log.filter(pc.equal(log.column("action"), "remove"))
    kept = rows.filter(pc.invert(pc.is_in(_keys(rows), value_set=_keys(removed))))
    text = kept.column("text").combine_chunks().cast(pa.string())
    redacted = log.filter(pc.equal(log.column("action"), "redact"))
    keys = _keys(kept)
    for reason in sorted(pc.unique(redacted.column("reason")).to_pylist()):
        entries, kind = redacted.filter(pc.equal(redacted.column("reason"), reason)), reason.removeprefix("pii.")
        places = pc.index_in(keys, value_set=_keys(entries))
        asked = pc.is_valid(places)
        clean, counts = redact(text.filter(asked), {kind: "redact"})
        if not counts[kind].equals(entries.column("count").combine_chunks().take(places.drop_null())):
            raise DataRefused(f"the curation log's pii.{kind} counts are not those of these rows; curate them again")
        if _SPANS in kept.column_names:
            kept = _move_spans(kept, text, kind, asked, clean)
        text = pc.replace_with_mask(text, asked, clean)
    kept = kept.select([*_ROW_COLUMNS, *([_SPANS] if _SPANS in kept.column_names else [])])
    return kept.set_column(kept.schema.get_field_index("text"), "text", text)


def _move_spans(kept: pa.Table, text: pa.Array, kind: str, asked: pa.BooleanArray, clean: pa.StringArray) -> pa.Table:
    """Return the rows with the spans of those whose text is redacted where they stand in the clean text."""
    index = kept.schema.get_field_index(_SPANS)
    spans = kept.column(_SPANS).to_pylist()
    for row, wanted in zip(
        np.flatnonzero(asked.to_numpy(zero_copy_only=False)).tolist(), clean.to_pylist(), strict=True
    ):
        made, spans[row] = moved_spans(text[row].as_py(), kind, spans[row])
        if made != wanted:
            raise DataRefused(
                f"record {kept.column('record_id')[row]}: two engines redact {kind} differently; report it as a defect"
            )
    return kept.set_column(index, _SPANS, pa.array(spans, kept.schema.field(index).type))


def _keys(rows: pa.Table) -> pa.StringArray:
    names = [rows.column(name).combine_chunks() for name in ("record_id", "ingest_id")]
    return pc.binary_join_element_wise(*names, "/")


@dataclass(frozen=True, order=True)
class _Row:
    partition: str
    record_id: str
    ingest_id: str
    split: str


def _duplicates(members: Sequence[_Row]) -> list[tuple[_Row, _Row, str]]:
    """Return (row to remove, row kept, reason) of one cluster of equal texts."""
    ordered = sorted(members)
    held_out = [row for row in ordered if row.split == "held-out"]
    kept = held_out[0] if held_out else ordered[0]
    crosses = 0 < len(held_out) < len(ordered)
    return [
        (row, kept, HELD_OUT_DUPLICATE if crosses and row.split != "held-out" else DUPLICATE)
        for row in ordered
        if row is not kept
    ]


def _entry(
    name: str, row: _Row, action: str, reason: str, cluster: str | None, kept: str | None, count: int
) -> dict[str, Any]:
    return {
        "curation_id": name,
        "record_id": row.record_id,
        "ingest_id": row.ingest_id,
        "partition": row.partition,
        "action": action,
        "reason": reason,
        "cluster": cluster,
        "kept_record_id": kept,
        "count": count,
    }


def _check_columns(rows: pa.Table) -> None:
    missing = [name for name in _ROW_COLUMNS if name not in rows.column_names]
    if missing:
        raise DataRefused(f"rows to curate lack {', '.join(missing)}; read them with curation_rows(contract, tables)")
