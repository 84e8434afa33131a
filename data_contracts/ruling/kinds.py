"""What a rule is: a verdict about one row, or about a partition as a whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from data_contracts.odcs import Fault

Engine = Literal["arrow", "python", "duckdb", "great-expectations"]
Severity = Literal["error", "warning"]
SEVERITIES: dict[str, Severity] = {"error": "error", "critical": "error", "warning": "warning", "info": "warning"}

# Every kind of rule; docs/rules.md says of each what it comes from, where it runs and what it makes of NULL.
ROW_KINDS = (
    "decodes", "required", "type", "minLength", "maxLength", "pattern", "minimum", "maximum", "exclusiveMinimum",
    "exclusiveMaximum", "multipleOf", "enum", "validValues", "licence", "format", "precision", "foreignKey",
    "expectation", "mojibake", "controlCharacters", "lengthInCharacters", "lengthInTokens", "language", "repetition",
    "nonTextShare", "personalData", "secrets",
)  # fmt: skip
BATCH_KINDS = (
    "rowCount", "quarantineShare", "duplicateValues", "uniqueness", "nullValues", "missingValues", "failingRows",
    "foreignKey", "sql", "mostly", "expectation", "psi", "newCategories", "nullShareChange", "rowCountChange",
    "acceptanceSampling",
)  # fmt: skip


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

    `kind` is one of `BATCH_KINDS`: failingRows counts rows that fail one of the row rules in the argument `rules`,
    quarantineShare takes quarantined rows of all rows, every other is measured over the accepted rows. `arguments` hold
    `columns` (all that it asks for), `operator` (of ODCS), `value`, `unit`, and the kind's own. A failed warning does
    not refuse the partition.
    """

    name: str
    kind: str
    arguments: Mapping[str, Any]
    description: str
    severity: Severity
    runs: Engine = "arrow"


Finding = RowRule | BatchRule | Fault
