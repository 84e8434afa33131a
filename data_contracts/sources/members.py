"""The columns of a JSON record: by the names of its members, or by `reader.fields`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from data_contracts.contract import Contract
from data_contracts.errors import ContractError, DataRefused
from data_contracts.sources.drift import column_names, elsewhere_columns
from data_contracts.sources.paths import ABSENT, FieldPath, Node, field_path, value_at


class Members:
    """Reads the columns of the records of one file, and keeps account of drift over all of them."""

    def __init__(self, contract: Contract, file: str) -> None:
        self.contract, self.file = contract, file
        self.fields = fields_of(contract)
        self.names = {} if self.fields else column_names(contract)
        drift: Mapping[str, str] = contract.reader.get("drift") or {}
        self.refuse_added = drift.get("added") == "refuse"
        self.refuse_missing = drift.get("missing") == "refuse"
        self.known = {word for words in self.names.values() for word in words} | {
            path.steps[0] for path in self.fields.values() if path.levels == 0 and path.steps
        }
        self.seen: set[str] = set()

    def values(self, node: Node) -> dict[str, Any]:
        """Return the values of a record's columns; one that it lacks is left out.

        Raises:
            DataRefused: the record has a member that the contract lacks, and drift is refused.
        """
        found: dict[str, Any] = {}
        if self.fields:
            for name, path in self.fields.items():
                value = value_at(node, path)
                if value is not ABSENT:
                    found[name] = value
        else:
            members = node.value
            for name, words in self.names.items():
                for word in words:
                    if word in members:
                        found[name] = members[word]
                        break
        if self.refuse_added and isinstance(node.value, Mapping):
            added = [str(name) for name in node.value if name not in self.known]
            if added:
                raise DataRefused(
                    f"{self.file}: has {', '.join(map(repr, sorted(added)))}, which the contract lacks; add it to the"
                    " schema, name it in reader.aliases if it was renamed, or set reader.drift.added to allow"
                )
        if self.refuse_missing:
            self.seen.update(found)
        return found

    def finish(self, records: int) -> None:
        """Judge drift once the file is read.

        Raises:
            DataRefused: no record had one of the columns, and drift is refused.
        """
        if self.refuse_missing and records:
            columns = [*self.fields] or [p.name for p in self.contract.properties]
            missing = [name for name in columns if name not in self.seen | elsewhere_columns(self.contract)]
            if missing:
                raise DataRefused(
                    f"{self.file}: no record has {', '.join(map(repr, missing))}; name it in reader.aliases if it was"
                    " renamed, or set reader.drift.missing to null"
                )


def fields_of(contract: Contract) -> dict[str, FieldPath]:
    """Return the reader's `fields`, empty when there are none.

    Raises:
        ContractError: a path is none, or a column is not in the schema.
    """
    known = {prop.name for prop in contract.properties}
    found = {}
    for name, text in (contract.reader.get("fields") or {}).items():
        if name not in known:
            raise ContractError(f"{contract.path}: reader.fields: the schema has no column {name}; correct the name")
        try:
            found[str(name)] = field_path(str(text))
        except ValueError as error:
            raise ContractError(f"{contract.path}: reader.fields.{name}: {error}") from error
    return found


def loads(text: str) -> Any:
    """Parse JSON as RFC 8259 has it: NaN and infinity are no numbers.

    Raises:
        ValueError: not JSON, or nested too deeply.
    """
    try:
        return _DECODER.decode(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


# json.loads with a setting makes a decoder for every call, which takes as long as a short line.
_DECODER = json.JSONDecoder(parse_constant=_refuse)
