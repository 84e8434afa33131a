"""A query over the accepted rows, in DuckDB that may touch nothing else."""

from __future__ import annotations

import logging
import math
import tempfile
import threading
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_contracts.checks.measures import Measured
from data_contracts.checks.spool import Spool, connection
from data_contracts.ruling.kinds import BatchRule

_LOG = logging.getLogger(__name__)
# A cross join of a large partition would never end, and nobody waits for it.
LONGEST_S = 600.0


class Query:
    """The one number that a SELECT gives; a query that fails, gives none or takes too long does not hold."""

    def __init__(self, rule: BatchRule, longest_s: float = LONGEST_S) -> None:
        self.rule = rule
        self.longest_s = longest_s
        self.spool = Spool(rule.arguments["columns"])
        self._schema: pa.Schema | None = None

    def add(self, rows: pa.Table) -> None:
        """Keep the columns that the query names."""
        self._schema = rows.select(self.spool.columns).schema
        self.spool.add(rows)

    def result(self, rows_in: int, rows_accepted: int) -> Measured:
        """Run the query."""
        import duckdb

        with self.spool:
            found = self.spool.dataset()
            if found is None:
                if self._schema is None:
                    return Measured(0.0, "there is no row", True)
                found = self._schema.empty_table()
            with tempfile.TemporaryDirectory(prefix="causeway-") as folder, connection(Path(folder)) as duck:
                duck.register(self.rule.arguments["table"], found)
                duck.execute("SET lock_configuration = true")
                timer = threading.Timer(self.longest_s, duck.interrupt)
                timer.start()
                try:
                    answer: list[tuple[Any, ...]] = duck.execute(self.rule.arguments["query"]).fetchmany(2)
                except duckdb.InterruptException:
                    return Measured(0.0, f"the query took longer than {self.longest_s:g} s", False)
                except duckdb.Error as error:
                    # Its words may quote a row.
                    _LOG.error("rule %s: %s", self.rule.name, error)
                    return Measured(
                        0.0, f"the query failed: {type(error).__name__}; the process' own log has why", False
                    )
                finally:
                    timer.cancel()
        return _one_number(answer)


def _one_number(answer: list[tuple[Any, ...]]) -> Measured:
    if len(answer) != 1:
        return Measured(0.0, f"the query gave {'no row' if not answer else 'several rows'}, not one number", False)
    try:
        figure = float(answer[0][0])
    except (TypeError, ValueError):
        return Measured(0.0, f"the query gave a {type(answer[0][0]).__name__}, no number", False)
    if not math.isfinite(figure):
        return Measured(0.0, "the query gave no finite number", False)
    return Measured(figure, f"the query gave {figure:g}")
