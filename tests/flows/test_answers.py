"""What a script gets from a command: JSON from every command that reads, and exit codes that mean one thing."""

from __future__ import annotations

import ast
import inspect
import json
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from flows.cli import COMMANDS, EXIT_CODES, function_of
from training import admission
from training.rounds import control

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "operations.md").read_text("utf-8").partition("## Exit codes")[2]
COMMAND_CODES, _, SITE_CODES = PAGE.partition("The site process")
# Commands that change something or stay, and have nothing to answer, by their last word. Every other has --json.
ACTS = {"request", "approve", "reject", "pause", "resume", "cancel", "amend", "set", "ui", "serve", "completion"}


def _causeway(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flows.cli", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", [name for name in COMMANDS if name.split()[-1] not in ACTS])
def test_a_command_that_reads_has_json(name: str) -> None:
    assert "json" in inspect.signature(function_of(name)).parameters, f"causeway {name} has no --json"


@pytest.mark.parametrize(
    "words",
    [
        ["status"],
        ["sites", "list"],
        ["check"],
        ["contracts", "check", str(ROOT / "data_contracts" / "library" / "healthcare-medquad.yaml")],
    ],
    ids=" ".join,
)
def test_the_last_line_of_json_is_the_whole_answer(words: list[str], tmp_path: Path) -> None:
    home = [] if words[0] == "contracts" else ["--home", str(tmp_path)]
    done = _causeway(*words, *home, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1]) is not None


def _table(text: str) -> dict[int, str]:
    return {int(code): meaning for code, meaning in re.findall(r"^\| (\d+) \| (.+) \|$", text, re.M)}


def _returned(name: str) -> set[int]:
    """The whole numbers that a command's function can return, read from its source."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(function_of(name))))
    inner = {id(n) for f in ast.walk(tree) if isinstance(f, ast.AsyncFunctionDef) for n in ast.walk(f)}
    returns = [n.value for n in ast.walk(tree) if isinstance(n, ast.Return) and n.value and id(n) not in inner]
    values = [branch for value in returns for branch in _branches(value)]
    return {v.value for v in values if isinstance(v, ast.Constant) and type(v.value) is int}


def _branches(value: ast.expr) -> list[ast.expr]:
    return [*_branches(value.body), *_branches(value.orelse)] if isinstance(value, ast.IfExp) else [value]


def test_the_page_and_the_help_have_the_same_exit_codes() -> None:
    assert set(_table(COMMAND_CODES)) == set(EXIT_CODES)
    shown = " ".join(_causeway("--help").stdout.partition("Exit codes:")[2].split())
    assert all(f"{code} {meaning}" in shown for code, meaning in EXIT_CODES.items())
    assert set(_table(SITE_CODES)) == {0, 1, 3, admission.EXIT_REFUSED, control.EXIT_PAUSED, control.EXIT_LEFT}


def test_a_command_returns_no_code_that_the_table_lacks() -> None:
    assert {code for name in COMMANDS for code in _returned(name)} <= set(EXIT_CODES)


def test_the_page_names_every_command_whose_answer_can_be_no() -> None:
    named = re.findall(r"`([a-z ]+?)(?: --check)?`", _table(COMMAND_CODES)[1].split(":")[0])
    assert sorted(named) == sorted(name for name in COMMANDS if 1 in _returned(name))


def test_no_is_1_and_an_error_that_a_person_can_act_on_is_2(tmp_path: Path) -> None:
    bad = tmp_path / "bad.yaml"
    bad.write_text("kind: DataContract\n")
    assert _causeway("contracts", "check", bad).returncode == 1
    done = _causeway("quarantine", "no/such", "--home", tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: no data set 'no/such'")
    assert _causeway("status", "--no-such-option").returncode == 2
