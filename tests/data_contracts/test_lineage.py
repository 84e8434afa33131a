"""Lineage: OpenLineage events beside the data, and the index that is derived from them."""

from __future__ import annotations

import json
import sqlite3
import uuid
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from data_contracts.catalog.lineage import Lineage, Node
from data_contracts.catalog.lineage_index import rebuild_index, step_counts, walk_back
from data_contracts.catalog.store import Store
from data_contracts.errors import CausewayError, DataRefused, StoreError


def _events(store: Store) -> list[dict[str, Any]]:
    events = [json.loads(line) for key, _ in store.list("lineage") for line in store.get(key).splitlines()]
    return sorted(events, key=lambda e: (e["eventTime"], e["eventType"] != "START"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def test_a_job_that_ends_well_leaves_start_and_complete_of_one_run(store: Store) -> None:
    with Lineage(store).job("ingest", inputs=[Node("source/a/x@1")]) as job:
        job.outputs.append(Node("partition/a/x@2", {"rows": 3}))
        job.facets["outcome"] = "published"
    start, complete = _events(store)
    assert (start["eventType"], complete["eventType"]) == ("START", "COMPLETE")
    assert start["run"]["runId"] == complete["run"]["runId"] == str(job.run_id)
    assert complete["run"]["facets"]["causeway_run"]["facts"] == {"outcome": "published"}
    assert complete["outputs"][0]["facets"]["causeway_node"]["facts"] == {"rows": 3}


def test_event_objects_are_named_by_job_time_run_and_state(store: Store) -> None:
    run = uuid.uuid4()
    Lineage(store).start("curate", run, [])
    ((key, _),) = store.list("lineage")
    folder, job, name = key.split("/")
    assert (folder, job) == ("lineage", "curate")
    assert name.endswith(f"Z-{run}-start.ndjson")


def test_an_event_has_what_the_openlineage_specification_requires(store: Store) -> None:
    Lineage(store).complete("shard", uuid.uuid4(), [], [Node("shard/1", {"tokens": 5})], {"site": "north"})
    (event,) = _events(store)
    assert event["schemaURL"].startswith("https://openlineage.io/spec/2-0-2/OpenLineage.json#")
    assert event["producer"] and event["eventTime"].endswith("Z")
    assert event["job"] == {"namespace": "causeway", "name": "shard", "facets": {}}
    for facet in (event["outputs"][0]["facets"]["causeway_node"], event["run"]["facets"]["causeway_run"]):
        assert facet["_producer"] == "urn:causeway:lineage:1"
        assert facet["_schemaURL"].startswith("urn:causeway:schema:lineage-facets-1#/$defs/")


def test_the_facet_schema_that_events_name_is_shipped() -> None:
    import data_contracts

    path = Path(data_contracts.__file__).parent / "schemas" / "lineage-facets-1.json"
    schema = json.loads(path.read_text())
    assert schema["$id"] == "urn:causeway:schema:lineage-facets-1"
    assert {"CausewayNodeFacet", "CausewayRunFacet"} <= set(schema["$defs"])


def test_a_refusal_is_recorded_with_its_message_and_passes_through(store: Store) -> None:
    with pytest.raises(DataRefused), Lineage(store).job("ingest"):
        raise DataRefused("rows.csv: missing; put it back")
    fail = _events(store)[-1]
    assert fail["eventType"] == "FAIL"
    assert fail["run"]["facets"]["errorMessage"]["message"] == "DataRefused: rows.csv: missing; put it back"


def test_the_message_of_a_foreign_exception_is_not_recorded_because_it_may_quote_a_row(store: Store) -> None:
    with pytest.raises(ValueError), Lineage(store).job("ingest"):
        raise ValueError("cannot parse '19770101-1234'")
    assert b"19770101" not in b"".join(store.get(key) for key, _ in store.list("lineage"))


def test_an_interrupted_job_is_recorded_as_aborted(store: Store) -> None:
    with pytest.raises(KeyboardInterrupt), Lineage(store).job("train"):
        raise KeyboardInterrupt
    assert _events(store)[-1]["eventType"] == "ABORT"


def test_emit_once_records_a_repeated_event_once(store: Store) -> None:
    lineage, inputs, outputs = Lineage(store), [Node("contribution/1")], [Node("round/r/1")]
    assert lineage.emit_once("round", "r/1", inputs, outputs) is True
    assert lineage.emit_once("round", "r/1", inputs, outputs) is False
    assert [e["eventType"] for e in _events(store)] == ["START", "COMPLETE"]


def test_emit_once_refuses_other_nodes_under_a_key_that_is_on_record(store: Store) -> None:
    Lineage(store).emit_once("round", "r/1", [Node("contribution/1")], [Node("round/r/1")])
    with pytest.raises(StoreError, match="recorded with other inputs"):
        Lineage(store).emit_once("round", "r/1", [Node("contribution/2")], [Node("round/r/1")])


@pytest.mark.parametrize("name", ["shard", "/x", "shard/", "Shard/1", "shard/a\nb"])
def test_a_node_without_kind_and_rest_is_refused(name: str) -> None:
    with pytest.raises(CausewayError, match="lineage node"):
        Node(name)


def test_a_job_name_never_becomes_a_path(store: Store) -> None:
    with pytest.raises(CausewayError, match="cannot name a job"):
        Lineage(store).start("../ingest", uuid.uuid4(), [])


def test_a_facet_that_is_not_a_number_is_refused(store: Store) -> None:
    with pytest.raises(StoreError, match="no JSON form"):
        Lineage(store).complete("train", uuid.uuid4(), [], [Node("model/r@1", {"loss": float("nan")})])


def _chain(store: Store, *names: str) -> None:
    for src, dst in pairwise(names):
        Lineage(store).emit_once("step", dst, [Node(src)], [Node(dst, {"made": dst})])


def test_walking_back_from_a_model_reaches_its_sources_across_stores(tmp_path: Path) -> None:
    north, home = Store.open(tmp_path / "north"), Store.open(tmp_path / "home")
    _chain(north, "source/a/x@1", "partition/a/x@2", "shard/3", "contribution/4")
    _chain(home, "contribution/4", "round/r/1", "model/r@1")
    rebuild_index([home, north], tmp_path / "lineage.sqlite")
    walk = walk_back(tmp_path / "lineage.sqlite", "model/r@1")
    assert [(step.depth, step.kind) for step in walk] == [
        (0, "model"), (1, "round"), (2, "contribution"), (3, "shard"), (4, "partition"), (5, "source"),
    ]  # fmt: skip
    assert walk[2].facets == {"made": "contribution/4"}


def test_a_run_that_failed_makes_no_edge(store: Store, tmp_path: Path) -> None:
    with pytest.raises(DataRefused), Lineage(store).job("ingest", inputs=[Node("source/a/x@1")]) as job:
        job.outputs.append(Node("partition/a/x@2"))
        raise DataRefused("no")
    rebuild_index([store], tmp_path / "index.sqlite")
    with pytest.raises(StoreError, match="no node 'partition/a/x@2'"):
        walk_back(tmp_path / "index.sqlite", "partition/a/x@2")
    assert [tuple(step) for step in step_counts(tmp_path / "index.sqlite")] == [("ingest", "FAIL", 1, 0)]


def test_the_index_can_be_deleted_and_rebuilt_to_the_same_content(store: Store, tmp_path: Path) -> None:
    _chain(store, "source/a/x@1", "partition/a/x@2", "shard/3")
    dumps = []
    for _ in range(2):
        path = tmp_path / "index.sqlite"
        rebuild_index([store, store], path)
        dumps.append(list(sqlite3.connect(path).iterdump()))
        path.unlink()
    assert dumps[0] == dumps[1]


def test_a_damaged_event_is_named_by_object_and_line(store: Store, tmp_path: Path) -> None:
    store.create("lineage/step/x.ndjson", b"{not json\n")
    with pytest.raises(StoreError, match=r"x\.ndjson: line 1 is not a lineage event"):
        rebuild_index([store], tmp_path / "index.sqlite")
    assert not (tmp_path / "index.sqlite").exists()


def test_a_missing_index_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="rebuild it"):
        walk_back(tmp_path / "none.sqlite", "model/r@1")


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(edges=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=20))
def test_a_walk_finds_exactly_the_reachable_nodes_each_once_even_in_a_cycle(
    tmp_path_factory: pytest.TempPathFactory, edges: list[tuple[int, int]]
) -> None:
    folder = tmp_path_factory.mktemp("walk")
    store = Store.open(folder / "store")
    for number, (src, dst) in enumerate(edges):
        Lineage(store).emit_once("step", str(number), [Node(f"shard/{src}")], [Node(f"shard/{dst}")])
    rebuild_index([store], folder / "index.sqlite")
    reachable, grown = {edges[0][1]}, True
    while grown:
        more = reachable | {src for src, dst in edges if dst in reachable}
        grown, reachable = more != reachable, more
    walk = walk_back(folder / "index.sqlite", f"shard/{edges[0][1]}")
    assert sorted(step.node for step in walk) == sorted(f"shard/{n}" for n in reachable)
