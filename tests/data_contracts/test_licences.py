"""Licences: SPDX expressions, the boolean check, and package metadata."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.licences import bars_commercial_use, from_metadata, normalise, permitted


@pytest.mark.parametrize(
    ("text", "spdx"),
    [
        ("mit", "MIT"),
        ("GPL-2.0", "GPL-2.0-only"),
        ("MIT or (Apache-2.0 and isc)", "MIT OR (Apache-2.0 AND ISC)"),
        ("Apache-2.0 WITH LLVM-exception", "Apache-2.0 WITH LLVM-exception"),
        ("LicenseRef-Owner-1", "LicenseRef-Owner-1"),
        ("MIT WITH MIT", None),
        ("LLVM-exception", None),
        ("MIT OR", None),
        ("MIT, ISC", None),
        ("(((", None),
        ("Proprietary", None),
        ("  ", None),
        (None, None),
    ],
)
def test_an_expression_has_one_spelling_and_other_text_none(text: str | None, spdx: str | None) -> None:
    assert normalise(text) == spdx


@pytest.mark.parametrize(
    ("expression", "allowed", "answer"),
    [
        ("MIT", ["MIT"], True),
        ("MIT OR GPL-3.0-only", ["MIT"], True),
        ("MIT AND GPL-3.0-only", ["MIT"], False),
        ("MIT AND ISC", ["ISC", "MIT"], True),
        ("GPL-3.0-only OR (MIT AND ISC)", ["ISC", "MIT"], True),
        ("GPL-3.0-only OR (MIT AND ISC)", ["MIT"], False),
        ("Apache-2.0 WITH LLVM-exception", ["Apache-2.0"], False),
        ("Apache-2.0 WITH LLVM-exception", ["Apache-2.0 WITH LLVM-exception"], True),
        ("Apache-2.0", ["Apache-2.0 WITH LLVM-exception"], False),
        ("mit", ["MIT"], True),
        ("nonsense", ["nonsense"], False),
        (None, ["MIT"], False),
        ("MIT", [], False),
    ],
)
def test_or_needs_one_branch_and_needs_all_with_the_whole(
    expression: str | None, allowed: list[str], answer: bool
) -> None:
    assert permitted(expression, allowed) is answer


_NAMES = ["MIT", "ISC", "Apache-2.0", "GPL-3.0-only"]
_expressions = st.recursive(
    st.sampled_from(_NAMES),
    lambda inner: st.tuples(inner, st.sampled_from(["AND", "OR"]), inner).map(lambda t: f"({t[0]} {t[1]} {t[2]})"),
    max_leaves=8,
)


@given(_expressions, st.sets(st.sampled_from(_NAMES)))
def test_the_check_agrees_with_boolean_evaluation(expression: str, allowed: set[str]) -> None:
    python = expression.replace("AND", "&").replace("OR", "|")
    for name in _NAMES:
        python = python.replace(name, str(int(name in allowed)))
    assert permitted(expression, allowed) is bool(_evaluate(python))


def _evaluate(text: str) -> int:
    while "(" in text:
        close = text.index(")")
        start = text.rindex("(", 0, close)
        left, operator, right = text[start + 1 : close].split()
        value = int(left) & int(right) if operator == "&" else int(left) | int(right)
        text = f"{text[:start]}{value}{text[close + 1 :]}"
    return int(text)


@given(_expressions)
def test_normalising_twice_is_normalising_once(expression: str) -> None:
    once = normalise(expression)
    assert once is not None and normalise(once) == once


@given(st.text(max_size=60))
def test_any_text_is_an_expression_or_none_and_never_an_error(text: str) -> None:
    assert normalise(text) is not None or not permitted(text, ["MIT"])


@pytest.mark.parametrize(
    ("expression", "barred"),
    [("CC-BY-NC-4.0", True), ("CC-BY-NC-4.0 OR MIT", False), ("CC-BY-NC-4.0 AND MIT", True), ("CC-BY-4.0", False)],
)
def test_non_commercial_licences_are_known(expression: str, barred: bool) -> None:
    assert bars_commercial_use(expression) is barred


_BSD, _APACHE = "License :: OSI Approved :: BSD License", "License :: OSI Approved :: Apache Software License"
_MIT = "License :: OSI Approved :: MIT License"


@pytest.mark.parametrize(
    ("expression", "classifiers", "field", "spdx"),
    [
        ("MIT AND isc", [_BSD], "GPL", "MIT AND ISC"),
        ("not spdx", [_MIT], "MIT", None),
        (None, [_MIT], None, "MIT"),
        (None, [_MIT], "MIT License", "MIT"),
        (None, [_BSD], None, None),
        (None, [_BSD], "BSD-3-Clause", "BSD-3-Clause"),
        (None, [_BSD], "BSD", None),
        (None, [_APACHE], None, None),
        (None, [_APACHE], "Apache 2.0", "Apache-2.0"),
        (None, [_BSD, _APACHE], "Dual License", None),
        (None, [_APACHE], "MIT", None),
        (None, ["License :: OSI Approved", _MIT], None, "MIT"),
        (None, ["License :: Other/Proprietary License"], "MIT", None),
        (None, [_MIT, "License :: OSI Approved :: ISC License (ISCL)"], None, "ISC AND MIT"),
        (None, ["Programming Language :: Python"], None, None),
        (None, [], "UNKNOWN", None),
        (None, [], None, None),
    ],
)
def test_metadata_states_a_licence_or_is_not_believed(
    expression: str | None, classifiers: list[str], field: str | None, spdx: str | None
) -> None:
    assert from_metadata(expression, classifiers, field) == spdx
