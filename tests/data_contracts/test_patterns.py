from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.patterns import fixed_classes, matcher

FIXED = ["^[A-Z]{2}[0-9]{2}$", "^[A-Z]{3}-[0-9]{6}$", "^[A-Za-z_]$", "^ab{3}[0-9a-f]{2}:$", "^[a-cx]{2}$", "^a$"]
OTHERS = [
    "[A-Z]{2}",
    "^[A-Z]+$",
    "^[^a]$",
    r"^\d{4}$",
    "^a|b$",
    "^$",
    "^[a-z]{1,2}$",
    "(?i)^a$",
    "^.$",
    "^[z-a]$",
    "^a{0}$",
]


@pytest.mark.parametrize("pattern", FIXED)
def test_codes_of_one_width_are_compared_byte_by_byte(pattern: str) -> None:
    assert fixed_classes(pattern) is not None


@pytest.mark.parametrize("pattern", OTHERS)
def test_everything_else_is_left_to_re2(pattern: str) -> None:
    assert fixed_classes(pattern) is None


@settings(max_examples=80, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("pattern", FIXED)
def test_the_answer_is_that_of_re2(pattern: str, data: st.DataObject) -> None:
    near = st.from_regex(pattern.replace("$", r"\Z"), fullmatch=True) | st.text("AZaz09-_:b é\n", max_size=10)
    texts = data.draw(st.lists(st.none() | near, max_size=12))
    start = data.draw(st.integers(0, 3))
    for kind in (pa.string(), pa.large_string()):
        array = pa.array(texts, pa.string()).cast(kind).slice(start)
        assert matcher(pattern)(array).to_pylist() == pc.match_substring_regex(array, pattern).to_pylist()
        valid = array.drop_null()
        assert matcher(pattern)(valid).to_pylist() == pc.match_substring_regex(valid, pattern).to_pylist()
