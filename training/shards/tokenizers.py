"""A tokenizer has lineage too: it is trained on data sets whose terms let derivatives leave, or it is brought along."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.canonical import canonical_json, document_sha
from data_contracts.errors import CausewayError, PolicyRefused
from data_contracts.policy import Purpose, decide, decide_derived
from training.shards.rows import CuratedRows, terms_in_force
from training.tokenizer import Tokenizer, load_tokenizer, train_tokenizer
from training.workspace import Workspace, today

FORMAT = 1


@dataclass(frozen=True)
class TokenizerRecord:
    """A tokenizer in the home store, what it was trained on, and what was left out and why."""

    tokenizer: Tokenizer
    data: bytes
    document: dict[str, Any]
    new: bool


def tokenizer_key(sha: str) -> str:
    """Key of a tokenizer.json in the home store."""
    return f"tokenizers/{sha}.json"


def lineage_key(sha: str) -> str:
    """Key of a tokenizer's papers."""
    return f"tokenizers/{sha}.lineage.json"


def load(workspace: Workspace, sha: str) -> tuple[Tokenizer, bytes]:
    """Return a tokenizer of the home store by its hash."""
    data = workspace.home.get(tokenizer_key(sha), sha)
    return load_tokenizer(data), data


def read_file(path: Path) -> tuple[Tokenizer, bytes]:
    """Return the tokenizer of a tokenizer.json, and its bytes.

    Raises:
        CausewayError: the file cannot be read or is not a tokenizer.
    """
    try:
        data = path.read_bytes()
        return load_tokenizer(data), data
    except OSError as error:
        raise CausewayError(f"{path}: cannot be read: {error.strerror}") from error


def bring(workspace: Workspace, path: Path) -> TokenizerRecord:
    """Take in a tokenizer.json that was made elsewhere.

    Raises:
        CausewayError: the file cannot be read or is not a tokenizer.
    """
    tokenizer, data = read_file(path)
    document = {"format": FORMAT, "tokenizer": tokenizer.sha, "brought": path.name, "datasets": [], "left_out": {}}
    return _keep(workspace, tokenizer, data, document)


