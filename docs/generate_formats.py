"""Fill the examples of docs/formats.md from a small real run: `python docs/generate_formats.py`.

The run is one data set, one site and one round, made by the product's own functions without a Prefect server; each
example is an object that it left in a store.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import safe_open

from data_contracts.catalog.store import Store
from data_contracts.contract import load_contract
from data_contracts.sources import open_source
from training.evaluate_site import evaluate_site
from training.planning import ModelConfig, RunConfig
from training.release import export_run
from training.rounds.amendment import write_amendment
from training.rounds.run import replay, start_state
from training.shards.cache import ShardCache
from training.steps import (
    admit,
    curate_set,
    ingest_one,
    make_shards,
    make_tokenizer,
    outstanding,
    plan_run,
    read_sets,
    record_round,
)
from training.worker import SiteWorker
from training.workspace import Workspace

PAGE = Path(__file__).parent / "formats.md"
SITES = """format = 1
[home]
store = "home"
jurisdictions = ["SE"]
[[site]]
name = "north"
region = "eu-north"
jurisdictions = ["SE"]
store = "sites/north"
"""
CONTRACT: dict[str, Any] = {
    "apiVersion": "v3.1.0",
    "kind": "DataContract",
    "id": "docs/notes",
    "version": "1.0.0",
    "status": "active",
    "schema": [
        {
            "name": "notes",
            "properties": [
                {"name": "folder", "logicalType": "string", "required": True, "partitioned": True},
                {"name": "note", "logicalType": "string", "primaryKey": True, "primaryKeyPosition": 1},
                {"name": "content", "logicalType": "string", "required": True, "logicalTypeOptions": {"minLength": 20}},
            ],
        }
    ],
    "customProperties": [
        {
            "property": "reader",
            "vendor": "causeway",
            "value": {
                "format": "text",
                "partition": {"from": "path", "pattern": r"(?P<folder>\w+)/(?P<note>\w+)\.txt$"},
            },
        },
        {
            "property": "trainingTerms",
            "vendor": "causeway",
            "value": {
                "format": 1,
                "licence": {"expression": "CC0-1.0"},
                "purposes": {"permitted": ["pre-training", "evaluation"], "prohibited": ["retrieval"]},
                "residency": {"storage": ["SE"], "processing": ["EU"]},
                "validFrom": "2026-01-01",
                "derivedUpdates": "may-leave",
                "heldOut": {"share": 0.4, "key": "notes/1"},
                "text": "content",
                "pii": {"email": "redact"},
                "attribution": "the authors of the notes",
                "revocationContact": "owner@notes.example",
            },
        },
    ],
}


@dataclass(frozen=True)
class Made:
    """The small run: its workspace, its run id, and each example by name."""

    workspace: Workspace
    run: str
    examples: dict[str, Any]


def make(folder: Path) -> Made:
    """Run the main job once, small, under a folder."""
    workspace = _workspace(folder)
    contract = load_contract(folder / "notes.yaml")
    source = open_source(contract, str(folder / "notes"))
    admit(workspace, contract, "notes")
    for partition in outstanding(workspace, contract, source).todo:
        ingest_one(workspace, contract, source, partition)
    curate_set(workspace, contract)
    config = RunConfig(
        name="notes",
        purpose="research pre-training",
        tokenizer=260,
        datasets=[contract.id],
        model=ModelConfig(hidden_size=8, layers=1, heads=1, intermediate_size=8),
        window=16,
        steps=1,
        rounds=1,
    )
    config = config.model_copy(update={"inner": config.inner.model_copy(update={"batch_windows": 2})})
    sets = read_sets(workspace, config.datasets)
    record = make_tokenizer(workspace, config, sets)
    plan = plan_run(workspace, config, make_shards(workspace, config, sets, record), record.tokenizer.vocab_size)
    store = workspace.store("north")
    SiteWorker(
        plan, "north", workspace.home, store, {}, workspace.site_key("north"), folder / "log", lambda: False
    ).run()
    for after, _, inputs in replay(workspace.home, plan, start_state(workspace.home, plan)):
        record_round(workspace, plan, after.round, after.state_sha, inputs)
    evaluate_site(workspace.home, ShardCache(store), "north", plan.run, 100_000)
    export_run(workspace, plan.run)
    write_amendment(workspace.home, plan, "remove-site", "north", "moved to another building", workspace.owner)
    return Made(workspace, plan.run, _examples(workspace, plan.run, folder))


def _workspace(folder: Path) -> Workspace:
    root = folder / "home"
    root.mkdir(parents=True)
    (root / "sites.toml").write_text(SITES)
    (folder / "notes.yaml").write_text(json.dumps(CONTRACT))
    for number in range(16):
        note = folder / "notes" / ("garden" if number % 2 else "kitchen") / f"n{number}.txt"
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(f"Note {number} of the house; ask desk{number}@notes.example about it." * (1 + number % 3))
    (folder / "notes" / "garden" / "copy.txt").write_bytes((folder / "notes" / "garden" / "n1.txt").read_bytes())
    (folder / "notes" / "garden" / "short.txt").write_text("too short")
    return Workspace.open(root)


def _examples(workspace: Workspace, run: str, folder: Path) -> dict[str, Any]:
    home, site = workspace.home, workspace.store("north")

    def one(store: Store, pattern: str) -> Any:
        return json.loads(store.get(key(store, pattern)))

    def key(store: Store, pattern: str) -> str:
        return next(k for k, _ in store.list("") if re.fullmatch(pattern, k))

    tables = workspace.tables(workspace.contract("docs/notes"))
    version = tables.current()["garden"]
    event = next(k for k, _ in home.list("lineage/curate") if k.endswith("-complete.ndjson"))
    log = next((folder / "log").iterdir()).read_text().splitlines()
    return {
        "accepted": tables.read_accepted(version).to_pylist()[0],
        "quarantine": tables.read_quarantine(version).to_pylist()[0],
        "curation log": tables.read_curation(one(home, "curations/.*")["curation_id"]).to_pylist()[0],
        "partition version": {**asdict(version), "reasons": json.dumps(dict(version.reasons), sort_keys=True)},
        "contract in use": one(home, "contracts/.*/current.json"),
        "curation summary": one(home, "curations/.*"),
        "terms chain": one(home, "terms/000001.json"),
        "tokenizer papers": one(home, r"tokenizers/\w+\.lineage\.json"),
        "tokenizer recipe": one(home, "tokenizers/recipes/.*"),
        "tokenizer density": one(home, "tokenizers/densities/.*"),
        "shard arrow": _arrow(site.path(key(site, r"shards/.*\.arrow"))),
        "shard manifest": one(site, r"shards/.*\.json"),
        "data set version": one(home, "datasets/.*"),
        "plan": one(home, f"runs/{run}/plan.json"),
        "amendment": one(home, f"runs/{run}/amendments/.*"),
        "contribution header": one(site, f"runs/{run}/contributions/.*json"),
        "contribution payload": _tensors(site.path(key(site, f"runs/{run}/contributions/.*safetensors"))),
        "commit": one(home, f"runs/{run}/commits/000001.json"),
        "snapshot": _tensors(home.path(key(home, f"runs/{run}/snapshots/000001/.*"))),
        "inner state": _tensors(site.path(key(site, f"runs/{run}/inner/.*"))),
        "lease": one(site, f"runs/{run}/leases/north.json"),
        "telemetry": one(site, f"runs/{run}/telemetry/000001/north.json"),
        "loader log": json.loads(log[0]),
        "evaluation summary": one(home, f"runs/{run}/evaluations/.*"),
        "evaluation parquet": pq.read_table(site.path(key(site, "evaluations/.*/after/.*"))).to_pylist()[0],
        "lineage event": json.loads(home.get(event)),
    }


def _arrow(path: Path) -> dict[str, Any]:
    table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    metadata = {name.decode(): value.decode() for name, value in (table.schema.metadata or {}).items()}
    return {"schema": {f.name: str(f.type) for f in table.schema}, "metadata": metadata}


def _tensors(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="numpy") as opened:
        # Three tensors show the form; the rest of the model has it too.
        names = sorted(opened.keys())[-3:]
        listed = {name: f"{opened.get_slice(name).get_dtype()}{opened.get_slice(name).get_shape()}" for name in names}
        return {"metadata": opened.metadata(), "tensors": listed}


def keys(made: Made) -> Iterator[tuple[str, str]]:
    """Yield ('home' or 'site', key) of every object the small run left, except inside Delta tables."""
    for place, name in (("home", "home"), ("site", "north")):
        for key, _ in made.workspace.store(name).list(""):
            if not key.startswith("tables/"):
                yield place, key


def shown(value: Any, indent: str = "") -> str:
    """Return JSON in which lists of numbers and short lists stand on one line and long ones are cut."""
    inner = indent + "  "
    if isinstance(value, dict) and value:
        rows = [f"{inner}{json.dumps(k)}: {shown(v, inner)}" for k, v in value.items()]
        return "{\n" + ",\n".join(rows) + f"\n{indent}}}"
    if isinstance(value, list):
        cut = [*value[:3], f"... {len(value) - 3} more"] if len(value) > 8 else value
        flat = json.dumps(cut, ensure_ascii=False)
        if len(flat) < 100 or not any(isinstance(v, dict | list) for v in cut):
            return flat
        return "[\n" + ",\n".join(inner + shown(v, inner) for v in cut) + f"\n{indent}]"
    return json.dumps(value, ensure_ascii=False, default=str)


def filled(text: str, examples: dict[str, Any]) -> str:
    """Return the page with each `<!-- example: NAME -->` block replaced."""

    def block(match: re.Match[str]) -> str:
        return f"<!-- example: {match[1]} -->\n```json\n{shown(examples[match[1]])}\n```\n"

    return re.sub(r"<!-- example: ([a-z ]+) -->\n```json\n.*?```\n", block, text, flags=re.DOTALL)


def main() -> int:
    """Write the page."""
    with tempfile.TemporaryDirectory() as folder:
        made = make(Path(folder))
        PAGE.write_text(filled(PAGE.read_text("utf-8"), made.examples), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
