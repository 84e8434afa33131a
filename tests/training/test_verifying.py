"""`causeway shards verify`: what each kind of damage is called, and that nothing else is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.canonical import canonical_json
from data_contracts.catalog.terms_chain import put_terms
from data_contracts.errors import CausewayError
from flows.commands import shards as commands
from tests.training import ingested
from training.shards import audit
from training.shards.curated_ids import CuratedIds
from training.shards.manifest import BLOCK_BYTES, Manifest
from training.shards.sharding import existing_manifests
from training.shards.verifying import ShardVerdict, verify_shards
from training.shards.writer import UnitFacts, hashes, open_shard, write_unit
from training.workspace import Workspace


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    ingested.make(folder)
    return folder


@pytest.fixture
def workspace(made: Path, tmp_path: Path) -> Workspace:
    shutil.copytree(made, tmp_path / "copy")
    return Workspace.open(tmp_path / "copy" / "home")


def wrong(workspace: Workspace) -> list[ShardVerdict]:
    return [verdict for verdict in verify_shards(workspace) if verdict.problems]


def north(workspace: Workspace) -> Manifest:
    manifests = [o.manifest for o in existing_manifests(workspace)]
    return next(m for m in manifests if (m.region, m.split) == ("eu-north", "train"))


def rewrite(workspace: Workspace, old: Manifest, **changes: object) -> Manifest:
    """The manifest with other content, under the name of that content, in the place of the old one."""
    store = workspace.sites.region_store(old.region)
    new = replace(old, **changes)  # type: ignore[arg-type]
    store.delete(old.key)
    store.create(new.key, canonical_json(new.document()))
    return new


def test_shards_as_they_were_written_are_what_they_should_be(workspace: Workspace) -> None:
    said: list[tuple[int, int]] = []
    verdicts = list(verify_shards(workspace, workers=3, progress=lambda done, total: said.append((done, total))))
    assert len(verdicts) == len(existing_manifests(workspace)) > 3
    assert all(v.problems == () for v in verdicts)
    assert {v.region for v in verdicts} == {r.name for r in workspace.sites.regions}
    size = sum(v.arrow_bytes for v in verdicts)
    assert said[-1] == (size, size)


def test_regions_and_data_sets_are_chosen_by_name(workspace: Workspace) -> None:
    assert {v.region for v in verify_shards(workspace, ["eu-north"])} == {"eu-north"}
    assert list(verify_shards(workspace, datasets=["test/other"])) == []
    assert {v.dataset for v in verify_shards(workspace, datasets=["test/notes"])} == {"test/notes"}
    with pytest.raises(CausewayError, match="no region 'north' in sites.toml; it has: .*eu-north"):
        list(verify_shards(workspace, ["north"]))


@pytest.mark.parametrize("kind", ["flipped", "cut", "longer", "missing", "plain"])
def test_a_damaged_file_is_named(workspace: Workspace, kind: str) -> None:
    m = north(workspace)
    path = workspace.sites.region_store(m.region).path(m.arrow_key)
    data = bytearray(path.read_bytes())
    path.unlink()
    says = "damaged: sha256 is"
    if kind == "flipped":
        data[m.token_offset] ^= 1
        says = f"1 of {len(m.blocks)} blocks differ, within bytes 0 to {min(BLOCK_BYTES, m.arrow_bytes)}"
    if kind == "missing":
        says = "no such object"
    else:
        path.write_bytes({"cut": data[:-9], "longer": data + b"x", "flipped": data, "plain": b""}[kind])
    (found,) = wrong(workspace)
    assert found.key == m.key
    assert len(found.problems) == 1
    assert says in found.problems[0]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"tokens": 3}, "its manifest says tokens 3, its file has"),
        ({"records": 99}, "its manifest says records 99"),
        ({"text_bytes": 1}, "its manifest says text_bytes 1"),
        ({"token_offset": 8}, "its manifest says token_offset 8"),
        ({"loss_mask": True, "mask_offset": 8}, "its manifest says loss_mask True"),
        ({"token_dtype": "uint32"}, "its manifest says token_dtype uint32"),
        ({"arrow_bytes": 1}, "its manifest says 1 bytes"),
        ({"blocks": ()}, ""),
        ({"region": "us-west"}, "its manifest says region us-west, and it lies in eu-north"),
        ({"ingest_id": "0" * 64}, "its partition version 000000000000 is not in the tables"),
        ({"curation_id": "0" * 64}, "no such object"),
        ({"dataset": "test/other"}, "no terms are in force"),
        ({"parts": 2}, "of the 2 shards of its unit only number 0 is there"),
        ({"purpose": "commercial fine-tuning"}, "fine-tuning"),
        ({"purpose": "to have it"}, "to have it"),
    ],
    ids=str,
)
def test_a_manifest_that_says_something_else_than_its_file_or_the_tables_is_named(
    workspace: Workspace, change: dict[str, object], says: str
) -> None:
    m = north(workspace)
    moved = rewrite(workspace, m, **change)
    if moved.folder != m.folder:
        store = workspace.sites.region_store(m.region)
        store.put(moved.arrow_key, store.get(m.arrow_key))
    found = wrong(workspace)
    if not says:
        assert found == []
    else:
        assert [v.key for v in found] == [moved.key]
        assert any(says in problem for problem in found[0].problems), found


def test_a_false_block_hash_is_named(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    m = north(workspace)
    moved = rewrite(workspace, m, blocks=("0" * 64, *m.blocks[1:]))
    # Every block is drawn, in place of one in so many.
    monkeypatch.setattr(audit, "_BLOCK_SAMPLE", 1)
    (found,) = wrong(workspace)
    assert found.key == moved.key
    assert "other bytes for block 0" in found.problems[0]


def test_a_manifest_that_is_no_manifest_is_named(workspace: Workspace) -> None:
    workspace.sites.region_store("eu-north").put("shards/test--notes/0.json", b"[]")
    (found,) = wrong(workspace)
    assert (found.key, found.dataset) == ("shards/test--notes/0.json", "test/notes")
    assert "not a shard manifest" in found.problems[0]


def test_terms_that_became_stricter_are_those_that_count(workspace: Workspace) -> None:
    contract = workspace.contract("test/notes")
    stricter = replace(contract.terms, storage=("SE",), processing=("SE",))
    put_terms(workspace.home, "test/notes", stricter, workspace.owner)
    found = wrong(workspace)
    assert {v.region for v in found} == {"ap-southeast", "us-west"}
    assert all("residency" in v.problems[0] for v in found)


def parts_of(workspace: Workspace, like: Manifest, ids: list[str]) -> list[Manifest]:
    """The unit of `like` once more, of these records, in shards of one record each."""
    facts = UnitFacts(**{name: getattr(like, name) for name in UnitFacts.__dataclass_fields__})
    store = workspace.sites.region_store(like.region)
    store.delete(like.key)
    store.delete(like.arrow_key)
    batch = pa.record_batch({"record_id": pa.array(ids), "text": pa.array([f"text of {one}" for one in ids])})
    tokenizer = ingested.tokenizer_of(workspace, like.tokenizer)
    return write_unit(store, [batch], tokenizer, facts, shard_tokens=1)


def test_the_records_of_a_unit_are_compared_over_all_its_shards(workspace: Workspace) -> None:
    m = next(o.manifest for o in existing_manifests(workspace) if o.manifest.records > 1)
    store = workspace.sites.region_store(m.region)
    ids = sorted(open_shard(store.path(m.arrow_key)).record_ids)
    whole = parts_of(workspace, m, ids)
    assert len(whole) == len(ids)
    assert wrong(workspace) == []
    # One part is gone.
    kept = store.get(whole[1].key)
    store.delete(whole[1].key)
    assert "of the" in wrong(workspace)[0].problems[0]
    store.put(whole[1].key, kept)
    assert wrong(workspace) == []


@pytest.mark.parametrize("kind", ["missing", "stranger", "exchanged"])
def test_strangers_are_named_and_missing_rows_are_counted(workspace: Workspace, kind: str) -> None:
    m = next(o.manifest for o in existing_manifests(workspace) if o.manifest.records > 2)
    ids = sorted(open_shard(workspace.sites.region_store(m.region).path(m.arrow_key)).record_ids)
    given_ids = {
        "missing": ids[1:],
        "stranger": sorted([*ids, "f" * 32]),
        "exchanged": sorted([*ids[1:], "e" * 32]),
    }[kind]
    parts_of(workspace, m, given_ids)
    problems = [problem for v in wrong(workspace) for problem in v.problems]
    stranger = "1 records are not curated train rows, the first" if m.split == "train" else "1 records are not curated"
    assert any(stranger in p for p in problems) == (kind != "missing")
    counted = f"{len(ids)} {m.split} rows are curated, and its unit has {len(ids) - 1} of them"
    assert any(counted in p for p in problems) == (kind != "stranger")


IDS = st.lists(st.text(alphabet="0123456789abcdef", min_size=32, max_size=32), max_size=30, unique=True)


@settings(deadline=None, max_examples=25)
@given(IDS, IDS, st.integers(0, 30), st.randoms())
def test_sums_are_equal_for_equal_sets_and_no_others(a: list[str], b: list[str], cut: int, random: object) -> None:
    ids = CuratedIds(None)  # type: ignore[arg-type]
    shuffled = a[::-1]
    parts = [ids.sum_of(pa.array(part, pa.string())) for part in (shuffled[:cut], shuffled[cut:])]
    assert ids.add(parts) == ids.sum_of(pa.array(a, pa.string()))
    assert (ids.sum_of(pa.array(a, pa.string())) == ids.sum_of(pa.array(b, pa.string()))) == (set(a) == set(b))
    # Ids of any other form count too.
    other = pa.array([f"{one}-" for one in a], pa.string())
    assert ids.sum_of(other).count == len(a)


def test_the_commands_say_what_lies_where_and_exit_1_when_something_is_wrong(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    home = workspace.root
    assert commands.list_(home=home, json=True) == 0
    rows = json.loads(capsys.readouterr().out)
    assert sum(row["shards"] for row in rows) == len(existing_manifests(workspace))
    assert {(row["data set"], row["split"]) for row in rows} == {("test/notes", "train"), ("test/notes", "held-out")}
    assert commands.list_("test/notes", region=("eu-north",), home=home) == 0
    assert "eu-north" in capsys.readouterr().out
    assert commands.verify(home=home, json=True) == 0
    assert json.loads(capsys.readouterr().out)["wrong"] == 0
    m = north(workspace)
    workspace.sites.region_store(m.region).delete(m.arrow_key)
    assert commands.verify(home=home) == 1
    assert f"eu-north/{m.key}" in capsys.readouterr().out
    assert commands.verify(home=home, json=True, region=("eu-north",)) == 1
    facts = json.loads(capsys.readouterr().out)
    assert (facts["wrong"], facts["problems"][0]["key"]) == (1, m.key)


def test_hashes_of_a_file_are_those_of_its_blocks(tmp_path: Path) -> None:
    def pieces() -> Iterator[bytes]:
        yield b"a" * BLOCK_BYTES
        yield b"b" * 5

    (tmp_path / "f").write_bytes(b"".join(pieces()))
    import hashlib

    whole, blocks = hashes(tmp_path / "f")
    assert whole == hashlib.sha256(b"".join(pieces())).hexdigest()
    assert blocks == tuple(hashlib.sha256(p).hexdigest() for p in pieces())
