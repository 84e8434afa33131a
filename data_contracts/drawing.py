"""Random tables under random rules, and every verdict beside that of Great Expectations.

A case is one rule over one table. Row rules are compared row by row, batch rules by whether they hold. Where GX has no
expectation of its own, `verdicts` computes the second opinion, value by value in plain Python.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from data_contracts.batchchecks import BatchCheck
from data_contracts.checks import gx
from data_contracts.contract import Contract
from data_contracts.drawn import drawn_contract, drawn_table
from data_contracts.expectations import frame_for, native, row_expectation
from data_contracts.rules import BatchRule, RowRule, batch_rules, failing, holds, row_rules
from data_contracts.verdicts import SECOND, observed_by


@dataclass(frozen=True)
class Difference:
    """One case in which the two disagree: the rule with its arguments, and the rows (or the two verdicts)."""

    seed: int
    rule: RowRule | BatchRule
    ours: Any
    theirs: Any
    values: list[Any]

    def __str__(self) -> str:
        arguments = {key: value for key, value in self.rule.arguments.items() if key != "types"}
        return f"seed {self.seed}: {self.rule.name} {arguments}: ours {self.ours}, theirs {self.theirs}: {self.values}"


def cases(seed: int, rows: int = 40) -> tuple[int, list[Difference]]:
    """Draw a table and a contract, and return the number of rules compared and every difference."""
    draw = random.Random(seed)
    contract = drawn_contract(draw)
    table = drawn_table(draw, contract, draw.choice((1, 2, 7, rows, rows)))
    return _compared(seed, contract, table)


def _compared(seed: int, contract: Contract, table: pa.Table) -> tuple[int, list[Difference]]:
    rows, whole = row_rules(contract), batch_rules(contract)
    native_rules = [rule for rule in whole if rule.kind in ("expectation", "mostly")]
    asked = [*map(row_expectation, rows), *map(_entry, native_rules)]
    results = _results(contract, table, asked)
    found: list[Difference | None] = []
    (batch,) = table.combine_chunks().to_batches()
    for rule, result in zip(rows, results, strict=False):
        if gx.could_run(result):
            found.append(_by_row(seed, rule, batch, result))
    natively = dict(zip([rule.name for rule in native_rules], results[len(rows) :], strict=True))
    for judged in whole:
        if judged.name in natively and gx.could_run(natively[judged.name]):
            found.append(_by_verdict(seed, judged, contract, table, bool(natively[judged.name].success)))
        elif judged.kind in SECOND:
            observed = observed_by(judged, table, np.zeros(table.num_rows, dtype=np.bool_))
            inside = judged.arguments["operator"] == "mustNotBeBetween"
            found.append(
                _by_verdict(seed, judged, contract, table, not observed if inside else holds(judged, observed))
            )
    return len(found), [difference for difference in found if difference is not None]


def _entry(rule: BatchRule) -> Any:
    shares = {"mostly": rule.arguments["mostly"]} if rule.arguments["mostly"] < 1 else {}
    return native(rule.arguments["rules"][0].arguments if rule.kind == "mostly" else rule.arguments, **shares)


def _results(contract: Contract, table: pa.Table, asked: list[Any]) -> list[Any]:
    """GX's results in the order asked. It counts the columns of its frame, so some get one without computed columns."""
    narrow = [position for position, entry in enumerate(asked) if entry.expectation_type.startswith(_OF_COLUMNS)]
    wide = [position for position in range(len(asked)) if position not in narrow]
    frame = frame_for(contract, table)
    found: dict[int, Any] = {}
    for positions, part in ((wide, frame), (narrow, frame[[prop.name for prop in contract.properties]])):
        results = gx.attempts(part, [asked[position] for position in positions])
        found |= dict(zip(positions, results, strict=True))
    return [found[position] for position in range(len(asked))]


def _by_row(seed: int, rule: RowRule, batch: pa.RecordBatch, result: Any) -> Difference | None:
    theirs = np.zeros(batch.num_rows, dtype=np.bool_)
    theirs[list(result.result.get("unexpected_index_list") or [])] = True
    ours = np.asarray(failing(rule, batch).to_numpy(zero_copy_only=False), dtype=np.bool_)
    where = np.flatnonzero(ours != theirs)[:5]
    if not len(where):
        return None
    columns = list(dict.fromkeys([rule.column, *rule.arguments.get("types", ())]))
    values = batch.select(columns).take(pa.array(where)).to_pylist()
    return Difference(seed, rule, ours[where].tolist(), theirs[where].tolist(), values)


def _by_verdict(seed: int, rule: BatchRule, contract: Contract, table: pa.Table, theirs: bool) -> Difference | None:
    check = BatchCheck(rule, contract)
    for part in (table.slice(0, table.num_rows // 3), table.slice(table.num_rows // 3)):
        check.add(part)
    result = check.judge(table.num_rows, table.num_rows)
    if result.passed == theirs:
        return None
    return Difference(
        seed, rule, result.passed, theirs, [result.detail, *table.select(rule.arguments["columns"]).to_pylist()]
    )


_OF_COLUMNS = ("expect_table_column", "expect_column_to_exist")
