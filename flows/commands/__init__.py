"""What the subcommands of `causeway` do. Heavy imports stand inside the functions: help must not wait for torch."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

Home = Annotated[
    Path, Parameter(name="--home", env_var="CAUSEWAY_HOME", help="Folder of stores, keys and the Prefect database")
]
Json = Annotated[bool, Parameter(name="--json", negative="", help="Print one JSON object as the last line")]
DEFAULT_HOME = Path(".causeway")


def print_json(value: Any) -> None:
    """Print one JSON value on one line of standard output."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, default=str) + "\n")


def print_table(title: str, columns: list[str], rows: list[list[Any]]) -> None:
    """Print a table for a person; numbers stand to the right."""
    from rich.console import Console
    from rich.table import Table

    numeric = [bool(rows) and all(isinstance(row[k], int | float) for row in rows) for k in range(len(columns))]
    table = Table(title=title, title_justify="left")
    for name, right in zip(columns, numeric, strict=True):
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(f"{v:,}" if isinstance(v, int) and not isinstance(v, bool) else str(v) for v in row))
    # On a pipe rich would fold at 80 columns and cut ids in half. Values from data are text, never rich's markup.
    Console(width=None if sys.stdout.isatty() else 160, markup=False).print(table)
