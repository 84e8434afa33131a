"""What a contract must be beyond the standard: one object, plain columns, a key, a partition, terms, a reader."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from data_contracts.odcs import Fault, FieldPath, nearest, schema_faults
from data_contracts.periods import sla_faults
from data_contracts.reader import reader_faults
from data_contracts.rules import rule_faults
from data_contracts.terms import FORMATS, format_of, meaning_faults, terms_schema, terms_validator

# A part neither begins nor ends with '-' nor doubles it: only so is a slug, with '--' for '/', the slug of one id.
_ID = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*(/[a-z0-9]+(-[a-z0-9]+)*)*")
_COLUMN = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,127}")
_API_VERSION = re.compile(r"v3\.[0-2](\.\d+)?")
LOGICAL_TYPES = ("string", "integer", "number", "boolean", "date", "timestamp")
PARTITION_TYPES = ("string", "integer", "date")
# Columns that Causeway adds to the accepted table.
RESERVED = (
    "record_id", "split", "text_bytes", "partition", "ingest_id", "attempt_id", "source_file", "source_line"
)  # fmt: skip
VENDOR = "causeway"
OURS = ("trainingTerms", "reader", "sequence")
SEQUENCES = ("arrival", "publication")
# What stands where a person has yet to decide, and what is to be decided.
PLACEHOLDER = "TODO"
_DECISIONS = {
    "expression": "give the SPDX expression that the owner states, or NOASSERTION with a legalBasis (docs/terms.md)",
    "permitted": "say what the owner permits: pre-training, fine-tuning, evaluation, retrieval, commercial, research",
    "storage": "say where rows may rest: ISO 3166-1 codes, EU, EEA or anywhere",
    "processing": "say where rows may be computed on: ISO 3166-1 codes, EU, EEA or anywhere",
    "share": "say which share is never trained on, 0 to below 1",
    "key": "give any public text; another text draws another held-out set",
    "text": "name the string column that is trained on",
}


def contract_faults(document: Mapping[str, Any], *, broken: bool = False, require_terms: bool = True) -> list[Fault]:
    """Return what stops a document from being a contract that Causeway can take data in under.

    What the standard refuses elsewhere than in customProperties (`broken`) has no reliable shape: then only those are
    looked at.
    """
    ours = list(our_values(document))
    faults = list(_custom_faults(document, ours, require_terms))
    if not broken:
        faults.extend(_shape_faults(document))
        faults.extend(_reference_faults(document, ours))
        faults.extend(sla_faults(document))
    return faults


def our_values(document: Mapping[str, Any]) -> Iterator[tuple[str, FieldPath, Any]]:
    """Yield (property, path, value) of each custom property that Causeway reads."""
    entries = document.get("customProperties")
    for index, entry in enumerate(entries if isinstance(entries, list) else ()):
        if isinstance(entry, dict) and entry.get("vendor") == VENDOR and entry.get("property") in OURS:
            yield entry["property"], ("customProperties", index, "value"), entry.get("value")


def _custom_faults(
    document: Mapping[str, Any], ours: list[tuple[str, FieldPath, Any]], require_terms: bool
) -> Iterator[Fault]:
    entries = document.get("customProperties")
    for index, entry in enumerate(entries if isinstance(entries, list) else ()):
        if not isinstance(entry, dict):
            continue
        path: FieldPath = ("customProperties", index)
        name = entry.get("property")
        if entry.get("vendor") == VENDOR and name not in OURS:
            yield Fault(
                path, f"{name!r} is no property of vendor causeway{nearest(name, OURS)}; allowed: {', '.join(OURS)}"
            )
        elif name == "trainingTerms" and entry.get("vendor") != VENDOR:
            yield Fault(path, "the vendor of trainingTerms is not causeway; add 'vendor: causeway'")
    names = [name for name, _, _ in ours]
    if require_terms and "trainingTerms" not in names:
        yield Fault(
            ("customProperties",),
            "there are no trainingTerms, so nothing may be done with the data; "
            "add an entry {property: trainingTerms, vendor: causeway, value: ...} (docs/contracts.md)",
        )
    for position, (name, path, value) in enumerate(ours):
        if name in names[:position]:
            yield Fault(path, f"{name} stands twice; keep one")
        elif name == "trainingTerms":
            form = format_of(value)
            faults = schema_faults(terms_validator(form), value, path, partial(_terms_names, form))
            if isinstance(value, dict) and "format" in value and value["format"] not in FORMATS:
                listed = ", ".join(map(str, FORMATS))
                faults = [Fault((*path, "format"), f"{value['format']!r} is not allowed; use one of {listed}")]
            left = list(_placeholders(value, path))
            undecided = {fault.path for fault in left}
            yield from left
            yield from (fault for fault in faults if fault.path not in undecided)
            if not faults and not left:
                yield from (Fault((*path, *inner), sentence) for inner, sentence in meaning_faults(value))
        elif name == "sequence" and value not in SEQUENCES:
            yield Fault(path, f"{value!r} is not allowed; use one of {', '.join(SEQUENCES)}{nearest(value, SEQUENCES)}")
        elif name == "reader":
            for inner, sentence, found, words in reader_faults(value):
                yield Fault((*path, *inner), sentence + nearest(found, words))


def _placeholders(value: Any, path: FieldPath) -> Iterator[Fault]:
    """Yield what `contracts init` left for a person to decide."""
    if value == PLACEHOLDER:
        field = str(next((part for part in reversed(path) if isinstance(part, str)), ""))
        yield Fault(path, f"{PLACEHOLDER} is a placeholder; {_DECISIONS.get(field, 'replace it')}")
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from _placeholders(inner, (*path, name))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _placeholders(inner, (*path, index))


def _terms_names(form: int) -> list[str]:
    schema = terms_schema(form)
    nested = [name for part in schema["properties"].values() for name in part.get("properties", ())]
    licence = [name for part in schema["$defs"].values() for name in part.get("properties", ())]
    return [*schema["properties"], *nested, *licence]


def _shape_faults(document: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield what ODCS leaves open and Causeway needs: one object, plain columns, one partition column, a usable key."""
    if not _ID.fullmatch(document["id"]):
        yield Fault(
            ("id",),
            f"{document['id']!r} cannot name a data set; use a-z, 0-9 and '-' (one, inside), in parts joined by '/'",
        )
    if not _API_VERSION.fullmatch(document["apiVersion"]):
        yield Fault(("apiVersion",), f"{document['apiVersion']} is not read; write the contract in v3.0 to v3.2")
    objects = document.get("schema", [])
    if len(objects) != 1:
        yield Fault(("schema",), f"{len(objects)} objects; a contract of a training set describes exactly one")
        return
    base: FieldPath = ("schema", 0, "properties")
    columns = objects[0].get("properties") or []
    seen: set[str] = set()
    for index, column in enumerate(columns):
        path = (*base, index)
        name, logical = column["name"], column.get("logicalType", "string")
        if not _COLUMN.fullmatch(name):
            yield Fault((*path, "name"), f"{name!r} cannot name a column; use letters, digits and '_', a letter first")
        elif name in RESERVED:
            yield Fault((*path, "name"), f"{name!r} is a column that Causeway adds; rename it (keep physicalName)")
        if name in seen:
            yield Fault((*path, "name"), f"{name!r} stands twice; rename one")
        seen.add(name)
        for option in ("exclusiveMinimum", "exclusiveMaximum"):
            if isinstance(column.get("logicalTypeOptions", {}).get(option), bool):
                where: FieldPath = (*path, "logicalTypeOptions", option)
                yield Fault(where, f"{option} is true or false as in v3.0; give the bound itself, as from v3.1")
        if logical not in LOGICAL_TYPES:
            yield Fault((*path, "logicalType"), f"{logical} is not supported; use one of {', '.join(LOGICAL_TYPES)}")
    marked = [i for i, column in enumerate(columns) if column.get("partitioned")]
    if len(marked) != 1:
        yield Fault(base, f"{len(marked)} columns are partitioned; mark exactly one with 'partitioned: true'")
    elif columns[marked[0]].get("logicalType", "string") not in PARTITION_TYPES:
        yield Fault(
            (*base, marked[0]), f"a partition column is one of {', '.join(PARTITION_TYPES)}; change its logicalType"
        )
    keys = [(i, column) for i, column in enumerate(columns) if column.get("primaryKey")]
    positions = [column.get("primaryKeyPosition", -1) for _, column in keys]
    if len(keys) > 1 and sorted(positions) != list(range(1, len(keys) + 1)):
        yield Fault(
            (*base, keys[0][0]), f"primaryKeyPosition of the key's columns is {positions}; number them 1 to {len(keys)}"
        )
    yield from rule_faults(objects[0], ("schema", 0))


