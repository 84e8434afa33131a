"""Text for the sharding benchmark: generated, the same every time, with the letters and words of a language's shape."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from data_contracts.contract import Contract, load_contract
from data_contracts.sources import open_source
from training import steps
from training.shards.rows import CuratedRows, curated_rows
from training.tokenizer import train_tokenizer
from training.workspace import Workspace

DATASET = "bench/notes"
_SOUNDS = (
    *("ta", "ro", "mi", "ken", "lo", "su", "pra", "del", "von", "ix", "er", "ing", "tion", "al", "be", "ment", "st"),
    *("ou", "gra", "ne", "fi", "co", "dis", "un", "ly", "ster", "wa", "ha"),
)
_ENDS = [".", ".", ".", "?", ";", ", and so", ".\n\n"]


def texts(size: int, seed: int = 1) -> Iterator[str]:
    """Yield documents of 500 to 5,000 characters, `size` bytes in all: words by Zipf's law, sentences, numbers."""
    draw = random.Random(seed)
    words = ["".join(draw.choices(_SOUNDS, k=1 + min(3, int(draw.expovariate(0.8))))) for _ in range(30_000)]
    weights = [1 / (rank + 2) for rank in range(len(words))]
    cumulative = [sum(weights[:1])]
    for weight in weights[1:]:
        cumulative.append(cumulative[-1] + weight)
    made = 0
    while made < size:
        sentences = []
        for _ in range(draw.randint(6, 60)):
            said = draw.choices(words, cum_weights=cumulative, k=draw.randint(4, 22))
            if draw.random() < 0.2:
                said.append(str(draw.randint(1, 99_999)))
            sentences.append(" ".join(said).capitalize() + draw.choice(_ENDS))
        text = " ".join(sentences)
        made += len(text)
        yield text


def tokenizer_json() -> bytes:
    """Train the benchmark's tokenizer: byte-level BPE of 8,192 tokens."""
    return train_tokenizer(texts(600_000, seed=2), 8192)


def make_set(
    folder: Path,
    contents: Iterator[str],
    curate: bool = True,
    *,
    sites: str = "",
    partitions: int = 1,
    held_out: float = 0.0,
) -> Workspace:
    """Ingest and curate documents into a new home folder, with this sites.toml (none: the one that is shipped).

    Without `curate` the curation is recorded as one that removes and redacts nothing, which is what it would find.
    """
    data = folder / "in"
    data.mkdir(parents=True)
    rows = list(contents)
    for k in range(partitions):
        mine, name = range(k, len(rows), partitions), f"day{k}" if k else "day"
        table = pa.table({"key": [f"{n:09d}" for n in mine], "content": [rows[n] for n in mine]})
        pq.write_table(table, data / f"{name}.parquet")
    source = str(data)
    contract = _contract(folder / "contract.yaml", held_out)
    if sites:
        (folder / "home").mkdir()
        (folder / "home" / "sites.toml").write_text(sites)
    workspace = Workspace.open(folder / "home")
    steps.admit(workspace, contract, source)
    opened = open_source(contract, source)
    for partition in steps.outstanding(workspace, contract, opened).todo:
        steps.ingest_one(workspace, contract, opened, partition)
    if curate:
        steps.curate_set(workspace, contract)
    else:
        _nothing_to_curate(workspace, contract, len(rows))
    return workspace


def rows_of(workspace: Workspace) -> CuratedRows:
    """Open the curated rows of the set."""
    contract = workspace.contract(DATASET)
    return curated_rows(contract, workspace.tables(contract), workspace.keys.secret(f"dataset-{contract.slug}"))


def _nothing_to_curate(workspace: Workspace, contract: Contract, rows: int) -> None:
    from data_contracts.curation import curation_of
    from training.shards.rows import curation_key

    tables = workspace.tables(contract)
    name = curation_of(contract, (v.ingest_id for v in tables.current().values()))
    counts = {"kept": rows, "removed": 0, "redacted": 0, "reasons": {}}
    tables.store.ensure_json(
        curation_key(contract, name), {"format": 1, "dataset": contract.id, "curation_id": name, **counts}
    )


def _contract(path: Path, held_out: float) -> Contract:
    terms = {
        "format": 1,
        "licence": {"expression": "CC0-1.0"},
        "purposes": {"permitted": ["pre-training", "evaluation"]},
        "residency": {"storage": ["anywhere"], "processing": ["anywhere"]},
        "derivedUpdates": "may-leave",
        "heldOut": {"share": held_out, "key": "bench"},
        "text": "content",
        "pii": {"email": "redact"},
    }
    reader = {"format": "parquet", "partition": {"from": "path", "pattern": r"([^/]+)\.parquet$"}}
    columns = [
        {"name": "key", "logicalType": "string", "primaryKey": True, "primaryKeyPosition": 1},
        {"name": "day", "logicalType": "string", "partitioned": True},
        {"name": "content", "logicalType": "string", "required": True},
    ]
    document = {
        "apiVersion": "v3.1.0",
        "kind": "DataContract",
        "id": DATASET,
        "name": "Notes",
        "version": "1.0.0",
        "status": "active",
        "schema": [{"name": "notes", "logicalType": "object", "properties": columns}],
        "customProperties": [
            {"property": "reader", "vendor": "causeway", "value": reader},
            {"property": "trainingTerms", "vendor": "causeway", "value": terms},
        ],
    }
    path.write_text(json.dumps(document))
    return load_contract(path)
