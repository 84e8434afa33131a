"""An ODCS document as it stands, whether or not Causeway can take data in under it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from data_contracts.canonical import document_sha
from data_contracts.errors import ContractError
from data_contracts.faults import contract_faults, our_values
from data_contracts.odcs import Source, odcs_faults, read_yaml


@dataclass(frozen=True)
class Document:
    """A document that the standard accepts. `stops` says, fault by fault, what keeps data from being taken in."""

    source: Source
    stops: tuple[str, ...]

    @property
    def path(self) -> Path:
        """The file."""
        return self.source.path

    @property
    def plain(self) -> Mapping[str, Any]:
        """The document as JSON values."""
        return self.source.plain

    @cached_property
    def sha(self) -> str:
        """The SHA-256 of its canonical JSON."""
        return document_sha(self.plain)

    @property
    def objects(self) -> Sequence[Mapping[str, Any]]:
        """The objects of its schema."""
        return self.plain.get("schema") or []

    @cached_property
    def ours(self) -> Mapping[str, Any]:
        """The values of Causeway's custom properties by name: trainingTerms, reader, sequence."""
        return {name: value for name, _, value in our_values(self.plain)}

    def columns(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """Yield (path of names, property) of every property, nested ones after the one that holds them."""
        for table in self.objects:
            yield from _columns(str(table.get("name")), table.get("properties") or [])


def read_document(path: Path) -> Document:
    """Read a document that the standard accepts.

    Raises:
        ContractError: it is no YAML, or the standard's schema refuses it; each fault with its place.
    """
    source = read_yaml(Path(path))
    faults = odcs_faults(source.plain)
    if faults:
        raise source.error(faults)
    return Document(source, tuple(source.sentences(contract_faults(source.plain))))


@dataclass(frozen=True)
class Checked:
    """What `check` found of one file: `faults` make it fail, `notes` do not."""

    path: Path
    id: str
    version: str
    columns: int
    faults: tuple[str, ...]
    notes: tuple[str, ...]


def check(path: Path, *, odcs_only: bool = False) -> Checked:
    """Check one file: against the standard, and, unless `odcs_only`, as a contract that data is taken in under."""
    try:
        document = read_document(path)
    except ContractError as error:
        stated = _stated(path)
        faults = [*str(error).splitlines(), *([] if odcs_only else _own_faults(path))]
        return Checked(path, stated.get("id", ""), stated.get("version", ""), 0, tuple(dict.fromkeys(faults)), ())
    stops, none = document.stops, tuple[str, ...]()
    columns = sum(1 for _ in document.columns())
    found = (none, stops) if odcs_only else (stops, none)
    return Checked(path, str(document.plain["id"]), str(document.plain["version"]), columns, *found)


def _own_faults(path: Path) -> list[str]:
    """What is wrong with our custom properties in a document that the standard refuses."""
    try:
        source = read_yaml(path)
    except ContractError:
        return []
    return source.sentences(contract_faults(source.plain, broken=True))


def _stated(path: Path) -> dict[str, str]:
    try:
        plain = read_yaml(path).plain
    except ContractError:
        return {}
    return {name: value for name in ("id", "version") if isinstance(value := plain.get(name), str)}


def _columns(above: str, properties: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for column in properties:
        path = f"{above}.{column.get('name')}"
        yield path, column
        yield from _columns(path, column.get("properties") or [])
        items = column.get("items")
        if isinstance(items, dict):
            yield from _columns(f"{path}[]", items.get("properties") or [])
