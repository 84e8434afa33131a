"""What a column's values look like: its type, its bounds, its vocabulary, and what personal data they seem to be."""

from __future__ import annotations

import datetime
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from data_contracts.checks.personal import found as personal_data

# From this share on a column is of a type although some values are not: those go to quarantine.
_ENOUGH = 0.98
_FEW_ROWS, _MOST_VALUES = 50, 12
_NULL_WORDS = ("na", "n/a", "nan", "null", "none", "nil", "-", "--", "?", "unknown", "\\n", "missing", ".")
_INTEGER = re.compile(r"-?(0|[1-9]\d{0,17})")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_FORMS = ("%m/%d/%Y %H:%M", "%d/%m/%Y %H:%M", "%m/%d/%y %H:%M", "%Y/%m/%d %H:%M:%S", "%d.%m.%Y %H:%M",
          "%Y-%m-%d-%H.%M.%S.%f", "%a, %d %b %Y %H:%M:%S %z", "%Y%m%d%H%M%S")  # fmt: skip
_NAMES = {
    "email": r"e[-_ ]?mail",
    "phone": r"phone|telephone|mobile|fax",
    "person-name": r"(first|last|full|sur|given|patient)[-_ ]?name",
    "address": r"street|(home|postal) ?address|post ?code|zip ?code",
    "birth-date": r"birth|\bdob\b",
    "national-id": r"\bssn\b|passport|national[-_ ]?id|social[-_ ]?security",
    "ip-address": r"\bip(v4|v6)?[-_ ]?(addr|address)?$",
    "iban": r"\biban\b",
    "card": r"card[-_ ]?(number|no)\b",
}
_IP = re.compile(r"(25[0-5]|2[0-4]\d|1?\d?\d)(\.(25[0-5]|2[0-4]\d|1?\d?\d)){3}")


@dataclass(frozen=True)
class Profile:
    """What was found of one column; `reasons` say, by field of the contract, why it is guessed."""

    logical_type: str
    filled: int
    distinct: int
    required: bool
    options: Mapping[str, Any] = field(default_factory=dict)
    enum: tuple[str, ...] = ()
    classification: str | None = None
    null_words: tuple[str, ...] = ()
    timestamp_format: str | None = None
    mean_length: float = 0.0
    reasons: Mapping[str, str] = field(default_factory=dict)


def profile(name: str, values: Sequence[Any]) -> Profile:
    """Profile the values of a column; NULL is None, text is text, numbers and moments are what they are."""
    filled = [value for value in values if value is not None]
    counts = Counter(_hashable(value) for value in filled)
    logical, reasons, nulls, form = _type_of(filled, counts)
    known = [value for value in filled if value not in nulls] if nulls else filled
    required = bool(values) and len(known) == len(values)
    if required:
        reasons["required"] = f"no value of {len(values):,} is missing"
    options = _bounds(logical, known, form)
    if options:
        reasons["logicalTypeOptions"] = "the bounds of the values that were seen"
    enum: tuple[str, ...] = ()
    texts = [value for value in known if isinstance(value, str)] if logical == "string" else []
    if texts:
        # Few values, each often, are a vocabulary; one value only says too little.
        vocabulary = sorted(set(texts))
        if len(texts) >= _FEW_ROWS and 1 < len(vocabulary) <= _MOST_VALUES and len(texts) >= 10 * len(vocabulary):
            enum = tuple(vocabulary)
            reasons["enum"] = f"{len(enum)} values in {len(texts):,} rows"
        else:
            options = _lengths(texts)
            shape = _shape(texts)
            if shape:
                options = {"pattern": shape}
            if options:
                reasons["logicalTypeOptions"] = "every value that was seen has this form"
    classification, why = _personal(name, texts if logical == "string" else [])
    if classification:
        reasons["classification"] = why
    length = sum(map(len, texts)) / len(texts) if texts else 0.0
    distinct = len(counts)
    return Profile(
        logical, len(known), distinct, required, options, enum, classification, nulls, form, length, reasons
    )  # fmt: skip


def _hashable(value: Any) -> Any:
    return value if isinstance(value, str | int | float | bool | datetime.date) else repr(value)


def _type_of(
    filled: Sequence[Any], counts: Mapping[Any, int]
) -> tuple[str, dict[str, str], tuple[str, ...], str | None]:
    reasons: dict[str, str] = {}
    if not filled:
        return "string", {"logicalType": "no value was seen"}, (), None
    for kinds, logical in _NATIVE:
        if all(isinstance(value, kinds) and (logical == "boolean" or not isinstance(value, bool)) for value in filled):
            if logical != "string":
                return logical, {"logicalType": "the type of the values in the source"}, (), None
            break
    else:
        return "string", {"logicalType": "values of several types"}, (), None
    nulls = tuple(w for w in counts if isinstance(w, str) and w.strip().lower() in _NULL_WORDS and w.strip() == w)
    whole = sum(n for word, n in counts.items() if word not in nulls)
    for logical, reads in _TEXTUAL:
        bad = [word for word in counts if word not in nulls and not reads(word)]
        missed = sum(counts[word] for word in bad)
        if whole and missed <= (1 - _ENOUGH) * whole:
            reasons["logicalType"] = f"{whole - missed:,} of {whole:,} values read so"
            if bad:
                reasons["logicalType"] += f"; others, such as {bad[0]!r}, go to quarantine"
            return logical, reasons, nulls, None
    for form in _FORMS:
        if whole and all(_reads_form(word, form) for word in counts if word not in nulls):
            return "timestamp", {"logicalType": f"every value reads as {form}"}, nulls, form
    return "string", reasons, (), None


