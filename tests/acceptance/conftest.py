"""The product as its users run it: real processes, one quick demo for all tests that only read it."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

CAUSEWAY = [sys.executable, "-m", "flows.cli"]
SHARED = Path(__file__).parents[3] / "shared" / "data"


def run(*arguments: str | Path, timeout: float = 600, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run `causeway` to its end."""
    command = [*CAUSEWAY, *map(str, arguments)]
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=environment, cwd=cwd)


def run_json(*arguments: str | Path, timeout: float = 600) -> Any:
    """Run `causeway ... --json` and return the object on its last line; it must exit 0."""
    done = run(*arguments, "--json", timeout=timeout)
    assert done.returncode == 0, f"{arguments}: exit {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    return json.loads(done.stdout.strip().splitlines()[-1])


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    """Start `causeway` in a process group of its own, as a terminal does."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PREFECT_")}
    return subprocess.Popen(
        [*CAUSEWAY, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )


def workers_of(home: Path) -> dict[str, int]:
    """Return the process ids of the site workers of a home, by site."""
    found = {}
    for folder in Path("/proc").iterdir():
        try:
            words = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")
        except OSError:
            continue
        if "training.worker" in words and any(w.startswith(str(home)) for w in words):
            found[words[words.index("--site") + 1]] = int(folder.name)
    return found


def wait_for(what: Callable[[], Any], seconds: float, message: str) -> Any:
    """Wait until something is true and return it."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        value = what()
        if value:
            return value
        time.sleep(0.1)
    raise AssertionError(f"after {seconds:g} s: {message}")


@dataclass(frozen=True)
class Demo:
    """A finished quick demo: its home (read only!), its JSON, and the loader's independent log."""

    home: Path
    document: dict[str, Any]
    log: Path

    @property
    def run(self) -> str:
        return str(self.document["run"])


LONGEST = (
    "test_demo_deployed",
    "test_deploy",
    "test_deployed_training",
    "test_backfill_killed",
    "test_ui",
    "test_faults",
    "test_object_stores",
    "test_mixed",
    "test_tutorial",
    "test_own_data",
    "test_secured",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take minutes, whatever their names."""

    def rank(item: pytest.Item) -> int:
        if "acceptance" not in item.path.parts:
            return len(LONGEST) + 1
        return LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST)

    items.sort(key=rank)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    finished = os.environ.get("CAUSEWAY_FINISHED_DEMO")  # a folder in which one was just made, as .ci/run does
    if finished:
        folder = Path(finished)
        document = json.loads((folder / "out").read_text().strip().splitlines()[-1])
        return Demo(folder / "home", document, folder / "loader-log")
    # The workers of one test run make it once between them.
    shared = tmp_path_factory.getbasetemp()
    shared = (shared.parent if "PYTEST_XDIST_WORKER" in os.environ else shared) / "finished-demo"
    shared.mkdir(exist_ok=True)
    with (shared / "lock").open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        home, log, made = shared / "home", shared / "loader-log", shared / "document.json"
        if not made.exists():
            document = run_json("demo", "--quick", "--home", home, "--loader-log", log)
            made.write_text(json.dumps(document))
        return Demo(home, json.loads(made.read_text()), log)


@pytest.fixture
def copied(demo: Demo, tmp_path: Path) -> Iterator[Path]:
    """A copy of the demo's home that a test may change."""
    home = tmp_path / "home"
    shutil.copytree(demo.home, home)
    yield home
    shutil.rmtree(home, ignore_errors=True)
