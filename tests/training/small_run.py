"""A small run that the tests of this folder start: its data ingested, its plan made, its sites as threads."""

from __future__ import annotations

import json
import threading
import time
from pathlib import Path
from typing import Any

from data_contracts.errors import CausewayError
from data_contracts.sources import open_source
from tests.data_contracts.making import make_contract, write_lines
from training import steps
from training.planning import RunConfig
from training.rounds.plan import Plan, read_plan
from training.worker import SiteWorker
from training.workspace import Workspace

READER = {"format": "jsonl", "partition": {"from": "path", "pattern": r"([^/]+)\.jsonl$"}}


def opened(folder: Path, sites: str) -> Workspace:
    """A home folder with this sites.toml."""
    (folder / "home").mkdir()
    (folder / "home" / "sites.toml").write_text(sites)
    return Workspace.open(folder / "home")


def ingest(workspace: Workspace, folder: Path, name: str, days: range) -> None:
    """Bring in days of a data set, and curate it."""
    contract = make_contract(folder / name, id=f"test/{name}", reader=READER)
    for day in days:
        rows = [{"key": f"{day}-{n}", "content": f"{name} of day {day}: {n} and {n * day} words"} for n in range(8)]
        write_lines(folder / name / "data" / f"day{day}.jsonl", rows)
    source = open_source(contract, str(folder / name / "data"))
    steps.admit(workspace, contract, str(folder / name / "data"))
    for partition in steps.outstanding(workspace, contract, source).todo:
        steps.ingest_one(workspace, contract, source, partition)
    steps.curate_set(workspace, contract)


def planned(workspace: Workspace, config: RunConfig) -> Plan:
    """Shard the data sets of a run and freeze its plan."""
    sets = steps.read_sets(workspace, config.datasets)
    record = steps.make_tokenizer(workspace, config, sets)
    made = steps.make_shards(workspace, config, sets, record)
    plan = steps.plan_run(workspace, config, made, record.tokenizer.vocab_size)
    return read_plan(workspace.home, plan.run)


class Sites:
    """The sites of a run as threads, which stop in the round after `allowed` until `go` lets them on."""

    def __init__(self, workspace: Workspace, plan: Plan, allowed: int = 99, cache: Path | None = None) -> None:
        self.workspace, self.plan, self.allowed, self.cache = workspace, plan, allowed, cache
        self.failed: dict[str, str] = {}
        self.threads: dict[str, threading.Thread] = {}

    def start(self, *sites: str) -> None:
        for site in sites:
            self.threads[site] = threading.Thread(target=self._run, args=(site,))
            self.threads[site].start()

    def go(self, allowed: int) -> None:
        """Let the sites commit rounds up to this one, and wait until they have."""
        self.allowed = allowed
        until = time.monotonic() + 180
        while not self._committed(allowed):
            assert time.monotonic() < until, f"round {allowed} was not committed in 180 s: {self.failed}"
            time.sleep(0.01)

    def _committed(self, number: int) -> bool:
        return self.workspace.home.exists(f"runs/{self.plan.run}/commits/{number:06d}.json")

    def _gate(self) -> bool:
        while self._committed(self.allowed):
            time.sleep(0.01)
        return False

    def _run(self, site: str) -> None:
        workspace = self.workspace
        peers = {s.name: workspace.store(s.name) for s in self.plan.sites if s.name != site}
        log = workspace.root / "log"
        store, key = workspace.store(site), workspace.site_key(site)
        try:
            SiteWorker(self.plan, site, workspace.home, store, peers, key, log, self._gate, self.cache).run()
        except CausewayError as error:
            self.failed[site] = str(error)

    def end(self) -> None:
        for thread in self.threads.values():
            thread.join(timeout=180)
            assert not thread.is_alive()


def loader_lines(workspace: Workspace) -> list[dict[str, Any]]:
    """What the loaders of all sites wrote down by themselves."""
    files = sorted((workspace.root / "log").glob("*.ndjson"))
    return [json.loads(line) for file in files for line in file.read_text().splitlines()]
