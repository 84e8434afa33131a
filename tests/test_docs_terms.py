"""docs/terms.md has every field of the terms, its example loads, and the commands of the pages are real."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from data_contracts.terms import FORMATS, terms_from_document, terms_schema
from flows.cli import COMMANDS, function_of

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "terms.md").read_text("utf-8")


def fields(schema: dict[str, Any], above: str = "") -> Iterator[str]:
    """Every field of a schema by its dotted path, those that hold others left out."""
    for name, part in schema.get("properties", {}).items():
        branches = [schema["$defs"][b["$ref"].rpartition("/")[2]] for b in part.get("oneOf", ())] if above == "" else []
        inner = [path for branch in [part, *branches] for path in fields(branch, f"{above}{name}.")]
        yield from inner or [f"{above}{name}"]


@pytest.mark.parametrize("form", FORMATS)
def test_every_field_of_the_schema_stands_in_the_table_of_the_page(form: int) -> None:
    table = {name for row in PAGE.splitlines() if row.startswith("| `") for name in re.findall(r"`([\w.]+)`", row)}
    assert [path for path in fields(terms_schema(form)) if path not in table] == []


def test_every_choice_of_the_schema_stands_in_the_page() -> None:
    def choices(node: Any) -> Iterator[str]:
        if isinstance(node, dict):
            yield from (v for v in node.get("enum", ()) if isinstance(v, str) and " " not in v and not v.isupper())
            for inner in node.values():
                yield from choices(inner)

    assert [word for word in choices(terms_schema(2)) if f"`{word}`" not in PAGE] == []


def test_the_example_of_the_page_uses_every_group_of_fields_and_loads() -> None:
    (text,) = re.findall(r"<!-- example: terms -->\n```yaml\n(.*?)```", PAGE, re.S)
    document = json.loads(json.dumps(YAML(typ="safe").load(text), default=str))["customProperties"][0]["value"]
    terms = terms_from_document(document)
    assert terms.zones == {"nordic": ("SE", "NO", "FI")} and terms.text_columns == ("title", "body")
    assert set(terms_schema(2)["properties"]) - set(document) == {"text"}


@pytest.mark.parametrize("page", ["contracts.md", "terms.md"])
def test_every_command_of_the_page_is_real_and_takes_its_options(page: str) -> None:
    text = (ROOT / "docs" / page).read_text("utf-8")
    said = [*re.findall(r"`causeway ([^`]+)`", text), *re.findall(r"^\$ causeway (.+)$", text, re.M)]
    assert len(said) > 2
    for line in said:
        words = shlex.split(line)
        name = max((n for n in COMMANDS if words[: n.count(" ") + 1] == n.split(" ")), key=len, default=None)
        assert name is not None, line
        known = {p.replace("_", "-") for p in function_of(name).__annotations__}
        assert {w[2:] for w in words if w.startswith("--")} <= known, line
