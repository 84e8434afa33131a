"""docs/formats.md names every object a run leaves and every field it has; the examples have the fields of today."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from pydantic import BaseModel

from data_contracts.backfill.plan import BackfillPlan, Item, Skipped
from data_contracts.backfill.record import Attempt, Command, Outcome
from data_contracts.catalog.leases import Holder
from data_contracts.catalog.tables import CURATION_SCHEMA, QUARANTINE_SCHEMA, RESOLVED_SCHEMA, PartitionVersion
from data_contracts.catalog.terms_chain import TermsHead
from data_contracts.oracle import Agreement
from training.evaluation import Difference, DocumentScore, Summary
from training.model import ModelSpec
from training.recipe import InnerRecipe
from training.rounds.contribution import Header
from training.rounds.control import Control
from training.rounds.plan import Length, Membership, Outer, Overlap, Plan, PlanDataset, PlanSite
from training.shards.manifest import DatasetVersion, Manifest, ShardRef

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "formats.md").read_text("utf-8")
SECTIONS = {part.split("\n", 1)[0]: part for part in PAGE.split("\n## ")[1:]}
EXAMPLES: dict[str, Any] = {
    name: json.loads(body) for name, body in re.findall(r"<!-- example: ([a-z ]+) -->\n```json\n(.*?)```", PAGE, re.S)
}
TYPES: list[tuple[str, list[type]]] = [
    ("Partition version", [PartitionVersion]),
    ("Backfill", [BackfillPlan, Item, Skipped, Attempt, Outcome, Command]),
    ("Work lease", [Holder]),
    ("Agreement", [Agreement]),
    ("Shard manifest", [Manifest]),
    ("Data set version", [DatasetVersion, ShardRef]),
    ("Plan", [Plan, PlanSite, PlanDataset, Length, Outer, Overlap, Membership, InnerRecipe, ModelSpec]),
    ("Contribution", [Header]),
    ("Control", [Control]),
    ("Evaluation summary", [Summary, Difference]),
    ("Evaluation results", [DocumentScore]),
]
# Rows of tables, whose table carries it, and events of another standard.
WITHOUT_FORMAT = ("accepted", "quarantine", "curation log", "evaluation parquet", "loader log", "lineage event")
FREE = {"model", "tensors", "datasets", "tokens_by_dataset", "terms", "facts", "lanes", "schema", "metadata", "facets"}


def _places() -> list[re.Pattern[str]]:
    """The keys of the table in "Conventions" as expressions."""
    rows = [row.split("|")[3] for row in SECTIONS["Conventions"].splitlines() if row.startswith("| ")]
    found = []
    for key in (key for row in rows for key in re.findall(r"`([^`]+/[^`]+)`", row)):
        text = re.escape(key).replace(r"\{", "(").replace(r"\}", ")").replace(",", "|")
        text = re.sub(r"<(round|number)>", r"\\d{6}", text)
        found.append(re.compile(re.sub(r"<[^>]+>", r"[\\w.-]+", text)))
    return found


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate_formats", ROOT / "docs" / "generate_formats.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # dataclasses look their module up by name.
    sys.modules["generate_formats"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def made(generator: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return generator.make(tmp_path_factory.mktemp("formats"))


def _names(kind: type) -> list[str]:
    """Return the fields of a recorded fact; one that does not count when two are compared is not recorded."""
    return list(kind.model_fields) if issubclass(kind, BaseModel) else [f.name for f in fields(kind) if f.compare]


@pytest.mark.parametrize(
    ("section", "kind"),
    [(s, k) for s, kinds in TYPES for k in kinds],
    ids=lambda v: v if isinstance(v, str) else v.__name__,
)
def test_every_field_of_a_recorded_fact_is_in_its_section(section: str, kind: type) -> None:
    missing = [name for name in _names(kind) if f"`{name}`" not in SECTIONS[section]]
    assert not missing, f"docs/formats.md, section {section}: {kind.__name__} has {missing}"


@pytest.mark.parametrize(
    ("section", "schema"),
    [("Quarantine", QUARANTINE_SCHEMA), ("Curation log", CURATION_SCHEMA), ("Resolved rows", RESOLVED_SCHEMA)],
)
def test_every_column_of_a_table_is_in_its_section(section: str, schema: Any) -> None:
    assert [name for name in schema.names if f"`{name}`" not in SECTIONS[section]] == []


@pytest.mark.parametrize("name", [n for n in EXAMPLES if n not in ("accepted", "contribution payload", "snapshot")])
def test_every_field_of_an_example_is_explained_beside_it(name: str) -> None:
    section = next(text for text in SECTIONS.values() if f"<!-- example: {name} -->" in text)
    explained = re.sub(r"```.*?```", "", section, flags=re.S)
    named = set(re.findall(r"`([A-Za-z0-9_]+)`", explained))
    if name in ("shard arrow", "inner state"):
        return
    assert [field for field in EXAMPLES[name] if field not in named] == []


def test_the_terms_entry_names_what_the_head_reads() -> None:
    assert {"sequence", "previous", "datasets"} <= EXAMPLES["terms chain"].keys()
    assert {f.name for f in fields(TermsHead)} == {"sequence", "sha", "terms", "chain"}


def _shape(value: Any, name: str = "") -> Any:
    """The fields of a value; of objects whose names are data (tensors, data sets) only that they are objects."""
    if isinstance(value, dict):
        return {} if name in FREE else {key: _shape(entry, key) for key, entry in sorted(value.items())}
    if isinstance(value, list):
        return [_shape(value[0])] if value and isinstance(value[0], dict) else []
    return ""


def test_the_examples_have_the_fields_that_a_run_writes_today(made: Any) -> None:
    today = {name: _shape(json.loads(json.dumps(value, default=str))) for name, value in made.examples.items()}
    assert {name: _shape(value) for name, value in EXAMPLES.items()} == today, "run: python docs/generate_formats.py"


def test_every_object_that_a_run_leaves_has_a_row_on_the_page(generator: ModuleType, made: Any) -> None:
    places = _places()
    unknown = [key for _, key in generator.keys(made) if not any(place.fullmatch(key) for place in places)]
    assert len(places) > 20
    assert unknown == []


@pytest.mark.parametrize("name", [n for n in EXAMPLES if n not in WITHOUT_FORMAT])
def test_an_object_carries_its_format(name: str) -> None:
    value = EXAMPLES[name]
    metadata = value.get("metadata", {})
    expected = {
        "partition version": "2",
        "contract in use": "2",
        "data set version": "3",
        "shard manifest": "2",
        "telemetry": "2",
    }.get(name, "1")
    assert str(value.get("format") or metadata.get("format") or metadata.get("causeway.format")) == expected
