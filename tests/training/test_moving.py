from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from data_contracts.catalog.lineage_index import rebuild_index, walk_back
from data_contracts.catalog.store import Store
from data_contracts.errors import CausewayError, PolicyRefused, StoreError
from tests.stores import Access
from tests.training import ingested
from training import steps
from training.checker import check_policy
from training.shards.inventory import Held, existing_manifests, whole_units
from training.shards.manifest import Manifest
from training.shards.moving import arrived, move
from training.shards.writer import open_shard
from training.workspace import Workspace

SITES = """format = 2
[home]
store = "home"
jurisdictions = ["SE"]
[[site]]
name = "east"
region = "ap-southeast"
jurisdictions = ["SG"]
store = "sites/east"
tokens_per_s = {east}
[[site]]
name = "north"
region = "eu-north"
jurisdictions = ["SE"]
store = "sites/north"
tokens_per_s = {north}
{capacity}
[[link]]
from = "home"
to = "east"
cost_per_gb = 1.0
"""


def sites(folder: Path, east: float = 1.0, north: float = 1.0, capacity: str = "") -> None:
    (folder / "home" / "sites.toml").write_text(SITES.format(east=east, north=north, capacity=capacity))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three days of notes over two regions of the same speed."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "home").mkdir()
    sites(folder)
    ingested.make(folder)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "copy")
    return tmp_path / "copy"


def opened(folder: Path) -> Workspace:
    return Workspace.open(folder / "home")


def lying(workspace: Workspace, region: str) -> dict[str, Manifest]:
    return {one.key: one.manifest for one in existing_manifests(workspace) if one.region.name == region}


def arrows(workspace: Workspace, region: str) -> set[str]:
    return {key for key, _ in workspace.sites.region_store(region).list("shards") if key.endswith(".arrow")}


def test_a_slower_site_gives_shards_away_and_they_are_copied_not_tokenized(folder: Path) -> None:
    was = lying(opened(folder), "ap-southeast")
    sites(folder, east=0.01)
    workspace = opened(folder)
    done = ingested.shard(workspace)
    assert done.moved > 0
    assert done.written == done.moved
    assert done.removed == done.moved
    now = lying(workspace, "eu-north")
    moved = {m.arrow_sha256: m for m in was.values()}.keys() & {m.arrow_sha256 for m in now.values()}
    assert len(moved) == done.moved
    assert not {m.arrow_sha256 for m in lying(workspace, "ap-southeast").values()} & moved
    assert {m.region for m in now.values()} == {"eu-north"}
    for m in now.values():
        assert "residency.storage: eu-north lies in SE, and anywhere is permitted." in m.decision
        assert open_shard(workspace.store("north").path(m.arrow_key)).table.num_rows == m.records
    assert check_policy(workspace).violations == ()
    again = ingested.shard(workspace)
    assert (again.written, again.moved, again.removed) == (0, 0, 0)
    assert again.versions == done.versions


def test_a_move_is_in_the_lineage(folder: Path) -> None:
    was = lying(opened(folder), "ap-southeast")
    sites(folder, east=0.01)
    workspace = opened(folder)
    done = ingested.shard(workspace)
    old = {m.arrow_sha256: m for m in was.values()}
    new = next(m for m in done.manifests if m.region == "eu-north" and m.arrow_sha256 in old)
    index = workspace.root / "index.sqlite"
    rebuild_index([workspace.home], index)
    found = {node.node for node in walk_back(index, f"shard/{new.sha[:12]}") if node.depth == 1}
    assert f"shard/{old[new.arrow_sha256].sha[:12]}" in found


def test_what_a_run_names_stays_where_it_was(folder: Path) -> None:
    workspace = opened(folder)
    sets = steps.read_sets(workspace, ["test/notes"])
    record = steps.make_tokenizer(workspace, ingested.CONFIG, sets)
    planned = steps.plan_run(workspace, ingested.CONFIG, ingested.shard(workspace), record.tokenizer.vocab_size)
    was = lying(workspace, "ap-southeast")
    files = arrows(workspace, "ap-southeast")
    sites(folder, east=0.01)
    workspace = opened(folder)
    done = ingested.shard(workspace)
    assert done.moved > 0
    assert done.removed == 0
    assert lying(workspace, "ap-southeast") == was
    assert arrows(workspace, "ap-southeast") == files
    assert planned.run in workspace.home.folders("runs")


