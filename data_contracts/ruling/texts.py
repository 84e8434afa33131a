"""Metrics of running text, for training data: what each takes, and the rule that it becomes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from data_contracts.checks.personal import KINDS, validator
from data_contracts.checks.repetition import LIMITS
from data_contracts.odcs import Fault, FieldPath, nearest
from data_contracts.ruling.kinds import Engine

Check = Callable[[Any], str | None]


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _count(value: Any) -> str | None:
    return None if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else "a whole number from 0"


def _share(value: Any) -> str | None:
    return None if _number(value) and 0 <= value <= 1 else "a share from 0 to 1"


def _positive(value: Any) -> str | None:
    return None if _number(value) and value > 0 else "a number above 0"


def _characters(value: Any) -> str | None:
    return None if isinstance(value, str) else "a text of characters"


def _languages(value: Any) -> str | None:
    fine = (
        isinstance(value, list)
        and value
        and all(isinstance(v, str) and v.isascii() and 2 <= len(v) <= 3 for v in value)
    )
    return None if fine else "a list of ISO 639 codes, such as [en, sv]"


def _kinds(value: Any) -> str | None:
    if isinstance(value, list) and value and all(isinstance(v, str) and (v in KINDS or validator(v)) for v in value):
        return None
    return f"a list of {', '.join(KINDS)}, and national numbers as python-stdnum names them, such as se.personnummer"


def _region(value: Any) -> str | None:
    fine = isinstance(value, str) and len(value) == 2 and value.isalpha() and value.isupper()
    return None if fine else "an ISO 3166 code of two letters, such as SE"


def _tokenizer(value: Any) -> str | None:
    named = isinstance(value, dict) and set(value) == {"file", "sha256"}
    if named and isinstance(value["file"], str) and isinstance(value["sha256"], str) and len(value["sha256"]) == 64:
        path = PurePosixPath(value["file"])
        if not path.is_absolute() and ".." not in path.parts:
            return None
    return "{file: a tokenizer.json beside the contract, sha256: its 64 hex digits}"


ARGUMENTS: dict[str, dict[str, Check]] = {
    "mojibake": {"maximum": _count},
    "controlCharacters": {"maximum": _count, "allow": _characters},
    "lengthInCharacters": {"minimum": _count, "maximum": _count},
    "lengthInTokens": {"minimum": _count, "maximum": _count, "tokenizer": _tokenizer},
    "language": {"expected": _languages, "minimum": _share, "minCharacters": _count},
    "repetition": {**dict.fromkeys(LIMITS, _share), "minWords": _count},
    "nonTextShare": {"maximum": _share},
    "personalData": {"kinds": _kinds, "region": _region, "maximum": _count},
    "secrets": {"maximum": _count, "minEntropy": _positive},
}
REQUIRED = {"language": ("expected",), "nonTextShare": ("maximum",)}
_EITHER = {"lengthInCharacters": ("minimum", "maximum"), "lengthInTokens": ("minimum", "maximum")}
RUNS: dict[str, Engine] = {
    **dict.fromkeys(("controlCharacters", "lengthInCharacters", "nonTextShare"), "arrow"),
    **dict.fromkeys(("mojibake", "lengthInTokens", "language", "repetition", "personalData", "secrets"), "python"),
}
WORDS = {
    "mojibake": "{} has no more than {maximum} marks of a wrong encoding",
    "controlCharacters": "{} has no more than {maximum} control characters",
    "lengthInCharacters": "{} has {bounds} characters",
    "lengthInTokens": "{} has {bounds} tokens",
    "language": "{} is written in {expected}",
    "repetition": "{} does not repeat itself",
    "nonTextShare": "no more than {maximum} of {} is neither letter nor digit",
    "personalData": "{} has no more than {maximum} pieces of personal data ({kinds})",
    "secrets": "{} has no more than {maximum} keys, tokens or passwords",
}


def argument_faults(metric: str, given: Mapping[str, Any], path: FieldPath) -> Iterator[Fault]:
    """Yield what is wrong with a metric's own arguments."""
    known = ARGUMENTS[metric]
    for name, value in given.items():
        if name not in known:
            yield Fault(
                (*path, name), f"metric {metric} has no such argument{nearest(name, known)}; it has {', '.join(known)}"
            )
            continue
        wanted = known[name](value)
        if wanted:
            yield Fault((*path, name), f"{value!r} is not allowed; give {wanted}")
    missing = [name for name in REQUIRED.get(metric, ()) if name not in given]
    either = _EITHER.get(metric)
    if missing or (either and not any(name in given for name in either)):
        yield Fault(path, f"metric {metric} needs {', '.join(missing) or ' or '.join(either or ())}; add it")
    low, high = given.get("minimum"), given.get("maximum")
    if either and isinstance(low, int) and isinstance(high, int) and low > high:
        yield Fault((*path, "minimum"), "more than maximum, so nothing passes; correct one")


def words(metric: str, column: str, given: Mapping[str, Any]) -> str:
    """Return a rule's sentence."""
    low, high = given.get("minimum"), given.get("maximum")
    bounds = f"{low} to {high}" if None not in (low, high) else f"at least {low}" if high is None else f"at most {high}"
    return WORDS[metric].format(
        column,
        maximum=given.get("maximum", 0),
        bounds=bounds,
        expected=" or ".join(given.get("expected", ())),
        kinds=", ".join(given.get("kinds", KINDS)),
    )
