"""The snippets of docs/shards.md run as they stand, on shards of a real small workspace."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.training import ingested
from training.shards.writer import open_shard

PAGE = (Path(__file__).parents[1] / "docs" / "shards.md").read_text("utf-8")


def snippet(name: str, *changes: tuple[str, str]) -> dict[str, Any]:
    """Run a snippet and return its names; what stands for a place of the reader's is exchanged."""
    (text,) = re.findall(rf"<!-- example: {name} -->\n```python\n(.*?)```", PAGE, re.S)
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    names: dict[str, Any] = {}
    exec(compile(text, f"docs/shards.md: {name}", "exec"), names)  # noqa: S102
    return names


def test_the_snippets_of_the_page_read_a_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = ingested.make(tmp_path)
    made = ingested.shard(workspace)
    monkeypatch.chdir(tmp_path)
    folder = workspace.sites.region_store(made.manifests[0].region).path("shards/test--notes")
    read = snippet("read", ("sites/north/shards/docs--notes", str(folder)))
    shard = open_shard(read["path"])
    assert np.array_equal(read["tokens"], shard.tokens)
    assert np.array_equal(read["same"], shard.tokens)
    assert read["first"].tolist() == shard.tokens[: shard.offsets[1]].tolist()
    assert read["record_id"] == shard.record_ids[0]
    sha = made.versions[0].sha
    changes = ((".causeway", "home"), ('"docs/notes", sha)', f'"test/notes", "{sha}")'))
    found = snippet("datasets", *changes)["dataset"]
    region = workspace.sites.regions[0].name
    assert found.num_rows == sum(m.records for m in made.manifests if (m.region, m.split) == (region, "train"))
