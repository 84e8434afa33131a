"""The command line: every command is documented, and asking it something costs little."""

from __future__ import annotations

import importlib.util
import statistics
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

from flows.cli import COMMANDS, function_of, texts

ROOT = Path(__file__).parents[2]


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_cli", ROOT / "docs" / "generate_cli.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _causeway(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "flows.cli", *words], capture_output=True, text=True, check=False)


def test_the_page_of_the_command_line_is_what_its_script_writes() -> None:
    generator = _generator()
    written = generator.PAGE.read_text("utf-8")
    assert written == generator.page(), "docs/cli.md is stale; run: python docs/generate_cli.py"


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_has_help_and_examples_that_call_it(name: str) -> None:
    description, examples = texts(function_of(name))
    lines = [line.strip() for line in examples.splitlines()[1:]]
    assert len(description) > 20, f"causeway {name} has no help"
    assert lines, f"causeway {name} has no example"
    assert all(line.split("causeway ")[-1].startswith(name) for line in lines)


@pytest.mark.parametrize("name", ["ingest", "lineage show"])
def test_help_shows_each_example_on_a_line_of_its_own(name: str) -> None:
    shown = [line.strip() for line in _causeway(*name.split(), "--help").stdout.splitlines()]
    _, examples = texts(function_of(name))
    assert all(line.strip() in shown for line in examples.splitlines())


def test_the_list_of_commands_gives_each_one_line_and_imports_none() -> None:
    code = (
        "import sys; from flows.cli import app_of; app_of([]).help_print([]);"
        "heavy = {'prefect', 'torch', 'pyarrow', 'flows.commands'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert {name.split()[0] for name in COMMANDS} <= set(done.stdout.split())


def test_a_group_that_is_a_command_too_shows_both_and_takes_its_own_argument() -> None:
    shown = _causeway("train", "--help").stdout
    assert "RUN-FILE" in shown
    assert {"pause", "resume", "cancel"} <= set(shown.split())
    assert "run.toml: cannot be read" in _causeway("train", "nowhere/run.toml").stderr
    assert "RUN" in _causeway("train", "pause", "--help").stdout
    assert _causeway("train").returncode == 2


def test_a_word_that_is_no_command_exits_2() -> None:
    assert _causeway("ingset").returncode == 2


def test_the_version_is_answered_within_half_a_second() -> None:
    took = []
    for _ in range(3):
        began = time.perf_counter()
        done = _causeway("--version")
        took.append(time.perf_counter() - began)
        assert done.stdout.startswith("causeway ")
    assert statistics.median(took) < 0.5
