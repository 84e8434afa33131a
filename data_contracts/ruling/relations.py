"""`relationships`: a foreign key into another data set is a row rule, one into the same object a batch rule.

ODCS names the other side by object and property. Which data set that object is, its contract does not say, so a custom
property of the relationship does: {property: dataset, vendor: causeway, value: finance/customers}.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from data_contracts.odcs import Fault, FieldPath, nearest
from data_contracts.ruling.kinds import BatchRule, Finding, RowRule

_FULL = re.compile(r"(?:(?P<file>[^#]+)#)?/?schema/(?P<object>[^/]+)/properties/(?P<column>[^/]+)")
_DATASET = re.compile(r"[a-z0-9-]+(?:/[a-z0-9-]+)*")


def relation_findings(
    entry: Mapping[str, Any], column: str | None, table: Mapping[str, Any], types: Mapping[str, str], path: FieldPath
) -> Iterator[Finding]:
    """Translate one relationship; `column` is that of a property's own, None for the object's."""
    if entry.get("type", "foreignKey") != "foreignKey":
        yield Fault((*path, "type"), f"{entry['type']!r} is not checked; use foreignKey")
        return
    ends = _listed(entry.get("to")), [column] if column is not None else _listed(entry.get("from"))
    to, own = ([_end(str(text), table) for text in end] for end in ends)
    if None in to or None in own or len(to) != len(own):
        yield Fault(path, "an end cannot be read; write object.property, or as many of them on both ends")
        return
    targets, sources = [end for end in to if end is not None], [end for end in own if end is not None]
    names = [name for _, name in sources] if column is None else [column]
    for name in names:
        if name not in types:
            yield Fault(path, f"there is no column {name!r}{nearest(name, types)}; correct it")
            return
    other = [name for _, name in targets]
    dataset = next(
        (p.get("value") for p in entry.get("customProperties") or () if p.get("property") == "dataset"), None
    )
    label = f"{'+'.join(names)}.foreignKey"
    if dataset is None and all(same for same, _ in targets):
        unknown = [name for name in other if name not in types]
        if unknown:
            yield Fault((*path, "to"), f"there is no column {unknown[0]!r}{nearest(unknown[0], types)}; correct it")
            return
        columns = list(dict.fromkeys([*names, *other]))
        arguments = {"columns": columns, "operator": "mustBe", "value": 0, "unit": "rows", "from": names, "to": other}
        words = f"{', '.join(names)} is {', '.join(other)} of a row of the partition"
        yield BatchRule(label, "foreignKey", arguments, words, "error", "duckdb")
    elif not isinstance(dataset, str) or not _DATASET.fullmatch(dataset):
        yield Fault(
            path,
            "it leads to another data set, and does not say which; add customProperties: "
            "[{property: dataset, vendor: causeway, value: <the id of its contract>}]",
        )
    else:
        words = f"{', '.join(names)} is {', '.join(other)} of a row of {dataset}"
        given = {"columns": names, "dataset": dataset, "to": other, "logicalTypes": [types[name] for name in names]}
        yield RowRule(label, names[0], "foreignKey", given, words, "python")


def _listed(end: Any) -> list[Any]:
    return end if isinstance(end, list) else [end]


def _end(text: str, table: Mapping[str, Any]) -> tuple[bool, str] | None:
    """Return whether it is this object, and the column."""
    if "/" in text or "#" in text:
        match = _FULL.fullmatch(text)
        if match is None:
            return None
        named = (table["name"], table.get("id"))
        return match["file"] is None and match["object"] in named, match["column"]
    owner, _, column = text.rpartition(".")
    return (owner in ("", table["name"], table.get("physicalName")), column) if column else None
