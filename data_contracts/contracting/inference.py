"""A first contract inferred from data: each guess marked as one, the terms left for a person to decide."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml.comments import CommentedMap, CommentedSeq

from data_contracts.contracting.drafting import (
    GUESSED,
    Writer,
    column_names,
    document,
    draft_id,
    dumped,
    partition_property,
    undecided_terms,
)
from data_contracts.contracting.profiling import Profile, profile
from data_contracts.contracting.sample import Sample
from data_contracts.contracting.sampling import take_sample
from data_contracts.errors import DataRefused
from data_contracts.faults import PLACEHOLDER

# Above this a column of text is what is trained on rather than a name of something.
_KEY_LENGTH = 64


@dataclass(frozen=True)
class Inferred:
    """A contract's text; `guesses` are the fields that were guessed, `open` those that only a person can fill in."""

    text: str
    rows: int
    whole: bool
    columns: int
    guesses: tuple[str, ...]
    open: tuple[str, ...]


def infer(location: Path, *, id: str = "", rows: int = 100_000) -> Inferred:
    """Infer a contract from a file or folder, from at most so many records.

    Types, bounds, vocabularies, keys, personal data, the partition and the reader's settings are guessed, and each is
    marked `# guessed: why`. Licence, purposes, places and split are never guessed: they stand as TODO, which `check`
    refuses until a person has decided.

    Raises:
        DataRefused: nothing is there, its format is not known, or it holds no record.
    """
    sample = take_sample(Path(location), rows)
    if not sample.rows or not sample.columns:
        raise DataRefused(f"{location}: holds no record; give data with at least one")
    return assemble(sample, id or draft_id(Path(location)), Path(location).name)


def assemble(sample: Sample, id: str, source: str) -> Inferred:
    """Put a sample's profiles into the text of a contract."""
    names = column_names(list(sample.columns))
    profiles = {name: profile(name, sample.columns[physical]) for physical, name in names.items()}
    key = _key(sample, names, profiles)
    writer = Writer()
    text = _trained(profiles)
    properties = CommentedSeq(
        _property(writer, physical, name, profiles[name], sample, key) for physical, name in names.items()
    )
    partition, divides = _partition(sample, profiles)
    column = "part" if "part" not in profiles else "source_part"
    why = "one partition a file" if sample.per_file else "the whole source is one partition"
    properties.append(partition_property(writer, column, why))
    reader = _reader(writer, sample, names, profiles, partition)
    seen = f"{'all' if sample.whole else 'the first'} {sample.rows:,} records"
    whole = document(id, properties, reader, undecided_terms(writer, text))
    head = f"Inferred from {seen} of {source}. What is marked 'guessed' is a guess: confirm or correct it.\n"
    head += f"Terms are never guessed: replace each {PLACEHOLDER}, then run: causeway contracts check THIS-FILE"
    if divides:
        head += f"\nOne partition so far. These columns could divide the data instead: {', '.join(divides)}\n"
        head += "(then remove the property that is partitioned, mark the column, and give the reader 'from: column')"
    whole.yaml_set_start_comment(head)
    return Inferred(dumped(whole), sample.rows, sample.whole, len(names), tuple(writer.guesses), tuple(writer.open))


def _property(
    writer: Writer, physical: str, name: str, found: Profile, sample: Sample, key: tuple[tuple[str, ...], str]
) -> CommentedMap:
    node = CommentedMap(name=name)
    if physical != name and not sample.paths:
        node["physicalName"] = physical
    reasons = found.reasons
    if "logicalType" in reasons:
        writer.guess(node, "logicalType", found.logical_type, reasons["logicalType"], name)
    else:
        node["logicalType"] = found.logical_type
    if name in key[0]:
        writer.guess(node, "primaryKey", True, key[1], name)
        if len(key[0]) > 1:
            node["primaryKeyPosition"] = key[0].index(name) + 1
    elif found.required:
        writer.guess(node, "required", True, reasons["required"], name)
    if found.classification:
        writer.guess(node, "classification", found.classification, reasons["classification"], name)
    if found.options:
        inner = CommentedMap()
        why = reasons["logicalTypeOptions"]
        node["logicalTypeOptions"] = inner
        for option, value in found.options.items():
            writer.guess(inner, option, value, why, f"{name}.logicalTypeOptions")
    if found.enum:
        entries = CommentedSeq([CommentedMap(value=value) for value in found.enum])
        for entry in entries:
            entry.fa.set_flow_style()
        writer.guess(node, "enum", entries, reasons["enum"], name)
    return node


def _partition(sample: Sample, profiles: Mapping[str, Profile]) -> tuple[dict[str, Any], list[str]]:
    if sample.per_file:
        return dict(sample.reader["partition"]), []
    divides = [
        f"{name} ({found.distinct:,} values)"
        for name, found in profiles.items()
        if found.required
        and 1 < found.distinct <= min(1000, sample.rows // 20)
        and found.logical_type in ("date", "string", "integer")
        and found.classification is None
    ]
    return {"constant": "all"}, divides[:5]


def _reader(
    writer: Writer,
    sample: Sample,
    names: Mapping[str, str],
    profiles: Mapping[str, Profile],
    partition: dict[str, Any],
) -> CommentedMap:
    node = CommentedMap(format=sample.reader["format"])
    for name, value in sample.reader.items():
        if name in ("format", "partition"):
            continue
        if name in sample.guesses:
            writer.guess(node, name, value, sample.guesses[name], "reader")
        else:
            node[name] = value
    if sample.paths:
        node["fields"] = CommentedMap({names[physical]: path for physical, path in sample.paths.items()})
        writer.guesses.append("reader.fields: the parts of each record")
        node.yaml_add_eol_comment(GUESSED + "the parts of each record", "fields")
    words = sorted({word for found in profiles.values() for word in found.null_words})
    if words and sample.reader["format"] in ("csv", "table"):
        writer.guess(
            node, "nulls", ["", *words], "words that stand for no value where a column has another type", "reader"
        )
    forms = sorted({found.timestamp_format for found in profiles.values() if found.timestamp_format})
    if forms:
        writer.guess(node, "timestampFormats", forms, "how moments are written", "reader")
    writer.guess(node, "partition", CommentedMap(partition), sample.guesses.get("partition", "one partition"), "reader")
    return node


def _trained(profiles: Mapping[str, Profile]) -> str | None:
    texts = {name: found.mean_length for name, found in profiles.items() if found.logical_type == "string"}
    return max(texts, key=lambda name: texts[name]) if texts else None


def _key(sample: Sample, names: Mapping[str, str], profiles: Mapping[str, Profile]) -> tuple[tuple[str, ...], str]:
    """Find one column, else two, in which no two records are equal; columns that are called like a key come first."""
    physical = {name: p for p, name in names.items()}
    able = [
        name
        for name, found in profiles.items()
        if found.required and found.logical_type in ("string", "integer", "date", "timestamp")
        if found.mean_length <= _KEY_LENGTH
    ]
    if sample.rows < 2:
        return (), ""
    able.sort(key=lambda name: not re.search(r"(^|_)(id|key|no|nr|code|uuid|number)s?$|Id$|ID$", name))
    why = f"no two of {sample.rows:,} records share "
    for name in able:
        if profiles[name].distinct == sample.rows:
            return (name,), why + "it"
    many = sorted(able, key=lambda name: -profiles[name].distinct)[:6]
    for pair in itertools.combinations(many, 2):
        rows = zip(*(map(repr, sample.columns[physical[name]]) for name in pair), strict=True)
        if len(set(rows)) == sample.rows:
            return pair, why + "both"
    return (), ""
