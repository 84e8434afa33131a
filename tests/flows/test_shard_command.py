from __future__ import annotations

import json
from pathlib import Path

import pytest

from flows.commands.shard import shard
from tests.training import ingested
from training.workspace import Workspace

SITES = """format = 2
[home]
store = "home"
jurisdictions = ["SE"]
[[site]]
name = "north"
region = "eu-north"
jurisdictions = ["SE"]
store = "sites/north"
tokens_per_s = 10
[[site]]
name = "west"
region = "us-west"
jurisdictions = ["US"]
store = "sites/west"
tokens_per_s = 10
[[link]]
from = "home"
to = "west"
mbit_s = 0.008
rtt_ms = 0
cost_per_gb = 1e9
"""
RUN = """name = "small"
purpose = "{purpose}"
tokenizer = 300
datasets = ["test/notes"]
window = 16
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Notes that were taken in and curated, not sharded."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "home").mkdir()
    (folder / "home" / "sites.toml").write_text(SITES)
    ingested.ingest(Workspace.open(folder / "home"), folder, ingested.contract_of(folder))
    return folder / "home"


def run_file(folder: Path, purpose: str) -> Path:
    path = folder / "run.toml"
    path.write_text(RUN.format(purpose=purpose))
    return path


def test_a_dry_run_says_what_goes_where_over_which_link_and_for_how_much(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {p for p in home.rglob("*") if p.is_file()}
    assert shard(run_file(tmp_path, "research pre-training"), dry_run=True, home=home, json=True) == 0
    found = json.loads(capsys.readouterr().out)
    assert {p for p in home.rglob("*") if p.is_file()} == files
    assert {(a["split"], a["region"], a["allowed"]) for a in found["may_go"]} == {
        (split, region, True) for split in ("train", "held-out") for region in ("eu-north", "us-west")
    }
    assert {g["how"] for g in found["goes"]} == {"is written"}
    west = next(g for g in found["goes"] if g["region"] == "us-west" and g["split"] == "train")
    assert west["source"] == "home"
    # 0.008 Mbit/s are 1,000 bytes a second; 1e9 a GB is 1 a byte.
    assert west["seconds"] == pytest.approx(west["bytes_moved"] / 1000)
    assert west["cost"] == pytest.approx(west["bytes_moved"])
    # The dear link carries only what makes the run end sooner.
    assert all(g["split"] == "train" for g in found["goes"] if g["region"] == "us-west")
    assert found["finish_s"] == max(r["finish_s"] for r in found["regions"])
    assert not found["tokens_measured"]


def test_a_dry_run_names_the_clause_that_keeps_a_data_set_out_of_each_region_and_exits_1(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shard(run_file(tmp_path, "research fine-tuning"), dry_run=True, home=home) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "purposes.permitted: 'research fine-tuning' falls under none of: evaluation, pre-training." in said.replace(
        "pre-training, evaluation", "evaluation, pre-training"
    )
    assert "/train may go nowhere: eu-north:" in said
    assert "Nothing has been written." in said
