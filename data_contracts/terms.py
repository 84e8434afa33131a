"""TrainingTerms: what ODCS cannot say about a data set that is to be trained on.

They stand in the contract as the root `customProperties` entry `{property: trainingTerms, vendor: causeway}`; their
JSON Schema is `schemas/training-terms-1.json`.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib import resources
from typing import Any, Literal

from jsonschema import Draft201909Validator, FormatChecker

from data_contracts.canonical import document_sha
from data_contracts.errors import ContractError
from data_contracts.licences import bars_commercial_use, normalise

ACTIVITIES = ("pre-training", "fine-tuning", "evaluation", "retrieval")
USES = ("commercial", "research")


@dataclass(frozen=True)
class TrainingTerms:
    """The terms of one data set.

    Exactly one of `licence` (SPDX expression of the whole set) and `licence_column` (with `licences_allowed`) is
    given. `storage` and `processing` hold ISO 3166-1 alpha-2 codes, EU, EEA or 'anywhere'. Both days of validity are
    included. `held_out_share` is a fraction in [0, 1), drawn over `split_group` with the public `held_out_key`.
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

    def to_document(self) -> dict[str, Any]:
        """Return the terms in the form that stands in a contract: lists sorted, absent fields left out."""
        licence: dict[str, Any] = {"expression": self.licence}
        if self.licence is None:
            licence = {"column": self.licence_column, "allowed": sorted(self.licences_allowed)}
        document: dict[str, Any] = {
            "format": self.format,
            "licence": licence,
            "purposes": {"permitted": sorted(self.permitted), "prohibited": sorted(self.prohibited)},
            "residency": {"storage": sorted(self.storage), "processing": sorted(self.processing)},
            "validFrom": self.valid_from.isoformat() if self.valid_from else None,
            "validUntil": self.valid_until.isoformat() if self.valid_until else None,
            "derivedUpdates": self.derived_updates,
            "heldOut": {"share": self.held_out_share, "key": self.held_out_key},
            "splitGroup": list(self.split_group) or None,
            "text": self.text,
            "pii": dict(self.pii) or None,
            "attribution": self.attribution,
            "revocationContact": self.revocation_contact,
        }
        return {name: value for name, value in document.items() if value is not None}

    @property
    def sha(self) -> str:
        """The SHA-256 of the canonical document: equal for terms that mean the same."""
        return document_sha(self.to_document())


@cache
def terms_schema() -> dict[str, Any]:
    """Return the published JSON Schema of `trainingTerms`, format 1 (draft 2019-09)."""
    text = resources.files("data_contracts").joinpath("schemas/training-terms-1.json").read_text("utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema


@cache
def terms_validator() -> Draft201909Validator:
    """Return the validator of `trainingTerms`; it checks dates too."""
    return Draft201909Validator(terms_schema(), format_checker=FormatChecker(["date"]))


@cache
def countries() -> frozenset[str]:
    """Return the ISO 3166-1 alpha-2 codes that terms and places may name."""
    return frozenset(terms_schema()["$defs"]["zone"]["enum"]) - {"anywhere", "EU", "EEA"}


def meaning_faults(document: Mapping[str, Any]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    """Yield (path, sentence) of each fault that the schema cannot see, in a document that the schema accepts."""
    licence = document["licence"]
    expression = licence.get("expression")
    if expression is not None and normalise(expression) is None:
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


def terms_from_document(document: Mapping[str, Any]) -> TrainingTerms:
    """Build the terms from their document form, dates as ISO 8601 strings.

    Raises:
        ContractError: the document is not what the schema allows, or contradicts itself; names each field.
    """
    faults = [
        f"trainingTerms.{error.json_path.removeprefix('$.')}: {error.message}"
        for error in terms_validator().iter_errors(dict(document))
    ]
    if not faults:
        faults = [f"trainingTerms.{'.'.join(map(str, path))}: {text}" for path, text in meaning_faults(document)]
    if faults:
        raise ContractError("\n".join(faults))
    licence, purposes, residency = document["licence"], document["purposes"], document["residency"]
    return TrainingTerms(
        format=document["format"],
        licence=normalise(licence.get("expression")),
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
        text=document["text"],
        pii=dict(document.get("pii", {})),
        attribution=document.get("attribution"),
        revocation_contact=document.get("revocationContact"),
    )


def _date(text: str | None) -> datetime.date | None:
    return None if text is None else datetime.date.fromisoformat(text)
