"""Deploying to a real Prefect server: once is enough, and what is no longer wanted goes only when asked."""

from __future__ import annotations

from pathlib import Path

import pytest
from prefect.client.orchestration import get_client

from data_contracts.errors import CausewayError
from flows.deploying.deploy import deploy
from tests.training.ingested import CONFIG
from training.workspace import Workspace

pytestmark = pytest.mark.usefixtures("prefect_server")
TRAIN = CONFIG.model_dump(mode="json")


async def test_deploying_twice_changes_nothing_and_prune_removes_what_is_no_longer_wanted(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "home")
    checked = await deploy(workspace, train=TRAIN, check=True)
    made = await deploy(workspace, train=TRAIN)
    assert [c.thing.key for c in made.changes] == [c.thing.key for c in checked.changes]
    assert {c.action for c in made.changes} == {"add"}
    assert (await deploy(workspace, train=TRAIN)).changes == ()
    async with get_client() as client:
        queues = await client.read_work_queue_by_name("default", work_pool_name="north")
        assert queues.priority == 10
        (found,) = await client.read_automations_by_name("causeway: train small")
        # A person has switched it off: it stays off when its text changes.
        await client.pause_automation(found.id)
        other = {**TRAIN, "rounds": 2}
        (change,) = (await deploy(workspace, train=other)).changes
        assert change.thing.name == "causeway: train small"
        (found,) = await client.read_automations_by_name("causeway: train small")
        assert not found.enabled
        curate = await client.read_deployment_by_name("curate/curate")
        await client.create_deployment(curate.flow_id, "old", tags=["causeway"])
        await client.create_deployment(curate.flow_id, "theirs")
    left = await deploy(workspace)
    assert ([t.name for t in left.left], left.changes) == (["causeway: train small", "curate/old"], ())
    pruned = await deploy(workspace, prune=True)
    assert [(c.action, c.thing.name) for c in pruned.changes] == [
        ("remove", "causeway: train small"),
        ("remove", "curate/old"),
    ]
    assert (await deploy(workspace, prune=True)).changes == ()
    async with get_client() as client:
        assert (await client.read_deployment_by_name("curate/theirs")).name == "theirs"


async def test_a_pool_of_another_type_is_refused_and_kept_when_nobody_says_otherwise(tmp_path: Path) -> None:
    workspace = Workspace.open(tmp_path / "home")
    await deploy(workspace)
    with pytest.raises(CausewayError, match=r"is of type process, sites.toml and --pool-type say docker"):
        await deploy(workspace, pool_type="docker")
    assert [c for c in (await deploy(workspace, check=True)).changes if c.kind == "pool"] == []
