"""`causeway policy explain`: the answer of the policy by data set, site and day, with its clauses."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from data_contracts.contract import Contract
from data_contracts.errors import CausewayError, DataRefused
from flows.cli import app_of
from tests.data_contracts.making import make_contract
from training import steps
from training.workspace import Workspace

SITES = """format = 1
[home]
store = "home"
jurisdictions = ["SE"]
[[site]]
name = "lulea"
region = "north"
store = "sites/lulea"
jurisdictions = ["SE"]
[[site]]
name = "boston"
region = "east"
store = "sites/boston"
jurisdictions = ["US"]
"""
USE = ("--purpose", "commercial pre-training")
Say = Callable[..., tuple[int, str]]


@pytest.fixture
def say(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Say:
    (tmp_path / "sites.toml").write_text(SITES)

    def call(*words: object) -> tuple[int, str]:
        given = ["policy", "explain", *map(str, words), "--home", str(tmp_path / "home")]
        if "--sites" not in given:
            given += ["--sites", str(tmp_path / "sites.toml")]
        capsys.readouterr()
        code = app_of(given)(given, result_action="return_value")
        return int(code), capsys.readouterr().out

    return call


def contract_of(folder: Path, **terms: Any) -> Contract:
    swedish = {"residency": {"storage": ["SE"], "processing": ["SE"]}, "derivedUpdates": "restricted"}
    return make_contract(folder / "contract", terms={**swedish, **terms})


def ask(say: Say, *words: object) -> Any:
    return json.loads(say(*words, "--json")[1].strip().splitlines()[-1])


def test_an_allowed_use_exits_0_and_names_its_clauses(say: Say, tmp_path: Path) -> None:
    path = contract_of(tmp_path).path
    code, text = say(path, *USE, "--site", "lulea")
    assert code == 0 and "commercial pre-training at lulea (SE)" in text and ": allowed" in text
    assert "residency.storage: lulea lies in SE, and SE is permitted." in text
    assert "purposes.permitted: 'commercial pre-training' falls under 'pre-training'." in text


def test_a_refused_use_exits_1_and_says_why(say: Say, tmp_path: Path) -> None:
    path = contract_of(tmp_path).path
    code, text = say(path, *USE, "--site", "boston")
    assert code == 1 and "may not rest there" in text and "boston lies in US, and only SE is permitted" in text
    (found,) = ask(say, path, *USE)
    assert [(site["site"], site["allowed"]) for site in found["sites"]] == [("boston", False), ("lulea", True)]
    assert not found["sites"][0]["updates"]["allowed"] and found["licence"] == "CC0-1.0"


def test_the_day_decides(say: Say, tmp_path: Path) -> None:
    path = contract_of(tmp_path, validUntil="2026-12-31").path
    assert say(path, *USE, "--site", "lulea", "--date", "2026-12-31")[0] == 0
    code, text = say(path, *USE, "--site", "lulea", "--date", "2027-01-01")
    assert code == 1 and "validUntil: the terms end with 2026-12-31, and the day is 2027-01-01." in text
    with pytest.raises(CausewayError, match="'tomorrow' is no day"):
        say(path, *USE, "--date", "tomorrow")


def test_a_registered_data_set_is_named_by_its_id(say: Say, tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "home", tmp_path / "sites.toml")
    steps.admit(workspace, contract_of(tmp_path))
    assert say("test/notes", *USE, "--site", "lulea")[0] == 0
    assert [entry["dataset"] for entry in ask(say, "--all", *USE)] == ["test/notes"]


def test_the_matrix_of_the_shipped_contracts_has_a_row_for_each(say: Say) -> None:
    code, text = say("--all", *USE)
    assert code == 0 and "software/python-source" in text and "boston" in text
    found = {entry["dataset"]: entry["sites"] for entry in ask(say, "--all", *USE)}
    sites = {site["site"]: site["allowed"] for site in found["software/python-source"]}
    assert sites == {"boston": True, "lulea": True}
    assert not any(site["allowed"] for site in found["finance/fomc-minutes"]), "its licence is non-commercial"


def test_a_name_that_nothing_has_is_refused_with_the_nearest(say: Say) -> None:
    with pytest.raises(DataRefused, match=r"perhaps healthcare-medquad\?"):
        say("healthcare/medqad", *USE)
    with pytest.raises(DataRefused, match="no data set was named"):
        say(*USE)
    with pytest.raises(CausewayError, match="is no purpose"):
        say("healthcare/medquad", "--purpose", "training")
