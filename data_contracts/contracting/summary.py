"""A contract in words and lines: what `contracts show` prints and the page of `contracts docs` is made of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from data_contracts.contract import Contract, load_contract
from data_contracts.contracting.document import Document
from data_contracts.contracting.trial import rules_of
from data_contracts.errors import ContractError
from data_contracts.terms import TrainingTerms


@dataclass(frozen=True)
class Column:
    """One property as words."""

    name: str
    type: str
    flags: str
    options: str
    classification: str
    description: str


@dataclass(frozen=True)
class Summary:
    """A contract as words. `rules` are (name, kind, what), `terms` (clause, says); both are empty where it has none."""

    id: str
    name: str
    version: str
    api_version: str
    facts: tuple[tuple[str, str], ...]
    columns: tuple[Column, ...]
    rules: tuple[tuple[str, str, str], ...]
    terms: tuple[tuple[str, str], ...]
    stops: tuple[str, ...]


def summary(document: Document) -> Summary:
    """Describe a document; rules and terms are given where data can be taken in under it, or only its terms lack."""
    plain = document.plain
    contract = _contract(document)
    single = len(document.objects) == 1
    columns = tuple(_column(path.split(".", 1)[1] if single else path, prop) for path, prop in document.columns())
    return Summary(
        str(plain["id"]),
        str(plain.get("name", plain["id"])),
        str(plain["version"]),
        str(plain["apiVersion"]),
        tuple(_facts(document)),
        columns,
        tuple(rules_of(contract)) if contract else (),
        tuple(_terms(contract.terms)) if contract and "trainingTerms" in document.ours else (),
        document.stops,
    )


def _contract(document: Document) -> Contract | None:
    try:
        return load_contract(document.path, require_terms=False)
    except ContractError:
        return None


def _facts(document: Document) -> list[tuple[str, str]]:
    plain = document.plain
    facts = [(name, str(plain[name])) for name in ("status", "domain", "tenant") if plain.get(name)]
    described = plain.get("description")
    for name, text in described.items() if isinstance(described, dict) else ():
        if isinstance(text, str):
            facts.append((name, text))
    for entry in plain.get("slaProperties") or []:
        value = " ".join(str(entry[k]) for k in ("value", "unit") if entry.get(k) is not None)
        facts.append((str(entry.get("property")), value))
    if "reader" in document.ours:
        facts.append(("reader", _words(document.ours["reader"])))
    if "sequence" in document.ours:
        facts.append(("sequence", str(document.ours["sequence"])))
    return facts


def _column(name: str, prop: Mapping[str, Any]) -> Column:
    flags = [word for word in ("primaryKey", "required", "unique", "partitioned") if prop.get(word)]
    options = dict(prop.get("logicalTypeOptions") or {})
    if prop.get("enum"):
        options["enum"] = [entry.get("value") if isinstance(entry, dict) else entry for entry in prop["enum"]]
    return Column(
        name,
        str(prop.get("logicalType", "string")),
        ", ".join(flags),
        _words(options) if options else "",
        str(prop.get("classification") or ""),
        str(prop.get("description") or ""),
    )


def _terms(terms: TrainingTerms) -> list[tuple[str, str]]:
    """Each clause of the terms, flat: a.b for what stands inside another."""
    lines: list[tuple[str, str]] = []
    for name, value in terms.to_document().items():
        inner = value.items() if isinstance(value, dict) else [("", value)]
        for part, entry in inner:
            said = ", ".join(map(str, entry)) if isinstance(entry, list) else _words(entry)
            lines.append((f"{name}.{part}" if part else name, said or "nothing"))
    return lines


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_words(inner)}" for name, inner in value.items())
    if isinstance(value, list):
        return "[" + ", ".join(_words(inner) for inner in value) + "]"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
