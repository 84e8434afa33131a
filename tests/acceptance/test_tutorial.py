"""Every command of docs/tutorial.md works, in order, in an empty folder."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "tutorial.md"


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What the tutorial's commands print, run by one shell that stops at the first that fails."""
    folder = tmp_path_factory.mktemp("tutorial")
    page = PAGE.read_text("utf-8")
    for name, body in re.findall(r"<!-- file: ([\w.]+) -->\n```\w+\n(.*?)```", page, re.S):
        (folder / name).write_text(body)
    script = "\n".join(re.findall(r"```bash\n(.*?)```", page, re.S))
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "CAUSEWAY_"))}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(
        ["bash", "-euc", script], capture_output=True, text=True, cwd=folder, env=environment, timeout=500, check=False
    )
    assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-4000:]}"
    assert (folder / "model" / "model.safetensors").exists()
    return done.stdout


@pytest.mark.acceptance
def test_the_tutorial_ends_in_a_verified_model(shown: str) -> None:
    assert re.search(r"4 rounds, \d+ objects read: verified", shown)
    assert "0 violations of policy" in shown


@pytest.mark.acceptance
def test_the_tutorial_quarantines_and_deduplicates_what_it_says(shown: str) -> None:
    assert "content.minLength" in shown
    assert "record.decodes" in shown
    assert "0 partitions ingested, 18 unchanged" in shown
    assert re.search(r"docs/python-topics\s*│\s*78 │\s*2 │", shown)


@pytest.mark.acceptance
def test_the_tutorial_beats_its_baseline_and_finds_its_record(shown: str) -> None:
    before, after, unigram = map(
        float, re.findall(r"docs/python-topics │ (\d\.\d+)\s+│ (\d\.\d+)\s+│ (\d\.\d+)", shown)[0]
    )
    assert after < unigram < before
    assert "Contained in every model from topics-" in shown
