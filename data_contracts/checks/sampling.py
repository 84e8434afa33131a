"""A sample for reviewers: drawn by a seeded hash of the record ids, written to a file, its verdicts read back.

The same records are drawn whatever the order of the rows, so a partition that waits for its reviewers has one sample.
"""

from __future__ import annotations

import csv
import hashlib
import io
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.canonical import document_sha
from data_contracts.checks.measures import Measured
from data_contracts.contract import Contract
from data_contracts.ruling.context import RuleContext
from data_contracts.ruling.kinds import BatchRule

VERDICTS = ("good", "bad")
_HEAD = ("record_id", "verdict", "note")
_SCORE = "_score"
_WHOLE = 2.0**64
_FEW = 5000


class Sample:
    """Of the drawn records, the percentage that reviewers found good; until all are judged the rule does not hold.

    Memory holds the sample, and half as much again while it is drawn.
    """

    def __init__(self, rule: BatchRule, contract: Contract, context: RuleContext) -> None:
        self.rule, self.contract, self.reviews = rule, contract, context.reviews
        given = rule.arguments
        self.records: int | None = given.get("records")
        self.limit = _WHOLE
        self.kept: list[pa.Table] = []
        self.rows = self.held = 0

    def add(self, rows: pa.Table) -> None:
        """Keep the rows of one batch that may be drawn."""
        ids = rows.column("record_id").to_pylist()
        scores = np.fromiter((self._score(name) for name in ids), np.uint64, len(ids))
        self.rows += len(ids)
        kept = np.flatnonzero(scores.astype(np.float64) <= self.limit)
        table = rows.select(self.rule.arguments["columns"]).append_column(_SCORE, pa.array(scores)).take(pa.array(kept))
        self.kept.append(table)
        self.held += table.num_rows
        if self.records is not None and self.held > 1.5 * self.records + 1000:
            self.limit = float(self._cut(self.records).column(_SCORE)[-1].as_py())
        elif self.records is None and self.rows > _FEW and self.limit == _WHOLE:
            # Of a share more is kept than will be drawn, because how many rows come is not known before: beyond 5,000
            # rows the hashes would have to lie eight standard deviations off for it to be too little.
            self.limit = min(1.0, self.rule.arguments["share"] / 100 * 1.2 + 0.02) * _WHOLE
            scores_of = (table.column(_SCORE).cast(pa.float64(), safe=False) for table in self.kept)
            masks = [pc.less_equal(scores, self.limit) for scores in scores_of]
            self.kept = [table.filter(mask) for table, mask in zip(self.kept, masks, strict=True)]

    def result(self, rows_in: int, rows_accepted: int) -> Measured:
        """Write the file of the sample, or read what stands in it."""
        if not self.rows:
            return Measured(100.0, "there is no record to draw", True)
        wanted = self.records or int(np.ceil(self.rows * self.rule.arguments["share"] / 100))
        drawn = self._cut(min(wanted, self.rows))
        ids = drawn.column("record_id").to_pylist()
        if self.reviews is None:
            return Measured(0.0, f"awaiting review: there is no folder for the file of {len(ids)} records here", False)
        name = document_sha([self.contract.sha, self.rule.name, self.rule.arguments["seed"], ids])[:16]
        file = f"review-{name}.csv"
        filled = self.reviews.read(file)
        if filled is None:
            filled = _template(drawn, self.rule.arguments["show"])
            self.reviews.write(file, filled)
        return _verdicts(filled, self.reviews.place(file), ids)

    def _score(self, record_id: str) -> int:
        text = f"{self.rule.arguments['seed']}\x1f{record_id}"
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "big")

    def _cut(self, records: int) -> pa.Table:
        table = pa.concat_tables(self.kept).sort_by([(_SCORE, "ascending"), ("record_id", "ascending")])
        table = table.slice(0, records).combine_chunks()
        self.kept, self.held = [table], table.num_rows
        return table


def _template(drawn: pa.Table, show: list[str]) -> bytes:
    stream = io.StringIO(newline="")
    writer = csv.writer(stream)
    writer.writerow([*_HEAD, *show])
    for row in drawn.to_pylist():
        writer.writerow([row["record_id"], "", "", *(_cell(row[name]) for name in show)])
    return stream.getvalue().encode("utf-8-sig")


def _cell(value: Any) -> str:
    """Text that a spreadsheet shows and does not compute."""
    text = "" if value is None else str(value)
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def _verdicts(filled: bytes, file: str, ids: list[str]) -> Measured:
    csv.field_size_limit(2**31 - 1)
    try:
        rows = list(csv.reader(io.StringIO(filled.decode("utf-8-sig"), newline="")))
    except (UnicodeDecodeError, csv.Error) as error:
        return Measured(0.0, f"{file} cannot be read as CSV in UTF-8: {error}; save it so", False)
    if not rows or not {"record_id", "verdict"} <= set(rows[0]):
        return Measured(0.0, f"{file}: its head lacks record_id or verdict; put it back", False)
    own, said = rows[0].index("record_id"), rows[0].index("verdict")
    found: dict[str, str] = {}
    for number, row in enumerate(rows[1:], start=2):
        verdict = row[said].strip().lower() if len(row) > max(own, said) else ""
        if verdict and verdict not in VERDICTS:
            # What stands there may be a value of the row that slipped into the column.
            return Measured(
                0.0, f"{file}: row {number} has another verdict than {' or '.join(VERDICTS)}; correct it", False
            )
        if verdict:
            found[row[own]] = verdict
    judged = [found[name] for name in ids if name in found]
    if len(judged) < len(ids):
        return Measured(0.0, f"awaiting review: {len(judged)} of {len(ids)} verdicts stand in {file}", False)
    good = sum(verdict == "good" for verdict in judged)
    return Measured(100 * good / len(ids), f"{good} of {len(ids)} records are good by {file.rpartition('/')[2]}")
