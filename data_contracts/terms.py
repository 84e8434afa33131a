"""TrainingTerms: what ODCS cannot say about a data set that is to be trained on.

They stand in the contract as the root `customProperties` entry `{property: trainingTerms, vendor: causeway}`; their
JSON Schemas are `schemas/training-terms-2.json` and, still read, `schemas/training-terms-1.json`.
"""

from __future__ import annotations

import calendar
import datetime
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any, Literal

from data_contracts.canonical import document_sha
from data_contracts.errors import ContractError
from data_contracts.licences import UNSTATED, bars_commercial_use, normalise
from data_contracts.odcs import nearest
from data_contracts.schema_check import SchemaCheck
from data_contracts.template import template_fault, template_fields

FORMATS = (1, 2)
ACTIVITIES = ("pre-training", "fine-tuning", "evaluation", "retrieval")
USES = ("commercial", "research")
NAMED_ZONES = ("anywhere", "EU", "EEA")
_PERIOD = re.compile(r"P(?:(\d+)Y)?(?:(\d+)M)?(?:(\d+)W)?(?:(\d+)D)?")


@dataclass(frozen=True)
class Retention:
    """How long a partition version may be used after its ingest (ISO 8601 duration), and what its owner does then."""

    period: str
    then: Literal["delete", "anonymise", "review"]

    def last_day(self, since: datetime.date) -> datetime.date:
        """Return the last day on which what was ingested on a day may be used; months end with the calendar's."""
        found = _PERIOD.fullmatch(self.period)
        years, months, weeks, days = (int(number or 0) for number in found.groups()) if found else (0, 0, 0, 0)
        year, month = divmod((since.year + years) * 12 + since.month - 1 + months, 12)
        try:
            day = min(since.day, calendar.monthrange(year, month + 1)[1])
            return datetime.date(year, month + 1, day) + datetime.timedelta(7 * weeks + days)
        except (OverflowError, ValueError):
            return datetime.date.max  # after the calendar's last year: for ever


@dataclass(frozen=True)
class TrainingTerms:
    """The terms of one data set.

    `licence` (SPDX expression of the whole set, or NOASSERTION), `licence_column` (with `licences_allowed`), or both
    are given. `storage`, `processing`, `never_in` and `never_outside` hold ISO 3166-1 alpha-2 codes, EU, EEA,
    'anywhere' or a name of `zones`. Both days of validity are included. `held_out_share` is a fraction in [0, 1), drawn
    over `split_group` with the public `held_out_key`. `text` is the column that is trained on, the first of `train_on`
    where a `template` makes the text of several; only the tokens of `loss_on` have a loss where it is given.
    `pii_classifications` maps a column's classification to keep, redact, pseudonymise or drop-row.
    """

    format: int
    licence: str | None
    licence_column: str | None
    licences_allowed: tuple[str, ...]
    permitted: tuple[str, ...]
    prohibited: tuple[str, ...]
    storage: tuple[str, ...]
    processing: tuple[str, ...]
    valid_from: datetime.date | None
    valid_until: datetime.date | None
    derived_updates: Literal["may-leave", "restricted"]
    held_out_share: float
    held_out_key: str
    split_group: tuple[str, ...]
    text: str
    pii: Mapping[str, str] = field(default_factory=dict)
    attribution: str | None = None
    revocation_contact: str | None = None
    zones: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    never_in: tuple[str, ...] = ()
    never_outside: tuple[str, ...] = ()
    legal_basis: Mapping[str, str] | None = None
    retention: Retention | None = None
    template: str | None = None
    train_on: tuple[str, ...] = ()
    loss_on: tuple[str, ...] = ()
    pii_classifications: Mapping[str, str] = field(default_factory=dict)

    @property
    def text_columns(self) -> tuple[str, ...]:
        """The columns whose values are trained on."""
        return self.train_on or (self.text,)

    def to_document(self) -> dict[str, Any]:
        """Return the terms in the form that stands in a contract: lists sorted, absent fields left out."""
        licence: dict[str, Any] = {}
        if self.licence is not None or self.licence_column is None:
            licence["expression"] = self.licence
        if self.licence_column is not None:
            licence |= {"column": self.licence_column, "allowed": sorted(self.licences_allowed)}
        residency = {
            "storage": sorted(self.storage),
            "processing": sorted(self.processing),
            "neverIn": sorted(self.never_in),
            "neverOutside": sorted(self.never_outside),
        }
        classified = {"classifications": dict(self.pii_classifications)} if self.pii_classifications else {}
        document: dict[str, Any] = {
            "format": self.format,
            "licence": licence,
            "legalBasis": dict(self.legal_basis) if self.legal_basis else None,
            "purposes": {"permitted": sorted(self.permitted), "prohibited": sorted(self.prohibited)},
            "zones": {name: sorted(codes) for name, codes in self.zones.items()} or None,
            "residency": {name: places for name, places in residency.items() if places or not name.startswith("never")},
            "validFrom": self.valid_from.isoformat() if self.valid_from else None,
            "validUntil": self.valid_until.isoformat() if self.valid_until else None,
            "retention": {"period": self.retention.period, "then": self.retention.then} if self.retention else None,
            "derivedUpdates": self.derived_updates,
            "heldOut": {"share": self.held_out_share, "key": self.held_out_key},
            "splitGroup": list(self.split_group) or None,
            "text": None if self.template is not None else self.text,
            "template": self.template,
            "trainOn": list(self.train_on) or None,
            "lossOn": sorted(self.loss_on) or None,
            "pii": {**self.pii, **classified} or None,
            "attribution": self.attribution,
            "revocationContact": self.revocation_contact,
        }
        return {name: value for name, value in document.items() if value is not None}

    @property
    def sha(self) -> str:
        """The SHA-256 of the canonical document: equal for terms that mean the same."""
        return document_sha(self.to_document())


