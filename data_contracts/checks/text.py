"""Rules about running text: encoding damage, control characters, lengths, language, share of what is no text.

A cheap test in Arrow finds the rows that may fail; Python looks at those alone. NULL passes them all.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.checks.personal import MAY_BE_PERSONAL, personal
from data_contracts.checks.repetition import repeats
from data_contracts.checks.secret import MAY_BE_SECRET, secrets
from data_contracts.errors import ContractError, DataRefused
from data_contracts.ruling.kinds import RowRule

Arguments = Mapping[str, Any]
# What no script is written with: C0 but tab, LF and CR, DEL, C1, and the noncharacters of Unicode.
_CONTROL = r"[\x00-\x08\x0B\x0C\x0E-\x1F\x7F-\x{9F}\x{FDD0}-\x{FDEF}\x{FFFE}\x{FFFF}]"
_CONTROL_IN_PYTHON = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ufdd0-\ufdef\ufffe\uffff]")
_SPACE = r"\p{Z}\s\x0B\x1C-\x1F\x{85}"  # what str.isspace() says
_TEXT_RUN = rf"[\p{{L}}\p{{M}}\p{{N}}{_SPACE}]+"
# What is read of a long text to tell its language: more does not change the answer and costs time.
_LANGUAGE_CHARACTERS = 2000


@dataclass(frozen=True)
class Sieve:
    """`may` finds by RE2 the rows that `fails` looks at; all rows where it is None."""

    fails: Callable[[str, Arguments], bool]
    may: str | None = None


def text_fails(rule: RowRule, batch: pa.RecordBatch) -> pa.BooleanArray:
    """True for each row whose text fails; NULL stays NULL."""
    column = batch.column(rule.column)
    text = (
        column if pa.types.is_string(column.type) or pa.types.is_large_string(column.type) else column.cast(pa.string())
    )
    given = rule.arguments
    if rule.kind in _WHOLE:
        return _WHOLE[rule.kind](text, given)
    sieve = SIEVES[rule.kind]
    candidates = pc.is_valid(text) if sieve.may is None else pc.match_substring_regex(text, sieve.may)
    where = np.flatnonzero(pc.fill_null(candidates, False).to_numpy(zero_copy_only=False))
    failed = np.zeros(len(text), dtype=np.bool_)
    for position, value in zip(where, text.take(pa.array(where)).to_pylist(), strict=True):
        failed[position] = sieve.fails(value, given)
    return pa.array(failed)


def one_fails(rule: RowRule, value: str) -> bool:
    """Say whether one text fails, without the sieve and without Arrow: the second opinion on `text_fails`."""
    given = rule.arguments
    match rule.kind:
        case "controlCharacters":
            kept = [c for c in _CONTROL_IN_PYTHON.findall(value) if c not in given.get("allow", "")]
            return len(kept) > int(given.get("maximum", 0))
        case "lengthInCharacters":
            return _outside(len(value), given)
        case "lengthInTokens":
            return _outside(int(_counter(given)([value])[0]), given)
        case "nonTextShare":
            solid = [c for c in value if not c.isspace()]
            return bool(solid) and sum(not _is_text(c) for c in solid) / len(solid) > float(given["maximum"])
        case other:
            return SIEVES[other].fails(value, given)


def _mojibake(text: str, given: Arguments) -> bool:
    """Marks of text decoded in the wrong encoding (ftfy's badness) and replacement characters, over `maximum`."""
    from ftfy.badness import badness

    return int(badness(text)) + text.count("\ufffd") > int(given.get("maximum", 0))


def _language(text: str, given: Arguments) -> bool:
    """Whether the languages expected have together less than `minimum` of the probability (py3langid)."""
    if len(text) < given.get("minCharacters", 20):
        return False
    ranked = dict(_identifier().rank(text[:_LANGUAGE_CHARACTERS]))
    unknown = [code for code in given["expected"] if code not in ranked]
    if unknown:
        raise ContractError(f"language: {unknown[0]!r} cannot be told; use codes of {', '.join(sorted(ranked))}")
    return float(sum(ranked[code] for code in given["expected"])) < float(given.get("minimum", 0.5))


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


def _controls(text: pa.Array, given: Arguments) -> pa.BooleanArray:
    count = pc.count_substring_regex(text, _CONTROL)
    for character in given.get("allow", ""):
        if _CONTROL_IN_PYTHON.match(character):
            count = pc.subtract(count, pc.count_substring(text, character))
    return pc.greater(count, int(given.get("maximum", 0)))


def _no_text(text: pa.Array, given: Arguments) -> pa.BooleanArray:
    marks, solid, plain = _ascii_counts(text)
    other = np.flatnonzero(~plain)
    if len(other):
        rest = text.take(pa.array(other))
        # What is left when runs are taken out: RE2 is slow by the match, and runs are few.
        marks[other] = pc.fill_null(pc.utf8_length(pc.replace_substring_regex(rest, _TEXT_RUN, "")), 0).to_numpy()
        solid[other] = pc.fill_null(pc.utf8_length(pc.replace_substring_regex(rest, f"[{_SPACE}]+", "")), 0).to_numpy()
    failed = (solid > 0) & (marks / np.maximum(solid, 1) > float(given["maximum"]))
    return pc.and_(pa.array(failed), text.is_valid())


def _ascii_counts(text: pa.Array) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return for each text its marks, its characters that are no white space, and whether it is ASCII alone.

    By a table over the bytes: 50 times as fast as RE2, and most text is ASCII for the most part.
    """
    whole = text.cast(pa.large_string())
    marks, solid, plain = np.zeros(len(text), np.int64), np.zeros(len(text), np.int64), np.ones(len(text), np.bool_)
    _, offsets, data = whole.buffers()
    if data is None:
        return marks, solid, plain
    ends = np.frombuffer(offsets, np.int64)[whole.offset : whole.offset + len(whole) + 1]
    full = np.flatnonzero(ends[1:] > ends[:-1])
    if not len(full):
        return marks, solid, plain
    kinds = _KINDS[np.frombuffer(data, np.uint8)[ends[0] : ends[-1]]]
    # Between two full texts lie only empty ones, so each reaches to the next.
    starts = ends[full] - ends[0]
    marks[full] = np.add.reduceat(kinds == _MARK, starts, dtype=np.int64)
    solid[full] = np.add.reduceat(kinds != _BLANK, starts, dtype=np.int64)
    plain[full] = ~np.logical_or.reduceat(kinds == _BEYOND, starts)
    return marks, solid, plain


_LETTER, _MARK, _BLANK, _BEYOND = range(4)
_KINDS = np.array(
    [
        _BEYOND if n > 127 else _BLANK if chr(n).isspace() else _LETTER if chr(n).isalnum() else _MARK
        for n in range(256)
    ],
    dtype=np.uint8,
)


def _is_text(character: str) -> bool:
    import unicodedata

    return unicodedata.category(character)[0] in "LMNZ"


def _characters(text: pa.Array, given: Arguments) -> pa.BooleanArray:
    return _bounds(pc.utf8_length(text), given)


def _tokens(text: pa.Array, given: Arguments) -> pa.BooleanArray:
    known = text.is_valid().to_numpy(zero_copy_only=False)
    counts = np.zeros(len(text), dtype=np.int64)
    if known.any():
        counts[known] = _counter(given)(text.drop_null().to_pylist())
    return _bounds(pa.array(counts, mask=~known), given)


def _counter(given: Arguments) -> Callable[[Sequence[str]], Sequence[int]]:
    if given.get("count") is not None:
        counter: Callable[[Sequence[str]], Sequence[int]] = given["count"]
        return counter
    if "tokenizer" not in given:
        raise DataRefused(
            "lengthInTokens: no tokenizer is named and none was passed in; add tokenizer: {file: ..., sha256: ...}"
        )
    return _of_file(Path(given["tokenizer"]["file"]), given["tokenizer"]["sha256"])


@lru_cache(maxsize=8)
def _of_file(path: Path, sha: str) -> Callable[[Sequence[str]], Sequence[int]]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DataRefused(f"{path}: the tokenizer of a rule cannot be read: {error.strerror}; put it there") from error
    if hashlib.sha256(data).hexdigest() != sha:
        raise DataRefused(
            f"{path}: is not the tokenizer that the rule names by sha256; put back the file, or correct it"
        )
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_buffer(data)
    return lambda texts: [len(e.ids) for e in tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]


def _outside(figure: int, given: Arguments) -> bool:
    return bool(figure < given.get("minimum", figure) or figure > given.get("maximum", figure))


def _bounds(counts: pa.Array, given: Arguments) -> pa.BooleanArray:
    failed = pc.less(counts, int(given.get("minimum", 0)))
    return pc.or_(failed, pc.greater(counts, int(given["maximum"]))) if "maximum" in given else failed


_WHOLE: dict[str, Callable[[pa.Array, Arguments], pa.BooleanArray]] = {
    "controlCharacters": _controls,
    "lengthInCharacters": _characters,
    "lengthInTokens": _tokens,
    "nonTextShare": _no_text,
}
SIEVES: dict[str, Sieve] = {
    "mojibake": Sieve(_mojibake, r"[^\x00-\x7F]"),
    "language": Sieve(_language),
    "repetition": Sieve(repeats),
    "personalData": Sieve(personal, MAY_BE_PERSONAL),
    "secrets": Sieve(secrets, MAY_BE_SECRET),
}
