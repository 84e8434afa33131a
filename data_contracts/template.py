"""The text that is trained on where it is made of several columns: `{title}\\n\\n{body}`.

`{name}` stands for the value of a column, `{{` and `}}` for braces; nothing else is a template's business, so no
conversion, format or attribute is read. A column that is NULL gives nothing; where all of them are NULL the text is.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_PIECE = re.compile(r"\{\{|\}\}|\{([A-Za-z][A-Za-z0-9_]*)\}|([{}])|([^{}]+)", re.DOTALL)


def template_fault(template: str) -> str | None:
    """Say what is wrong with a template, or None."""
    for piece in _PIECE.finditer(template):
        if piece.group(2):
            rest = template[piece.start() : piece.start() + 20]
            return f"{rest!r} is no {{column}}; name a column in braces, or double the brace to write one"
    return None if template_fields(template) else "the template names no column; write {column} where its text goes"


def template_fields(template: str) -> list[str]:
    """Return the columns that a template names, in its order, repeated as they are."""
    return [piece.group(1) for piece in _PIECE.finditer(template) if piece.group(1)]


def fill(template: str, columns: Sequence[tuple[str, pa.Array | pa.ChunkedArray]]) -> pa.Array | pa.ChunkedArray:
    """Return the texts of a template over columns of equal length, by name; each is read as a string."""
    values = {name: column.cast(pa.string()) for name, column in columns}
    pieces: list[object] = []
    for piece in _PIECE.finditer(template):
        name, text = piece.group(1), piece.group(3)
        pieces.append(pc.fill_null(values[name], "") if name else text if text else piece.group(0)[0])
    made = pc.binary_join_element_wise(*pieces, "")
    known = None
    for name in dict.fromkeys(template_fields(template)):
        given = pc.is_valid(values[name])
        known = given if known is None else pc.or_(known, given)
    return made if known is None else pc.if_else(known, made, pa.scalar(None, pa.string()))


def spans(
    template: str, columns: Sequence[tuple[str, pa.Array | pa.ChunkedArray]], chosen: Collection[str]
) -> pa.ListArray:
    """Return where the values of chosen columns stand in the texts that `fill` makes of the same columns.

    list<int32> a row: first character, character after the last, first, ..., ascending; values without characters are
    left out.
    """
    values = {name: column.cast(pa.string()) for name, column in columns}
    rows = len(columns[0][1])
    at = np.zeros(rows, dtype=np.int32)
    found = []
    for piece in _PIECE.finditer(template):
        name, text = piece.group(1), piece.group(3)
        length = pc.fill_null(pc.utf8_length(values[name]), 0).to_numpy() if name else len(text) if text else 1
        if name in chosen:
            found.append((at, at + length))
        at = at + length
    pairs = np.array(found, dtype=np.int32).reshape(len(found), 2, rows).transpose(2, 0, 1)
    there = pairs[:, :, 1] > pairs[:, :, 0]
    offsets = np.concatenate([[0], 2 * np.cumsum(there.sum(axis=1))]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(pairs[there].reshape(-1), pa.int32()))