@cache
def terms_schema(form: int = 1) -> dict[str, Any]:
    """Return the published JSON Schema of `trainingTerms` of a format (draft 2019-09)."""
    text = resources.files("data_contracts").joinpath(f"schemas/training-terms-{form}.json").read_text("utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


@cache
def terms_validator(form: int = 1) -> SchemaCheck:
    """Return the validator of `trainingTerms` of a format; it checks dates too."""
    return SchemaCheck(terms_schema(form), formats=("date",))


def format_of(document: Any) -> int:
    """Return the format under which a document is to be checked: its own where that is known, else the newest."""
    stated = document.get("format") if isinstance(document, dict) else None
    return 1 if stated == 1 and not isinstance(stated, bool) else FORMATS[-1]


@cache
def countries() -> frozenset[str]:
    """Return the ISO 3166-1 alpha-2 codes that terms and places may name."""
    return frozenset(terms_schema(1)["$defs"]["zone"]["enum"]) - set(NAMED_ZONES)


def meaning_faults(document: Mapping[str, Any]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield (path, sentence) of each fault that the schema cannot see, in a document that the schema accepts."""
    licence = document["licence"]
    expression = licence.get("expression")
    unstated = expression == UNSTATED and document["format"] > 1
    if expression is not None and not unstated and normalise(expression) is None:
        yield ("licence", "expression"), f"{expression!r} is no SPDX licence expression; see https://spdx.org/licenses"
    for index, entry in enumerate(licence.get("allowed", ())):
        known = normalise(entry)
        if known is None or " AND " in known or " OR " in known:
            yield ("licence", "allowed", index), f"{entry!r} is no SPDX licence, alone or as 'A WITH B'; correct it"
    purposes = document["purposes"]
    if bars_commercial_use(expression) and "commercial" not in purposes.get("prohibited", ()):
        yield ("purposes",), f"licence {expression} forbids commercial use; add 'commercial' to purposes.prohibited"
    if "validFrom" in document and "validUntil" in document and document["validUntil"] < document["validFrom"]:
        yield (
            ("validUntil",),
            f"{document['validUntil']} is before validFrom {document['validFrom']}; correct one of them",
        )
    if document["format"] > 1:
        yield from _place_faults(document)
        if "template" in document:
            yield from _template_faults(document)


def _place_faults(document: Mapping[str, Any]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    zones = document.get("zones", {})
    known = [*NAMED_ZONES, *zones, *sorted(countries())]
    for name in zones:
        if name == "anywhere":
            yield ("zones", name), "'anywhere' is every place already; give the zone another name"
    for clause, places in document["residency"].items():
        for index, place in enumerate(places):
            if place not in known:
                listed = ", ".join(known[:20])
                where: tuple[str | int, ...] = ("residency", clause, index)
                yield where, f"{place!r} is not allowed; use one of {listed} ...{nearest(place, known)}"
            elif place == "anywhere" and clause.startswith("never"):
                yield ("residency", clause, index), f"'anywhere' in {clause} says nothing or forbids all; name places"
    if "neverOutside" in document["residency"] and document.get("derivedUpdates") == "may-leave":
        yield (
            ("derivedUpdates",),
            "may-leave contradicts residency.neverOutside, which binds what is derived too; write restricted",
        )


def _template_faults(document: Mapping[str, Any]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    problem = template_fault(document["template"])
    if problem:
        yield ("template",), problem
        return
    named, listed = template_fields(document["template"]), document["trainOn"]
    for name in dict.fromkeys(named):
        if name not in listed:
            yield ("template",), f"{{{name}}} is not in trainOn{nearest(name, listed)}; add it there or remove it"
    for index, name in enumerate(listed):
        if name not in named:
            yield ("trainOn", index), f"the template does not name {name!r}{nearest(name, named)}; add it or remove it"
    for index, name in enumerate(document.get("lossOn", ())):
        if name not in listed:
            yield ("lossOn", index), f"{name!r} is not in trainOn{nearest(name, listed)}; add it there or remove it"


def terms_from_document(document: Mapping[str, Any]) -> TrainingTerms:
    """Build the terms from their document form, dates as ISO 8601 strings.

    Raises:
        ContractError: the document is not what the schema allows, or contradicts itself; names each field.
    """
    faults = [
        f"trainingTerms.{error.json_path.removeprefix('$.')}: {error.message}"
        for error in terms_validator(format_of(document)).errors(dict(document))
    ]
    if not faults:
        faults = [f"trainingTerms.{'.'.join(map(str, path))}: {text}" for path, text in meaning_faults(document)]
    if faults:
        raise ContractError("\n".join(faults))
    licence, purposes, residency = document["licence"], document["purposes"], document["residency"]
    pii = dict(document.get("pii", {}))
    classified = pii.pop("classifications", {})
    retention = document.get("retention")
    expression = licence.get("expression")
    return TrainingTerms(
        format=document["format"],
        licence=UNSTATED if expression == UNSTATED else normalise(expression),
        licence_column=licence.get("column"),
        licences_allowed=tuple(sorted(normalise(entry) or entry for entry in licence.get("allowed", ()))),
        permitted=tuple(purposes["permitted"]),
        prohibited=tuple(purposes.get("prohibited", ())),
        storage=tuple(residency["storage"]),
        processing=tuple(residency["processing"]),
        valid_from=_date(document.get("validFrom")),
        valid_until=_date(document.get("validUntil")),
        # Silence keeps updates at home: what the owner did not release does not leave.
        derived_updates=document.get("derivedUpdates", "restricted"),
        held_out_share=float(document["heldOut"]["share"]),
        held_out_key=document["heldOut"]["key"],
        split_group=tuple(document.get("splitGroup", ())),
        text=document["text"] if "text" in document else document["trainOn"][0],
        pii=pii,
        attribution=document.get("attribution"),
        revocation_contact=document.get("revocationContact"),
        zones={name: tuple(codes) for name, codes in sorted(document.get("zones", {}).items())},
        never_in=tuple(residency.get("neverIn", ())),
        never_outside=tuple(residency.get("neverOutside", ())),
        legal_basis=document.get("legalBasis"),
        retention=Retention(retention["period"], retention["then"]) if retention else None,
        template=document.get("template"),
        train_on=tuple(document.get("trainOn", ())),
        loss_on=tuple(sorted(document.get("lossOn", ()))),
        pii_classifications=dict(sorted(classified.items())),
    )


def _date(text: str | None) -> datetime.date | None:
    return None if text is None else datetime.date.fromisoformat(text)
