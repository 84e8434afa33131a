"""What the compiled check lets pass, the other one finds no fault in."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

from data_contracts.odcs import _odcs_check, minor_version, read_yaml
from data_contracts.terms import terms_schema, terms_validator

LIBRARY = sorted((Path(__file__).parents[2] / "data_contracts" / "library").glob("*.yaml"))
OTHERS = (None, True, 0, -1, 1.0, 2.5, "", "x", "2024-02-30", "2024-02-03\n", [], ["x"], {}, {"x": 1}, 10**30)


def _places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    inner = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path, *(place for key, item in inner for place in _places(item, (*path, key)))]


def _damaged(document: Any, dice: random.Random) -> Any:
    document = copy.deepcopy(document)
    *way, last = dice.choice(_places(document)[1:])
    node = document
    for part in way:
        node = node[part]
    change = dice.randrange(3)
    if change == 0 and isinstance(node, dict):
        del node[last]
    elif change == 1 and isinstance(node, dict):
        node["unknown"] = node.pop(last)
    else:
        node[last] = dice.choice(OTHERS)
    return document


def _both(check: Any, document: Any) -> tuple[bool, bool]:
    from jsonschema import Draft201909Validator, FormatChecker

    slow = Draft201909Validator(check.schema, format_checker=FormatChecker(check._formats) if check._formats else None)
    return not any(check.errors(document)), slow.is_valid(document)


def test_of_damaged_contracts_both_checks_say_the_same() -> None:
    dice, answers = random.Random(5), []
    for _ in range(150):
        document = _damaged(read_yaml(dice.choice(LIBRARY)).plain, dice)
        answers.append(_both(_odcs_check(minor_version(document)), document))
    assert all(fast == slow for fast, slow in answers)
    assert {fast for fast, _ in answers} == {True, False}, "some must pass and some must not"


def test_of_damaged_terms_both_checks_say_the_same_dates_included() -> None:
    dice, answers = random.Random(6), []
    found = [read_yaml(path).plain for path in dice.sample(LIBRARY, 12)]
    terms = [e["value"] for d in found for e in d["customProperties"] if e["property"] == "trainingTerms"]
    for _ in range(600):
        document = dice.choice(terms)
        form = 1 if document["format"] == 1 else 2
        document = _damaged({**document, "validFrom": dice.choice(("2024-02-30", "2024-02-03", "20240203"))}, dice)
        answers.append(_both(terms_validator(form), document))
    assert all(fast == slow for fast, slow in answers)
    assert {fast for fast, _ in answers} == {True, False}
    assert "validFrom" in terms_schema(2)["properties"]
