"""What a home folder holds, and what of it needs a person: read from real stores and tables."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from data_contracts.canonical import canonical_json
from data_contracts.catalog.tables import PartitionVersion
from data_contracts.contract import Contract, load_contract
from data_contracts.notices import put_notice
from tests.data_contracts.making import make_contract
from tests.training.ingested import make
from tests.training.making import make_run
from training.rounds import control
from training.rounds.plan import write_plan
from training.status import DatasetState, dataset_states, noticed, run_states, shard_states
from training.workspace import Workspace

NOON = datetime(2024, 1, 5, 12, tzinfo=UTC)


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path / "home")


def contract_of(workspace: Workspace, folder: Path, *, daily: bool = True, **more: Any) -> Contract:
    contract = make_contract(folder, **more)
    if daily:
        document = json.loads(contract.path.read_text())
        document["slaProperties"] = [{"property": "frequency", "value": 1, "unit": "d"}]
        contract.path.write_text(json.dumps(document))
        contract = load_contract(contract.path)
    workspace.keep_contract(contract, "/data/notes")
    return contract


def publish(workspace: Workspace, contract: Contract, partition: str, **changes: Any) -> None:
    sequence = changes.get("sequence", 1)
    version = PartitionVersion(
        dataset=contract.id,
        partition=partition,
        ingest_id=f"{partition}-{sequence}",
        attempt_id=f"attempt-{partition}-{sequence}",
        sequence=sequence,
        verdict="accepted",
        rows_in=10,
        rows_accepted=8,
        rows_quarantined=2,
        source_sha="s",
        contract_sha=contract.sha,
        contract_version=contract.version,
        terms_sha=contract.terms.sha,
        published_at="2024-01-05T08:00:00.000000+00:00",
    )
    workspace.tables(contract).publish(replace(version, **changes))


def only(workspace: Workspace) -> DatasetState:
    (state,), _ = dataset_states(workspace, NOON)
    return state


def needs(workspace: Workspace) -> list[tuple[str, str]]:
    return [(need.kind, need.message) for need in dataset_states(workspace, NOON)[1]]


def test_rows_are_counted_once_from_the_versions_in_force(workspace: Workspace, tmp_path: Path) -> None:
    contract = contract_of(workspace, tmp_path / "c")
    publish(workspace, contract, "2024-01-03", contract_version="0.9.0")
    publish(workspace, contract, "2024-01-04", rows_accepted=100)
    publish(workspace, contract, "2024-01-04", sequence=2)
    state = only(workspace)
    assert (state.partitions, state.versions, state.accepted, state.quarantined) == (2, 3, 16, 4)
    assert state.contract_version == "1.0.0"
    assert state.contract_versions == {"0.9.0": 1, "1.0.0": 1}
    assert state.tables_at == "home"
    assert state.freshness.words == "fresh (daily)"
    assert needs(workspace) == []


def test_a_refused_partition_needs_a_person_until_a_newer_version_is_accepted(
    workspace: Workspace, tmp_path: Path
) -> None:
    contract = contract_of(workspace, tmp_path / "c", daily=False)
    publish(workspace, contract, "2024-01-03")
    publish(workspace, contract, "2024-01-03", sequence=2, verdict="refused")
    publish(workspace, contract, "2024-01-04", verdict="refused")
    publish(workspace, contract, "2024-01-04", sequence=2, verdict="overridden")
    state = only(workspace)
    assert state.refused == ("2024-01-03",)
    assert state.partitions == 2, "the older version stays in force"
    ((kind, message),) = needs(workspace)
    assert kind == "partition-refused"
    assert message.startswith("2024-01-03 refused; see causeway quarantine test/notes, ")
    publish(workspace, contract, "2024-01-03", sequence=3)
    assert needs(workspace) == []


def test_many_refused_partitions_are_one_thing_to_do(workspace: Workspace, tmp_path: Path) -> None:
    contract = contract_of(workspace, tmp_path / "c", daily=False)
    for day in range(1, 6):
        publish(
            workspace, contract, f"2024-01-0{day}", verdict="refused", published_at=f"2024-02-0{day}T00:00:00+00:00"
        )
    (need,) = dataset_states(workspace, NOON)[1]
    assert need.message.startswith("2024-01-01, 2024-01-02, 2024-01-03 and 2 more refused;")
    assert need.since == "2024-02-01T00:00:00+00:00"


def test_a_data_set_behind_its_frequency_is_late(workspace: Workspace, tmp_path: Path) -> None:
    contract = contract_of(workspace, tmp_path / "c")
    publish(workspace, contract, "2024-01-01")
    state = only(workspace)
    assert state.freshness.missing == ("2024-01-02", "2024-01-03")
    assert state.freshness.late_s == timedelta(days=1, hours=12).total_seconds()
    ((kind, message),) = needs(workspace)
    assert kind == "partition-late"
    assert message.startswith("late by 1 day, 2 missing (daily); the newest is 2024-01-01. ")
    assert message.endswith("causeway backfill test/notes")


def test_a_data_set_whose_terms_ended_is_shown_and_needs_a_person(workspace: Workspace, tmp_path: Path) -> None:
    ended = contract_of(workspace, tmp_path / "c", daily=False, terms={"validUntil": "2999-12-31"})
    text = ended.path.read_text().replace("2999-12-31", "2020-12-31")
    ended.path.write_text(text)
    past = load_contract(ended.path)
    workspace.home.create(f"contracts/{past.slug}/{past.sha}.yaml", text.encode())
    current = workspace.home.get_json(f"contracts/{past.slug}/current.json")
    entries = [{**entry, "sha": past.sha} for entry in current["entries"]]
    document = {**current, "sha": past.sha, "entries": entries}
    workspace.home.put(f"contracts/{past.slug}/current.json", canonical_json(document))
    states, found = dataset_states(workspace, NOON)
    assert [state.dataset for state in states] == ["test/notes"]
    assert [need.kind for need in found] == ["not-permitted"]
    assert "2020-12-31" in found[0].message


def test_a_data_set_that_cannot_be_read_hides_no_other(workspace: Workspace, tmp_path: Path) -> None:
    whole = contract_of(workspace, tmp_path / "a", id="test/whole", daily=False)
    lost = contract_of(workspace, tmp_path / "b", id="test/lost", daily=False)
    workspace.home.delete(f"contracts/{lost.slug}/{lost.sha}.yaml")
    states, found = dataset_states(workspace, NOON)
    assert [state.dataset for state in states] == [whole.id]
    assert [(need.kind, need.subject) for need in found] == [("unreadable", lost.id)]
    assert f"restore contracts/test--lost/{lost.sha}.yaml" in found[0].message


def test_a_contract_without_a_partition_is_a_data_set_of_none(workspace: Workspace, tmp_path: Path) -> None:
    contract_of(workspace, tmp_path / "c")
    state = only(workspace)
    assert (state.partitions, state.published_at, state.freshness.words) == (0, None, "nothing accepted yet")


def test_shards_are_counted_by_site_and_region_with_their_size(tmp_path: Path) -> None:
    workspace = make(tmp_path)
    states = shard_states(workspace)
    assert [(s.site, s.region) for s in states] == [(s.name, s.region) for s in workspace.sites.sites]
    for state in states:
        files = list((workspace.root / "sites" / state.site).glob("shards/*/*.arrow"))
        assert (state.shards, state.arrow_bytes) == (len(files), sum(f.stat().st_size for f in files))
    assert sum(state.shards for state in states) > 0


def test_a_run_shows_its_rounds_and_whether_it_was_paused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "made")
    workspace = Workspace.open(tmp_path / "home")
    write_plan(workspace.home, run.plan, run.key("owner"))
    name = run.plan.run
    for commit in ("000001", "000002", "000002.1"):
        workspace.home.create(f"runs/{name}/commits/{commit}.json", b"{}")
    assert [(s.run, s.rounds, s.planned, s.state) for s in run_states(workspace)[0]] == [(name, 2, 4, "open")]
    control.pause(workspace.home, run.plan, "ann", "power cut")
    ((paused,), _) = run_states(workspace)
    assert paused.state == "paused"
    assert "by ann" in paused.why
    assert paused.why.endswith("power cut")
    for commit in ("000003", "000004"):
        workspace.home.create(f"runs/{name}/commits/{commit}.json", b"{}")
    assert [s.state for s in run_states(workspace)[0]] == ["finished"]


def test_a_damaged_plan_needs_a_person_and_hides_no_other_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "made")
    workspace = Workspace.open(tmp_path / "home")
    write_plan(workspace.home, run.plan, run.key("owner"))
    workspace.home.put("runs/broken-1/plan.json", b"{")
    states, found = run_states(workspace)
    assert [s.run for s in states] == [run.plan.run]
    assert [(need.kind, need.subject) for need in found] == [("unreadable", "broken-1")]


def test_notices_are_among_what_needs_a_person_and_a_damaged_one_is_named(workspace: Workspace) -> None:
    put_notice(workspace.home, "zombie", "train small-1", "its worker is gone", NOON)
    assert [(n.kind, n.subject) for n in noticed(workspace)] == [("zombie", "train small-1")]
    # What status itself has just worked out is not said twice.
    put_notice(workspace.home, "partition-late", "test/notes 2024-01-02", "late by 1 hour", NOON)
    assert [n.kind for n in noticed(workspace)] == ["zombie"]
    workspace.home.put("notices/zombie/000000000000.json", b"{")
    assert [n.kind for n in noticed(workspace)] == ["unreadable"]
