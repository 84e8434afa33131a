from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from data_contracts.catalog.terms_chain import put_terms
from data_contracts.errors import DataRefused, PolicyRefused
from tests.training import ingested
from training import steps
from training.shards.manifest import Manifest
from training.shards.rows import curated_rows
from training.shards.sharding import drop_forbidden, existing_manifests, plan_placement
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
    lying = next(one for one in existing_manifests(workspace) if one.site.name == "north")
    for key in (lying.key, lying.manifest.arrow_key):
        workspace.store("east").put(key, lying.store.get(key))
        lying.store.delete(key)
    copied = next(one for one in existing_manifests(workspace) if one.key == lying.key)
    assert (copied.site.name, copied.whole) == ("east", False)
    assert lying.key not in {m.key for m in ingested.shard(workspace).manifests if m.region == copied.site.region}


def test_shards_that_may_no_longer_lie_there_go_and_so_do_files_without_a_manifest(folder: Path) -> None:
    workspace = opened(folder)
    was = {site.name: list(workspace.store(site.name).list("shards")) for site in workspace.sites.sites}
    assert all(was.values())
    north = next(one for one in existing_manifests(workspace) if one.site.name == "north")
    # A shard of north that lies in east is judged by where it lies.
    for key in (north.key, north.manifest.arrow_key):
        workspace.store("east").put(key, north.store.get(key))
    workspace.store("west").put("shards/test--notes/orphan.arrow", b"left by a writer that died")
    workspace.store("north").put("shards/test--notes/orphan.arrow", b"left by a writer that died")
    workspace.store("north").put("shards/test--other/orphan.arrow", b"not of these data sets")
    ingested.ingest(workspace, folder, ingested.contract_of(folder, **ONLY_SWEDEN))
    dropped = drop_forbidden(workspace, steps.read_sets(workspace, ["test/notes"]))
    assert list(workspace.store("east").list("shards")) == list(workspace.store("west").list("shards")) == []
    kept = {key for key, _ in workspace.store("north").list("shards")}
    assert kept == {key for key, _ in was["north"]} | {"shards/test--other/orphan.arrow"}
    assert dropped == (len(was["east"]) + len(was["west"])) // 2 + 3


def test_other_terms_in_force_than_the_contracts_stop_everything_before_anything_is_written(folder: Path) -> None:
    workspace = opened(folder)
    sets = steps.read_sets(workspace, ["test/notes"])
    record = steps.make_tokenizer(workspace, ingested.CONFIG, sets)
    put_terms(workspace.home, "test/notes", ingested.contract_of(folder, **ONLY_SWEDEN).terms, workspace.owner)
    before = objects(workspace)
    purpose = ingested.CONFIG.purpose
    for act in (
        lambda: plan_placement(workspace, sets, steps.Purpose.parse(purpose)),
        lambda: steps.make_shards(workspace, ingested.CONFIG, sets, record),
        lambda: drop_forbidden(workspace, sets),
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