def test_a_new_partition_moves_nothing_and_tokenizes_itself_only(folder: Path) -> None:
    workspace = opened(folder)
    sets = steps.read_sets(workspace, ["test/notes"])
    tokenizer = steps.make_tokenizer(workspace, ingested.CONFIG, sets)
    (folder / "tokenizer.json").write_bytes(tokenizer.data)
    config = ingested.CONFIG.model_copy(update={"tokenizer": str(folder / "tokenizer.json")})
    before = {m.arrow_sha256: m.region for m in ingested.shard(workspace).manifests}
    stamps = {p: p.stat().st_mtime_ns for p in (folder / "home" / "sites").rglob("*.arrow")}
    ingested.write_lines(
        folder / "in" / "data" / "day3.jsonl", [{"key": f"3-{n}", "content": f"new {n}"} for n in range(9)]
    )
    contract = workspace.contract("test/notes")
    source = steps_source(workspace, folder)
    for partition in steps.outstanding(workspace, contract, source).todo:
        steps.ingest_one(workspace, contract, source, partition)
    steps.curate_set(workspace, contract)
    sets = steps.read_sets(workspace, ["test/notes"])
    done = steps.make_shards(workspace, config, sets, steps.make_tokenizer(workspace, config, sets))
    assert done.moved == 0
    new = {m.arrow_sha256 for m in done.manifests} - before.keys()
    assert {m.partition for m in done.manifests if m.arrow_sha256 in new} == {"day3"}
    assert {m.arrow_sha256: m.region for m in done.manifests if m.arrow_sha256 in before} == before
    # The others are admitted under the new curation; not a byte of theirs was written again.
    assert len({m.curation_id for m in done.manifests}) == 1
    assert {p: p.stat().st_mtime_ns for p in stamps} == stamps


def steps_source(workspace: Workspace, folder: Path) -> steps.Source:
    return ingested.open_source(workspace.contract("test/notes"), str(folder / "in" / "data"))


def test_too_little_room_is_named_and_nothing_is_written(folder: Path) -> None:
    only_north = ingested.contract_of(folder, residency={"storage": ["SE"], "processing": ["SE"]})
    ingested.ingest(opened(folder), folder, only_north)
    sites(folder, capacity="capacity_gb = 0.000001")
    workspace = opened(folder)
    sets = steps.read_sets(workspace, ["test/notes"])
    record = steps.make_tokenizer(workspace, ingested.CONFIG, sets)
    kept = {p: p.read_bytes() for p in (folder / "home" / "sites").rglob("*") if p.is_file()}
    with pytest.raises(
        CausewayError, match=r"there is no room for all shards; nothing is written:\n.*eu-north: capacity_gb"
    ):
        steps.make_shards(workspace, ingested.CONFIG, sets, record)
    assert {p: p.read_bytes() for p in (folder / "home" / "sites").rglob("*") if p.is_file()} == kept


def test_a_purpose_that_is_permitted_nowhere_is_refused_before_a_tokenizer_is_trained(folder: Path) -> None:
    workspace = opened(folder)
    strict = ingested.contract_of(folder, purposes={"permitted": ["evaluation"], "prohibited": []})
    ingested.ingest(workspace, folder, strict)
    files = {p for p in (folder / "home").rglob("*") if p.is_file()}
    sets = steps.read_sets(workspace, ["test/notes"])
    with pytest.raises(
        PolicyRefused, match=r"test/notes: no region may hold it for research pre-training:\n  ap-south"
    ):
        steps.make_tokenizer(workspace, ingested.CONFIG, sets)
    assert {p for p in (folder / "home").rglob("*") if p.is_file()} == files


def test_a_dry_run_writes_nothing_and_is_what_is_done_then(folder: Path) -> None:
    sites(folder, east=0.01)
    workspace = opened(folder)
    files = {p: p.stat().st_mtime_ns for p in (folder / "home").rglob("*") if p.is_file()}
    outlook = steps.dry_run(workspace, ingested.CONFIG)
    assert {p: p.stat().st_mtime_ns for p in (folder / "home").rglob("*") if p.is_file()} == files
    assert outlook.measured
    done = ingested.shard(workspace)
    assert done.placement == outlook.placement


