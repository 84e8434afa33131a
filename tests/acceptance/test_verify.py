"""`causeway verify` and `causeway check`: one byte flipped, one object misplaced, and it is named."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.acceptance.conftest import Demo, run
from training.checker import check_policy
from training.verify import verify_run
from training.workspace import Workspace

pytestmark = pytest.mark.acceptance

KINDS = {
    "contribution header": "sites/east/runs/*/contributions/000002/*.json",
    "contribution payload": "sites/east/runs/*/contributions/000002/*.safetensors",
    "committed input": "home/runs/*/inputs/*.safetensors",
    "shard": "sites/north/shards/legal--licence-texts/*.arrow",
    "manifest": "sites/west/shards/software--python-source/*.json",
    "commit": "home/runs/*/commits/000003.json",
    "snapshot": "home/runs/*/snapshots/000002/*.safetensors",
    "data set version": "home/datasets/software--package-docs/*.json",
    "tokenizer": "home/tokenizers/*[0-9a-f].json",
    "terms": "home/terms/000001.json",
}


@pytest.mark.parametrize("kind", KINDS)
def test_one_flipped_byte_is_found_and_its_object_named(copied: Path, demo: Demo, kind: str) -> None:
    victim = sorted(p for p in copied.glob(KINDS[kind]) if "lineage" not in p.name)[0]
    data = bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    found = verify_run(Workspace.open(copied), demo.run)
    assert not found.ok
    assert any(victim.name in problem for problem in found.problems), found.problems


def test_a_flipped_plan_cannot_be_verified(copied: Path, demo: Demo) -> None:
    plan = copied / "home" / "runs" / demo.run / "plan.json"
    text = plan.read_text()
    plan.write_text(text.replace('"rounds":', '"round5":', 1))
    done = run("verify", demo.run, "--home", copied)
    assert done.returncode != 0
    assert "plan.json" in done.stderr


def test_verify_exits_0_on_a_whole_run_and_1_on_a_damaged_one(copied: Path, demo: Demo) -> None:
    whole = run("verify", demo.run, "--home", copied)
    assert whole.returncode == 0, whole.stdout
    assert demo.document["model_sha"] in whole.stdout
    victim = next(copied.glob("home/runs/*/commits/000001.json"))
    victim.unlink()
    broken = run("verify", demo.run, "--home", copied)
    assert broken.returncode == 1
    assert "000001.json" in broken.stdout


def test_a_planted_shard_is_one_violation(copied: Path, demo: Demo) -> None:
    assert check_policy(Workspace.open(copied)).violations == ()
    manifest = sorted(copied.glob("sites/north/shards/legal--licence-texts/*.json"))[0]
    import json

    arrow = manifest.with_name(json.loads(manifest.read_text())["arrow_sha256"] + ".arrow")
    target = copied / "sites" / "east" / "shards" / "legal--licence-texts"
    target.mkdir(parents=True)
    shutil.copy(manifest, target)
    shutil.copy(arrow, target)
    done = run("check", "--home", copied)
    assert done.returncode == 1
    assert "1 violations of policy" in done.stdout
    assert "east" in done.stdout
    assert "residency.storage" in done.stdout


def test_a_planted_table_is_one_violation(copied: Path) -> None:
    shutil.copytree(
        copied / "home" / "tables" / "legal--licence-texts", copied / "sites/west/tables/legal--licence-texts"
    )
    found = check_policy(Workspace.open(copied)).violations
    assert len(found) == 1
    assert "sites/west/tables/legal--licence-texts" in found[0].object


def test_a_tokenizer_without_papers_is_one_violation(copied: Path) -> None:
    (papers,) = (copied / "home" / "tokenizers").glob("*.lineage.json")
    papers.unlink()
    found = check_policy(Workspace.open(copied)).violations
    assert [v.object.endswith(papers.name.replace(".lineage", "")) for v in found] == [True]