def _reference_faults(document: Mapping[str, Any], ours: list[tuple[str, FieldPath, Any]]) -> Iterator[Fault]:
    """Yield the columns that the terms name and the schema lacks."""
    objects = document.get("schema") or [{}]
    types = {c["name"]: c.get("logicalType", "string") for c in objects[0].get("properties") or [] if "name" in c}
    for path, value in ((path, value) for name, path, value in ours if name == "trainingTerms"):
        if not isinstance(value, dict):
            continue
        licence = value.get("licence")
        named: list[tuple[FieldPath, Any]] = [(("text",), value.get("text"))]
        trained = value.get("trainOn") if isinstance(value.get("trainOn"), list) else []
        named += [(("trainOn", i), name) for i, name in enumerate(trained or ())]
        if isinstance(licence, dict) and "column" in licence:
            named.append((("licence", "column"), licence["column"]))
        texts = len(named)
        groups = value.get("splitGroup")
        named += [(("splitGroup", i), name) for i, name in enumerate(groups if isinstance(groups, list) else ())]
        for position, (inner, name) in enumerate(named):
            if not isinstance(name, str) or name == PLACEHOLDER:
                continue
            if name not in types:
                yield Fault(
                    (*path, *inner), f"there is no column {name!r}{nearest(name, types)}; it has {', '.join(types)}"
                )
            elif position < texts and types[name] != "string":
                yield Fault((*path, *inner), f"column {name!r} is of type {types[name]}; name a string column")
        yield from _classification_faults(objects[0], path, value)


def _classification_faults(table: Mapping[str, Any], path: FieldPath, terms: Mapping[str, Any]) -> Iterator[Fault]:
    """Yield the trained columns whose classification the terms leave open, once they speak of classifications."""
    pii = terms.get("pii")
    stated = pii.get("classifications") if isinstance(pii, dict) else None
    if not isinstance(stated, dict):
        return
    trained = {terms.get("text"), *(terms.get("trainOn") or ())}
    found = {c["name"]: c.get("classification") for c in table.get("properties") or [] if c.get("name") in trained}
    where: FieldPath = (*path, "pii", "classifications")
    for name, classification in found.items():
        if classification is not None and classification not in stated:
            yield Fault(
                where,
                f"column {name!r} is trained on and is classified {classification!r}, which is not listed; "
                "add it as keep, redact, pseudonymise or drop-row",
            )
    for entry in stated:
        if entry not in found.values():
            listed = sorted({c for c in found.values() if c})
            yield Fault((*where, entry), f"no trained column is classified so{nearest(entry, listed)}; remove it")