def unit_of(workspace: Workspace, region: str) -> Held:
    found = (one for one in existing_manifests(workspace) if one.region.name == region)
    return whole_units(found)[0]


def as_of(held: Held, region: str) -> list[Manifest]:
    return [replace(m, region=region) for m in held.manifests]


def test_a_damaged_source_is_never_admitted(folder: Path) -> None:
    workspace = opened(folder)
    held = unit_of(workspace, "ap-southeast")
    path = held.shards[0].store.path(held.shards[0].arrow_key)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    target = workspace.sites.region_store("eu-north")
    before = list(target.list("shards"))
    with pytest.raises(StoreError, match="sha256"):
        move(held, target, as_of(held, "eu-north"), folder / "staging", lambda old, new: None)
    assert list(target.list("shards")) == before


def test_an_arrow_file_that_has_arrived_is_not_sent_again_and_a_damaged_one_is(folder: Path) -> None:
    workspace = opened(folder)
    held = unit_of(workspace, "ap-southeast")
    target, made = Store.open(folder / "elsewhere"), as_of(held, "eu-north")
    told: list[tuple[str, str]] = []
    sizes = sum(m.arrow_bytes for m in made)
    assert move(held, target, made, folder / "staging", lambda a, b: told.append((a.region, b.region))) == sizes
    assert told == [("ap-southeast", "eu-north")] * len(made)
    target.delete(made[0].key)
    assert move(held, target, made, folder / "staging", lambda a, b: None) == 0
    assert target.exists(made[0].key)
    target.path(made[0].arrow_key).write_bytes(b"x" * made[0].arrow_bytes)
    assert not arrived(target, made[0])
    assert move(held, target, made, folder / "staging", lambda a, b: None) == made[0].arrow_bytes
    assert arrived(target, made[0])


KILLED = """
import sys, time
from pathlib import Path
from tests.training import ingested
from training.shards import sharding
from training.workspace import Workspace
print("ready", flush=True)
ingested.shard(Workspace.open(Path(sys.argv[1])))
"""


@pytest.mark.parametrize("delay_s", [0.05, 0.3])
def test_a_sharding_that_is_killed_at_any_moment_ends_right_when_it_runs_again(folder: Path, delay_s: float) -> None:
    sites(folder, east=0.01)
    child = subprocess.Popen([sys.executable, "-c", KILLED, folder / "home"], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.readline()
    time.sleep(delay_s)
    os.kill(child.pid, signal.SIGKILL)
    child.wait()
    workspace = opened(folder)
    done = ingested.shard(workspace)
    assert check_policy(workspace).violations == ()
    assert {(m.region, m.key) for m in done.manifests} == {
        (one.region.name, one.key) for one in existing_manifests(workspace)
    }
    assert not list((workspace.root / "cache").rglob("*.arrow*"))


def test_a_unit_goes_from_one_object_store_to_another(folder: Path, north: Access, west: Access) -> None:
    workspace = opened(folder)
    held = unit_of(workspace, "ap-southeast")
    first, second = Store.open(north.bucket("first")), Store.open(west.bucket("second"))
    here = as_of(held, "eu-north")
    move(held, first, here, folder / "staging", lambda a, b: None)
    region = workspace.sites.region("eu-north")
    remote = Held(region, tuple(type(o)(region, first, m.key, m, True) for o, m in zip(held.shards, here, strict=True)))
    there = as_of(held, "us-west")
    # What had arrived of it before an interruption is kept.
    part = folder / "staging" / f"{there[0].arrow_sha256}.arrow.part"
    part.parent.mkdir(exist_ok=True)
    part.write_bytes(first.get(here[0].arrow_key)[:100])
    assert move(remote, second, there, folder / "staging", lambda a, b: None) == sum(m.arrow_bytes for m in there)
    assert not list((folder / "staging").iterdir())
    for m in there:
        second.get(m.arrow_key, m.arrow_sha256)
        assert second.get_json(m.key, m.sha)["region"] == "us-west"
    assert move(remote, second, there, folder / "staging", lambda a, b: None) == 0
