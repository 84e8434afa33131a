"""Quality entries of `type: sql`: a query over the accepted rows that gives one number.

The query is bound to an empty table of the contract's columns when the contract is loaded, so what DuckDB cannot run is
a fault of the contract.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

import pyarrow as pa

from data_contracts.checks.spool import connection
from data_contracts.odcs import Fault, FieldPath
from data_contracts.rowchecks import constants
from data_contracts.ruling.comparison import comparison
from data_contracts.ruling.kinds import BatchRule, Finding

# ODCS writes ${table} and ${column}, datacontract-cli {model} and {field}, other pages {object} and {property}.
_TABLE = re.compile(r"\$?\{(?:object|table|model|schema)\}")
_COLUMN = re.compile(r"\$?\{(?:property|column|field)\}")
_PLACE = re.compile(r"\$?\{[A-Za-z_]*\}")


def sql_findings(
    check: Mapping[str, Any], column: Mapping[str, Any] | None, types: Mapping[str, str], path: FieldPath, table: str
) -> Iterator[Finding]:
    """Translate an entry; the accepted rows are the table of the object's name."""
    name = None if column is None else str(column["name"])
    query = str(check.get("query", ""))
    found = comparison(check, "sql", path)
    if isinstance(found, list):
        yield from found
        return
    query = _TABLE.sub(lambda _: _quoted(table), query)
    if name is not None:
        query = _COLUMN.sub(lambda _: _quoted(name), query)
    left = _PLACE.search(query)
    if left:
        allowed = "{object}" + (" and {property}" if name is not None else "")
        yield Fault((*path, "query"), f"the placeholder {left.group()} stands for nothing here; use {allowed}")
        return
    columns, problem = _bound(query, table, tuple(types.items()))
    if problem:
        yield Fault((*path, "query"), f"the query cannot be run: {problem}; write one SELECT that gives one number")
        return
    label = "sql" if name is None else f"{name}.sql"
    words = check.get("description") or check.get("name") or f"{label} {found.operator} {found.value}"
    arguments = found.arguments(list(columns), query=query, table=table)
    yield BatchRule(label, "sql", arguments, words, found.severity, "duckdb")


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


@lru_cache(maxsize=256)
def _bound(query: str, table: str, types: tuple[tuple[str, str], ...]) -> tuple[list[str], str]:
    """Return the columns that a query reads, or what is wrong with it; nothing is run but its plan over no rows."""
    import duckdb
    import pyarrow.dataset as ds  # brings pandas: 0.2 s that only contracts with such a rule pay

    empty = pa.table({name: constants([], logical) for name, logical in types})
    with connection() as duck:
        duck.register(table, ds.dataset(empty))
        duck.execute("SET lock_configuration = true")
        try:
            statements = duck.extract_statements(query)
            if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
                return [], "it is no single SELECT"
            plan = duck.execute(f"EXPLAIN (FORMAT json) {query}").fetchall()[0][1]
            given = duck.execute(f"DESCRIBE {query}").fetchall()
        except duckdb.Error as error:
            return [], str(error).split("\n", 1)[0]
    if len(given) != 1:
        return [], f"it gives {len(given)} columns"
    read = set(_scanned(json.loads(plan)))
    words = {word.lower() for word in re.findall(r"\w+", query)}
    named = [name for name in empty.column_names if name in read or name.lower() in words]
    return named or empty.column_names[:1], ""


def _scanned(node: Any) -> Iterator[str]:
    """The columns that the scans of a plan project."""
    for entry in node if isinstance(node, list) else [node]:
        if "ARROW_SCAN" in entry.get("name", ""):
            projected = entry.get("extra_info", {}).get("Projections", [])
            yield from [projected] if isinstance(projected, str) else projected
        yield from _scanned(entry.get("children", []))
