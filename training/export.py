"""A Hugging Face directory of a model, with its papers: plain `transformers` loads it without Causeway.

The directory appears whole or not at all: it is written under a temporary name beside its place and renamed.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from data_contracts.canonical import sha256
from data_contracts.errors import CausewayError
from training.model import ModelSpec, config_of, count_parameters, parameter_shapes
from training.tokenizer import END_ID, END_OF_TEXT, load_tokenizer


@dataclass(frozen=True)
class CardDataset:
    """One data set that the model was trained on, as its card names it; counts are of what was trained on."""

    name: str
    version_sha: str
    licence: str
    attribution: str | None
    records: int
    tokens: int


@dataclass(frozen=True)
class CardEvaluation:
    """One row of the card's table: held-out bits per byte of the model and of the unigram baseline."""

    dataset: str
    documents: int
    bits_per_byte: float
    standard_error: float | None
    baseline_bits_per_byte: float


@dataclass(frozen=True)
class ModelCard:
    """What the model card says; `model_sha` is the result sha of the commit of `round_number`."""

    name: str
    purpose: str
    run_id: str
    round_number: int
    model_sha: str
    datasets: tuple[CardDataset, ...]
    evaluations: tuple[CardEvaluation, ...]
    licence: str | None = None


@dataclass(frozen=True)
class ExportedFile:
    """A file of the export and the SHA-256 of its bytes."""

    name: str
    sha: str


def export_model(
    directory: Path,
    spec: ModelSpec,
    parameters: Mapping[str, NDArray[np.float32]],
    tokenizer_json: bytes,
    card: ModelCard,
) -> list[ExportedFile]:
    """Write the model, its tokenizer and its card to a new directory; return the files sorted by name.

    Raises:
        CausewayError: something is at `directory` already, or parameters, tokenizer and spec do not belong together.
    """
    if directory.exists():
        raise CausewayError(f"{directory}: something is there already; export to another place or move it away")
    shapes = {name: array.shape for name, array in parameters.items()}
    if shapes != parameter_shapes(spec):
        wrong = sorted(name for name, shape in parameter_shapes(spec).items() if shapes.get(name) != shape)
        wrong += sorted(shapes.keys() - parameter_shapes(spec).keys())
        raise CausewayError(f"export of {card.run_id}: parameter {wrong[0]} is not of the plan's model")
    tokenizer = load_tokenizer(tokenizer_json)
    if tokenizer.vocab_size > spec.vocab_size:
        raise CausewayError(
            f"export of {card.run_id}: the tokenizer has {tokenizer.vocab_size} tokens, the model {spec.vocab_size}; "
            "give the tokenizer that the plan names"
        )
    arrays = {name: np.ascontiguousarray(array, dtype=np.float32) for name, array in sorted(parameters.items())}
    files = {
        # transformers refuses weights whose metadata does not say which framework's layout they have.
        "model.safetensors": save(arrays, metadata={"format": "pt"}),
        "config.json": config_of(spec).to_json_string(use_diff=True).encode("utf-8"),
        "generation_config.json": _json({"bos_token_id": END_ID, "eos_token_id": END_ID, "pad_token_id": END_ID}),
        "tokenizer.json": tokenizer_json,
        "tokenizer_config.json": _json(_tokenizer_config(spec)),
        "README.md": _readme(spec, card, tokenizer.sha).encode("utf-8"),
    }
    try:
        _publish(directory, files)
    except OSError as error:
        raise CausewayError(f"{directory}: cannot be written: {error}; nothing was left there") from error
    return [ExportedFile(name, sha256(data)) for name, data in sorted(files.items())]


def kind_of(spec: ModelSpec) -> str:
    """Return the kind of a model as transformers names it."""
    return str(spec.config["model_type"]) if spec.config else spec.architecture


def _publish(directory: Path, files: Mapping[str, bytes]) -> None:
    directory.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        for name, data in files.items():
            with (draft / name).open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
        draft.chmod(0o755)  # mkdtemp makes it private
        draft.rename(directory)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _json(value: Mapping[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True) + "\n").encode("utf-8")


