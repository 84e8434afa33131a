"""The demo: the whole main job on the Python environment just installed."""

from __future__ import annotations

from pathlib import Path

from flows.pipeline import Input
from training.planning import ModelConfig, RunConfig
from training.recipe import InnerRecipe

LIBRARY = Path(__file__).parent.parent / "data_contracts" / "library"
CONTRACTS = ("software-python-source", "software-package-docs", "legal-licence-texts")
DATASETS = ("software/python-source", "software/package-docs", "legal/licence-texts")
ORACLE = "software-package-docs"


def inputs() -> list[Input]:
    """Return the demo's three data sets, all read from this interpreter's packages."""
    return [Input(contract=str(LIBRARY / f"{n}.yaml"), source="env:", oracle=n == ORACLE) for n in CONTRACTS]


def config(quick: bool = False) -> RunConfig:
    """Return the demo's run: about half a million parameters; `quick` trains half as long, for CI."""
    return RunConfig(
        name="quick" if quick else "demo",
        purpose="commercial pre-training",
        tokenizer=2048,
        datasets=list(DATASETS),
        model=ModelConfig(),
        # By tokens the licence texts would be a fourteenth of what their site reads: too little to learn from.
        weights={"software/python-source": 2.0, "software/package-docs": 1.0, "legal/licence-texts": 1.0},
        # Few, long rounds, and the package docs at one site of three: with Muon the quick demo left them at 3.17 bits
        # per byte instead of 2.73 (docs/recipes.md).
        inner=InnerRecipe(optimizer="adamw"),
        rounds=6 if quick else 12,
        steps=40 if quick else 45,
        snapshot_every=2 if quick else 4,
    )
