"""Text that says the same again and again, by the measures and limits of Gopher.

Source: Rae et al. 2021, "Scaling Language Models: Methods, Analysis & Insights from Training Gopher", table A1; the
limits on duplicate lines are also those of MassiveText's successors. A word is a run of letters and digits, or one
character of Chinese, Japanese or Korean, which are written without blanks.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

# Share of the lines that repeat an earlier one, of the characters in them, and of the characters that lie in
# occurrences of the most frequent 2-, 3- and 4-gram of words.
LIMITS = {
    "duplicateLines": 0.30,
    "duplicateLineCharacters": 0.20,
    "topBigram": 0.20,
    "topTrigram": 0.18,
    "topFourgram": 0.16,
}
LEAST_WORDS = 50
MOST_WORDS = 200_000  # of a longer text the beginning is counted: its n-grams would take 100 bytes a word
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]|\w+")
_GRAMS = {"topBigram": 2, "topTrigram": 3, "topFourgram": 4}


def repeats(text: str, given: Mapping[str, Any]) -> bool:
    """Say whether one share is over its limit; a text of fewer than `minWords` words is not asked about."""
    words = _WORD.findall(text)
    if len(words) < given.get("minWords", LEAST_WORDS):
        return False
    limits = {name: given.get(name, limit) for name, limit in LIMITS.items()}
    return any(share > limits[name] for name, share in shares(text, words).items())


def shares(text: str, words: list[str] | None = None) -> dict[str, float]:
    """Return the share of each of `LIMITS` in a text, 0 to 1."""
    words = (_WORD.findall(text) if words is None else words)[:MOST_WORDS]
    lines = [line for line in map(str.strip, text.splitlines()) if line]
    again = [line for line, count in Counter(lines).items() for _ in range(count - 1)]
    characters = sum(map(len, lines))
    found = {
        "duplicateLines": len(again) / len(lines) if lines else 0.0,
        "duplicateLineCharacters": sum(map(len, again)) / characters if characters else 0.0,
    }
    whole = sum(map(len, words))
    for name, size in _GRAMS.items():
        grams = Counter(zip(*(words[start:] for start in range(size)), strict=False))
        gram, count = max(grams.items(), key=lambda item: item[1], default=((), 0))
        found[name] = sum(map(len, gram)) * count / whole if count > 1 else 0.0
    return found
