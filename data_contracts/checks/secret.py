"""Secrets in a text: keys and tokens by the forms that their makers publish, and passwords in assignments.

Sources: the makers' own descriptions of their token formats; RFC 7468 for the heads of PEM keys; RFC 7519 for JWT.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

FORMS = {
    "private key": r"-----BEGIN (?:[A-Z]{1,20} ){0,4}PRIVATE KEY(?: BLOCK)?-----",
    "AWS access key": r"\b(?:AKIA|ASIA)[A-Z2-7]{16}\b",
    "GitHub token": r"\b(?:gh[pousr]_[A-Za-z0-9]{36}|github_pat_[A-Za-z0-9]{22}_[A-Za-z0-9]{59})\b",
    "GitLab token": r"\bglpat-[A-Za-z0-9_-]{20}\b",
    "Slack token": r"\bxox[abprs]-[0-9A-Za-z-]{10,}",
    "Google key": r"\bAIza[0-9A-Za-z_-]{35}",
    "Stripe key": r"\b[rs]k_live_[0-9A-Za-z]{24,}",
    "Hugging Face token": r"\bhf_[A-Za-z]{34}\b",
    "npm token": r"\bnpm_[A-Za-z0-9]{36}\b",
    "PyPI token": r"\bpypi-AgEIcHlwaS5vcmc[A-Za-z0-9_-]{50,}",
    "OpenAI key": r"\bsk-(?:proj-)?[A-Za-z0-9_-]{40,}",
    "JSON Web Token": r"\beyJ[A-Za-z0-9_-]{10,500}\.eyJ[A-Za-z0-9_-]{10,4000}\.[A-Za-z0-9_-]{20,}",
}
_NAMES = r"passw(?:or)?d|secret|token|api[_-]?key|access[_-]?key"
_ASSIGNED = rf"(?:{_NAMES})[\"']?\s{{0,20}}(?::=|=>|[:=])\s{{0,20}}[\"']([^\"'\s]{{12,200}})[\"']"
MAY_BE_SECRET = (
    "(?i)PRIVATE KEY|AKIA|ASIA|gh[pousr]_|github_pat_|glpat-|xox[abprs]-|AIza|[rs]k_live_|hf_|npm_|pypi-|sk-|eyJ|"
    + _NAMES
)
_EVERY = re.compile("|".join(FORMS.values()))
_ASSIGNMENT = re.compile(_ASSIGNED, re.IGNORECASE)
# Bits a character: words and placeholders lie below, drawn characters above.
LEAST_ENTROPY = 3.5


def secrets(text: str, given: Mapping[str, Any]) -> bool:
    """Say whether more than `maximum` (0) secrets stand in the text."""
    return sum(1 for _ in found(text, given.get("minEntropy", LEAST_ENTROPY))) > int(given.get("maximum", 0))


def found(text: str, least: float = LEAST_ENTROPY) -> Iterator[str]:
    """Yield keys and tokens, then values of passwords and the like of at least `least` bits a character."""
    for match in _EVERY.finditer(text):
        key = match.group()
        # A slug of words in lower case may begin like a key.
        drawn = entropy(key) >= 3.0 and (key != key.lower() or any(c.isdigit() for c in key))
        if key.startswith("-----") or drawn:
            yield key
    for match in _ASSIGNMENT.finditer(text):
        value = match.group(1)
        if entropy(value) >= least and any(c.isdigit() for c in value) and not _EVERY.search(value):
            yield value


def entropy(text: str) -> float:
    """Shannon's entropy of the characters, in bits a character."""
    counts = Counter(text).values()
    return -sum(count / len(text) * math.log2(count / len(text)) for count in counts)
