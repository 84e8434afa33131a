"""TrainingTerms: the document form, its sha, and what contradicts itself."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft201909Validator

from data_contracts.errors import ContractError
from data_contracts.terms import FORMATS, Retention, TrainingTerms, countries, terms_from_document, terms_schema

DOCUMENT: dict[str, Any] = {
    "format": 1,
    "licence": {"column": "licence", "allowed": ["MIT", "Apache-2.0"]},
    "purposes": {"permitted": ["pre-training", "evaluation"], "prohibited": ["commercial"]},
    "residency": {"storage": ["SE", "US"], "processing": ["EU"]},
    "validFrom": "2026-01-01",
    "validUntil": "2026-12-31",
    "derivedUpdates": "may-leave",
    "heldOut": {"share": 0.1, "key": "demo"},
    "splitGroup": ["distribution"],
    "text": "content",
    "pii": {"email": "redact"},
    "attribution": "the authors",
    "revocationContact": "owner@example.org",
}


def test_the_document_form_gives_the_terms() -> None:
    terms = terms_from_document(DOCUMENT)
    assert terms.licence is None and terms.licence_column == "licence"
    assert terms.licences_allowed == ("Apache-2.0", "MIT")
    assert terms.valid_until == datetime.date(2026, 12, 31)
    assert terms.held_out_share == 0.1 and terms.pii == {"email": "redact"}


@pytest.mark.parametrize("form", FORMATS)
def test_the_published_schema_is_a_valid_schema(form: int) -> None:
    Draft201909Validator.check_schema(terms_schema(form))


def test_all_249_countries_and_no_zone_count_as_countries() -> None:
    assert len(countries()) == 249 and {"SE", "US", "CN", "NO"} <= countries() and "EU" not in countries()


def test_the_order_of_lists_does_not_change_the_sha() -> None:
    turned = {**DOCUMENT, "residency": {"storage": ["US", "SE"], "processing": ["EU"]}}
    assert terms_from_document(turned).sha == terms_from_document(DOCUMENT).sha


def test_the_order_of_the_split_group_does_change_the_sha() -> None:
    one = terms_from_document({**DOCUMENT, "splitGroup": ["a", "b"]})
    assert one.sha != terms_from_document({**DOCUMENT, "splitGroup": ["b", "a"]}).sha


def test_a_licence_is_brought_to_its_one_spelling() -> None:
    assert (
        terms_from_document({**DOCUMENT, "licence": {"expression": "mit or GPL-2.0"}}).licence == "MIT OR GPL-2.0-only"
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"licence": {"expression": "CC-BY-NC-4.0"}, "purposes": {"permitted": ["research"]}}, "prohibited"),
        ({"licence": {"column": "licence", "allowed": ["MIT OR ISC"]}}, "licence.allowed.0"),
        ({"licence": {"column": "licence", "allowed": []}}, "licence"),
        ({"licence": {"expression": "MIT", "column": "licence"}}, "licence"),
        ({"validUntil": "2025-12-31"}, "before validFrom"),
        ({"validUntil": "2026-02-30"}, "validUntil"),
        ({"validUntil": "20261231"}, "validUntil"),
        ({"purposes": {"permitted": []}}, "permitted"),
        ({"purposes": {"permitted": ["training"]}}, "training"),
        ({"residency": {"storage": ["SE"]}}, "processing"),
        ({"residency": {"storage": [], "processing": ["SE"]}}, "storage"),
        ({"residency": {"storage": ["UK"], "processing": ["SE"]}}, "UK"),
        ({"heldOut": {"share": 1.0, "key": "k"}}, "heldOut"),
        ({"heldOut": {"share": 0.1, "key": ""}}, "heldOut"),
        ({"pii": {"phone": "redact"}}, "phone"),
        ({"format": 3}, "format"),
        ({"format": True}, "format"),
        ({"derivedUpdates": "maybe"}, "maybe"),
        ({"extra": 1}, "extra"),
    ],
)  # fmt: skip
def test_a_fault_in_the_terms_names_its_field(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ContractError, match=says):
        terms_from_document({**DOCUMENT, **change})


@pytest.mark.parametrize("name", ["format", "licence", "purposes", "residency", "heldOut", "text"])
def test_what_decides_over_use_cannot_be_left_out(name: str) -> None:
    with pytest.raises(ContractError, match=name):
        terms_from_document({key: value for key, value in DOCUMENT.items() if key != name})


_zones = st.lists(st.sampled_from(["SE", "US", "EU", "EEA", "anywhere", "CN"]), min_size=1, unique=True)
_documents = st.fixed_dictionaries(
    {
        "format": st.just(1),
        "licence": st.sampled_from([{"expression": "MIT"}, {"column": "licence", "allowed": ["ISC", "MIT"]}]),
        "purposes": st.fixed_dictionaries(
            {"permitted": st.lists(st.sampled_from(["research", "pre-training"]), min_size=1, unique=True)},
            optional={"prohibited": st.just(["commercial retrieval"])},
        ),
        "residency": st.fixed_dictionaries({"storage": _zones, "processing": _zones}),
        "heldOut": st.fixed_dictionaries(
            {
                "share": st.floats(0, 1, exclude_max=True),
                "key": st.text(min_size=1, alphabet=st.characters(codec="utf-8")),
            }
        ),
        "text": st.just("content"),
    },
    optional={
        "validFrom": st.dates().map(str),
        "derivedUpdates": st.sampled_from(["may-leave", "restricted"]),
        "splitGroup": st.just(["b", "a"]),
        "pii": st.sampled_from([{}, {"email": "keep"}]),
        "attribution": st.just("A"),
    },
)


@given(_documents)
def test_terms_survive_the_way_through_their_document(document: dict[str, Any]) -> None:
    terms = terms_from_document(document)
    again = terms_from_document(terms.to_document())
    assert isinstance(again, TrainingTerms)
    assert again.to_document() == terms.to_document() and again.sha == terms.sha


def test_the_sha_of_terms_of_format_1_stays_what_it_was() -> None:
    assert terms_from_document(DOCUMENT).sha == "de15a1cf9832ba94838b45a535ccbe4684f0dded7e64e6fc747adc156280e447"


SECOND: dict[str, Any] = {
    "format": 2,
    "licence": {"expression": "CC-BY-4.0", "column": "licence", "allowed": ["MIT"]},
    "legalBasis": {"basis": "consent", "reference": "register of consents, 2026/17"},
    "purposes": {"permitted": ["pre-training"]},
    "zones": {"nordic": ["SE", "NO"]},
    "residency": {
        "storage": ["nordic"],
        "processing": ["EEA", "nordic"],
        "neverIn": ["US"],
        "neverOutside": ["EEA"],
    },
    "retention": {"period": "P5Y", "then": "delete"},
    "heldOut": {"share": 0.1, "key": "demo"},
    "template": "{title}\n\n{body}",
    "trainOn": ["title", "body"],
    "lossOn": ["body"],
    "pii": {"email": "redact", "classifications": {"name": "pseudonymise"}},
    "attribution": "the authors",
    "revocationContact": "owner@example.org",
}


def test_terms_of_format_2_survive_the_way_through_their_document() -> None:
    terms = terms_from_document(SECOND)
    assert terms.text_columns == ("title", "body") and terms.text == "title"
    assert terms.zones == {"nordic": ("SE", "NO")} and terms.pii == {"email": "redact"}
    assert terms_from_document(terms.to_document()) == terms_from_document(terms_from_document(SECOND).to_document())
    again = terms_from_document(terms.to_document())
    assert again.sha == terms.sha and again.to_document() == terms.to_document()
    assert set(terms.to_document()) == set(SECOND) | {"derivedUpdates"}


@pytest.mark.parametrize("name", sorted(SECOND.keys() - {"licence", "purposes", "residency", "heldOut", "template"}))
def test_every_field_of_format_2_is_part_of_the_sha(name: str) -> None:
    other: dict[str, Any] = {
        "format": 1,
        "legalBasis": {"basis": "contract", "reference": "register of consents, 2026/17"},
        "zones": {"nordic": ["SE", "NO", "DK"]},
        "retention": {"period": "P5Y", "then": "review"},
        "trainOn": ["body", "title"],
        "lossOn": ["title"],
        "pii": {"email": "redact", "classifications": {"name": "redact"}},
        "attribution": "others",
        "revocationContact": "other@example.org",
    }
    if name == "format":
        with pytest.raises(ContractError):
            terms_from_document({**SECOND, "format": 1})
    else:
        assert terms_from_document({**SECOND, name: other[name]}).sha != terms_from_document(SECOND).sha


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"residency": {"storage": ["nordik"], "processing": ["SE"]}}, "perhaps nordic"),
        ({"residency": {"storage": ["SE"], "processing": ["SE"], "neverIn": ["UK"]}}, "residency.neverIn.0"),
        ({"residency": {"storage": ["SE"], "processing": ["SE"], "neverIn": ["anywhere"]}}, "anywhere"),
        ({"zones": {"anywhere": ["SE"]}}, "every place"),
        ({"zones": {"Nordic": ["SE"]}}, "zones"),
        ({"zones": {"nordic": ["EU"]}}, "zones.nordic"),
        ({"derivedUpdates": "may-leave"}, "contradicts residency.neverOutside"),
        ({"template": "{title}"}, "the template does not name 'body'"),
        ({"template": "{title} {body} {boddy}"}, r"\{boddy\} is not in trainOn \(perhaps body"),
        ({"template": "{title.x} {body}"}, "is no {column}"),
        ({"template": "{title!r} {body}"}, "is no {column}"),
        ({"template": "words"}, "names no column"),
        ({"lossOn": ["bodi"]}, r"lossOn.0: 'bodi' is not in trainOn \(perhaps body"),
        ({"lossOn": []}, "lossOn"),
        ({"text": "body"}, "text|template"),
        ({"retention": {"period": "P", "then": "delete"}}, "retention.period"),
        ({"retention": {"period": "PT5H", "then": "delete"}}, "retention.period"),
        ({"retention": {"period": "P5Y", "then": "keep"}}, "retention.then"),
        ({"legalBasis": {"basis": "because", "reference": "x"}}, "legalBasis.basis"),
        ({"legalBasis": {"basis": "consent"}}, "reference"),
        ({"licence": {"column": "licence"}}, "licence"),
        ({"licence": {}}, "licence"),
        ({"licence": {"expression": "NOASSERTION OR MIT"}}, "no SPDX"),
        ({"pii": {"classifications": {"name": "hide"}}}, "hide"),
        ({"pii": {"classifications": {}}}, "classifications"),
    ],
)  # fmt: skip
def test_a_fault_in_terms_of_format_2_names_its_field(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ContractError, match=says):
        terms_from_document({**SECOND, **change})


@pytest.mark.parametrize(
    ("period", "since", "last"),
    [
        ("P5Y", "2024-02-29", "2029-02-28"),
        ("P1M", "2026-01-31", "2026-02-28"),
        ("P1Y2M3W4D", "2026-11-30", "2028-02-24"),
        ("P0D", "2026-11-30", "2026-11-30"),
        ("P9999Y", "2026-11-30", "9999-12-31"),
        ("P99999999W", "2026-11-30", "9999-12-31"),
    ],
)
def test_a_period_of_retention_ends_by_the_calendar(period: str, since: str, last: str) -> None:
    found = Retention(period, "delete").last_day(datetime.date.fromisoformat(since))
    assert found == datetime.date.fromisoformat(last)
