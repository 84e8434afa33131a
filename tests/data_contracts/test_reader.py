"""The settings of a reader: what a contract may say, and that the page of sources says the same."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from data_contracts.errors import ContractError
from data_contracts.reader import _SETTINGS, FORMATS, reader_faults, settings_of
from tests.data_contracts.making import make_contract

PAGE = (Path(__file__).parents[2] / "docs" / "sources.md").read_text("utf-8")


def sentences(value: Any) -> list[str]:
    return [f"{'.'.join(map(str, path))}: {sentence}" for path, sentence, _, _ in reader_faults(value)]


def test_every_example_of_the_page_is_a_reader() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) >= 9
    for block in blocks:
        found = YAML(typ="safe").load(block)
        value = found["customProperties"][0]["value"] if "customProperties" in found else found
        assert sentences(value) == []


def test_the_page_names_every_format_and_setting() -> None:
    for form in FORMATS:
        assert re.search(rf"^## .*\b{form}\b", PAGE, re.MULTILINE), form
    for name in _SETTINGS:
        assert f"`{name}`" in PAGE or f"{name}: " in PAGE, name


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"format": "cvs"}, "format 'cvs' is not allowed"),
        (None, "format None is not allowed"),
        ({"format": "csv", "delimitr": ";"}, "delimitr: there is no such setting"),
        ({"format": "json", "delimiter": ";"}, "delimiter: format json has no such setting"),
        ({"format": "csv", "delimiter": "||"}, "give one character"),
        ({"format": "csv", "encoding": "idna"}, "give the name of a Python codec"),
        ({"format": "csv", "files": "../*.csv"}, "no leading '/' and no '..'"),
        ({"format": "csv", "files": []}, "give a glob"),
        ({"format": "csv", "expansionLimit": 0}, "1 or more"),
        ({"format": "csv", "drift": {"added": "null"}}, "give added (allow or refuse)"),
        ({"format": "csv", "partition": {"from": "name"}}, "partition: "),
        ({"format": "csv", "partition": {"from": "path"}}, "needs a pattern"),
        ({"format": "csv", "partition": {"from": "path", "pattern": "("}}, "mend the expression"),
        ({"format": "csv", "skipRows": True}, "give a whole number"),
        ({"format": "text", "beside": {"a": "b.txt"}}, "add 'split: line'"),
        ({"format": "text", "split": {"pattern": "[", "more": 1}}, "give {pattern"),
        ({"format": "text", "split": "sentence"}, "give line, paragraph"),
        ({"format": "xml", "record": "a"}, "needs 'record' (a path) and 'fields'"),
        ({"format": "sql"}, "needs a query"),
    ],
)
def test_a_setting_that_is_wrong_is_said_with_what_is_allowed(value: Any, said: str) -> None:
    (sentence,) = sentences(value)
    assert said in sentence


def test_the_fault_stands_in_the_contract_with_the_nearest_word(tmp_path: Path) -> None:
    with pytest.raises(ContractError, match=r"delimitr: there is no such setting; .*perhaps delimiter\?"):
        make_contract(tmp_path, reader={"format": "csv", "delimitr": ";"})


def test_every_format_has_its_settings_and_none_of_another() -> None:
    assert "delimiter" in settings_of("csv")
    assert "delimiter" not in settings_of("jsonl")
    assert {form for form in FORMATS if "files" not in settings_of(form)} == {
        "python-environment",
        "huggingface",
        "sql",
    }
