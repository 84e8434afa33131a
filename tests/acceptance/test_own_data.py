"""The same parts on a user's data: medquad (XML) and the FOMC minutes (one text file a meeting, CC BY-NC)."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.acceptance.conftest import run, run_json

# In .ci/run the tutorial stands for it.
pytestmark = [pytest.mark.acceptance, pytest.mark.long]
LIBRARY = Path(__file__).parents[2] / "data_contracts" / "library"

RUN_TOML = """
name = "clinic-and-bank"
purpose = "{purpose}"
tokenizer = 512
tokenizer_sample_bytes = 400000
datasets = ["healthcare/medquad", "finance/fomc-minutes"]
window = 128
rounds = 2
steps = 4
snapshot_every = 1
[model]
hidden_size = 32
layers = 1
heads = 2
intermediate_size = 64
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.acceptance.conftest import SHARED

    if not SHARED.exists():
        pytest.skip("the shared data sets are not here")
    home = tmp_path_factory.mktemp("own") / "home"
    medquad = run_json("ingest", LIBRARY / "healthcare-medquad.yaml", SHARED / "healthcare/medquad", "--home", home)
    assert (medquad["rows_in"], medquad["accepted"], medquad["quarantined"]) == (2713, 1921, 792)
    minutes = home.parent / "minutes"
    minutes.mkdir()
    for path in (SHARED / "finance/fomc_minutes").glob("202[123]*.txt"):
        shutil.copy(path, minutes)
    fomc = run_json("ingest", LIBRARY / "finance-fomc-minutes.yaml", minutes, "--home", home)
    # 20231213.txt is truncated to 8,697 bytes: its partition is refused, the others are not disturbed.
    assert (fomc["accepted"], fomc["quarantined"]) == (len(list(minutes.iterdir())) - 1, 1)
    run_json("curate", "--home", home)
    return home


def write(folder: Path, purpose: str) -> Path:
    path = folder / "run.toml"
    path.write_text(RUN_TOML.format(purpose=purpose))
    return path


def test_commercial_training_on_non_commercial_minutes_is_refused_with_the_clause(home: Path, tmp_path: Path) -> None:
    done = run("shard", write(tmp_path, "commercial pre-training"), "--home", home)
    assert done.returncode == 2
    assert "finance/fomc-minutes" in done.stderr
    assert "purposes.prohibited" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(home.glob("sites/*/shards/**/*.arrow"))


def test_research_training_on_both_runs_verifies_and_evaluates(home: Path, tmp_path: Path) -> None:
    trained = run_json("train", write(tmp_path, "research pre-training"), "--home", home)
    assert trained["rounds"] == 2
    figures = run_json("evaluate", trained["run"], "--home", home, "--max-bytes", "30000")
    assert set(figures["bits_per_byte_after"]) == {"healthcare/medquad", "finance/fomc-minutes"}
    verified = run_json("verify", trained["run"], "--home", home)
    assert verified["ok"] is True
    checked = run_json("check", "--home", home)
    assert checked["violations_of_policy"] == 0
    exported = run_json("export", trained["run"], "--home", home, "--to", tmp_path / "model")
    assert Path(exported["model"], "model.safetensors").is_file()


def test_quarantine_names_rule_file_and_record(home: Path) -> None:
    found = run_json("quarantine", "healthcare/medquad", "--home", home)
    assert sum(reason["rows"] for reason in found.values()) >= 792
    assert any(".xml" in example for reason in found.values() for example in reason["examples"])


def test_a_missing_source_is_a_clear_error_and_changes_nothing(home: Path, tmp_path: Path) -> None:
    before = run_json("status", "--home", home)
    done = run("ingest", LIBRARY / "healthcare-medquad.yaml", tmp_path / "nowhere", "--home", home)
    assert done.returncode == 2
    assert "nowhere" in done.stderr
    assert "Traceback" not in done.stderr
    assert run_json("status", "--home", home) == before