def _tokenizer_config(spec: ModelSpec) -> dict[str, Any]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "pad_token": END_OF_TEXT,
        "clean_up_tokenization_spaces": False,
        "model_max_length": spec.window,
    }


def _readme(spec: ModelSpec, card: ModelCard, tokenizer_sha: str) -> str:
    licences = sorted({dataset.licence for dataset in card.datasets})
    licence = card.licence or "see-training-data"
    front = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "license": "other",
        "license_name": licence.lower(),
        "license_link": "README.md",
        "tags": ["causeway", kind_of(spec)],
    }
    data_rows = [
        [d.name, d.version_sha[:12], d.licence, d.attribution or "none asked for", f"{d.records:,}", f"{d.tokens:,}"]
        for d in sorted(card.datasets, key=lambda d: d.name)
    ]
    score_rows = [
        [
            e.dataset,
            f"{e.documents:,}",
            f"{e.bits_per_byte:.4f}" + ("" if e.standard_error is None else f" ± {e.standard_error:.4f}"),
            f"{e.baseline_bits_per_byte:.4f}",
        ]
        for e in sorted(card.evaluations, key=lambda e: e.dataset)
    ]
    scores = _table(["data set", "documents", "bits per byte", "unigram baseline"], score_rows)
    # A JSON value is a YAML value, and its quoting keeps names from contracts inside their own line.
    lines = [f"{key}: {json.dumps(value)}" for key, value in front.items()]
    return "\n".join(
        [
            "---",
            *lines,
            "---",
            "",
            f"# {_cell(card.name)}",
            "",
            f"A {kind_of(spec)} language model trained by Causeway across data centers.",
            "",
            f"{count_parameters(spec):,} parameters, {spec.vocab_size:,} tokens, windows of {spec.window:,} tokens.",
            "",
            "## Purpose",
            "",
            f"Trained for {_cell(card.purpose)}: every data set below permits it. Another use may not be permitted.",
            "",
            "## Training data",
            "",
            *_table(["data set", "version", "licence", "attribution", "records", "tokens"], data_rows),
            "",
            f"Licences of the data: {_cell(', '.join(licences)) or 'none'}. Licence of the model: {_cell(licence)}.",
            "",
            "## Evaluation",
            "",
            "Held-out text that no training shard holds; bits per UTF-8 byte, lower is better, ± one standard error.",
            "",
            *(scores if score_rows else ["Not evaluated."]),
            "",
            "## Use",
            "",
            "```python",
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            'tokenizer = AutoTokenizer.from_pretrained(".")',
            'model = AutoModelForCausalLM.from_pretrained(".")',
            f'prompt = tokenizer("{END_OF_TEXT}" + "The first words", return_tensors="pt")',
            "print(tokenizer.decode(model.generate(**prompt, max_new_tokens=40)[0]))",
            "```",
            "",
            f"`{END_OF_TEXT}` in front begins a new document; without it the model goes on in the middle of one.",
            "",
            "## Lineage",
            "",
            f"- run: `{_code(card.run_id)}`, round {card.round_number}",
            f"- result sha256 in the run's chain of commits: `{_code(card.model_sha)}`",
            f"- tokenizer sha256: `{tokenizer_sha}`",
            "",
            "With the run's home store at hand, this walks back to every source file that went in:",
            "",
            "```",
            f"causeway lineage show {_code(card.run_id)}@{card.round_number} --files",
            "```",
            "",
        ]
    )


def _table(head: list[str], rows: list[list[str]]) -> list[str]:
    body = [head, ["---"] * len(head), *([_cell(value) for value in row] for row in rows)]
    return [f"| {' | '.join(row)} |" for row in body]


def _cell(text: str) -> str:
    """One line of Markdown in which text from a contract is only text."""
    flat = " ".join(text.split())
    for mark in "\\|`*_[]<>#":
        flat = flat.replace(mark, f"\\{mark}")
    return flat


def _code(text: str) -> str:
    return " ".join(text.split()).replace("`", "'")
