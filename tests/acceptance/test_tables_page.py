"""Every block of docs/tables.md runs, in order, on a home made here; Python blocks as short scripts of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from data_contracts.sources import open_source
from tests.data_contracts.made_versions import READER
from tests.data_contracts.making import column, make_contract, write_lines
from training import steps
from training.workspace import Workspace

pytestmark = pytest.mark.acceptance
PAGE = (Path(__file__).parents[2] / "docs" / "tables.md").read_text("utf-8")
BLOCKS = re.findall(r"```(bash|python)\n(.*?)```", PAGE, re.S)
FIRST = (
    column("place", primaryKey=True, primaryKeyPosition=1),
    column("day", partitioned=True),
    column("cases", "integer"),
    column("content"),
)


def ingest(home: Path, folder: Path, day: str, rows: list[dict[str, Any]], *, deaths: bool = False) -> None:
    columns = (*FIRST, column("deaths", "integer")) if deaths else FIRST
    version = "2.0.0" if deaths else "1.0.0"
    contract = make_contract(folder / "in", columns, reader=READER, version=version, id="health/reports")
    write_lines(folder / "data" / f"{day}.jsonl", [{"content": f"report of {row['place']}", **row} for row in rows])
    source = open_source(contract, str(folder / "data"))
    workspace = Workspace.open(home)
    steps.admit(workspace, contract, str(folder / "data"))
    part = next(part for part in source.partitions() if part.value == day)
    assert steps.ingest_one(workspace, contract, source, part).version.verdict == "accepted"


@pytest.fixture(scope="module")
def printed(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What each block prints."""
    folder = tmp_path_factory.mktemp("tables")
    home = folder / "home"
    ingest(home, folder, "2020-03-21", [{"place": "Oslo", "cases": 10}, {"place": "Bergen", "cases": 20}])
    ingest(home, folder, "2020-03-22", [{"place": p, "cases": n} for p, n in (("Oslo", 12), ("Bergen", 25), ("?", 1))])
    final = [{"place": p, "cases": n, "deaths": 1} for p, n in (("Oslo", 40), ("Bergen", 60), ("Tromsø", 9))]
    ingest(home, folder, "2020-03-22", final, deaths=True)
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "CAUSEWAY_"))}
    environment |= {
        "CAUSEWAY_HOME": str(home),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    found = []
    for kind, body in BLOCKS:
        command = ["bash", "-euc", body] if kind == "bash" else [sys.executable, "-c", body]
        done = subprocess.run(
            command, capture_output=True, text=True, cwd=folder, env=environment, timeout=300, check=False
        )
        assert done.returncode == 0, f"{body}\nexit {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        found.append(done.stdout)
    return found


def test_every_block_of_the_page_runs(printed: list[str]) -> None:
    assert len(printed) == len(BLOCKS) == PAGE.count("\n```bash\n") + PAGE.count("\n```python\n")
    assert all(printed)


def test_the_page_shows_what_diff_prints(printed: list[str]) -> None:
    shown = re.search(r"```text\n(key: place.*?)```", PAGE, re.S)
    assert shown is not None
    for line in shown[1].splitlines():
        assert line in printed[0]


def test_duckdb_and_polars_give_the_rows_in_force(printed: list[str]) -> None:
    by_duckdb = next(out for (_, body), out in zip(BLOCKS, printed, strict=True) if "CREATE VIEW" in body)
    by_polars = next(out for (_, body), out in zip(BLOCKS, printed, strict=True) if "import polars" in body)
    assert f"```text\n{by_duckdb}```" in PAGE
    cells = [re.findall(r"[\w-]+", line) for line in by_polars.splitlines() if "2020" in line]
    assert cells == [["2020-03-21", "2", "30"], ["2020-03-22", "3", "109"]]


def test_older_versions_are_still_there(printed: list[str]) -> None:
    out = next(out for (_, body), out in zip(BLOCKS, printed, strict=True) if "LEFT JOIN" in body)
    assert out.splitlines() == ["2020-03-21 1 1.0.0 2", "2020-03-22 1 1.0.0 3", "2020-03-22 2 2.0.0 3"]
