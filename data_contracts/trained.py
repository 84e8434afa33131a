"""The text that a data set is trained on: its columns treated as their classification asks, then put into the template.

keep           the value as it is
redact         `<classification>`
pseudonymise   `<classification:hash>`, an HMAC with the data set's secret: equal values stay equal
drop-row       rows that have a value are left out of training
"""

from __future__ import annotations

import hmac

import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.contract import Contract
from data_contracts.errors import DataRefused
from data_contracts.template import fill, spans


def trained_text(contract: Contract, rows: pa.Table, secret: bytes | None) -> pa.Array:
    """Return the text of each row (string; NULL where no column has a value).

    `rows` holds the terms' `text_columns`; `secret` is the data set's, needed where a classification is pseudonymised.

    Raises:
        DataRefused: a classification is to be pseudonymised and there is no secret.
    """
    columns = _treated(contract, rows, secret)
    text = columns[0][1] if contract.terms.template is None else fill(contract.terms.template, columns)
    return text.combine_chunks() if isinstance(text, pa.ChunkedArray) else text


def trained_spans(contract: Contract, rows: pa.Table, secret: bytes | None) -> pa.ListArray | None:
    """Return which characters of each row's `trained_text` have a loss, as `template.spans`; None: all of them.

    Raises:
        DataRefused: a classification is to be pseudonymised and there is no secret.
    """
    terms = contract.terms
    if terms.template is None or not terms.loss_on:
        return None
    return spans(terms.template, _treated(contract, rows, secret), terms.loss_on)


def _treated(contract: Contract, rows: pa.Table, secret: bytes | None) -> list[tuple[str, pa.Array]]:
    """Return the text columns by name, each treated as its classification asks."""
    columns = []
    for name in contract.terms.text_columns:
        values = rows.column(name)
        values = (values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values).cast(pa.string())
        kind, action = _treatment(contract, name)
        if action == "redact":
            values = pc.if_else(pc.is_valid(values), f"<{kind}>", pa.scalar(None, pa.string()))
        elif action == "pseudonymise":
            if secret is None:
                raise DataRefused(f"{contract.id}: column {name} is pseudonymised; give the data set's secret")
            values = _pseudonyms(values, kind, secret)
        columns.append((name, values))
    return columns


def left_out(contract: Contract, rows: pa.Table) -> pa.Array | None:
    """Return per row the reason why it is left out (`pii.<classification>`) or NULL; None where no row can be."""
    reason = None
    for name in contract.terms.text_columns:
        kind, action = _treatment(contract, name)
        if action == "drop-row":
            values = rows.column(name)
            values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
            found = pc.if_else(pc.is_valid(values), f"pii.{kind}", pa.scalar(None, pa.string()))
            reason = found if reason is None else pc.coalesce(reason, found)
    return reason


def _treatment(contract: Contract, name: str) -> tuple[str, str]:
    kind = contract.property(name).classification or ""
    return kind, contract.terms.pii_classifications.get(kind, "keep") if kind else "keep"


def _pseudonyms(values: pa.StringArray, kind: str, secret: bytes) -> pa.StringArray:
    coded = values.dictionary_encode()
    names = [
        f"<{kind}:{hmac.digest(secret, f'pseudonym/{kind}/{value}'.encode(), 'sha256')[:8].hex()}>"
        for value in coded.dictionary.to_pylist()
    ]
    return pa.array(names, pa.string()).take(coded.indices)