def train(
    workspace: Workspace, sets: Sequence[CuratedRows], purpose: Purpose, vocab_size: int, sample_bytes: int
) -> TokenizerRecord:
    """Train a byte-level BPE tokenizer on the training split of the data sets that permit it.

    Each data set gives its records in the order of their ids, up to an equal part of `sample_bytes` UTF-8 bytes: the
    sample follows from the data alone. The same inputs have been trained once before: then that tokenizer is returned.

    Raises:
        PolicyRefused: no data set lets derivatives leave, or the terms in force are not those of a data set's contract.
    """
    recipe = _recipe(workspace, sets, purpose, vocab_size, sample_bytes)
    known = _known(workspace, recipe.key)
    if known is not None:
        return known
    used, in_force = recipe.used, terms_in_force(workspace.terms(), sets)
    texts: list[str] = []
    facts = []
    for one in used:
        rows = _sample(one, sample_bytes // len(used))
        texts += rows.column("text").to_pylist()
        facts.append(
            {
                "dataset": one.contract.id,
                "curation_id": one.curation_id,
                "terms_sha": in_force[one.contract.id].sha,
                "records": rows.num_rows,
                "text_bytes": pc.sum(pc.binary_length(rows.column("text"))).as_py() or 0,
                "last_record": rows.column("record_id")[-1].as_py() if rows.num_rows else None,
            }
        )
    data = train_tokenizer(iter(texts), vocab_size)
    tokenizer = load_tokenizer(data)
    document = {**recipe.asked_for, "tokenizer": tokenizer.sha, "datasets": facts, "left_out": recipe.left_out}
    record = _keep(workspace, tokenizer, data, document)
    workspace.home.ensure_json(recipe.key, {"format": FORMAT, "tokenizer": tokenizer.sha})
    return record


def trained_before(
    workspace: Workspace, sets: Sequence[CuratedRows], purpose: Purpose, vocab_size: int, sample_bytes: int
) -> TokenizerRecord | None:
    """Return the tokenizer that `train` would return without training one, or None; nothing is written.

    Raises:
        PolicyRefused: as `train`.
    """
    return _known(workspace, _recipe(workspace, sets, purpose, vocab_size, sample_bytes).key)


@dataclass(frozen=True)
class _Recipe:
    asked_for: dict[str, Any]
    used: list[CuratedRows]
    left_out: dict[str, list[str]]

    @property
    def key(self) -> str:
        return f"tokenizers/recipes/{document_sha(self.asked_for)}.json"


def _known(workspace: Workspace, recipe: str) -> TokenizerRecord | None:
    if not workspace.home.exists(recipe):
        return None
    sha = workspace.home.get_json(recipe)["tokenizer"]
    tokenizer, data = load(workspace, sha)
    return TokenizerRecord(tokenizer, data, workspace.home.get_json(lineage_key(sha)), False)


def _recipe(
    workspace: Workspace, sets: Sequence[CuratedRows], purpose: Purpose, vocab_size: int, sample_bytes: int
) -> _Recipe:
    in_force = terms_in_force(workspace.terms(), sets)
    places = [s.place for s in workspace.sites.sites]
    used, left_out = [], {}
    for one in sorted(sets, key=lambda s: s.contract.id):
        terms = in_force[one.contract.id]
        here = workspace.table_place(one.contract).place
        asked = [
            decide_derived(terms, workspace.sites.home.place, places, today()),
            decide(terms, purpose, here, today(), action="process"),
        ]
        refusals = [r for d in asked if not d.allowed for r in d.reasons]
        if refusals:
            left_out[one.contract.id] = refusals
        else:
            used.append(one)
    if not used:
        why = "\n".join(f"  {name}: {' '.join(r)}" for name, r in left_out.items())
        raise PolicyRefused(f"no data set may train a tokenizer; bring one along with tokenizer = PATH:\n{why}")
    asked_for = {
        "format": FORMAT,
        "algorithm": "byte-level-bpe-1",
        "vocab_size": vocab_size,
        "sample_bytes": sample_bytes,
        "purpose": str(purpose),
        "datasets": [{"dataset": s.contract.id, "curation_id": s.curation_id} for s in used],
    }
    return _Recipe(asked_for, used, left_out)


def _sample(one: CuratedRows, limit_bytes: int) -> pa.Table:
    """Return the training records of least id, up to the one whose text reaches the limit; little more is held."""
    schema = pa.schema([("record_id", pa.string()), ("text", pa.string())])
    sample = [schema.empty_table()]
    last, held = "", 0
    for unit in (u for u in one.units if u.split == "train"):
        for batch in one.batches(unit.partition, unit.split):
            # Later batches of a unit have higher ids: nothing of them can enter a full sample.
            if last and batch.column("record_id")[0].as_py() > last:
                break
            sample.append(pa.Table.from_batches([batch.select(schema.names)]))
            held += batch.nbytes
            if held > limit_bytes:
                sample, held = [_least(sample, limit_bytes)], 0
                full = (pc.sum(pc.binary_length(sample[0].column("text"))).as_py() or 0) >= limit_bytes
                last = sample[0].column("record_id")[-1].as_py() if full and sample[0].num_rows else ""
    return _least(sample, limit_bytes)


def _least(parts: list[pa.Table], limit_bytes: int) -> pa.Table:
    rows = pa.concat_tables(parts).sort_by("record_id")
    sizes = np.cumsum(pc.binary_length(rows.column("text")).to_numpy(), dtype=np.int64)
    before = sizes - pc.binary_length(rows.column("text")).to_numpy()
    return rows.slice(0, int(np.searchsorted(before, limit_bytes, side="left"))).combine_chunks()


def _keep(workspace: Workspace, tokenizer: Tokenizer, data: bytes, document: dict[str, Any]) -> TokenizerRecord:
    new = workspace.home.ensure(tokenizer_key(tokenizer.sha), data)
    if not workspace.home.exists(lineage_key(tokenizer.sha)):
        workspace.home.ensure(lineage_key(tokenizer.sha), canonical_json(document))
    return TokenizerRecord(tokenizer, data, workspace.home.get_json(lineage_key(tokenizer.sha)), new)
