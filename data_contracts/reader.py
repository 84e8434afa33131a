"""The settings of a contract's `reader`: which there are, of which formats, and what each may be."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

FORMATS = (
    "python-environment",
    "xml",
    "text",
    "csv",
    "jsonl",
    "parquet",
    "json",
    "table",
    "arrow",
    "html",
    "huggingface",
    "sql",
)
# Codecs of Python that are no encodings of files.
_NO_FILES = (
    "idna",
    "punycode",
    "undefined",
    "unicode-escape",
    "raw-unicode-escape",
    "unicode_escape",
    "raw_unicode_escape",
)
LINE_ENDS = {"auto": "auto", "lf": "lf", "crlf": "crlf", "cr": "cr", "\n": "lf", "\r\n": "crlf", "\r": "cr"}
DRIFT = {"added": ("allow", "refuse"), "missing": ("null", "refuse")}

_FILES = ("xml", "text", "csv", "jsonl", "parquet", "json", "table", "arrow", "html")
_DECODED = ("xml", "text", "csv", "jsonl", "json", "table", "html")
_NAMED = ("csv", "table", "jsonl", "json", "parquet", "arrow", "huggingface", "sql")
_Check = Callable[[Any], str | None]


def reader_faults(value: Any) -> Iterator[tuple[tuple[str | int, ...], str, Any, tuple[str, ...]]]:
    """Yield each fault of a reader as (path, sentence, the word that was found, the words it may have meant)."""
    if not isinstance(value, Mapping) or value.get("format") not in FORMATS:
        found = value.get("format") if isinstance(value, Mapping) else value
        yield (), f"format {found!r} is not allowed; use one of {', '.join(FORMATS)}", found, FORMATS
        return
    form = value["format"]
    allowed = settings_of(form)
    for name, given in value.items():
        if name not in allowed:
            known = name in _SETTINGS
            why = f"format {form} has no such setting" if known else "there is no such setting"
            yield (name,), f"{why}; it has {', '.join(allowed)}", name, () if known else allowed
        elif (fault := _SETTINGS[name][1](given)) is not None:
            yield (name,), f"{_short(given)} is not allowed; {fault}", None, ()
    for name, fault in _needed(form, value):
        yield (name,), fault, None, ()


def settings_of(form: str) -> tuple[str, ...]:
    """Return the names of the settings that a format has."""
    return ("format", *(name for name, (formats, _) in _SETTINGS.items() if form in formats and name != "format"))


def _needed(form: str, value: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if form == "sql" and "query" not in value:
        yield "query", "format sql needs a query; give the SELECT whose rows are the records"
    if form == "xml" and not ("record" in value and value.get("fields")):
        yield "record", "format xml needs 'record' (a path) and 'fields' (column: path); give both"
    if form == "text" and isinstance(value.get("split"), str) and value["split"] not in ("line", "paragraph"):
        yield "split", f"{value['split']!r} is not allowed; give line, paragraph or {{pattern: ...}}"
    if form == "text" and "beside" in value and value.get("split") != "line":
        yield "beside", "files are joined by line number; add 'split: line'"
    if form == "csv" and value.get("delimiter", ",") == value.get("quote", '"'):
        yield "delimiter", "delimiter and quote are the same character; change one"
    partition = value.get("partition")
    if isinstance(partition, Mapping) and partition.get("from") == "path" and "pattern" not in partition:
        yield "partition", "'from: path' needs a pattern with one group; add it"


def _text(value: Any) -> str | None:
    return None if isinstance(value, str) and value else "give text"


def _texts(value: Any) -> str | None:
    return None if isinstance(value, list) and all(isinstance(v, str) for v in value) else "give a list of texts"


def _names(value: Any) -> str | None:
    return None if value and _texts(value) is None else "give a list of column names"


def _globs(value: Any) -> str | None:
    parts = value if isinstance(value, list) else [value]
    if not parts or not all(isinstance(part, str) and part for part in parts):
        return "give a glob such as '**/*.csv', or a list of them"
    bad = [part for part in parts if part.startswith("/") or ".." in part.split("/")]
    return "give globs below the source: no leading '/' and no '..'" if bad else None


def _boolean(value: Any) -> str | None:
    return None if isinstance(value, bool) else "give true or false"


def _whole(value: Any) -> str | None:
    return None if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else "give a whole number"


def _ratio(value: Any) -> str | None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return None if number and value >= 1 else "give how many times larger than its file the data may be, 1 or more"


def _number(value: Any) -> str | None:
    return None if isinstance(value, int | float) and not isinstance(value, bool) else "give a number"


def _character(value: Any) -> str | None:
    return None if isinstance(value, str) and len(value) == 1 and value not in "\r\n" else "give one character"


def _character_or_null(value: Any) -> str | None:
    return None if value is None or _character(value) is None else "give one character, or null for none"


def _encoding(value: Any) -> str | None:
    if isinstance(value, str):
        if value == "detect":
            return None
        try:
            found = codecs.lookup(value)
            if found._is_text_encoding and found.incrementaldecoder and found.name not in _NO_FILES:
                return None
        except (LookupError, ValueError):
            pass
    return "give the name of a Python codec such as utf-8, gb18030 or cp1252, or 'detect'"


def _line_end(value: Any) -> str | None:
    return None if isinstance(value, str) and value in LINE_ENDS else "give one of auto, lf, crlf, cr"


def _text_map(value: Any) -> str | None:
    good = isinstance(value, Mapping) and all(isinstance(v, str) for v in value.values())
    return None if good and value else "give a mapping of columns to texts"


def _aliases(value: Any) -> str | None:
    good = isinstance(value, Mapping) and all(v and _texts(v) is None for v in value.values())
    return None if good else "give a mapping of columns to lists of names"


def _drift(value: Any) -> str | None:
    good = isinstance(value, Mapping) and all(k in DRIFT and v in DRIFT[k] for k, v in value.items())
    return None if good else "give added (allow or refuse) and missing (null or refuse)"


def _regex(value: Any) -> str | None:
    if not isinstance(value, str):
        return "give a regular expression"
    try:
        re.compile(value, re.MULTILINE)
    except (re.error, RecursionError, OverflowError) as error:
        return f"mend the expression: {error}"
    return None


def _pattern(value: Any) -> str | None:
    if not isinstance(value, Mapping) or set(value) != {"pattern"}:
        return "give {pattern: regular expression}"
    return _regex(value["pattern"])


def _split(value: Any) -> str | None:
    if isinstance(value, str):
        # For format huggingface any name of a split is one; text has two words.
        return None if value else "give line, paragraph or {pattern: ...}"
    return _pattern(value)


def _partition(value: Any) -> str | None:
    shape = "give {constant: name}, {from: path, pattern: ...} or {from: column}"
    if not isinstance(value, Mapping) or set(value) - {"constant", "from", "pattern"}:
        return shape
    if value.get("from", "path") not in ("path", "column", "none"):
        return shape
    return _regex(value["pattern"]) if "pattern" in value else None


def _part(value: Any) -> str | None:
    return None if value in ("source", "docs", "licences") else "give source, docs or licences"


def _any(_: Any) -> str | None:
    return None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:79] + "…"


# Setting -> the formats that have it, and the check that says what it may be.
_SETTINGS: dict[str, tuple[tuple[str, ...], _Check]] = {
    "format": (FORMATS, _any),
    "files": (_FILES, _globs),
    "partition": (tuple(form for form in FORMATS if form != "python-environment"), _partition),
    "encoding": (_DECODED, _encoding),
    "expansionLimit": (_DECODED, _ratio),
    "delimiter": (("csv",), _character),
    "quote": (("csv",), _character_or_null),
    "escape": (("csv",), _character_or_null),
    "columns": (("csv", "table"), _names),
    "lineEnd": (("csv", "table", "text", "jsonl"), _line_end),
    "nulls": (("csv", "table", "text"), _texts),
    "trim": (("csv", "text"), _boolean),
    "skipRows": (("csv", "table"), _whole),
    "aliases": (_NAMED, _aliases),
    "drift": (_NAMED, _drift),
    "timestampFormats": (FORMATS, _texts),
    "record": (("xml", "html", "json"), _text),
    "fields": (("xml", "html", "json", "jsonl", "text"), _text_map),
    "split": (("text", "huggingface"), _split),
    "beside": (("text",), _text_map),
    "front": (("text",), _pattern),
    "builder": (("huggingface",), _text),
    "config": (("huggingface",), _text),
    "revision": (("huggingface",), _text),
    "query": (("sql",), _text),
    "part": (("python-environment",), _part),
    "share": (("python-environment",), _number),
    "seed": (("python-environment",), _any),
}
