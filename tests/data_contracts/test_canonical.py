from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.canonical import canonical_json, document_sha, sha256

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(
    SCALARS, lambda v: st.lists(v, max_size=4) | st.dictionaries(st.text(), v, max_size=4), max_leaves=15
)


def shuffled(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: shuffled(v) for k, v in reversed(list(value.items()))}
    return [shuffled(v) for v in value] if isinstance(value, list) else value


@given(VALUES)
def test_a_value_has_one_byte_string_whatever_the_order_of_its_keys(value: Any) -> None:
    data = canonical_json(value)
    assert canonical_json(shuffled(value)) == data
    assert canonical_json(json.loads(data)) == data
    assert document_sha(value) == sha256(data)


@given(VALUES)
def test_nothing_is_lost(value: Any) -> None:
    assert json.loads(canonical_json(value)) == value


def test_the_form_is_sorted_without_blanks_and_in_utf_8() -> None:
    assert canonical_json({"b": [1, 2.5, None, True], "a": "å\n"}) == '{"a":"å\\n","b":[1,2.5,null,true]}'.encode()


def test_the_hash_is_sha_256() -> None:
    assert sha256(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256(memoryview(b"abc")) == sha256(b"abc")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, "\ud800"])
def test_what_has_no_one_form_is_refused(value: object) -> None:
    with pytest.raises(ValueError):
        canonical_json({"a": [value]})


@pytest.mark.parametrize("value", [{1, 2}, b"bytes", object()])
def test_what_is_no_json_is_refused(value: object) -> None:
    with pytest.raises(TypeError):
        canonical_json(value)
