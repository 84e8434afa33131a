"""A small workspace, taken as far as its shards: for tests of what reads or writes them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from data_contracts.contract import Contract
from data_contracts.sources import open_source
from tests.data_contracts.making import make_contract, write_lines
from training import steps
from training.planning import ModelConfig, RunConfig
from training.shards.rows import CuratedRows
from training.shards.sharding import Sharded
from training.tokenizer import Tokenizer
from training.workspace import Workspace

READER = {"format": "jsonl", "partition": {"from": "path", "pattern": r"([^/]+)\.jsonl$"}}
TERMS = {"purposes": {"permitted": ["pre-training", "evaluation"], "prohibited": []}, "pii": {"email": "redact"}}
CONFIG = RunConfig(
    name="small",
    purpose="research pre-training",
    tokenizer=300,
    datasets=["test/notes"],
    model=ModelConfig(hidden_size=16, layers=1, heads=2, intermediate_size=24),
    window=16,
    steps=4,
    rounds=1,
)


def contract_of(folder: Path, **terms: Any) -> Contract:
    return make_contract(folder / "in", reader=READER, terms={**TERMS, **terms})


def ingest(workspace: Workspace, folder: Path, contract: Contract) -> None:
    """Three days of notes; each has one note twice and one e-mail address."""
    for day in range(3):
        rows = [{"key": f"{day}-{n}", "content": f"day {day}: note {n} of {n * day} words, kept"} for n in range(8)]
        rows.append({"key": f"{day}-mail", "content": f"day {day}: write to ann@example.org"})
        rows += [{"key": f"{day}-{n}-again", "content": rows[n]["content"]} for n in range(3)]
        write_lines(folder / "in" / "data" / f"day{day}.jsonl", rows)
    source = open_source(contract, str(folder / "in" / "data"))
    steps.admit(workspace, contract, str(folder / "in" / "data"))
    for partition in steps.outstanding(workspace, contract, source).todo:
        steps.ingest_one(workspace, contract, source, partition)
    steps.curate_set(workspace, contract)


def shard(workspace: Workspace) -> Sharded:
    sets = steps.read_sets(workspace, CONFIG.datasets)
    return steps.make_shards(workspace, CONFIG, sets, steps.make_tokenizer(workspace, CONFIG, sets))


def tokenizer_of(workspace: Workspace, sha: str) -> Tokenizer:
    return steps.tokenizers.load(workspace, sha)[0]


def texts_of(rows: CuratedRows) -> list[str]:
    batches = [batch for unit in rows.units for batch in rows.batches(unit.partition, unit.split)]
    return [text for batch in batches for text in batch.column("text").to_pylist()]


def make(folder: Path) -> Workspace:
    workspace = Workspace.open(folder / "home")
    ingest(workspace, folder, contract_of(folder))
    shard(workspace)
    return workspace
