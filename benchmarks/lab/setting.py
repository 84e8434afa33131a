"""The run that a lab trains: generated text, ingested and sharded over the sites by the library, and its plan."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.corpus import DATASET, make_set, texts
from training import steps
from training.planning import ModelConfig, RunConfig
from training.recipe import InnerRecipe
from training.rounds.plan import Plan, read_plan
from training.shards.sharding import Sharded
from training.shards.tokenizers import TokenizerRecord
from training.workspace import Workspace

MODEL = ModelConfig(hidden_size=96, layers=3, heads=3, intermediate_size=256)  # 0.38 million parameters
SMALL = ModelConfig(hidden_size=48, layers=2, heads=2, intermediate_size=128)  # 0.08 million: the quick forms
VOCABULARY = 512
PURPOSE = "research pre-training"


def sites_toml(home: str, stores: Mapping[str, str], tokens_per_s: Mapping[str, float] | None = None) -> str:
    """Return a sites.toml of this home and one region a site, named as the site."""
    lines = ["format = 2", "[home]", f'store = "{home}"', 'jurisdictions = ["SE"]']
    for name, url in stores.items():
        lines += ["[[site]]", f'name = "{name}"', f'region = "{name}"', f'store = "{url}"', 'jurisdictions = ["SE"]']
        lines += ["decides_creates = false"] if "://" in url else []
        lines += [f"tokens_per_s = {tokens_per_s[name]}"] if tokens_per_s else []
    return "\n".join(lines) + "\n"


class Setting:
    """A home folder whose data are sharded; `plan` freezes runs over them."""

    def __init__(self, workspace: Workspace, made: Sharded, record: TokenizerRecord) -> None:
        self.workspace, self._made, self._vocabulary = workspace, made, record.tokenizer.vocab_size

    def plan(self, name: str, **settings: Any) -> Plan:
        """Freeze the plan of a run; `settings` are those of run.toml."""
        plan = steps.plan_run(self.workspace, _config(name, **settings), self._made, self._vocabulary)
        return read_plan(self.workspace.home, plan.run)


def make_setting(folder: Path, sites: str, text_bytes: int, partitions: int) -> Setting:
    """Ingest generated text in so many partitions, and shard it over the sites of a sites.toml."""
    workspace = make_set(folder, texts(text_bytes), sites=sites, partitions=partitions, held_out=0.1)
    config = _config("setting")
    sets = steps.read_sets(workspace, config.datasets)
    record = steps.make_tokenizer(workspace, config, sets)
    return Setting(workspace, steps.make_shards(workspace, config, sets, record), record)


def _config(name: str, **settings: Any) -> RunConfig:
    defaults: dict[str, Any] = {
        "model": MODEL,
        "inner": InnerRecipe(batch_windows=4, warmup_steps=20),
        "window": 128,
        "codec": "int4-128",
    }
    fixed = {"name": name, "purpose": PURPOSE, "tokenizer": VOCABULARY, "datasets": [DATASET]}
    return RunConfig.model_validate({**fixed, **defaults, **settings})
