"""The whole product where no store is a local directory: home and tables in Ceph, two sites' buckets in Swift regions.

One of the regions is switched off in the middle of training and comes back: the model is the one that local stores
give, to the byte.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data_contracts.canonical import sha256
from data_contracts.catalog.store import Store
from data_contracts.errors import CausewayError
from data_contracts.sources import open_source
from tests.acceptance.conftest import Demo, run_json, start, wait_for
from tests.acceptance.test_faults import recount
from tests.conftest import available
from tests.data_contracts.making import KEYED, make_contract, write_lines
from tests.stores import Access, Swift
from tests.training.ingested import READER
from training import steps
from training.rounds.plan import read_plan
from training.shards.inventory import Held, existing_manifests
from training.shards.moving import move
from training.tracing import trace_record
from training.workspace import Workspace

pytestmark = pytest.mark.acceptance
OFF_S = 12
SITES = """
format = 2
[home]
store = "{home}"
jurisdictions = ["SE"]
[[site]]
name = "east"
region = "ap-southeast"
jurisdictions = ["SG"]
store = "{east}"
[[site]]
name = "north"
region = "eu-north"
jurisdictions = ["SE"]
store = "{north}"
decides_creates = false
[[site]]
name = "west"
region = "us-west"
jurisdictions = ["US"]
store = "{west}"
decides_creates = false
tables = "{tables}"
"""
RUN_TOML = """
name = "stores"
purpose = "research pre-training"
tokenizer = 400
datasets = ["test/free", "test/se", "test/sg", "test/us"]
window = 64
rounds = 4
steps = 30
snapshot_every = 2
[model]
hidden_size = 48
layers = 2
heads = 2
intermediate_size = 96
"""
STEPS = 30


def sites_file(folder: Path, rgw: Access, north: Access, west: Access) -> Path:
    """Make the buckets of a home and write its sites.toml."""
    folder.mkdir()
    buckets = {name: rgw.bucket(name) for name in ("home", "east", "tables")}
    buckets |= {"north": north.bucket("shards"), "west": west.bucket("shards")}
    (folder / "sites.toml").write_text(SITES.format(**buckets))
    return folder


def ingest(workspace: Workspace, folder: Path, names: Sequence[str] = ("free", "se", "sg", "us")) -> None:
    """Take in data sets: one that may lie anywhere, and one for the jurisdiction of each site."""
    for number, name in enumerate(names):
        zone = "anywhere" if name == "free" else name.upper()
        terms = {
            "purposes": {"permitted": ["pre-training", "evaluation"], "prohibited": []},
            "residency": {"storage": [zone], "processing": [zone]},
        }
        contract = make_contract(folder / name, KEYED, reader=READER, terms=terms, id=f"test/{name}")
        for day in range(2):
            text = "{} {}: report {} on {} of {} parts."
            rows: list[dict[str, Any]] = [
                {"key": f"{day}-{n}", "content": text.format(name, day, n, n * (number + 7), n * n)} for n in range(200)
            ]
            write_lines(folder / name / "data" / f"day{day}.jsonl", rows)
        source = open_source(contract, str(folder / name / "data"))
        steps.admit(workspace, contract, str(folder / name / "data"))
        for partition in steps.outstanding(workspace, contract, source).todo:
            assert steps.ingest_one(workspace, contract, source, partition).version.verdict == "accepted"
        steps.curate_set(workspace, contract)


@pytest.fixture(scope="module")
def region(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Swift]:
    """The region that is switched off."""
    with available(), Swift(tmp_path_factory.mktemp("swift") / "north", "north-off") as swift:
        os.environ.update(swift.access.environment())
        yield swift


@pytest.fixture(scope="module")
def home(rgw: Access, west: Access, region: Swift, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("remote")
    made = sites_file(folder / "home", rgw, region.access, west)
    ingest(Workspace.open(made), folder / "in")
    return made


@pytest.fixture(scope="module")
def trained(home: Path, region: Swift) -> dict[str, Any]:
    """The run, through which the north went off for a while in the middle of a round."""
    (home.parent / "run.toml").write_text(RUN_TOML)
    process = start("train", home.parent / "run.toml", "--home", home, "--loader-log", home.parent / "log", "--json")
    store = Workspace.open(home).store("north")

    def in_the_middle() -> bool:
        try:
            beats = [store.get_json(key) for key, _ in store.list("runs") if "/leases/" in key]
        except CausewayError:
            return False
        return any(beat["round"] == 2 and 0 < beat["step"] < beat["steps"] for beat in beats)

    wait_for(in_the_middle, 240, f"the north never was in the middle of a round: {process.poll()}")
    region.stop()
    time.sleep(OFF_S)
    assert process.poll() is None
    region.start()
    out, said = process.communicate(timeout=300)
    assert process.returncode == 0, said[-4000:]
    found: dict[str, Any] = json.loads(out.strip().splitlines()[-1])
    return found


def test_each_thing_lies_in_the_store_that_may_hold_it(home: Path, trained: dict[str, Any]) -> None:
    workspace = Workspace.open(home)
    held = {name: [key for key, _ in workspace.store(name).list()] for name in ("home", "east", "north", "west")}
    tables = {"home": held["home"], "east": held["east"]}
    tables["west"] = [key for key, _ in workspace.tables_store("west").list()]
    for place, slugs in {"home": {"test--free", "test--se"}, "east": {"test--sg"}, "west": {"test--us"}}.items():
        assert {key.split("/")[1] for key in tables[place] if key.startswith("tables/")} == slugs
    assert not [key for name in ("north", "west") for key in held[name] if key.startswith(("tables/", "contracts/"))]
    for name, slug in {"north": "test--se", "west": "test--us", "east": "test--sg"}.items():
        assert any(key.startswith(f"shards/{slug}/") for key in held[name])
    # What is local: keys, the configuration, Prefect's database and what was read of the shards.
    local = {path.name for path in home.iterdir()}
    assert {"sites.toml", "keys", "cache"} <= local
    assert not {"home", "sites"} & local


def test_the_ledger_has_no_gap_and_is_what_the_loaders_handed_out(home: Path, trained: dict[str, Any]) -> None:
    workspace = Workspace.open(home)
    plan = read_plan(workspace.home, trained["run"])
    applied, counted = recount(home, plan, home.parent / "log", STEPS)
    assert applied == counted
    assert len(applied) == 3 * 4 * STEPS * plan.batch_windows


def test_the_chain_verifies_and_no_store_holds_what_it_may_not(home: Path, trained: dict[str, Any]) -> None:
    assert run_json("verify", trained["run"], "--home", home)["ok"] is True
    assert run_json("check", "--home", home)["violations_of_policy"] == 0


def test_it_is_evaluated_exported_and_traced_from_there(home: Path, trained: dict[str, Any], tmp_path: Path) -> None:
    figures = run_json("evaluate", trained["run"], "--home", home, "--max-bytes", "3000")
    assert set(figures["bits_per_byte_after"]) == {"test/free", "test/se", "test/sg", "test/us"}
    exported = run_json("export", trained["run"], "--home", home, "--to", tmp_path / "model")
    assert Path(exported["model"], "model.safetensors").is_file()
    workspace = Workspace.open(home)
    tables = workspace.tables(workspace.contract("test/us"))
    ids = tables.read_accepted(tables.version("day0"), ["record_id", "split"]).to_pylist()
    record = next(row["record_id"] for row in ids if row["split"] == "train")
    traced = trace_record(workspace, trained["run"], record)
    assert "held in us-west" in traced.where
    assert traced.rounds
    assert run_json("table", "export", "test/us", tmp_path / "us", "--home", home)
    status = run_json("status", "--home", home)
    assert {row["dataset"] for row in status["datasets"]} == {"test/free", "test/se", "test/sg", "test/us"}


@pytest.mark.long
def test_local_stores_and_the_same_keys_give_the_same_model(home: Path, trained: dict[str, Any]) -> None:
    twin = home.parent / "twin"
    shutil.copytree(home / "keys", twin / "keys")
    ingest(Workspace.open(twin), home.parent / "in")
    done = run_json("train", home.parent / "run.toml", "--home", twin)
    assert done["state"] == trained["state"]


@pytest.mark.parametrize("off", ["source", "target"])
def test_a_move_goes_on_when_the_region_it_reads_or_writes_was_off(
    off: str, home: Path, region: Swift, west: Access, tmp_path: Path
) -> None:
    """The move looks at sizes and sha256 alone, so a long file stands for a shard that takes its time."""
    workspace = Workspace.open(home)
    one = next(found for found in existing_manifests(workspace) if found.region.name == "eu-north")
    data = os.urandom(96 << 20)
    made = replace(one.manifest, arrow_sha256=sha256(data), arrow_bytes=len(data))
    stores = [Store.open(region.access.bucket("off")), Store.open(west.bucket("on"))]
    source, target = stores if off == "source" else reversed(stores)
    source.put(made.arrow_key, data)
    held = Held(one.region, (replace(one, store=source, key=made.key, manifest=made),))
    with ThreadPoolExecutor(1) as pool:
        moving = pool.submit(move, held, target, [replace(made, region="us-west")], tmp_path, lambda old, new: None)
        part = tmp_path / f"{made.arrow_sha256}.arrow"
        if off == "source":
            wait_for(lambda: part.with_name(f"{part.name}.part").exists(), 30, "nothing of the file came")
        else:
            wait_for(part.exists, 60, "the file was never ready to be sent")
            time.sleep(0.2)
        region.stop()
        assert not moving.done()
        time.sleep(5)
        assert not moving.done()
        region.start()
        assert moving.result(timeout=120) == len(data)
    target.get(made.arrow_key, made.arrow_sha256)
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_the_demo_runs_there_and_makes_the_model_that_it_makes_locally(
    demo: Demo, rgw: Access, north: Access, west: Access, tmp_path: Path
) -> None:
    home = sites_file(tmp_path / "home", rgw, north, west)
    shutil.copytree(demo.home / "keys", home / "keys")
    document = run_json("demo", "--quick", "--home", home, timeout=1500)
    assert document["chain_verified"] is True
    assert document["violations_of_policy"] == 0
    assert document["model_sha"] == demo.document["model_sha"]
    assert not (home / "home").exists()
