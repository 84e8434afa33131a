from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ruamel.yaml import YAML
from safetensors import safe_open

from data_contracts.canonical import sha256
from data_contracts.errors import CausewayError
from training.export import CardDataset, CardEvaluation, ModelCard, export_model
from training.model import ModelSpec, build, initial_parameters, load_parameters, parameters_of
from training.tokenizer import load_tokenizer, train_tokenizer

torch.set_num_threads(1)
TEXTS = [f"def area_{i}(width, height):\n    return width * height + {i}  # å\n" for i in range(40)]
TOKENIZER = train_tokenizer(iter(TEXTS), 300)
SPEC = ModelSpec(vocab_size=300, hidden_size=32, layers=2, heads=2, intermediate_size=48, window=32)
PARAMETERS = {name: array * np.float32(5) for name, array in initial_parameters(SPEC, 4).items()}
CARD = ModelCard(
    name="industry-small",
    purpose="commercial pre-training",
    run_id="demo-7",
    round_number=12,
    model_sha="ab" * 32,
    datasets=(
        CardDataset("software/python-source", "12" * 32, "mixed: MIT, Apache-2.0", "each file's authors", 1200, 345678),
        CardDataset("law/opinions", "34" * 32, "CC0-1.0", None, 7, 890),
    ),
    evaluations=(CardEvaluation("software/python-source", 55, 2.34567, 0.0123, 3.21),),
)
PROMPT = "def area_3(width"

# What a user without Causeway runs; it says what it imported.
READER = """
import json, sys
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
torch.set_num_threads(1)
folder, prompt = sys.argv[1:]
tokenizer = AutoTokenizer.from_pretrained(folder)
model, report = AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
given = tokenizer(prompt, return_tensors="pt")
with torch.no_grad():
    logits = model(given["input_ids"]).logits[0]
longer = model.generate(**given, max_new_tokens=8, do_sample=False)[0]
floors = ("training", "data_contracts", "flows")
print(json.dumps({
    "ids": given["input_ids"][0].tolist(), "logits": logits.tolist(), "continued": longer.tolist(),
    "text": tokenizer.decode(longer), "missing": sorted(report["missing_keys"]),
    "unexpected": sorted(report["unexpected_keys"]), "end": tokenizer.eos_token_id,
    "special": tokenizer("<|endoftext|>a")["input_ids"][0], "dtype": str(model.dtype),
    "ours": sorted(m for m in sys.modules if m.split(".")[0] in floors),
}))
"""


def test_plain_transformers_loads_it_offline_gives_our_logits_and_continues_a_prompt(tmp_path: Path) -> None:
    export_model(tmp_path / "model", SPEC, PARAMETERS, TOKENIZER, CARD)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "empty")}
    command = [sys.executable, "-c", READER, str(tmp_path / "model"), PROMPT]
    run = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert run.returncode == 0, run.stderr
    read = json.loads(run.stdout)
    (ids,) = load_tokenizer(TOKENIZER).encode_batch([PROMPT])
    model = build(SPEC, 0).eval()
    load_parameters(model, PARAMETERS)
    with torch.no_grad():
        ours = model(input_ids=torch.tensor([ids.tolist()])).logits[0].numpy()
    assert read["ids"] == ids.tolist()
    assert np.array_equal(np.array(read["logits"], dtype=np.float32), ours)
    assert read["continued"][: len(ids)] == ids.tolist() and len(read["continued"]) > len(ids)
    assert read["text"].startswith(PROMPT)
    assert (read["missing"], read["unexpected"], read["ours"]) == ([], [], [])
    assert (read["end"], read["special"], read["dtype"]) == (0, 0, "torch.float32")


def test_the_files_are_listed_with_their_hashes_and_nothing_else_is_left(tmp_path: Path) -> None:
    files = export_model(tmp_path / "model", SPEC, PARAMETERS, TOKENIZER, CARD)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    found = {path.name: sha256(path.read_bytes()) for path in (tmp_path / "model").iterdir()}
    assert {file.name: file.sha for file in files} == found
    assert sorted(found) == [
        "README.md",
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ]


