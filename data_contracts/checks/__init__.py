"""Kernels of the row rules that ODCS has no clause for: text, personal data, secrets, foreign keys.

`KERNELS` maps a row rule's kind to what says, vectorised over one batch, which rows fail it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from data_contracts.rules import RowRule

Kernel = Callable[["RowRule", pa.RecordBatch], pa.BooleanArray]
"""(rule, batch) -> True for each row that fails; the result may hold NULL, which passes."""

KERNELS: dict[str, Kernel] = {}