def _reads_form(word: str, form: str) -> bool:
    try:
        datetime.datetime.strptime(word.strip(), form)
    except ValueError:
        return False
    return True


def _reads(read: Callable[[str], Any]) -> Callable[[str], bool]:
    def reads(word: str) -> bool:
        try:
            read(word.strip())
        except ValueError:
            return False
        return True

    return reads


def _is_moment(word: str) -> datetime.datetime:
    # Python 3.11 reads "20240101" and "2024-W01" too; those are numbers and words before they are moments.
    if len(word) < 16 or word[4] != "-":
        raise ValueError(word)
    return datetime.datetime.fromisoformat(word)


def _is_day(word: str) -> datetime.date:
    if len(word) != 10:
        raise ValueError(word)
    return datetime.date.fromisoformat(word)


_NATIVE: tuple[tuple[Any, str], ...] = (
    (bool, "boolean"),
    (int, "integer"),
    (int | float, "number"),
    (datetime.datetime, "timestamp"),
    (datetime.date, "date"),
    (str, "string"),
)
_TEXTUAL: tuple[tuple[str, Callable[[str], bool]], ...] = (
    ("integer", lambda word: _INTEGER.fullmatch(word.strip()) is not None),
    ("number", lambda word: _NUMBER.fullmatch(word.strip()) is not None and not _leading_zero(word)),
    ("boolean", lambda word: word.strip().lower() in ("true", "false")),
    ("date", _reads(_is_day)),
    ("timestamp", _reads(_is_moment)),
)


def _leading_zero(word: str) -> bool:
    """A code such as 00123 is text: as a number it would lose its zeros."""
    return re.fullmatch(r"0\d+", word.strip()) is not None


def _bounds(logical: str, known: Sequence[Any], form: str | None) -> dict[str, Any]:
    if logical not in ("integer", "number", "date"):
        return {}
    read: dict[str, Callable[[Any], Any]] = {"integer": int, "number": float, "date": _day_text}
    found = []
    for value in known:
        try:
            found.append(read[logical](value))
        except (ValueError, TypeError):
            continue
    if not found or (logical == "number" and any(value - value != 0 for value in found)):
        return {}
    # A day's upper bound would refuse tomorrow's data.
    return {"minimum": min(found)} if logical == "date" else {"minimum": min(found), "maximum": max(found)}


def _day_text(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime.date) else _is_day(value.strip()).isoformat()


def _lengths(texts: Sequence[str]) -> dict[str, Any]:
    return {"minLength": 1} if all(texts) else {}


def _shape(texts: Sequence[str]) -> str:
    """A pattern of the classes of characters, where all values are short and of one shape, such as AB-1234."""
    shapes = {"".join(_class(c) for c in text) for text in texts[:20_000] if len(text) <= 24}
    if len(texts) < _FEW_ROWS or len(shapes) != 1 or any(len(text) > 24 for text in texts):
        return ""
    (shape,) = shapes
    if not re.search(r"\\d|\[", shape) or len(set(texts)) < 10:
        return ""
    return (
        "^"
        + re.sub(
            r"((?:\\d|\[A-Z\]|\[a-z\]))\1+", lambda m: f"{m.group(1)}{{{len(m.group(0)) // len(m.group(1))}}}", shape
        )
        + "$"
    )


def _class(character: str) -> str:
    if character.isascii():
        if character.isdigit():
            return r"\d"
        if character.isalpha():
            return "[A-Z]" if character.isupper() else "[a-z]"
    return re.escape(character)


def _personal(name: str, texts: Sequence[str]) -> tuple[str | None, str]:
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower().replace("_", " ")
    for kind, pattern in _NAMES.items():
        if re.search(pattern, words):
            return kind, "the column's name"
    some = texts[:500]
    if not some or sum(map(len, some)) / len(some) > 200:
        return None, ""
    for kind in ("ip-address", "email", "phone", "iban", "card"):
        share = sum(_holds(text, kind) for text in some) / len(some)
        if share > 0.5:
            return kind, f"{share:.0%} of the values look so"
    return None, ""


def _holds(text: str, kind: str) -> bool:
    if kind == "ip-address":
        return _IP.fullmatch(text.strip()) is not None
    return next(personal_data(text, kind), None) is not None
