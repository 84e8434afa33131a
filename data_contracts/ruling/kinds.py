"""What a rule is: a verdict about one row, or about a partition as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from data_contracts.odcs import Fault

Engine = Literal["arrow", "python", "duckdb", "great-expectations"]
Severity = Literal["error", "warning"]
SEVERITIES: dict[str, Severity] = {"error": "error", "critical": "error", "warning": "warning", "info": "warning"}


@dataclass(frozen=True)
class RowRule:
    """One rule about one row. `name` is stable (`content.minLength`): quarantine and reports speak of it.

    `column` is the first column that it asks for. `runs` says where: Arrow kernels alone, Python on the rows that a
    cheap Arrow test lets through, or Great Expectations.
    """

    name: str
    column: str
    kind: str
    arguments: Mapping[str, Any]
    description: str
    runs: Engine = "arrow"


@dataclass(frozen=True)
class BatchRule:
    """One rule about a partition as a whole.

    `kind` is rowCount, duplicateValues, uniqueness, nullValues, missingValues, failingRows (rows that fail one of the
    row rules in the argument `rules`), foreignKey, sql, expectation, a metric of drift, or sample, counted over the
    accepted rows; or quarantineShare: quarantined rows of all rows. `arguments` hold `columns` (all that it asks for),
    `operator` (of ODCS), `value`, `unit` (rows or percent), and the kind's own. A failed warning does not refuse the
    partition.
    """

    name: str
    kind: str
    arguments: Mapping[str, Any]
    description: str
    severity: Severity
    runs: Engine = "arrow"


Finding = RowRule | BatchRule | Fault