def test_the_same_model_is_exported_to_the_same_bytes(tmp_path: Path) -> None:
    shuffled = dict(reversed(list(PARAMETERS.items())))
    assert export_model(tmp_path / "a", SPEC, PARAMETERS, TOKENIZER, CARD) == export_model(
        tmp_path / "b", SPEC, shuffled, TOKENIZER, CARD
    )


def test_the_weights_are_a_safetensors_file_that_says_pt_and_holds_tied_weights_once(tmp_path: Path) -> None:
    export_model(tmp_path / "model", SPEC, parameters_of(build(SPEC, 1)), TOKENIZER, CARD)
    with safe_open(tmp_path / "model" / "model.safetensors", "np") as weights:
        assert weights.metadata() == {"format": "pt"}
        assert sorted(weights.keys()) == sorted(PARAMETERS)


def test_the_tokenizer_is_the_very_one_that_was_trained(tmp_path: Path) -> None:
    export_model(tmp_path / "model", SPEC, PARAMETERS, TOKENIZER, CARD)
    assert (tmp_path / "model" / "tokenizer.json").read_bytes() == TOKENIZER


def test_the_card_names_data_licences_attributions_purpose_figures_and_the_way_back(tmp_path: Path) -> None:
    export_model(tmp_path / "model", SPEC, PARAMETERS, TOKENIZER, CARD)
    text = (tmp_path / "model" / "README.md").read_text()
    _, front, body = text.split("---\n", 2)
    assert YAML(typ="safe").load(front)["library_name"] == "transformers"
    for expected in (
        "| software/python-source | 121212121212 | mixed: MIT, Apache-2.0 | each file's authors | 1,200 | 345,678 |",
        "| law/opinions | 343434343434 | CC0-1.0 | none asked for | 7 | 890 |",
        "| software/python-source | 55 | 2.3457 ± 0.0123 | 3.2100 |",
        "Trained for commercial pre-training",
        "run: `demo-7`, round 12",
        "ab" * 32,
        load_tokenizer(TOKENIZER).sha,
        "causeway lineage show demo-7@12 --files",
    ):
        assert expected in body


def test_text_from_a_contract_cannot_break_the_cards_tables_or_its_front_matter(tmp_path: Path) -> None:
    nasty = replace(CARD.datasets[0], attribution="a | b\n\n# c <script>", licence="x\n---\nlicense: mit")
    card = replace(CARD, datasets=(nasty,), licence="x\n---\nlicense: mit", evaluations=())
    export_model(tmp_path / "model", SPEC, PARAMETERS, TOKENIZER, card)
    text = (tmp_path / "model" / "README.md").read_text()
    front, body = text.removeprefix("---\n").split("\n---\n", 1)
    assert YAML(typ="safe").load(front)["license"] == "other"
    assert "| a \\| b \\# c \\<script\\> |" in body
    assert "Not evaluated." in body


def test_a_place_that_is_taken_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "mine").write_text("mine")
    with pytest.raises(CausewayError, match="already"):
        export_model(tmp_path / "model", SPEC, PARAMETERS, TOKENIZER, CARD)
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["mine"]


def test_a_failure_half_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CausewayError, match="No space left"):
        export_model(tmp_path / "model", SPEC, PARAMETERS, TOKENIZER, CARD)
    assert list(tmp_path.iterdir()) == []


def test_parameters_or_a_tokenizer_of_another_model_are_refused(tmp_path: Path) -> None:
    fewer = {name: array for name, array in PARAMETERS.items() if name != "model.norm.weight"}
    with pytest.raises(CausewayError, match="model.norm.weight"):
        export_model(tmp_path / "model", SPEC, fewer, TOKENIZER, CARD)
    larger = train_tokenizer(iter(TEXTS), 310)
    with pytest.raises(CausewayError, match="310 tokens, the model 300"):
        export_model(tmp_path / "model", SPEC, PARAMETERS, larger, CARD)
    assert list(tmp_path.iterdir()) == []
