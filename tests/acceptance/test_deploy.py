"""`causeway up`, `deploy` and `down`, a real server and real workers: schedules, automations, and nothing left over."""

from __future__ import annotations

import datetime as dt
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from data_contracts.contract import load_contract
from data_contracts.notices import Notice, notices, put_notice
from data_contracts.sources import open_source
from flows.processes import marked, session
from tests.acceptance.api import Api, free_port
from tests.acceptance.conftest import run, run_json, wait_for
from tests.data_contracts.making import make_contract, write_lines
from tests.training.ingested import CONFIG, READER
from training import steps
from training.rounds.plan import read_plan
from training.rounds.run import newest_state
from training.workspace import Workspace

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(1200)]
EVERY_30_S, LATE = "test/every-30-s", "test/late"
SITES_TOML = """format = 1
[home]
store = "home"
jurisdictions = ["SE"]
[[site]]
name = "north"
region = "europe"
jurisdictions = ["SE"]
store = "sites/north"
[[site]]
name = "west"
region = "america"
jurisdictions = ["US"]
store = "sites/west"
"""


@dataclass
class Home:
    """A home that is up: home's worker and north's; one data set with a short schedule, one that is late."""

    root: Path
    data: Path
    port: int
    run: str = ""
    up: dict[str, Any] = field(default_factory=dict)

    @property
    def api(self) -> Api:
        return Api(self.port)

    def start(self) -> dict[str, Any]:
        found: dict[str, Any] = run_json("up", "--home", self.root, "--sites", "north", "--port", str(self.port))
        return found

    def pids(self) -> dict[str, int]:
        """Return the processes that `up` recorded."""
        document = json.loads((self.root / "prefect" / "server.json").read_text())
        return {p["name"]: p["pid"] for p in document["processes"]}

    def partitions(self, dataset: str) -> set[str]:
        workspace = Workspace.open(self.root)
        return set(workspace.tables(workspace.contract(dataset)).current())

    def notices(self, kind: str) -> list[Notice]:
        return [n for n in notices(Workspace.open(self.root).home) if n.kind == kind]

    def runs(self, name: str, states: tuple[str, ...] = ("COMPLETED",)) -> list[dict[str, Any]]:
        """Return the runs of a flow in these states."""
        return self.api.runs(flows={"name": {"any_": [name]}}, flow_runs={"state": {"type": {"any_": list(states)}}})

    def change(self, deployment: str, **fields: Any) -> None:
        """Change a deployment as the UI does."""
        self.api.ask("PATCH", f"deployments/{self.api.deployment(deployment)['id']}", fields)

    def state(self, number: str) -> dict[str, Any]:
        found: dict[str, Any] = self.api.run(number)["state"]
        return found

    def crashed(self, number: str) -> dict[str, Any] | None:
        state = self.state(number)
        return state if state["type"] == "CRASHED" else None


def take_in(root: Path, folder: Path, dataset: str, frequency: str) -> Path:
    """Ingest a data set of one day whose contract promises a frequency; return the folder of its files."""
    residency = {"storage": ["SE"], "processing": ["SE"]}
    path = make_contract(folder / dataset, reader=READER, id=dataset, terms={"residency": residency}).path
    document = json.loads(path.read_text())
    document["slaProperties"] = [{"property": "frequency", "value": frequency}]
    path.write_text(json.dumps(document))
    contract, data = load_contract(path), folder / dataset / "data"
    write_day(data, "2024-03-07")
    workspace, source = Workspace.open(root), open_source(contract, str(data))
    steps.admit(workspace, contract, str(data))
    (partition,) = steps.outstanding(workspace, contract, source).todo
    steps.ingest_one(workspace, contract, source, partition)
    return data


def write_day(data: Path, day: str) -> None:
    rows = [{"key": f"{day}-{n}", "content": f"note {n} of {day}, of {n * n} words, kept"} for n in range(20)]
    write_lines(data / f"{day}.jsonl", rows)


def plan(root: Path, dataset: str) -> str:
    """Shard a data set and plan a short run on it; return the run's id. Terms and sites leave north alone to train."""
    workspace = Workspace.open(root)
    config = CONFIG.model_copy(update={"datasets": [dataset], "rounds": 4})
    steps.curate_set(workspace, workspace.contract(dataset))
    sets = steps.read_sets(workspace, config.datasets)
    record = steps.make_tokenizer(workspace, config, sets)
    made = steps.make_shards(workspace, config, sets, record)
    return steps.plan_run(workspace, config, made, record.tokenizer.vocab_size).run


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    folder = tmp_path_factory.mktemp("deploy")
    (folder / "home").mkdir()
    (folder / "home" / "sites.toml").write_text(SITES_TOML)
    made = Home(folder / "home", take_in(folder / "home", folder, EVERY_30_S, "PT30S"), free_port())
    take_in(made.root, folder, LATE, "daily")
    made.run = plan(made.root, LATE)
    try:
        made.up = made.start()
        yield made
    finally:
        run("down", "--home", made.root)


def test_up_starts_a_server_and_a_worker_for_each_pool_and_deploys(home: Home) -> None:
    assert [(p["name"], p["state"]) for p in home.up["processes"]] == [
        ("server", "started"),
        ("worker home", "started"),
        ("worker north", "started"),
    ]
    assert home.up["ui"] == f"http://127.0.0.1:{home.port}"
    checked = run("deploy", "--check", "--home", home.root)
    assert (checked.returncode, checked.stdout) == (0, "nothing to change\n")


