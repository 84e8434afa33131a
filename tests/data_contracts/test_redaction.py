"""Redaction: e-mail addresses go, everything else stays."""

from __future__ import annotations

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.errors import ContractError
from data_contracts.redaction import redact


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("write to ann.lee+x@mail.example.com.", "write to <email>."),
        ("<a@b.co>, c_d@e-f.org", "<<email>>, <email>"),
        ("mailto:a@b.co", "mailto:<email>"),
        ("git@github.com:org/repo", "<email>:org/repo"),
        ("@app.route('/')", "@app.route('/')"),
        ("user@localhost", "user@localhost"),
        ("a @ b.co", "a @ b.co"),
        ("x = y @ z", "x = y @ z"),
        ("å ä ö a@b.se å", "å ä ö <email> å"),
        ("", ""),
    ],
)
def test_addresses_become_a_mark_and_other_signs_stay(text: str, clean: str) -> None:
    assert redact([text], {"email": "redact"})[0].to_pylist() == [clean]


def test_each_text_has_its_own_count() -> None:
    clean, counts = redact(["a@b.co c@d.co", "none", None], {"email": "redact"})
    assert counts["email"].to_pylist() == [2, 0, 0]
    assert clean.to_pylist() == ["<email> <email>", "none", None]


@pytest.mark.parametrize("pii", [{"email": "keep"}, {}])
def test_what_is_kept_is_neither_changed_nor_counted(pii: dict[str, str]) -> None:
    clean, counts = redact(pa.array(["a@b.co"]), pii)
    assert clean.to_pylist() == ["a@b.co"] and counts == {}


@pytest.mark.parametrize("pii", [{"phone": "redact"}, {"email": "hide"}])
def test_an_unknown_kind_or_action_is_refused(pii: dict[str, str]) -> None:
    with pytest.raises(ContractError, match="trainingTerms.pii"):
        redact(["a"], pii)


def test_a_column_in_chunks_is_one_column() -> None:
    clean, counts = redact(pa.chunked_array([["a@b.co"], ["b"]]), {"email": "redact"})
    assert clean.to_pylist() == ["<email>", "b"] and counts["email"].to_pylist() == [1, 0]


_addresses = st.from_regex(r"\A[a-z0-9]{1,9}(\.[a-z0-9]{1,9})?@[a-z0-9]{1,9}\.(com|org|se)\Z", fullmatch=True)
_words = st.text(alphabet=st.characters(exclude_characters="@", codec="utf-8"), max_size=20)


@given(st.lists(st.tuples(_words, _addresses), max_size=5))
def test_no_address_survives_whatever_stands_around_it(parts: list[tuple[str, str]]) -> None:
    text = " ".join(f"{word} {address}" for word, address in parts)
    clean, counts = redact([text], {"email": "redact"})
    assert "@" not in clean[0].as_py()
    assert counts["email"][0].as_py() == len(parts)


@given(st.text())
def test_redacting_twice_is_redacting_once(text: str) -> None:
    once, _ = redact([text], {"email": "redact"})
    twice, counts = redact(once, {"email": "redact"})
    assert twice.equals(once) and counts["email"].to_pylist() == [0]
