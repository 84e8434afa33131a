"""The text of a contract that a person will finish: what is guessed is marked, what is not ours to decide is TODO."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from data_contracts.contract import RESERVED
from data_contracts.faults import PLACEHOLDER

GUESSED = "guessed: "


class Writer:
    """Puts a comment behind each field that is guessed or open, and remembers which."""

    def __init__(self) -> None:
        self.guesses: list[str] = []
        self.open: list[str] = []

    def guess(self, node: CommentedMap, field: str, value: Any, why: str, path: str) -> None:
        """Set a field that is guessed, with the reason behind it."""
        node[field] = value
        node.yaml_add_eol_comment(GUESSED + why, field)
        self.guesses.append(f"{path}.{field}: {why}")

    def todo(self, node: CommentedMap, field: str, value: Any, what: str, path: str) -> None:
        """Set a placeholder, with what is to be decided behind it."""
        node[field] = value
        node.yaml_add_eol_comment(what, field)
        self.open.append(f"{path}.{field}: {what}")


def document(id: str, properties: Sequence[CommentedMap], reader: CommentedMap, terms: CommentedMap) -> CommentedMap:
    """Return the whole contract of one object."""
    whole = CommentedMap(
        apiVersion="v3.1.0", kind="DataContract", id=id, version="0.1.0", status="draft", schema=CommentedSeq()
    )
    table = CommentedMap(name=re.sub(r"\W+", "_", id.split("/")[-1]), logicalType="object")
    table["properties"] = CommentedSeq(properties)
    rule = CommentedMap(metric="rowCount", mustBeGreaterThan=0)
    rule["description"] = "a partition from which nothing is accepted is refused"
    table["quality"] = CommentedSeq([rule])
    whole["schema"].append(table)
    whole["customProperties"] = CommentedSeq(
        [
            CommentedMap(property="reader", vendor="causeway", value=reader),
            CommentedMap(property="trainingTerms", vendor="causeway", value=terms),
        ]
    )
    return whole


def partition_property(writer: Writer, name: str, why: str) -> CommentedMap:
    """Return the property that names the partition of a record by where it lies."""
    node = CommentedMap(name=name, description="the partition, from where the record lies", logicalType="string")
    node["required"] = True
    writer.guess(node, "partitioned", True, why, name)
    return node


def undecided_terms(writer: Writer, text: str | None, why: str = "the column with the longest texts") -> CommentedMap:
    """The terms with a placeholder for each decision that is not ours to make."""
    todo, path = PLACEHOLDER, "trainingTerms"
    terms = CommentedMap(format=2, licence=CommentedMap(), purposes=CommentedMap(), residency=CommentedMap())
    writer.todo(terms["licence"], "expression", todo, "the SPDX expression that the owner states", f"{path}.licence")
    writer.todo(terms["purposes"], "permitted", flow(todo), "pre-training, evaluation, ...", f"{path}.purposes")
    writer.todo(terms["residency"], "storage", flow(todo), "countries, EU, EEA or anywhere", f"{path}.residency")
    writer.todo(terms["residency"], "processing", flow(todo), "the same, for computing", f"{path}.residency")
    terms["derivedUpdates"] = "restricted"
    terms["heldOut"] = CommentedMap()
    writer.todo(terms["heldOut"], "share", todo, "0 to below 1: never trained on", f"{path}.heldOut")
    writer.todo(terms["heldOut"], "key", todo, "any text: another draws another set", f"{path}.heldOut")
    if text is None:
        writer.todo(terms, "text", todo, "the column that is trained on", path)
    else:
        writer.guess(terms, "text", text, why, path)
    return terms


def flow(*values: str) -> CommentedSeq:
    """Return a list that is written on one line."""
    sequence = CommentedSeq(values)
    sequence.fa.set_flow_style()
    return sequence


def column_names(physical: list[str]) -> dict[str, str]:
    """Give each column of the source a name that a contract may use; its own where that is one."""
    names: dict[str, str] = {}
    for number, name in enumerate(physical, start=1):
        made = re.sub(r"[^A-Za-z0-9]+", "_", name).strip("_")[:100]
        if name != made and re.fullmatch(r"[A-Za-z][A-Za-z0-9_]{0,127}", name):
            made = name
        if not re.match(r"[A-Za-z]", made):
            made = f"column_{made or number}"
        if made in RESERVED:
            made = f"{made}_value"
        while made in names.values():
            made = f"{made}_{number}"
        names[name] = made
    return names


def draft_id(path: Path) -> str:
    """Name a data set after a file: `draft/<its name>`."""
    stem = path.name.split(".")[0] or "data"
    return "draft/" + (re.sub(r"[^a-z0-9]+", "-", stem.lower()).strip("-") or "data")


def dumped(document: CommentedMap) -> str:
    """Return a contract's text, its comments included."""
    yaml = YAML()
    yaml.width = 4096
    yaml.indent(mapping=2, sequence=4, offset=2)
    out = io.StringIO()
    yaml.dump(document, out)
    return out.getvalue()
