"""A deployed backfill of the COVID-19 reports whose processes are killed, compared with one that was left in peace.

`python -m tests.acceptance.killing --times 50 --seed 1 --record docs/soak.md` is what `make soak` runs.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa

from tests.acceptance.api import Api, free_port
from tests.acceptance.conftest import SHARED, run, run_json, wait_for
from tests.acceptance.databases import Postgres, Redis
from training.workspace import Workspace

DATASET = "healthcare/covid19-daily-reports"
LIBRARY = Path(__file__).parents[2] / "data_contracts" / "library"
SOURCES = (
    ("healthcare-covid19-daily-reports-first.yaml", "covid19_daily_reports_as_first_published", "2020-03-25"),
    ("healthcare-covid19-daily-reports.yaml", "covid19_daily_reports", "2020-07-01"),
)
VICTIMS = ("executor", "worker", "server")
Version = tuple[str, int, str, str, int]


def register(home: Path) -> None:
    """Register both publications; nothing is taken in."""
    for contract, source, published in SOURCES:
        run_json("sources", "add", LIBRARY / contract, SHARED / "healthcare" / source, "--published", published,
                 "--home", home)  # fmt: skip


def contents(home: Path) -> tuple[dict[Version, pa.Table], dict[str, Version]]:
    """Return the accepted rows of every version, without what names the attempt, and which version is current."""
    workspace = Workspace.open(home)
    tables = workspace.tables(workspace.contract(DATASET))
    found: dict[Version, pa.Table] = {}
    for v in tables.versions():
        name = (v.partition, v.sequence, v.ingest_id, v.verdict, v.rows_accepted)
        assert name not in found, f"{name} was published twice"
        found[name] = tables.read_accepted(v).drop_columns(["attempt_id"])
    current = {
        p: (v.partition, v.sequence, v.ingest_id, v.verdict, v.rows_accepted) for p, v in tables.current().items()
    }
    return found, current


def undisturbed(home: Path, bounds: list[str]) -> None:
    """Take in the same partitions oldest first, in one process, left in peace."""
    register(home)
    done = run_json("backfill", DATASET, "--order", "oldest", "--inline", "--yes", *bounds, "--home", home)
    assert done["word"] == "done", done


@dataclass
class Disturbed:
    """A home whose backfill runs on workers, and what was killed of it."""

    home: Path
    bounds: list[str]
    port: int
    options: list[str] = field(default_factory=list)
    id: str = ""
    killed: list[str] = field(default_factory=list)

    def up(self) -> None:
        run_json("up", "--home", self.home, "--port", str(self.port), "--sites", "", *self.options, timeout=600)

    def start(self) -> None:
        """Start it newest first, four at a time."""
        done = run_json("backfill", DATASET, "--order", "newest", "--max-active", "4", "--yes", "--detach",
                        *self.bounds, "--home", self.home)  # fmt: skip
        self.id = str(done["id"])

    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = run_json("backfill", "status", self.id, "--home", self.home)
        return found

    def settled(self) -> int:
        """Count outcomes as they lie in the store: cheap enough to ask often."""
        return len({p.name[:6] for p in self.home.glob(f"*/backfills/*/{self.id}/outcomes/*.json")})

    def kill(self, victim: str) -> None:
        """Kill one process with SIGKILL, and do what an operator does then."""
        pid = (
            self._executor()
            if victim == "executor"
            else self._recorded("worker home" if victim == "worker" else victim)
        )
        if pid is None:
            self.killed.append(f"{victim}: none was there")
        else:
            os.kill(pid, signal.SIGKILL)
            self.killed.append(victim)
        if victim in ("server", "worker"):
            self.up()
        run("backfill", "resume", self.id, "--detach", "--home", self.home)

    def _recorded(self, name: str) -> int | None:
        document = json.loads((self.home / "prefect" / "server.json").read_text())
        return next((int(p["pid"]) for p in document["processes"] if p["name"] == name), None)

    def _executor(self) -> int | None:
        """Return the process of the flow run that executes the backfill, found by the run's id in its environment."""
        with contextlib.suppress(httpx.HTTPError):
            runs = Api(self.port).runs(flow_runs={"tags": {"all_": [f"backfill:{self.id}", "executor"]}})
            ids = {r["id"] for r in runs if r["state_type"] == "RUNNING"}
            for entry in Path("/proc").glob("[0-9]*/environ"):
                with contextlib.suppress(OSError):
                    words = entry.read_bytes().decode(errors="replace").split("\0")
                    if any(w.startswith("PREFECT__FLOW_RUN_ID=") and w.partition("=")[2] in ids for w in words):
                        return int(entry.parent.name)
        return None

    def finish(self, seconds: float) -> None:
        """Wait for the end; a backfill whose executor died again is resumed, as an operator would."""
        deadline = time.monotonic() + seconds
        last, moved = self.settled(), time.monotonic()
        while time.monotonic() < deadline:
            if self.settled() != last:
                last, moved = self.settled(), time.monotonic()
            word = self.state()["word"] if time.monotonic() - moved > 5 or last >= self._total() else "running"
            if word in ("done", "failed", "cancelled"):
                break
            if word != "running" or time.monotonic() - moved > 120:
                run("backfill", "resume", self.id, "--detach", "--home", self.home)
                moved = time.monotonic()
            time.sleep(2)
        state = self.state()
        assert state["word"] == "done", f"{self.killed}: {json.dumps(state)[:4000]}"

    def _total(self) -> int:
        (path,) = self.home.glob(f"*/backfills/*/{self.id}/plan.json")
        return len(json.loads(path.read_text())["items"])


