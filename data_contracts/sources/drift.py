"""Which column of a file is which column of the contract, and what is done when a file's columns are others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from data_contracts.contract import Contract
from data_contracts.errors import DataRefused


def column_names(contract: Contract) -> dict[str, tuple[str, ...]]:
    """Return what each column may be called in the files: its physical name, then its other names.

    Other names are the reader's `aliases` ({column: [name, ...]}) and the property's `transformSourceObjects` (ODCS):
    a data set may change its header without becoming another data set.
    """
    aliases: Mapping[str, Sequence[str]] = contract.reader.get("aliases") or {}
    columns = contract.document["schema"][0]["properties"]
    listed = {column["name"]: column.get("transformSourceObjects") or () for column in columns}
    return {
        prop.name: tuple(
            dict.fromkeys(
                [prop.physical_name, *aliases.get(prop.name, ()), *(str(n) for n in listed.get(prop.name, ()))]
            )
        )
        for prop in contract.properties
    }


def columns_in(contract: Contract, header: Sequence[str], file: str = "") -> dict[str, str]:
    """Return the name that each column has in a file, for those that it has; the first known name counts.

    Raises:
        DataRefused: `reader.drift` refuses what the file has or lacks; `file` is named.
    """
    there = set(header)
    found = {}
    for name, known in column_names(contract).items():
        present = next((word for word in known if word in there), None)
        if present is not None:
            found[name] = present
    refuse_drift(contract, there, found, file)
    return found


def refuse_drift(contract: Contract, there: Iterable[str], found: Mapping[str, Any], file: str) -> None:
    """Refuse a file whose columns are not the contract's, where `reader.drift` says so.

    `there` are the file's columns, `found` those of the contract that it has. The partition column and the columns
    that come from the path need not be in the file.

    Raises:
        DataRefused: a column was added and `added: refuse`, or one is missing and `missing: refuse`.
    """
    drift: Mapping[str, str] = contract.reader.get("drift") or {}
    if drift.get("added") == "refuse":
        known = {word for words in column_names(contract).values() for word in words}
        added = [name for name in there if name not in known]
        if added:
            raise DataRefused(
                f"{file}: has the column {', '.join(map(repr, sorted(added)))}, which the contract lacks; add it to"
                " the schema, name it in reader.aliases if it was renamed, or set reader.drift.added to allow"
            )
    if drift.get("missing") == "refuse":
        elsewhere = elsewhere_columns(contract)
        missing = [p.physical_name for p in contract.properties if p.name not in found and p.name not in elsewhere]
        if missing:
            raise DataRefused(
                f"{file}: lacks the column {', '.join(map(repr, missing))}; name it in reader.aliases if it was"
                " renamed, or set reader.drift.missing to null"
            )


def elsewhere_columns(contract: Contract) -> set[str]:
    """Return the columns that do not come from inside the files: the partition's, and groups of its pattern."""
    import re

    partition = contract.reader.get("partition") or {}
    named = set(re.compile(str(partition["pattern"])).groupindex) if "pattern" in partition else set()
    return named if partition.get("from") == "column" else named | {contract.partition_column}
