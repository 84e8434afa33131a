"""What a home's server should hold: the list in deployments/prefect.yaml, and what depends on the home."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prefect.cli.deploy._models import PrefectYamlModel

from data_contracts.errors import CausewayError
from data_contracts.periods import read_frequency
from flows.deploying.automations import HEARTBEAT_S
from flows.deploying.desired import (
    FILE,
    Dataset,
    FlowFacts,
    HomeFacts,
    Place,
    desired,
    entrypoints,
    facts,
    load_flows,
    read_file,
    templates,
)
from flows.deploying.thing import Thing
from training.workspace import Workspace

PLACES = (Place("home", "home", "process"), Place("north", "north", "process"), Place("west", "far", "docker"))
STATIC = ["backfill", "curate", "evaluate", "notice", "override", "pipeline", "shard", "tend", "train"]


def dataset(name: str, place: str, frequency: str | None = None) -> Dataset:
    often = read_frequency(frequency, None) if frequency else None
    return Dataset(name, name.replace("/", "--"), place, often)


HOME = HomeFacts("/srv/home", PLACES, (dataset("demo/notes", "north", "daily"), dataset("demo/ticks", "home", "PT20S")))


@pytest.fixture(scope="module")
def flows() -> dict[str, FlowFacts]:
    return load_flows(entrypoints(read_file()))


@pytest.fixture(scope="module")
def things(flows: Mapping[str, FlowFacts]) -> dict[tuple[str, str], Thing]:
    found = desired(read_file(), HOME, flows, templates(["process", "docker"]))
    assert len({t.key for t in found}) == len(found)
    return {t.key: t for t in found}


def fields(things: Mapping[tuple[str, str], Thing], name: str) -> Mapping[str, Any]:
    return things["deployment", name].fields


def test_prefect_itself_reads_the_list() -> None:
    model = PrefectYamlModel.model_validate(read_file())
    assert sorted(d.name or "" for d in model.deployments) == STATIC
    assert model.pull == []
    for deployment in model.deployments:
        assert deployment.entrypoint and ":" not in deployment.entrypoint
        assert deployment.work_pool and deployment.work_pool.name == "home"
        assert deployment.parameters["home"] == "{{ $CAUSEWAY_HOME }}"
    assert str(FILE.name) == "prefect.yaml"


def test_every_deployment_of_the_list_and_of_the_home_is_wanted(things: dict[tuple[str, str], Thing]) -> None:
    wanted = {name for kind, name in things if kind == "deployment"}
    assert wanted == {
        *(f"{name}/{name}" for name in STATIC),
        *("ingest/demo--notes", "ingest/demo--ticks"),
        *("ingest-partition/home", "ingest-partition/north", "ingest-partition/west"),
        *("train-site/north", "train-site/west", "evaluate-site/north", "evaluate-site/west"),
    }


def test_every_pool_has_its_type_and_the_three_queues_of_which_scheduled_goes_first(
    things: dict[tuple[str, str], Thing],
) -> None:
    assert {name: t.fields["type"] for (kind, name), t in things.items() if kind == "pool"} == {
        "home": "process",
        "north": "process",
        "far": "docker",
    }
    priorities = {name: t.fields["priority"] for (kind, name), t in things.items() if kind == "queue"}
    for pool in ("home", "north", "far"):
        assert [priorities[f"{pool}/{name}"] for name in ("scheduled", "default", "backfill")] == [1, 10, 100]


def test_an_ingest_runs_where_its_tables_lie_by_name_and_on_the_schedule_that_was_promised(
    things: dict[tuple[str, str], Thing],
) -> None:
    notes = fields(things, "ingest/demo--notes")
    assert (notes["work_pool_name"], notes["work_queue_name"]) == ("north", "scheduled")
    assert notes["parameters"] == {"home": "/srv/home", "contract": "demo/notes"}
    assert notes["schedules"] == [{"cron": "0 0 * * *", "timezone": "UTC", "slug": "promised"}]
    assert notes["tags"] == ["causeway", "dataset:demo/notes"]
    assert (notes["concurrency_limit"], notes["collision_strategy"]) == (1, "CANCEL_NEW")
    (ticks,) = fields(things, "ingest/demo--ticks")["schedules"]
    assert (ticks["interval_s"], ticks["anchor_date"]) == (20.0, "2020-01-01T00:00:00Z")


def test_a_contract_that_promises_nothing_has_no_schedule(flows: Mapping[str, FlowFacts]) -> None:
    home = replace(HOME, datasets=(dataset("demo/notes", "home"),))
    found = {t.key: t for t in desired(read_file(), home, flows, templates(["process", "docker"]))}
    assert fields(found, "ingest/demo--notes")["schedules"] == []


def test_a_site_trains_on_its_own_pool(things: dict[tuple[str, str], Thing]) -> None:
    west = fields(things, "train-site/west")
    assert west["work_pool_name"] == "far"
    assert west["parameters"] == {"home": "/srv/home", "site": "west"}
    assert west["tags"] == ["causeway", "site:west"]


def test_partitions_of_backfills_go_last(things: dict[tuple[str, str], Thing]) -> None:
    assert fields(things, "ingest-partition/north")["work_queue_name"] == "backfill"


def test_forms_offer_data_sets_and_sites_and_carry_the_words_of_the_docstrings(
    things: dict[tuple[str, str], Thing],
) -> None:
    form = fields(things, "backfill/backfill")["parameter_openapi_schema"]["properties"]
    assert form["dataset"]["enum"] == ["demo/notes", "demo/ticks"]
    assert (
        "oldest" in form["order"]["enum"] and "missing" in form["only"]["enum"] and "shard" in form["through"]["enum"]
    )
    for name, thing in ((n, t) for (kind, n), t in things.items() if kind == "deployment"):
        for parameter, field in thing.fields["parameter_openapi_schema"]["properties"].items():
            assert field.get("description"), f"{name}: {parameter} has no description in its flow's docstring"
    config = fields(things, "shard/shard")["parameter_openapi_schema"]["definitions"]["RunConfig"]["properties"]
    assert config["datasets"]["items"]["enum"] == ["demo/notes", "demo/ticks"]
    assert config["sites"]["items"]["enum"] == ["north", "west"]


def test_a_form_that_offers_data_sets_is_not_enforced_because_new_ones_come(
    things: dict[tuple[str, str], Thing],
) -> None:
    assert fields(things, "curate/curate")["enforce_parameter_schema"] is False
    assert fields(things, "train/train")["enforce_parameter_schema"] is True


def test_automations_name_deployments_that_are_wanted(things: dict[tuple[str, str], Thing]) -> None:
    names = [name for kind, name in things if kind == "automation"]
    assert len(names) == 5 and all(name.startswith("causeway: ") for name in names)
    for name in names:
        for action in things["automation", name].fields["actions"]:
            if "deployment" in action:
                assert ("deployment", action["deployment"]) in things


def test_every_run_sends_the_heartbeats_by_which_dead_ones_are_found(things: dict[tuple[str, str], Thing]) -> None:
    for (kind, _), thing in things.items():
        if kind == "deployment":
            frequency = thing.fields["job_variables"]["env.PREFECT_FLOWS_HEARTBEAT_FREQUENCY"]
            assert frequency == str(HEARTBEAT_S)
    assert things["automation", "causeway: zombies"].fields["trigger"]["within"] == 3 * HEARTBEAT_S


def test_a_run_toml_adds_an_automation_that_starts_it_and_tells_tend_what_to_count(
    flows: Mapping[str, FlowFacts],
) -> None:
    config = {"name": "nightly", "datasets": ["demo/notes"], "purpose": "research pre-training"}
    home = replace(HOME, train=config)
    found = {t.key: t for t in desired(read_file(), home, flows, templates(["process", "docker"]))}
    (action,) = found["automation", "causeway: train nightly"].fields["actions"]
    assert action["deployment"] == "pipeline/pipeline"
    assert action["parameters"]["config"] == config
    assert action["parameters"]["inputs"] == [{"contract": "demo/notes", "source": "", "oracle": False}]
    assert fields(found, "tend/tend")["parameters"]["datasets"] == ["demo/notes"]


SITES = """
format = 1
[home]
store = "home"
jurisdictions = ["SE"]
[[site]]
name = "north"
region = "eu"
jurisdictions = ["SE"]
store = "sites/north"
work_pool = "shared"
{north}
[[site]]
name = "west"
region = "us"
jurisdictions = ["US"]
store = "sites/west"
work_pool = "shared"
"""


def test_places_take_the_type_of_their_pool_from_sites_toml_then_the_command_then_the_server(tmp_path: Path) -> None:
    (tmp_path / "sites.toml").write_text(SITES.format(north=""))
    workspace = Workspace.open(tmp_path)
    assert {p.pool_type for p in facts(workspace).places} == {"process"}
    assert [p.pool_type for p in facts(workspace, known={"shared": "docker"}).places] == ["process", "docker", "docker"]
    assert {p.pool_type for p in facts(workspace, "kubernetes", known={"shared": "docker"}).places} == {"kubernetes"}


def test_two_places_of_one_pool_share_its_type(tmp_path: Path) -> None:
    (tmp_path / "sites.toml").write_text(SITES.format(north='pool_type = "docker"'))
    with pytest.raises(CausewayError, match=r"north and west share the pool 'shared' but not its type"):
        facts(Workspace.open(tmp_path))


def test_an_entrypoint_that_is_not_there_is_named() -> None:
    with pytest.raises(CausewayError, match=r"entrypoint flows\.nowhere\.flow cannot be loaded"):
        load_flows(["flows.nowhere.flow"])
