"""Random tables under random rules, and every verdict beside that of Great Expectations.

A case is one rule over one table. Row rules are compared row by row, batch rules by whether they hold. Where GX has no
expectation of its own, `verdicts` computes the second opinion, value by value in plain Python.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
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

Rule = RowRule | BatchRule


@dataclass(frozen=True)
class Difference:
    """One case in which the two disagree: the rule with its arguments, and the rows (or the two verdicts)."""

    seed: int
    rule: Rule
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
    results = _results(contract, table, [*rows, *native_rules], asked)
    found: list[Difference | None] = []
    (batch,) = table.combine_chunks().to_batches()
    for rule, result in zip(rows, results, strict=False):
        if gx.could_run(result):
            found.append(_by_row(seed, rule, batch, result))
    natively = dict(zip([rule.name for rule in native_rules], results[len(rows) :], strict=True))
    for judged in whole:
        if _wraps(judged, table):
            continue
        if judged.name in natively and gx.could_run(natively[judged.name]):
            found.append(_by_verdict(seed, judged, contract, table, bool(natively[judged.name].success)))
        elif judged.kind in SECOND:
            observed = observed_by(judged, table, np.zeros(table.num_rows, dtype=np.bool_))
            inside = judged.arguments["operator"] == "mustNotBeBetween"
            found.append(
                _by_verdict(seed, judged, contract, table, not observed if inside else holds(judged, observed))
            )
    return len(found), [difference for difference in found if difference is not None]


def _wraps(rule: BatchRule, table: pa.Table) -> bool:
    """Whether pandas' sum of 64-bit integers wraps; ours does not."""
    if rule.arguments.get("expectation") != "expect_column_sum_to_be_between":
        return False
    column = table.column(rule.arguments["columns"][0])
    return bool(pa.types.is_integer(column.type) and abs(sum(column.drop_null().to_pylist())) >= 2**63)


def _entry(rule: BatchRule) -> Any:
    shares = {"mostly": rule.arguments["mostly"]} if rule.arguments["mostly"] < 1 else {}
    return native(rule.arguments["rules"][0].arguments if rule.kind == "mostly" else rule.arguments, **shares)


def _results(contract: Contract, table: pa.Table, rules: Sequence[Rule], asked: Sequence[Any]) -> list[Any]:
    """GX's results in the order asked, column by column: its time grows with the width of the frame."""
    frame = frame_for(contract, table)
    names = [prop.name for prop in contract.properties]
    groups: dict[str, list[int]] = {}
    for position, (rule, entry) in enumerate(zip(rules, asked, strict=True)):
        columns = [rule.column] if isinstance(rule, RowRule) else rule.arguments["columns"]
        alone = len(columns) == 1 and getattr(entry, "column", None) in (*columns, rule.name)
        # Expectations about the columns count those of the frame.
        whole = not alone or entry.expectation_type == "expect_column_to_exist"
        groups.setdefault("" if whole else columns[0], []).append(position)
    found: dict[int, Any] = {}
    for column, positions in groups.items():
        computed = [entry.column for entry in map(asked.__getitem__, positions) if column and entry.column != column]
        part = frame[[column, *dict.fromkeys(computed)]] if column else frame[names]
        found |= dict(zip(positions, gx.attempts(part, [asked[p] for p in positions]), strict=True))
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