@contextmanager
def disturbed(home: Path, calm: Path, bounds: list[str], options: list[str] | None = None) -> Iterator[Disturbed]:
    """A home with the keys of the calm one (record ids depend on them), up, its backfill started; taken down after."""
    home.mkdir(parents=True)
    shutil.copytree(calm / "keys", home / "keys")
    register(home)
    made = Disturbed(home, bounds, free_port(), options or [])
    try:
        made.up()
        made.start()
        yield made
    finally:
        run("down", "--home", home)


@contextmanager
def databases() -> Iterator[None]:
    """A PostgreSQL and a Redis of their own, told to `causeway up` by the environment, where others do not see them."""
    with Postgres() as postgres, Redis() as redis:
        os.environ.update({"CAUSEWAY_POSTGRES": postgres, "CAUSEWAY_REDIS": redis})
        try:
            yield
        finally:
            del os.environ["CAUSEWAY_POSTGRES"], os.environ["CAUSEWAY_REDIS"]


def disturb(made: Disturbed, seed: int, seconds: float = 3000) -> None:
    """Kill each of the three once, in an order and at moments that the seed decides, and wait for the end."""
    dice = random.Random(seed)
    order = dice.sample(VICTIMS, len(VICTIMS))
    total = made._total()
    for number, victim in enumerate(order):
        at = (number + dice.random()) / len(order) * 0.85 * total
        wait_for(lambda at=at: made.settled() >= at, seconds, f"the backfill did not come to {at:.0f} of {total}")
        made.kill(victim)
    made.finish(seconds)


def compare(home: Path, calm: Path) -> int:
    """Assert that every version and what is current are equal, row by row; return how many versions there are."""
    (ours, ours_current), (theirs, theirs_current) = contents(home), contents(calm)
    assert ours.keys() == theirs.keys()
    assert ours_current == theirs_current
    for name, rows in ours.items():
        assert rows.equals(theirs[name]), name
    return len(ours)


def recorded(page: Path | None) -> set[int]:
    """Return the seeds that a record holds: a soak that was stopped goes on where it was."""
    lines = page.read_text("utf-8").splitlines() if page is not None and page.exists() else []
    return {int(found[1]) for line in lines if (found := re.match(r"\| (\d+) \|", line))}


def main() -> int:
    """Repeat the disturbed backfill with seeds; stop at the first that differs, and keep a record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--times", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--from", dest="start", default="", help="first partition; all by default")
    parser.add_argument("--databases", choices=("sqlite", "postgresql", "both"), default="both", help="both: in turn")
    parser.add_argument("--record", type=Path, help="a markdown page to add a line a time to")
    options = parser.parse_args()
    bounds = ["--from", options.start] if options.start else []
    with tempfile.TemporaryDirectory() as folder:
        calm = Path(folder) / "calm"
        undisturbed(calm, bounds)
        known = recorded(options.record)
        for seed in range(options.seed, options.seed + options.times):
            if seed in known:
                sys.stderr.write(f"| {seed} | is on record, and not run again |\n")
                continue
            home, began = Path(folder) / f"seed-{seed}", time.monotonic()
            large = options.databases == "postgresql" or (options.databases == "both" and seed % 2 == 0)
            with ExitStack() as stack:
                if large:
                    stack.enter_context(databases())
                made = stack.enter_context(disturbed(home, calm, bounds))
                disturb(made, seed)
                versions = compare(home, calm)
            attempts = len(list(home.glob("*/backfills/*/*/attempts/*.json")))
            took, server = time.monotonic() - began, "PostgreSQL, Redis" if large else "SQLite"
            said = f"| {seed} | {server} | {versions} | {attempts} | {', '.join(made.killed)} | {took:.0f} s | equal |"
            sys.stderr.write(said + "\n")
            if options.record:
                with options.record.open("a", encoding="utf-8") as stream:
                    stream.write(said + "\n")
            shutil.rmtree(home, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
