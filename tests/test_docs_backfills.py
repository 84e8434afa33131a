"""docs/backfills.md: every row of the table names a command that is there and a test that is there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from flows.cli import COMMANDS

ROOT = Path(__file__).parents[1]
TABLE = (ROOT / "docs" / "backfills.md").read_text("utf-8").partition("## Beside others")[2]
ROWS = [
    [cell.strip() for cell in line.strip("|").split("|")]
    for line in TABLE.splitlines()
    if line.startswith("| ") and not line.startswith(("| what |", "| --- "))
]


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_a_row_has_its_command_three_peers_and_a_test(row: list[str]) -> None:
    assert len(row) == 6, row
    _, command, *peers, test = row
    assert all(peers)
    words = shlex.split(command.strip("`"))
    assert words[0] == "causeway"
    assert " ".join(words[1:3]) in COMMANDS or words[1] in COMMANDS, command
    path, _, name = test.strip("`").partition("::")
    assert re.search(rf"^(async )?def {name}\(", (ROOT / path).read_text("utf-8"), re.M), test


def test_there_are_at_least_twenty_rows() -> None:
    assert len(ROWS) >= 20
