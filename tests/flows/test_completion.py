"""`causeway completion`: what a shell offers when Tab is pressed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from flows.cli import COMMANDS

# What bash does on Tab: the words so far, the one under the cursor, the function that `complete -F` names.
PRESS_TAB = """
source "$1"
[[ "$(complete -p causeway)" =~ -F\\ ([A-Za-z_]+) ]] || exit 9
read -ra COMP_WORDS <<< "$2"
[[ "$2" == *" " ]] && COMP_WORDS+=("")
COMP_LINE="$2" COMP_POINT=${#2} COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
"${BASH_REMATCH[1]}" causeway "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


def _script(shell: str) -> str:
    command = [sys.executable, "-m", "flows.cli", "completion", shell]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def bash(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "causeway.bash"
    path.write_text(_script("bash"))
    return path


def _tab(script: Path, line: str) -> list[str]:
    """What bash offers at the end of a line, in a folder with one file, run.toml."""
    (script.parent / "run.toml").touch()
    command = ["bash", "--norc", "-c", PRESS_TAB, "bash", str(script), line]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=script.parent)
    assert done.stderr == ""
    return sorted(done.stdout.split())


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("causeway st", ["status"]),
        ("causeway linea", ["lineage"]),
        ("causeway lineage s", ["show"]),
        ("causeway status --j", ["--json"]),
        ("causeway completion ", ["bash", "fish", "zsh"]),
        ("causeway amend some-run ", ["add-site", "add-version", "change-weights", "remove-site", "withdraw-version"]),
        ("causeway train ru", ["run.toml"]),
        ("causeway train p", ["pause"]),
        ("causeway nothing-of-ours", []),
    ],
)
def test_bash_completes_commands_options_choices_and_files(bash: Path, line: str, offered: list[str]) -> None:
    assert _tab(bash, line) == offered


def test_bash_offers_every_command_and_no_other(bash: Path) -> None:
    assert _tab(bash, "causeway ") == sorted({name.split()[0] for name in COMMANDS})


@pytest.mark.parametrize("parent", sorted({name.split()[0] for name in COMMANDS if " " in name}))
def test_bash_offers_every_command_of_a_group(bash: Path, parent: str) -> None:
    below = {name.split()[1] for name in COMMANDS if name.startswith(f"{parent} ")}
    assert below <= set(_tab(bash, f"causeway {parent} "))


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_scripts_of_other_shells_name_every_command(shell: str) -> None:
    script = _script(shell)
    assert [name for name in COMMANDS if name.split()[-1] not in script] == []
