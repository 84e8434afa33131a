"""The quick demo, from outside: what it says, what it leaves, and that a second one makes nothing."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.acceptance.conftest import Demo, run, run_json
from training.shards.writer import open_shard
from training.tracing import trace_record
from training.workspace import Workspace

pytestmark = pytest.mark.acceptance
DATASETS = {"software/python-source", "software/package-docs", "legal/licence-texts"}


def test_the_demo_says_what_it_did_in_one_object(demo: Demo) -> None:
    d = demo.document
    for name in ("records_accepted", "records_quarantined", "records_deduplicated", "partitions", "shards", "tokens"):
        assert d[name] > 0, name
    assert d["sites"] == 3
    assert d["rounds"] > 1
    assert d["bytes_between_sites"] > 0
    assert d["seconds"] > 0
    assert d["chain_verified"] is True
    assert d["violations_of_policy"] == 0
    assert Path(d["report"]).is_file()
    assert Path(d["model"], "model.safetensors").is_file()


def test_the_model_is_better_than_a_unigram_on_every_data_set(demo: Demo) -> None:
    d = demo.document
    for which in ("before", "after", "unigram"):
        assert set(d[f"bits_per_byte_{which}"]) == DATASETS
    for dataset in DATASETS:
        assert d["bits_per_byte_after"][dataset] < d["bits_per_byte_unigram"][dataset] < 8
        assert d["bits_per_byte_after"][dataset] < d["bits_per_byte_before"][dataset]


def test_restricted_data_lies_only_where_its_terms_permit(demo: Demo) -> None:
    placed = demo.document["tokens_placed"]
    assert set(placed["legal/licence-texts"]) == {"eu-north"}
    assert set(placed["software/python-source"]) <= {"eu-north", "us-west"}
    for site in ("east", "west"):
        assert not list(demo.home.glob(f"sites/{site}/shards/legal--licence-texts/*"))


def test_great_expectations_agreed_and_left_its_pages(demo: Demo) -> None:
    folder = demo.home / "home" / "docs" / "software--package-docs"
    (agreement,) = folder.glob("agreement-*.json")
    found = json.loads(agreement.read_text())
    assert found["differences"] == []
    assert found["verdicts"]["licence.allowed"] > 0
    assert (folder / "index.html").is_file()


def test_the_report_is_one_file_that_needs_no_network(demo: Demo) -> None:
    page = Path(demo.document["report"]).read_text()
    assert not re.search(r'(src|href)="(https?:)?//', page)
    assert page.count("<svg") >= 5
    for name in DATASETS:
        assert name in page


def test_plain_transformers_loads_the_export_and_continues_a_prompt(demo: Demo) -> None:
    code = (
        "import sys\n"
        "from transformers import AutoModelForCausalLM, AutoTokenizer\n"
        "model = AutoModelForCausalLM.from_pretrained(sys.argv[1])\n"
        "tokenizer = AutoTokenizer.from_pretrained(sys.argv[1])\n"
        "ids = tokenizer('def main(', return_tensors='pt')\n"
        "out = model.generate(**ids, max_new_tokens=8, do_sample=False)\n"
        "print(tokenizer.decode(out[0]))\n"
        "assert out.shape[1] == ids['input_ids'].shape[1] + 8\n"
    )
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, demo.document["model"]], capture_output=True, text=True, env=environment, cwd="/"
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.startswith("def main(")


def test_lineage_walks_from_the_model_back_to_source_files(demo: Demo) -> None:
    found = run_json("lineage", "show", demo.run, "--home", demo.home)
    d = demo.document
    assert found["source_files"] > 500
    assert found["counts"]["contribution"] == d["sites"] * d["rounds"]
    assert found["counts"]["version"] == len(DATASETS)
    assert found["counts"]["shard"] == d["shards"]


def test_a_record_names_the_rounds_that_trained_on_it(demo: Demo) -> None:
    shards = sorted(demo.home.glob("sites/north/shards/legal--licence-texts/*.arrow"), key=lambda p: -p.stat().st_size)
    records = [r for path in shards for r in open_shard(path).record_ids]
    workspace = Workspace.open(demo.home)
    used = next(r for r in records if trace_record(workspace, demo.run, r).rounds)
    found = run_json("lineage", "record", used, "--run", demo.run, "--home", demo.home)
    assert found["rounds"]
    assert all(1 <= n <= demo.document["rounds"] for n in found["rounds"])
    assert all(t["dataset"] == "legal/licence-texts" and t["site"] == "north" for t in found["trained"])


def test_a_second_demo_makes_nothing_and_says_so(demo: Demo) -> None:
    done = run("demo", "--quick", "--home", demo.home)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "0 of" in done.stdout
    assert re.search(r"This time: 0 of \d+ partitions ingested, 0 of \d+ shards written", done.stdout), done.stdout
    assert "chain verified, 0 violations" in done.stdout


def test_status_shows_data_sets_shards_and_runs(demo: Demo) -> None:
    found = run_json("status", "--home", demo.home)
    assert {d["dataset"] for d in found["datasets"]} == DATASETS
    assert all(site["shards"] > 0 and site["region"] for site in found["shards"])
    assert [(r["run"], r["state"]) for r in found["runs"]] == [(demo.run, "finished")]
    assert all(d["freshness"]["words"].startswith("fresh") for d in found["datasets"])
    # Which packages are installed decides whether a letter is refused as a whole; nothing else may need a person.
    assert {need["kind"] for need in found["needs"]} <= {"partition-refused"}
