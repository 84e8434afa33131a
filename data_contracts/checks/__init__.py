"""Kernels of the row rules that rest on more than one Arrow function: formats, text, personal data, secrets, keys.

`KERNELS` maps a row rule's kind to what says, vectorised over one batch, which rows fail it. Each is imported when it
is first used: phonenumbers and Great Expectations alone would cost every command its start.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from data_contracts.rules import RowRule

Kernel = Callable[["RowRule", pa.RecordBatch], pa.BooleanArray]
"""(rule, batch) -> True for each row that fails; the result may hold NULL, which passes."""


def _later(module: str, name: str) -> Kernel:
    def kernel(rule: RowRule, batch: pa.RecordBatch) -> pa.BooleanArray:
        return getattr(import_module(f"data_contracts.checks.{module}"), name)(rule, batch)

    return kernel


_TEXT = (
    "mojibake", "controlCharacters", "lengthInCharacters", "lengthInTokens", "language", "repetition", "nonTextShare",
    "personalData", "secrets",
)  # fmt: skip
KERNELS: dict[str, Kernel] = {
    "foreignKey": _later("keys", "foreign_key_fails"),
    "format": _later("formats", "format_fails"),
    "expectation": _later("expected", "expectation_fails"),
    "precision": _later("formats", "precision_fails"),
    **dict.fromkeys(_TEXT, _later("text", "text_fails")),
}
