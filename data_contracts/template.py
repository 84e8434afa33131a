"""The text that is trained on where it is made of several columns: `{title}\\n\\n{body}`.

`{name}` stands for the value of a column, `{{` and `}}` for braces; nothing else is a template's business, so no
conversion, format or attribute is read. A column that is NULL gives nothing; where all of them are NULL the text is.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

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
