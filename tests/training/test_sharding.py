from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from data_contracts.catalog.terms_chain import put_terms
from data_contracts.errors import DataRefused, PolicyRefused
from tests.training import ingested
from training import steps
from training.shards.manifest import Manifest
from training.shards.removing import remove_forbidden
from training.shards.rows import curated_rows
from training.shards.sharding import existing_manifests, look_ahead
from training.workspace import Workspace

ONLY_SWEDEN = {"residency": {"storage": ["SE"], "processing": ["SE"]}}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    ingested.make(folder)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made, tmp_path / "copy")
    return tmp_path / "copy"


def opened(folder: Path) -> Workspace:
    return Workspace.open(folder / "home")


def arrow_of(workspace: Workspace, manifest: Manifest) -> Path:
    return workspace.sites.region_store(manifest.region).path(manifest.arrow_key)


def objects(workspace: Workspace) -> dict[tuple[str, str], bytes]:
    return {
        (site.name, key): workspace.store(site.name).get(key)
        for site in workspace.sites.sites
        for key, _ in workspace.store(site.name).list("shards")
    }


def test_sharding_again_writes_nothing_and_a_lost_arrow_file_is_made_again(folder: Path) -> None:
    workspace = opened(folder)
    before = objects(workspace)
    assert ingested.shard(workspace).written == 0
    manifest = existing_manifests(workspace)[0].manifest
    arrow_of(workspace, manifest).unlink()
    again = ingested.shard(workspace)
    assert again.written == 1
    assert objects(workspace) == before


def test_a_damaged_arrow_file_is_written_again(folder: Path) -> None:
    workspace = opened(folder)
    before = objects(workspace)
    lying = existing_manifests(workspace)[0]
    arrow_of(workspace, lying.manifest).write_bytes(b"cut")
    lying.store.delete(lying.key)
    assert ingested.shard(workspace).written == 1
    assert objects(workspace) == before


def test_a_manifest_that_was_copied_to_another_site_is_not_used(folder: Path) -> None:
    workspace = opened(folder)
    lying = next(one for one in existing_manifests(workspace) if one.region.name == "eu-north")
    for key in (lying.key, lying.manifest.arrow_key):
        workspace.store("east").put(key, lying.store.get(key))
        lying.store.delete(key)
    copied = next(one for one in existing_manifests(workspace) if one.key == lying.key)
    assert (copied.region.name, copied.whole) == ("ap-southeast", False)
    assert lying.key not in {m.key for m in ingested.shard(workspace).manifests if m.region == copied.region.name}


def test_shards_that_may_no_longer_lie_there_go_at_once_and_on_record(folder: Path) -> None:
    workspace = opened(folder)
    was = {site.name: list(workspace.store(site.name).list("shards")) for site in workspace.sites.sites}
    assert all(was.values())
    north = next(one for one in existing_manifests(workspace) if one.region.name == "eu-north")
    # A shard of north that lies in east is judged by where it lies.
    for key in (north.key, north.manifest.arrow_key):
        workspace.store("east").put(key, north.store.get(key))
    workspace.store("west").put("shards/test--notes/orphan.arrow", b"left by a writer that died")
    workspace.store("east").put("shards/test--other/orphan.arrow", b"not of this data set")
    ingested.ingest(workspace, folder, ingested.contract_of(folder, **ONLY_SWEDEN))
    assert list(workspace.store("west").list("shards")) == []
    assert [key for key, _ in workspace.store("east").list("shards")] == ["shards/test--other/orphan.arrow"]
    assert list(workspace.store("north").list("shards")) == was["north"]
    record = workspace.home.get_json("removals/000001.json")
    assert record["terms_head"] == workspace.terms().sha
    assert len(record["objects"]) == (len(was["east"]) + len(was["west"])) // 2 + 2
    west = next(o for o in record["objects"] if o["region"] == "us-west" and o["split"])
    assert west["reasons"][0] == "residency.storage: us-west lies in US, and only SE is permitted."
    assert west["bytes"] > 0
    assert remove_forbidden(workspace, ["test/notes"]) == ()
    assert [key for key, _ in workspace.home.list("removals")] == ["removals/000001.json"]


def test_files_that_no_manifest_names_go(folder: Path) -> None:
    workspace = opened(folder)
    before = objects(workspace)
    workspace.store("north").put("shards/test--notes/orphan.arrow", b"left by a writer that died")
    workspace.store("north").put("shards/test--other/orphan.arrow", b"not of these data sets")
    assert ingested.shard(workspace).removed == 1
    assert objects(workspace).keys() - before.keys() == {("north", "shards/test--other/orphan.arrow")}


def test_other_terms_in_force_than_the_contracts_stop_everything_before_anything_is_written(folder: Path) -> None:
    workspace = opened(folder)
    sets = steps.read_sets(workspace, ["test/notes"])
    record = steps.make_tokenizer(workspace, ingested.CONFIG, sets)
    put_terms(workspace.home, "test/notes", ingested.contract_of(folder, **ONLY_SWEDEN).terms, workspace.owner)
    before = objects(workspace)
    purpose = steps.Purpose.parse(ingested.CONFIG.purpose)
    for act in (
        lambda: look_ahead(workspace, sets, purpose, record.tokenizer),
        lambda: steps.make_shards(workspace, ingested.CONFIG, sets, record),
        lambda: steps.make_tokenizer(workspace, ingested.CONFIG, sets),
    ):
        with pytest.raises(PolicyRefused, match="test/notes: the terms in force are not those of the contract"):
            act()
    assert objects(workspace) == before


def test_a_lost_curation_log_never_undoes_what_it_did(folder: Path) -> None:
    workspace = opened(folder)
    contract = workspace.contract("test/notes")
    tables = workspace.tables(contract)
    assert not any("ann@" in text for text in ingested.texts_of(curated_rows(contract, tables)))
    shutil.rmtree(tables.uri("curation"))
    with pytest.raises(DataRefused, match="the curation log is damaged.*0 redacted, 0 removed.*restore the table"):
        curated_rows(contract, tables)
