"""The row rules of a contract over Arrow batches: which rows fail which rules, and what quarantine keeps of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.arrowtext import json_objects
from data_contracts.canonical import canonical_json
from data_contracts.contract import Contract
from data_contracts.rowchecks import Columns, prepared
from data_contracts.rules import row_rules
from data_contracts.ruling.context import NOTHING, RuleContext
from data_contracts.sources.records import FAULT, RAW

Failures = dict[str, pa.BooleanArray]
"""Rule -> True for each row that fails it, no NULL; only the rules that some row fails, in the contract's order."""


class RowSplitter:
    """The row rules of a contract, made ready once for all batches; any thread may use it.

    Raises:
        ContractError: a rule cannot be run.
    """

    def __init__(self, contract: Contract, context: RuleContext = NOTHING) -> None:
        self.contract = contract
        self.rules = row_rules(contract, context)
        self._checks = [(rule.name, prepared(rule)) for rule in self.rules]

    def failures(self, batch: pa.RecordBatch) -> Failures:
        """Return which rows of a batch (of `source_schema`) fail which rules."""
        columns, found = Columns(batch), {}
        for name, check in self._checks:
            failed = check(columns)
            if failed is not None and failed.true_count:
                found[name] = pc.fill_null(failed, False) if failed.null_count else failed
        return found

    def quarantined(self, rows: pa.RecordBatch, failures: Mapping[str, Any], said: Mapping[str, str]) -> pa.Table:
        """Return `reasons`, `detail` and `raw` of refused rows.

        `failures` maps each rule to the rows of `rows` that fail it (bool array), `said` further rules to what they
        say. `raw` is the row as canonical JSON, or in hex the bytes that could not be decoded.
        """
        names = list(failures)
        failed = np.stack([np.asarray(mask, dtype=np.bool_) for mask in failures.values()], axis=1)
        _, which = np.nonzero(failed)
        ends = np.concatenate([[0], np.cumsum(failed.sum(axis=1))]).astype(np.int32)
        reasons = pa.ListArray.from_arrays(pa.array(ends), pa.array(names, pa.string()).take(pa.array(which)))
        return pa.table(
            {"reasons": reasons, "detail": self._details(rows, names, failed, said), "raw": self._raw(rows)}
        )

    def _details(
        self, rows: pa.RecordBatch, names: list[str], failed: np.ndarray[Any, Any], said: Mapping[str, str]
    ) -> pa.Array:
        described = {**{rule.name: rule.description for rule in self.rules}, **said}
        decodes = [names.index(rule.name) for rule in self.rules if rule.kind == "decodes" and rule.name in names]
        faults = rows.column(FAULT).to_pylist() if decodes else []
        made: dict[bytes, str] = {}
        details = []
        width, data = len(names), failed.tobytes()
        for row in range(len(failed)):
            key = data[row * width : (row + 1) * width]
            broken = [column for column in decodes if key[column]]
            if broken:
                own = {names[column]: faults[row] for column in broken}
                details.append(_said(names, key, {**described, **own}))
            else:
                if key not in made:
                    made[key] = _said(names, key, described)
                details.append(made[key])
        return pa.array(details, pa.string())

    def _raw(self, rows: pa.RecordBatch) -> pa.Array:
        written = json_objects({prop.name: rows.column(prop.name) for prop in self.contract.properties})
        raw = rows.column(RAW)
        if raw.null_count == len(raw):
            return written
        undecoded = pa.array([value.hex() for value in raw.drop_null().to_pylist()], pa.string())
        return pc.replace_with_mask(written, pc.is_valid(raw), undecoded)


def any_of(failures: Mapping[str, pa.BooleanArray]) -> pa.BooleanArray | None:
    """Return which rows fail at least one rule, None when no row does."""
    whole = None
    for mask in failures.values():
        whole = mask if whole is None else pc.or_(whole, mask)
    return whole


def _said(names: list[str], failed: bytes, described: Mapping[str, str]) -> str:
    return canonical_json({name: described[name] for name, bad in zip(names, failed, strict=True) if bad}).decode()
