"""Personal data in the text: found with RE2 and replaced, counted per row."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.errors import ContractError

# The dot-atom form of RFC 5322 section 3.4.1, in ASCII, with a host of at least two labels and a top one of letters:
# `user@host`, decorators (`@app.route`) and the operator `a @ b` stay.
_EMAIL = (
    r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+)*"
    r"@(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?\.)+[A-Za-z]{2,}\b"
)
_PATTERNS = {"email": (_EMAIL, "<email>")}


def redact(
    text: pa.StringArray | Sequence[str | None], pii: Mapping[str, str]
) -> tuple[pa.StringArray, dict[str, pa.Int64Array]]:
    """Return the texts with personal data replaced as the terms' `pii` says, and per kind the number in each text.

    NULL stays NULL and counts 0; a kind that is kept is not counted. An address becomes `<email>`. Redacting twice is
    redacting once.

    Raises:
        ContractError: `pii` names a kind or an action that is not known.
    """
    column = text if isinstance(text, (pa.Array, pa.ChunkedArray)) else pa.array(text, pa.string())
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    counts: dict[str, pa.Int64Array] = {}
    for kind, action in sorted(pii.items()):
        if kind not in _PATTERNS or action not in ("redact", "keep"):
            known = ", ".join(_PATTERNS)
            raise ContractError(f"trainingTerms.pii.{kind}: {action!r}: give one of {known} as 'redact' or 'keep'")
        if action == "redact":
            pattern, mark = _PATTERNS[kind]
            counts[kind] = pc.fill_null(pc.count_substring_regex(column, pattern), 0).cast(pa.int64())
            column = pc.replace_substring_regex(column, pattern, mark)
    return column, counts


def moved_spans(text: str, kind: str, spans: Sequence[int]) -> tuple[str, list[int]]:
    """Return one text with a kind of personal data replaced, and where spans of its characters then stand.

    `spans`: first character, character after the last, first, ... A mark stands in a span when anything that it
    replaces does. The patterns mean the same in Python's engine as in RE2: ASCII classes, leftmost first.
    """
    pattern, mark = _PATTERNS[kind]
    pieces: list[str] = []
    moved = list(spans)
    end = shift = 0
    for found in re.finditer(pattern, text, re.ASCII):
        pieces += [text[end : found.start()], mark]
        end = found.end()
        now = found.start() + shift
        for index, place in enumerate(spans):
            if place >= end:
                moved[index] = place + now + len(mark) - end
            elif place > found.start():
                # Within what is replaced: a span that begins there has the whole mark, and so has one that ends there.
                moved[index] = now if index % 2 == 0 else now + len(mark)
        shift = now + len(mark) - end
    return "".join([*pieces, text[end:]]), moved
