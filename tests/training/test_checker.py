from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa
import pytest

from data_contracts.canonical import canonical_json
from tests.training import ingested
from training import steps
from training.checker import UNKNOWN, Violation, check_policy
from training.rounds import contribution as contributions
from training.shards.manifest import Manifest, Split
from training.shards.sharding import existing_manifests
from training.shards.writer import UnitFacts, write_unit
from training.workspace import Workspace


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace with a plan: nothing is trained yet."""
    folder = tmp_path_factory.mktemp("made")
    workspace = ingested.make(folder)
    shards = ingested.shard(workspace)
    steps.plan_run(workspace, ingested.CONFIG, shards, 300)
    return folder / "home"


@pytest.fixture
def workspace(made: Path, tmp_path: Path) -> Workspace:
    shutil.copytree(made, tmp_path / "home")
    found = Workspace.open(tmp_path / "home")
    assert check_policy(found).violations == ()
    return found


def run_of(workspace: Workspace) -> str:
    (run,) = {key.split("/")[1] for key, _ in workspace.home.list("runs")}
    return run


def one(workspace: Workspace) -> Violation:
    (found,) = check_policy(workspace).violations
    return found


def write_rows(workspace: Workspace, like: Manifest, record_ids: list[str], split: Split) -> Manifest:
    """A shard of these records where and as `like` is, with a manifest that is whole."""
    texts = pa.array([f"text of {r}" for r in record_ids], pa.string())
    tokenizer = steps.tokenizers.load(workspace, like.tokenizer)[0]
    names = ("dataset", "partition", "ingest_id", "curation_id", "region", "terms_sha", "purpose")
    facts = UnitFacts(split=split, decision=("planted",), **{name: getattr(like, name) for name in names})
    rows = pa.record_batch({"record_id": pa.array(sorted(record_ids)), "text": texts})
    return write_unit(workspace.sites.region_store(like.region), [rows], tokenizer, facts)[0]


@pytest.mark.parametrize("kind", ["removed", "held-out", "unknown curation"])
def test_a_record_that_its_curation_took_out_is_a_violation(workspace: Workspace, kind: str) -> None:
    contract = workspace.contract("test/notes")
    tables = workspace.tables(contract)
    like = existing_manifests(workspace)[0].manifest
    (version,) = (v for v in tables.current().values() if v.ingest_id == like.ingest_id)
    if kind == "removed":
        log = tables.read_curation(like.curation_id).to_pylist()
        ids = [e["record_id"] for e in log if e["action"] == "remove" and e["ingest_id"] == like.ingest_id]
        rows = tables.read_accepted(version, ["record_id", "split"]).to_pylist()
        split = next(row["split"] for row in rows if row["record_id"] == ids[0])
        planted, says = write_rows(workspace, like, ids[:1], split), f"1 records are not curated {split} rows"
    elif kind == "held-out":
        rows = tables.read_accepted(version, ["record_id", "split"]).to_pylist()
        ids = [row["record_id"] for row in rows if row["split"] == "held-out"]
        planted, says = write_rows(workspace, like, ids, "train"), "records are not curated train rows"
    else:
        forged = Manifest(**{**like.document(), "curation_id": "0" * 64, "decision": ()})
        workspace.sites.region_store(like.region).create(forged.key, canonical_json(forged.document()))
        planted, says = forged, "no such object"
    found = one(workspace)
    assert found.object.endswith(planted.key)
    assert says in found.reasons[0]


def test_a_lost_curation_log_is_found(workspace: Workspace) -> None:
    tables = workspace.tables(workspace.contract("test/notes"))
    shutil.rmtree(tables.uri("curation"))
    found = check_policy(workspace).violations
    assert len(found) == len(existing_manifests(workspace))
    assert all("the curation log is damaged" in v.reasons[0] for v in found)


@pytest.mark.parametrize("kind", ["flipped byte", "changed manifest", "another site", "no file", "not json"])
def test_a_shard_that_is_not_what_its_manifest_says_is_one_violation(workspace: Workspace, kind: str) -> None:
    lying = next(o for o in existing_manifests(workspace) if o.region.name == "eu-north")
    store, key, arrow = lying.store, lying.key, lying.manifest.arrow_key
    says = {
        "flipped byte": "its Arrow file is damaged",
        "changed manifest": "its name is not that of its content",
        "another site": "its manifest says region ",
        "no file": "no such object",
        "not json": "not JSON",
    }[kind]
    if kind == "flipped byte":
        data = bytearray(store.get(arrow))
        data[len(data) // 2] ^= 1
        store.put(arrow, bytes(data))
    elif kind == "changed manifest":
        store.put(key, canonical_json({**json.loads(store.get(key)), "text_bytes": 1}))
    elif kind == "another site":
        workspace.store("east").put(key, store.get(key))
        workspace.store("east").put(arrow, store.get(arrow))
    elif kind == "no file":
        store.delete(arrow)
    else:
        store.put(key, b"{")
        store.delete(arrow)
    found = one(workspace)
    assert found.object.endswith(key)
    assert any(says in reason for reason in found.reasons)


STRAYS = (
    ("home", "notes.parquet"),
    ("home", "tables/rows.parquet"),
    ("home", "tables/test--notes/accepted/rows.arrow"),
    ("home", "tables/test--notes/rows.parquet"),
    ("home", "docs/test--notes/rows.csv"),
    ("home", "lineage/ingest/rows.parquet"),
    ("home", "datasets/test--notes/rows.json"),
    ("home", "tokenizers/words.parquet"),
    ("home", "runs/RUN/rows.parquet"),
    ("home", "runs/RUN/inputs/rows.parquet"),
    ("home", "runs/RUN/contributions/000001/east-x.json"),
    ("home", "evaluations/r/1/after/test--notes.parquet"),
    ("east", "shards/test--notes/0.arrow"),
    ("east", "shards/test--notes/0.parquet"),
    ("east", "runs/gone-01234567/leases/east.json"),
    ("east", "runs/RUN/plan.json"),
    ("east", "runs/RUN/telemetry/000001/rows.parquet"),
    ("east", "runs/RUN/contributions/000001/north-" + "0" * 64 + ".safetensors"),
    ("east", "evaluations/test--notes.parquet"),
    ("east", "terms/000002.json"),
    ("east", ".hidden/rows.parquet"),
)


@pytest.mark.parametrize(("place", "key"), STRAYS)
def test_an_object_that_nothing_speaks_for_is_one_violation(workspace: Workspace, place: str, key: str) -> None:
    key = key.replace("RUN", run_of(workspace))
    workspace.store(place).put(key, b"rows")
    assert one(workspace) == Violation(f"{workspace.store(place).url}/{key}", (UNKNOWN,))


def test_what_a_site_process_leaves_is_known(workspace: Workspace) -> None:
    run, store = run_of(workspace), workspace.store("east")
    for key in ("inner/east-000001.safetensors", "leases/east.json", "telemetry/000001/east.json"):
        store.put(f"runs/{run}/{key}", b"{}")
    store.put(f"runs/{run}/contributions/000001/east-{'0' * 64}.safetensors", b"its header was never written")
    store.put(f".{run}-east.lock", b"")
    store.put(f"evaluations/{run}/000001-400000/after/test--notes.parquet", b"")
    assert check_policy(workspace).violations == ()


def test_a_misplaced_table_folder_is_one_violation_whatever_is_in_it(workspace: Workspace) -> None:
    for name in ("tables", "contracts"):
        for key in ("accepted/a.parquet", "accepted/b.arrow"):
            workspace.store("west").put(f"{name}/test--unknown/{key}", b"rows")
    found = one(workspace)
    assert found.object == f"{workspace.store('west').url}/tables/test--unknown"
    assert found.reasons == ("test/unknown: no terms are in force for it.",)


@pytest.mark.parametrize("paper", ["[]", "{", '{"datasets": [{}]}', '{"datasets": 7}'])
def test_damaged_papers_are_a_violation_and_do_not_end_the_check(workspace: Workspace, paper: str) -> None:
    (key,) = (k for k, _ in workspace.home.list("tokenizers") if k.endswith(".lineage.json"))
    workspace.home.put(key, paper.encode())
    workspace.home.put("stray", b"")
    found = check_policy(workspace).violations
    assert [v.object.rsplit("/", 1)[1] for v in found] == [key.split("/")[1].replace(".lineage", ""), "stray"]
    assert "damaged" in found[0].reasons[0]


def test_a_damaged_plan_version_or_contribution_is_one_violation(workspace: Workspace) -> None:
    run = run_of(workspace)
    key = f"{contributions.folder(run, 1)}/east-{'0' * 64}.json"
    workspace.store("east").put(key, b'{"format": 1}')
    assert one(workspace).object.endswith(key)
    plan = workspace.home.get(f"runs/{run}/plan.json")
    workspace.home.put(f"runs/{run}/plan.json", b"{}")
    assert one(workspace).object.endswith(f"runs/{run}/plan.json")
    workspace.home.put(f"runs/{run}/plan.json", plan)
    workspace.store("east").delete(key)
    (version,) = (k for k, _ in workspace.home.list("datasets"))
    workspace.home.put(version, b"{}")
    assert version in one(workspace).reasons[0]


def test_updates_may_reach_the_sites_of_their_plan_and_are_not_asked_about_others(tmp_path: Path) -> None:
    terms = {"derivedUpdates": "restricted", "residency": {"storage": ["SE"], "processing": ["SE"]}}
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "sites.toml").write_text(SITES)
    workspace = Workspace.open(tmp_path / "home")
    ingested.ingest(workspace, tmp_path, ingested.contract_of(tmp_path, **terms))
    made = ingested.shard(workspace)
    config = ingested.CONFIG.model_copy(update={"sites": ["north"]})
    plan = steps.plan_run(workspace, config, made, 300)
    header = {
        "run": plan.run,
        "plan": plan.sha,
        "round": 1,
        "site": "north",
        "base": plan.sha,
        "base_state": plan.snapshot0,
        "terms_head": plan.terms_head,
        "claims": ((0, 0, 1),),
        "tokens": 5,
        "tokens_by_dataset": {"test/notes": 5},
        "steps": 1,
        "loss": 1.0,
        "inner": "new",
        "device": "cpu",
    }
    contribution = contributions.make(header, {}, "fp32", workspace.site_key("north"))
    contributions.publish(workspace.store("north"), contribution)
    assert check_policy(workspace).violations == ()
    # A site that the plan does not list changes nothing for its updates; the tokenizer is asked about every site.
    (tmp_path / "home" / "sites.toml").write_text(
        SITES + SITES.split("# north\n")[1].replace("north", "west").replace("SE", "US")
    )
    assert one(Workspace.open(tmp_path / "home")).object.split("/")[-2] == "tokenizers"


SITES = """format = 1
[home]
store = "home"
jurisdictions = ["SE"]
# north
[[site]]
name = "north"
region = "north"
jurisdictions = ["SE"]
store = "sites/north"
"""
