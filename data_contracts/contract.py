"""Load a data contract: ODCS 3.x YAML with a `trainingTerms` block, checked whole, as one typed view.

Sources: Open Data Contract Standard v3.0 to v3.2 (Bitol), and `schemas/training-terms-1.json`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from data_contracts.canonical import document_sha
from data_contracts.faults import OURS, RESERVED, VENDOR, contract_faults, our_values
from data_contracts.odcs import Source, odcs_faults, read_yaml
from data_contracts.terms import TrainingTerms, terms_from_document

__all__ = ["OURS", "RESERVED", "VENDOR", "Contract", "Property", "ServiceLevel", "load_contract"]


@dataclass(frozen=True)
class Property:
    """One column of the contract. `options` are its ODCS logicalTypeOptions; `line` is where it stands in the file."""

    name: str
    physical_name: str
    logical_type: str
    physical_type: str | None
    required: bool
    unique: bool
    primary_key_position: int | None
    partitioned: bool
    classification: str | None
    options: Mapping[str, Any]
    quality: tuple[Mapping[str, Any], ...]
    line: int


@dataclass(frozen=True)
class ServiceLevel:
    """One promise of the contract's slaProperties: a value, and its unit where the contract gives one."""

    value: Any
    unit: str | None = None


@dataclass(frozen=True)
class Contract:
    """One data set's contract. `document` is the parsed YAML as plain JSON values and `sha` its canonical SHA-256."""

    id: str
    name: str
    version: str
    api_version: str
    object_name: str
    properties: tuple[Property, ...]
    quality: tuple[Mapping[str, Any], ...]
    terms: TrainingTerms
    reader: Mapping[str, Any]
    sla: Mapping[str, ServiceLevel]
    path: Path
    document: Mapping[str, Any]
    sha: str
    sequence: Literal["arrival", "publication"] = "arrival"

    @property
    def primary_key(self) -> tuple[str, ...]:
        """The names of the primary key's columns in their order; empty when there is none."""
        keyed = [(p.primary_key_position, p.name) for p in self.properties if p.primary_key_position is not None]
        return tuple(name for _, name in sorted(keyed))

    @property
    def partition_column(self) -> str:
        """The name of the one partitioned column."""
        return next(p.name for p in self.properties if p.partitioned)

    @property
    def slug(self) -> str:
        """The id as one path segment: `software--python-source`."""
        return self.id.replace("/", "--")

    def property(self, name: str) -> Property:
        """Return a column by name.

        Raises:
            KeyError: there is no such column.
        """
        for column in self.properties:
            if column.name == name:
                return column
        raise KeyError(name)


def load_contract(path: Path, *, require_terms: bool = True) -> Contract:
    """Read and check a contract; every fault that can be found is reported at once.

    A contract without `trainingTerms` is refused: data whose terms cannot be read is not used. `require_terms=False`
    reads one all the same, with terms that permit nothing.

    Raises:
        ContractError: each fault as `file:line: field: what was found, what is allowed; the fix`.
    """
    source = read_yaml(Path(path))
    faults = odcs_faults(source.plain)
    broken = any(fault.path[:1] != ("customProperties",) for fault in faults)
    faults += contract_faults(source.plain, broken=broken, require_terms=require_terms)
    if faults:
        raise source.error(faults)
    return _view(source, {name: value for name, _, value in our_values(source.plain)})


def _view(source: Source, ours: Mapping[str, Any]) -> Contract:
    document = source.plain
    table = document["schema"][0]
    columns = table["properties"]
    properties = tuple(
        Property(
            name=column["name"],
            physical_name=column.get("physicalName", column["name"]),
            logical_type=column.get("logicalType", "string"),
            physical_type=column.get("physicalType"),
            # ODCS: a column of the primary key cannot be null.
            required=bool(column.get("required") or column.get("primaryKey")),
            unique=bool(column.get("unique")),
            primary_key_position=max(column.get("primaryKeyPosition", 1), 1) if column.get("primaryKey") else None,
            partitioned=bool(column.get("partitioned")),
            classification=column.get("classification"),
            options=column.get("logicalTypeOptions", {}),
            quality=tuple(column.get("quality", ())),
            line=source.line(("schema", 0, "properties", index)),
        )
        for index, column in enumerate(columns)
    )
    terms = terms_from_document(ours["trainingTerms"]) if "trainingTerms" in ours else _no_terms(columns[0]["name"])
    key = [p.name for p in sorted(properties, key=lambda p: p.primary_key_position or 0) if p.primary_key_position]
    if not terms.split_group:
        # The key survives restatement; without one equal texts at least stay on one side of the split.
        terms = replace(terms, split_group=tuple(key) or terms.text_columns)
    return Contract(
        id=document["id"],
        name=document.get("name", document["id"]),
        version=document["version"],
        api_version=document["apiVersion"],
        object_name=table["name"],
        properties=properties,
        quality=tuple(table.get("quality", ())),
        terms=terms,
        reader=ours.get("reader", {}),
        sla={
            entry["property"]: ServiceLevel(entry["value"], entry.get("unit"))
            for entry in document.get("slaProperties", ())
        },
        path=source.path,
        document=document,
        sha=document_sha(document),
        sequence=ours.get("sequence", "arrival"),
    )


def _no_terms(text: str) -> TrainingTerms:
    return TrainingTerms(1, None, None, (), (), (), (), (), None, None, "restricted", 0.0, "", (), text)