def test_up_again_starts_nothing(home: Home) -> None:
    before = home.pids()
    again = home.start()
    assert {p["state"] for p in again["processes"]} == {"was up"}
    assert (again["changes"], home.pids()) == (0, before)


def test_a_worker_that_died_is_started_again_and_nothing_else(home: Home) -> None:
    before = home.pids()
    os.kill(before["worker north"], signal.SIGKILL)
    again = home.start()
    assert [p["name"] for p in again["processes"] if p["state"] == "started"] == ["worker north"]
    after = home.pids()
    assert after["worker north"] != before["worker north"]
    assert {**after, "worker north": 0} == {**before, "worker north": 0}


def test_deploy_mends_what_was_changed_by_hand_and_leaves_what_a_person_added(home: Home) -> None:
    home.change("curate/curate", description="mine")
    home.change("tend/tend", parameters={**home.api.deployment("tend/tend")["parameters"], "tokens_ready_bytes": 123})
    found = run("deploy", "--check", "--home", home.root)
    assert found.returncode == 1
    assert 'description: "mine" -> "Remove exact duplicates' in found.stdout
    assert "tend/tend" not in found.stdout
    (change,) = run_json("deploy", "--home", home.root)["changes"]
    assert (change["action"], change["name"]) == ("change", "curate/curate")
    assert run("deploy", "--home", home.root).stdout == "nothing to change\n"
    assert home.api.deployment("tend/tend")["parameters"]["tokens_ready_bytes"] == 123


def test_the_promised_schedule_takes_in_what_is_new_with_no_one_at_the_keyboard(home: Home) -> None:
    write_day(home.data, "2024-03-08")
    wait_for(lambda: "2024-03-08" in home.partitions(EVERY_30_S), 240, "the schedule took nothing in")


def test_a_late_partition_raises_its_automation_once(home: Home) -> None:
    def told() -> list[dict[str, Any]]:
        return [r for r in home.runs("notice") if r["parameters"]["subject"].startswith(LATE)]

    wait_for(told, 300, "no notice of the late partition was run")
    (notice,) = [n for n in home.notices("partition-late") if n.subject.startswith(LATE)]
    assert notice.subject == f"{LATE} 2024-03-08"
    assert "causeway backfill test/late" in notice.message
    looked = len(home.runs("tend"))
    wait_for(lambda: len(home.runs("tend")) > looked, 300, "tend is not run every minute")
    assert len(told()) == 1


def test_a_run_that_failed_is_put_on_the_list_of_what_needs_a_person(home: Home) -> None:
    home.api.start("curate/curate", datasets=["test/nowhere"])
    (notice,) = wait_for(lambda: home.notices("run-failed"), 240, "the failed run left no notice")
    assert "curate" in notice.subject
    assert "no data set 'test/nowhere'" in notice.message


def test_a_failed_run_is_forgotten_when_one_of_its_name_has_come_to_its_end(home: Home) -> None:
    name = home.runs("ingest")[0]["name"]
    put_notice(Workspace.open(home.root).home, "run-failed", name, "Failed: once", dt.datetime.now(dt.UTC))
    wait_for(lambda: name not in {n.subject for n in home.notices("run-failed")}, 240, "the notice stays")
    assert home.notices("run-failed"), "another run that failed is forgotten too"


@pytest.mark.long
def test_a_train_run_that_died_with_its_worker_is_found_dead_and_goes_on(home: Home) -> None:
    first = home.api.start("train/train", run=home.run)
    wait_for(lambda: home.state(first["id"])["type"] == "RUNNING", 120, "the train run did not start")
    worker = home.pids()["worker home"]
    os.kill(worker, signal.SIGKILL)
    for pid in [p for p in marked(home.root) if session(p) == worker]:
        os.kill(pid, signal.SIGKILL)
    states = {p["name"]: p["state"] for p in home.start()["processes"]}
    assert states["worker home"] == "started"
    # Nobody has told the server: only the heartbeats that do not come.
    state = wait_for(lambda: home.crashed(first["id"]), 300, "the dead run is still called alive")
    assert "No heartbeat for 90 s" in state["message"]
    (second,) = wait_for(lambda: home.runs("train"), 240, "the train run was not started again")
    assert second["parameters"]["run"] == home.run and second["id"] != first["id"]
    workspace = Workspace.open(home.root)
    assert newest_state(workspace.home, read_plan(workspace.home, home.run)).round == 4


def test_a_killed_server_comes_back_where_it_was_and_its_workers_go_on(home: Home) -> None:
    before = home.pids()
    os.kill(before["server"], signal.SIGKILL)
    again = home.start()
    assert [p["name"] for p in again["processes"] if p["state"] == "started"] == ["server"]
    seen = len(home.runs("ingest"))
    wait_for(lambda: len(home.runs("ingest")) > seen, 300, "no run was made after the server came back")


def test_down_leaves_no_process_behind_even_of_a_worker_that_was_killed(home: Home) -> None:
    assert len(marked(home.root)) >= 3
    os.kill(home.pids()["worker home"], signal.SIGKILL)
    ended = [p["name"] for p in run_json("down", "--home", home.root)["ended"]]
    assert ended == ["worker north", "server"]
    assert marked(home.root) == []
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{home.api.url}/health", timeout=5)
    assert run("down", "--home", home.root).stdout == "nothing was up\n"


def test_a_server_that_others_reach_needs_a_password(tmp_path: Path) -> None:
    refused = run("up", "--home", tmp_path / "home", "--host", "0.0.0.0", "--port", str(free_port()))
    assert refused.returncode == 2
    assert "run causeway secrets auth first" in refused.stderr
    assert marked(tmp_path / "home") == []
