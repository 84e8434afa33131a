"""The text that is trained on: the template, what a column's classification asks, and how curation records it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.contract import Contract
from data_contracts.curation import curate, curation_rows, training_rows
from data_contracts.errors import ContractError, DataRefused
from data_contracts.redaction import _EMAIL as EMAIL
from data_contracts.redaction import moved_spans, redact
from data_contracts.template import fill, spans, template_fault, template_fields
from data_contracts.trained import left_out, trained_text
from tests.data_contracts.making import SECRET, column, make_contract
from tests.data_contracts.test_ingest import READER, ingest, tables

COLUMNS = (
    column("key", primaryKey=True),
    column("day", partitioned=True),
    column("name", classification="person"),
    column("content"),
)
TEMPLATE = {"text": None, "format": 2, "template": "{name}: {content}", "trainOn": ["name", "content"]}


def contract_of(folder: Path, **terms: Any) -> Contract:
    return make_contract(folder, COLUMNS, terms={**TEMPLATE, **terms}, reader=READER)


def treated(action: str) -> dict[str, Any]:
    return {"pii": {"classifications": {"person": action}}}


ROWS = pa.table({"name": ["Ann", None, None, "Ann"], "content": ["one", "two", None, None]})


@pytest.mark.parametrize(
    ("action", "texts"),
    [
        ("keep", ["Ann: one", ": two", None, "Ann: "]),
        ("redact", ["<person>: one", ": two", None, "<person>: "]),
        ("drop-row", ["Ann: one", ": two", None, "Ann: "]),
    ],
)
def test_a_column_is_treated_as_its_classification_asks(tmp_path: Path, action: str, texts: list[str | None]) -> None:
    contract = contract_of(tmp_path, **treated(action))
    assert trained_text(contract, ROWS, None).to_pylist() == texts


def test_a_pseudonym_is_equal_for_equal_values_and_another_under_another_secret(tmp_path: Path) -> None:
    contract = contract_of(tmp_path, **treated("pseudonymise"))
    first, empty, _, again = trained_text(contract, ROWS, SECRET).to_pylist()
    assert first.startswith("<person:") and first.endswith(">: one") and "Ann" not in first
    assert first.split(">")[0] == again.split(">")[0] and empty == ": two"
    assert trained_text(contract, ROWS, bytes(32)).to_pylist()[0] != first
    with pytest.raises(DataRefused, match="give the data set's secret"):
        trained_text(contract, ROWS, None)


def test_rows_with_a_value_of_a_dropped_classification_are_left_out_with_their_reason(tmp_path: Path) -> None:
    assert left_out(contract_of(tmp_path, **treated("keep")), ROWS) is None
    found = left_out(contract_of(tmp_path, **treated("drop-row")), ROWS)
    assert found is not None and found.to_pylist() == ["pii.person", None, None, "pii.person"]


def test_curation_logs_what_is_left_out_and_training_reads_the_template(tmp_path: Path) -> None:
    contract = contract_of(tmp_path, **treated("drop-row"))
    rows = [
        {"key": "a", "day": "d", "name": "Ann", "content": "one"},
        {"key": "b", "day": "d", "content": "two"},
        {"key": "c", "day": "d", "content": "two"},
    ]
    ingest(tmp_path, rows, "d", made=contract)
    read = curation_rows(contract, tables(tmp_path), SECRET)
    result = curate(contract, read, SECRET)
    assert sorted(result.log.column("reason").to_pylist()) == ["duplicate", "pii.person"]
    assert (result.kept, result.removed) == (1, 2)
    kept = training_rows(read, result.log)
    assert kept.column("text").to_pylist() == [": two"]
    assert kept.column_names == ["record_id", "ingest_id", "partition", "split", "text"]


def test_the_terms_and_the_columns_must_agree_on_classifications(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match="classified 'person', which is not listed"):
        contract_of(tmp_path, pii={"classifications": {"persons": "redact"}})
    with pytest.raises(ContractError, match=r"no trained column is classified so \(perhaps person\?\)"):
        contract_of(tmp_path, pii={"classifications": {"person": "redact", "persons": "redact"}})
    with pytest.raises(ContractError, match=r"trainOn\[1\]: there is no column 'contents' \(perhaps content"):
        contract_of(tmp_path, template="{name} {contents}", trainOn=["name", "contents"])


def test_without_a_key_the_split_goes_by_all_trained_columns(tmp_path: Path) -> None:
    plain = make_contract(tmp_path, COLUMNS[1:], terms=TEMPLATE)
    assert plain.terms.split_group == ("name", "content")


_words = st.text(st.characters(codec="utf-8", exclude_characters="{}"), max_size=8)


@given(st.lists(st.one_of(st.sampled_from(["{a}", "{b}", "{{", "}}"]), _words), max_size=6), _words, _words)
def test_a_template_gives_what_it_says(pieces: list[str], a: str, b: str) -> None:
    template = "".join(pieces)
    if template_fault(template):
        assert not template_fields(template)
        return
    expected = "".join({"{a}": a, "{b}": b, "{{": "{", "}}": "}"}.get(piece, piece) for piece in pieces)
    assert fill(template, [("a", pa.array([a])), ("b", pa.array([b]))]).to_pylist() == [expected]


PARTS = st.one_of(st.none(), st.sampled_from(["", "a", "Ann", "字e", "x@ab.de", "@ab.de", "a.b@c.de y", "x@", "de. "]))


@given(
    st.lists(st.tuples(PARTS, PARTS), min_size=1, max_size=5), st.sampled_from(["{a}{b}{a}", "{{ {a}: {b}", "{b}{a}"])
)
def test_the_spans_of_a_column_are_its_values_in_the_text(rows: list[tuple[Any, Any]], template: str) -> None:
    columns = [(name, pa.array([row[k] for row in rows], pa.string())) for k, name in enumerate("ab")]
    texts = fill(template, columns).to_pylist()
    for (_, value), text, found in zip(rows, texts, spans(template, columns, ["b"]).to_pylist(), strict=True):
        assert [text[s:e] for s, e in zip(found[::2], found[1::2], strict=True)] == ([value] if value else [])
    both = spans(template, columns, ["a", "b"]).to_pylist()
    assert all(found == sorted(found) for found in both)


@given(
    st.lists(st.sampled_from(["a", "字", "x@ab.de", "@ab.de", "z.y@c.de", ". ", "de", "é@é.de"]), max_size=6), st.data()
)
def test_spans_follow_their_text_through_redaction(pieces: list[str], data: st.DataObject) -> None:
    text = "".join(pieces)
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, len(text)))
    clean, moved = moved_spans(text, "email", [start, end])
    assert clean == redact([text], {"email": "redact"})[0][0].as_py()
    inside = clean[moved[0] : moved[1]]
    # Outside of what was replaced nothing is lost and nothing comes in: each side alone, marks counted as they touch.
    assert (clean[: moved[0]] + inside + clean[moved[1] :]) == clean
    matches = list(re.finditer(r"<email>", clean))
    plain = "".join(c for k, c in enumerate(inside, moved[0]) if not any(m.start() <= k < m.end() for m in matches))
    found = list(re.finditer(EMAIL, text, re.ASCII))
    wanted = "".join(
        c for k, c in enumerate(text[start:end], start) if not any(m.start() <= k < m.end() for m in found)
    )
    assert plain == wanted
    touched = sum(m.start() < end and m.end() > start for m in found if start < end)
    assert inside.count("<email>") == touched or start == end
