"""Terms of format 2 where they act: the template, pseudonyms and retention, from ingest to the rows of a shard."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from data_contracts.contract import Contract
from data_contracts.errors import DataRefused
from data_contracts.sources import open_source
from tests.data_contracts.making import column, make_contract, write_lines
from tests.training import ingested
from training import steps
from training.checker import check_policy
from training.shards.rows import curated_rows, ingested_on
from training.shards.writer import open_shard
from training.workspace import Workspace

READER = {"format": "jsonl", "partition": {"from": "path", "pattern": r"([^/]+)\.jsonl$"}}
COLUMNS = (
    column("key", primaryKey=True),
    column("day", partitioned=True),
    column("author", classification="person"),
    column("content", required=True),
)


def make(folder: Path, **terms: Any) -> tuple[Workspace, Contract]:
    contract = make_contract(folder / "in", COLUMNS, reader=READER, terms={"format": 2, **terms})
    for day in ("monday", "tuesday"):
        rows = [{"key": f"{day}{n}", "author": "Ann", "content": f"{day} {n} by ann@example.org"} for n in range(6)]
        write_lines(folder / "in" / "data" / f"{day}.jsonl", rows)
    workspace = Workspace.open(folder / "home")
    source = open_source(contract, str(folder / "in" / "data"))
    steps.admit(workspace, contract, str(folder / "in" / "data"))
    for part in steps.outstanding(workspace, contract, source).todo:
        steps.ingest_one(workspace, contract, source, part)
    steps.curate_set(workspace, contract)
    return workspace, contract


def test_shards_are_made_of_the_template_with_pseudonyms_and_without_addresses(tmp_path: Path) -> None:
    workspace, _ = make(
        tmp_path,
        text=None,
        template="{author} writes: {content}",
        trainOn=["author", "content"],
        pii={"email": "redact", "classifications": {"person": "pseudonymise"}},
    )
    (rows,) = steps.read_sets(workspace, ["test/notes"])
    texts = ingested.texts_of(rows)
    assert len(texts) == 12 and not any("Ann" in text or "@" in text for text in texts)
    heads = {text.split(" writes: ")[0] for text in texts}
    assert len(heads) == 1 and heads.pop().startswith("<person:")
    assert all(text.endswith("by <email>") for text in texts)


def test_only_the_tokens_of_the_columns_of_loss_on_have_a_loss(tmp_path: Path) -> None:
    workspace, _ = make(
        tmp_path,
        purposes={"permitted": ["pre-training", "evaluation"]},
        text=None,
        template="{author} writes: {content}\n",
        trainOn=["author", "content"],
        lossOn=["content"],
        pii={"email": "redact", "classifications": {"person": "redact"}},
    )
    made = ingested.shard(workspace)
    tokenizer = steps.tokenizers.load(workspace, made.manifests[0].tokenizer)[0]
    assert all(m.loss_mask for m in made.manifests)
    seen = 0
    for manifest in made.manifests:
        shard = open_shard(workspace.sites.region_store(manifest.region).path(manifest.arrow_key))
        assert shard.mask is not None
        for row in range(manifest.records):
            own = slice(shard.offsets[row], shard.offsets[row + 1] - 1)
            tokens, mask = shard.tokens[own], shard.mask[own]
            text, learned = tokenizer.decode(tokens), tokenizer.decode(tokens[mask])
            content = text.removeprefix("<person> writes: ").removesuffix("\n")
            assert content.endswith("by <email>")
            # Whole tokens: one may begin before the column or end after it.
            assert content in learned and len(learned) < len(text)
            assert shard.mask[shard.offsets[row + 1] - 1]
            seen += 1
    assert seen == 12


def test_partitions_whose_retention_is_over_are_not_used_and_the_checker_reports_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace, contract = make(tmp_path, retention={"period": "P30D", "then": "delete"})
    tables = workspace.tables(contract)
    day = ingested_on(tables.current()["monday"])
    assert curated_rows(contract, tables, on_date=day + dt.timedelta(30)).expired == ()
    with pytest.raises(DataRefused, match="the retention of every partition is over"):
        curated_rows(contract, tables, on_date=day + dt.timedelta(31))
    assert check_policy(workspace).violations == ()
    monkeypatch.setattr("training.checker.today", lambda: day + dt.timedelta(31))
    found = check_policy(workspace).violations
    assert sorted(v.object.rpartition(" ")[2] for v in found) == ["monday", "tuesday"]
    assert all("retention: P30D from the ingest on" in v.reasons[0] for v in found)
    assert all(v.reasons[0].endswith(": delete the rows.") for v in found)


def test_one_partition_may_outlive_another(tmp_path: Path) -> None:
    workspace, contract = make(tmp_path, retention={"period": "P30D", "then": "review"})
    tables = workspace.tables(contract)
    later = tables.current()["monday"]
    moved = dt.datetime.fromisoformat(later.published_at) + dt.timedelta(10)
    # The same bytes published again begin a new period.
    tables.publish(replace(later, published_at=moved.isoformat(), sequence=later.sequence + 1))
    used = curated_rows(contract, tables, on_date=ingested_on(later) + dt.timedelta(35))
    assert used.expired == ("tuesday",) and set(used.versions) == {"monday"}
    assert {unit.partition for unit in used.units} == {"monday"}
