"""Batch rules: what each of them counts over the accepted rows of a partition, and how it is judged."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from data_contracts.canonical import canonical_json
from data_contracts.contract import Contract
from data_contracts.identity import json_value
from data_contracts.rowchecks import failing
from data_contracts.rules import BatchRule, RowRule, holds


@dataclass(frozen=True)
class BatchResult:
    """A batch rule's verdict: `observed` is in the rule's unit, rows or percent (0 to 100)."""

    rule: BatchRule
    passed: bool
    observed: float
    detail: str


@dataclass
class BatchCheck:
    """Counts over the accepted rows what one batch rule compares; `add` takes them batch by batch."""

    rule: BatchRule
    contract: Contract
    count: int = 0
    seen: set[bytes] = field(default_factory=set)

    def add(self, rows: pa.Table) -> None:
        """Count the accepted rows of one batch."""
        given, columns = self.rule.arguments, self.rule.arguments.get("columns", ())
        match self.rule.kind:
            case "duplicateValues" | "uniqueness":
                values = zip(*(rows.column(name).to_pylist() for name in columns), strict=True)
                for row in values:
                    # As in SQL, an unknown value equals no other.
                    if all(value is not None for value in row):
                        key = hashlib.blake2b(canonical_json([json_value(v) for v in row]), digest_size=16).digest()
                        self.count += key in self.seen
                        self.seen.add(key)
            case "nullValues":
                self.count += sum(rows.column(name).null_count for name in columns)
            case "missingValues":
                missing = {json.dumps(json_value(value)) for value in given["missingValues"]}
                for name in columns:
                    values = rows.column(name).to_pylist()
                    self.count += sum(v is None or json.dumps(json_value(v)) in missing for v in values)
            case "invalidValues":
                for batch in rows.to_batches():
                    failed = (failing(rule, batch).to_numpy(zero_copy_only=False) for rule in self._row_rules())
                    masks = [np.asarray(mask, dtype=np.bool_) for mask in failed]
                    self.count += int(np.logical_or.reduce(masks).sum())

    def judge(self, rows_in: int, rows_accepted: int) -> BatchResult:
        """Judge the partition when its last batch is in."""
        kind, unit = self.rule.kind, self.rule.arguments.get("unit", "rows")
        whole = rows_in if kind == "quarantineShare" else rows_accepted
        count = self.count
        if kind == "rowCount":
            count = rows_accepted
        elif kind == "quarantineShare":
            count = rows_in - rows_accepted
        observed: float = count if unit == "rows" else 100 * count / whole if whole else 0.0
        passed = holds(self.rule, observed)
        found = f"{count} of {whole} rows" if kind != "rowCount" else f"{count} rows"
        said = "holds" if passed else "does not hold"
        return BatchResult(self.rule, passed, observed, f"{self.rule.description}: {said}, {found}")

    def _row_rules(self) -> list[RowRule]:
        given = self.rule.arguments
        (name,) = given["columns"]
        logical = self.contract.property(name).logical_type
        rules = []
        if "validValues" in given:
            arguments = {"values": given["validValues"], "logicalType": logical}
            rules.append(RowRule(self.rule.name, name, "validValues", arguments, ""))
        if "pattern" in given:
            rules.append(RowRule(self.rule.name, name, "pattern", {"pattern": given["pattern"]}, ""))
        return rules
