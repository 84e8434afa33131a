"""What another form says of a data set, before it becomes a contract."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass
class Column:
    """One column as the other form describes it; `clauses` are fields of an ODCS property."""

    physical: str
    clauses: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    quality: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Described:
    """What a description says: columns, the reader's settings, rules of the whole object, and what is lost."""

    columns: dict[str, Column]
    reader: dict[str, Any]
    quality: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    title: str = ""

    def column(self, name: str) -> Column:
        """Return a column, a new one where it was not described before."""
        return self.columns.setdefault(name, Column(name))


def listed(value: Any) -> list[Any]:
    """Return a value as a list: itself where it is one."""
    return value if isinstance(value, list) else [value]
