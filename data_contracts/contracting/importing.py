"""A first contract from another description of the data: a Parquet or JSON schema, a GX suite, a Frictionless package.

What the other form says is taken over; the partition and the text that is trained on are guessed, and marked; terms
are never taken from it: they stand as TODO.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ruamel.yaml.comments import CommentedMap, CommentedSeq

from data_contracts.contracting.described import Column, Described
from data_contracts.contracting.drafting import (
    Writer,
    column_names,
    document,
    draft_id,
    dumped,
    partition_property,
    undecided_terms,
)
from data_contracts.contracting.frictionless_import import from_frictionless
from data_contracts.contracting.gx_import import from_gx_suite
from data_contracts.contracting.schema_import import from_json_schema, from_parquet
from data_contracts.errors import ContractError

Form = Literal["parquet", "json-schema", "gx", "frictionless"]


@dataclass(frozen=True)
class Imported:
    """A contract's text; `notes` say what of the description could not be taken over."""

    text: str
    form: Form
    columns: int
    notes: tuple[str, ...]
    open: tuple[str, ...]


def import_contract(path: Path, form: Form | None = None, *, id: str = "", resource: str = "") -> Imported:
    """Make a contract from a description; without `form` the file says what it is.

    `resource` names one of a Frictionless package's resources, by default its first table.

    Raises:
        ContractError: the file cannot be read, is none of the forms, or describes no column.
    """
    path = Path(path)
    given = None if form == "parquet" or (form is None and path.suffix == ".parquet") else _json(path)
    form = form or _form(path, given)
    if form == "parquet":
        found = from_parquet(path)
    elif form == "frictionless":
        found = from_frictionless(path, given, resource)
    else:
        found = from_gx_suite(given) if form == "gx" else from_json_schema(given)
    if not found.columns:
        raise ContractError(f"{path}: describes no column; name another file, or write the contract by hand")
    writer = Writer()
    text = _text(found, writer, id or draft_id(path), path.name, form)
    return Imported(text, form, len(found.columns), tuple(found.notes), tuple(writer.open))


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ContractError(f"{path}: cannot be read: {error.strerror}; give the path of a description") from error
    except ValueError as error:
        raise ContractError(
            f"{path}: no JSON: {error}; give a JSON schema, a GX suite or a datapackage.json"
        ) from error


def _form(path: Path, given: Any) -> Form:
    if given is None:
        return "parquet"
    if isinstance(given, dict):
        if isinstance(given.get("resources"), list):
            return "frictionless"
        if isinstance(given.get("expectations"), list):
            return "gx"
        if "properties" in given or "$schema" in given:
            return "json-schema"
    raise ContractError(f"{path}: neither JSON schema nor GX suite nor Frictionless package; say which by --form")


def _text(found: Described, writer: Writer, id: str, source: str, form: Form) -> str:
    names = column_names(list(found.columns))
    properties = [_property(found.columns[physical], name) for physical, name in names.items()]
    column = "part" if "part" not in names.values() else "source_part"
    properties.append(partition_property(writer, column, "the whole source is one partition"))
    reader = CommentedMap(found.reader)
    writer.guess(reader, "partition", CommentedMap(constant="all"), "one partition", "reader")
    texts = [name for name, node in zip(names.values(), properties, strict=False) if node["logicalType"] == "string"]
    only = texts[0] if len(texts) == 1 else None
    terms = undecided_terms(writer, only, "the only column of text")
    whole = document(id, properties, reader, terms)
    if found.title:
        whole.insert(3, "name", found.title)
    for rule in found.quality:
        whole["schema"][0]["quality"].append(CommentedMap(rule))
    lost = "".join(f"\nNot taken over: {note}" for note in found.notes)
    whole.yaml_set_start_comment(
        f"Imported from {source} ({form}). Terms are never taken over: replace each TODO, then run\n"
        f"causeway contracts check THIS-FILE{lost}"
    )
    return dumped(whole)


def _property(column: Column, name: str) -> CommentedMap:
    node = CommentedMap(name=name)
    if name != column.physical:
        node["physicalName"] = column.physical
    node["logicalType"] = column.clauses.pop("logicalType", "string")
    node.update(column.clauses)
    if column.options:
        node["logicalTypeOptions"] = CommentedMap(column.options)
    if column.quality:
        node["quality"] = CommentedSeq(CommentedMap(rule) for rule in column.quality)
    return node
