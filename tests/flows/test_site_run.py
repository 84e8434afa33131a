"""Looking after the site runs of a deployed run, on a real Prefect server that believes what the test says of them."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import FlowRun, State
from prefect.client.schemas.sorting import FlowRunSort
from prefect.states import Cancelled, Completed, Crashed, Failed, Running
from prefect.testing.utilities import prefect_test_harness

import flows.site_run
from data_contracts.catalog.store import Store
from data_contracts.errors import PolicyRefused, RoundError
from flows.evaluate import evaluate
from flows.remote import PAUSED, REFUSED, continue_training, runs_of, start_run, tags
from flows.site_run import SiteRuns
from tests.training.making import Run, contribute, make_run, write_commit

LOGGER = logging.getLogger("test_site_run")
SITES = ("east", "north")


class Folder:
    """The part of a workspace that is looked at: the sites' stores, where their leases lie."""

    def __init__(self, run: Run) -> None:
        self._stores = run.stores

    def store(self, place: str) -> Store:
        return self._stores[place]


@pytest.fixture(scope="module")
def prefect_server() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=120):
        with get_client(sync_client=True) as client:
            client.create_work_pool(WorkPoolCreate(name="p", type="process"))
            for flow, name in (("train-site", "east"), ("train-site", "north")):
                client.create_deployment(client.create_flow_from_name(flow), name, work_pool_name="p", pull_steps=[])
        yield


@pytest.fixture(autouse=True)
def quick(prefect_server: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows.site_run, "POLL_S", 0.0)
    monkeypatch.setattr(flows.site_run, "pause_s", lambda failures: 0.0)


@pytest.fixture
def run(tmp_path: Path, request: pytest.FixtureRequest) -> Run:
    # Each test has a run of its own: the server keeps the flow runs of all.
    return make_run(tmp_path, {"east": "asia", "north": "europe"}, seed=abs(hash(request.node.name)) % 10**6)


def keeper(run: Run) -> SiteRuns:
    return SiteRuns(Folder(run), run.plan, None, LOGGER)  # type: ignore[arg-type]


async def found(run: Run, site: str) -> list[FlowRun]:
    async with get_client() as client:
        return await runs_of(client, f"train-site/{site}", {"run": run.plan.run}, tags(run.plan.run, site))


async def names(run: Run, site: str) -> list[str]:
    return sorted(str(r.state.name) for r in await found(run, site) if r.state)


async def put(one: FlowRun, state: State[Any]) -> None:
    async with get_client() as client:
        await client.set_flow_run_state(one.id, state, force=True)


async def test_each_member_gets_one_run_and_whoever_comes_after_finds_it(run: Run) -> None:
    await keeper(run).keep(run.start)
    (east,) = await found(run, "east")
    assert east.name == f"train {run.plan.run} at east"
    assert set(east.tags) >= {"causeway", f"run:{run.plan.run}", "site:east"}
    await put(east, Running())
    again = keeper(run)
    for _ in range(3):
        await again.keep(run.start)
    assert {site: len(await found(run, site)) for site in SITES} == {"east": 1, "north": 1}


async def test_two_that_start_a_site_at_the_same_moment_get_the_same_run(run: Run) -> None:
    given = {"run": run.plan.run, "site": "east"}
    made = [await start_run("train-site/east", given, tags(run.plan.run, "east"), "n", "key", 0) for _ in range(2)]
    assert made[0].id == made[1].id
    await put(made[0], Crashed())
    assert (await start_run("train-site/east", given, tags(run.plan.run, "east"), "n", "key", 0)).id != made[0].id


async def test_a_run_that_waits_for_a_worker_is_reported_and_not_started_again(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    sites = keeper(run)
    await sites.keep(run.start)
    (east,) = await found(run, "east")
    await put(east, State(type="SCHEDULED", name="Late"))
    for _ in range(3):
        await sites.keep(run.start)
    assert len(await found(run, "east")) == 1
    assert [m for m in caplog.messages if "prefect worker start --pool p" in m] == [
        "site east: its run is late: no worker takes it; start one: prefect worker start --pool p"
    ]


@pytest.mark.parametrize("state", [Crashed(message="the machine is gone"), Failed(message="exit 1: no such shard")])
async def test_a_lost_site_is_started_again_but_not_for_ever(run: Run, state: State[Any]) -> None:
    sites = keeper(run)
    await sites.keep(run.start)
    for _ in range(8):
        await put((await found(run, "east"))[0], state)
        await sites.keep(run.start)
    assert sites.restarts == {"east": 8}
    await put((await found(run, "east"))[0], state)
    with pytest.raises(RoundError, match=rf"site east was lost 9 times .*{state.message}"):
        await sites.keep(run.start)
    # The other would wait for it on its worker.
    assert await names(run, "north") == ["Cancelled"]


async def test_a_commit_begins_the_count_anew(run: Run) -> None:
    sites = keeper(run)
    state = run.start
    for _ in range(2):
        await sites.keep(state)
        for _ in range(8):
            await put((await found(run, "east"))[0], Crashed())
            await sites.keep(state)
        _, state = write_commit(run, state, [contribute(run, state, site) for site in SITES])
    assert sites.restarts == {"east": 16}


async def test_a_refusal_is_final_and_carries_its_clauses(run: Run) -> None:
    sites = keeper(run)
    await sites.keep(run.start)
    await put((await found(run, "east"))[0], Failed(name=REFUSED, message="purposes.prohibited: training"))
    with pytest.raises(PolicyRefused, match=r"purposes\.prohibited"):
        await sites.keep(run.start)


async def test_a_run_that_a_person_cancelled_is_not_started_again(run: Run) -> None:
    sites = keeper(run)
    await sites.keep(run.start)
    await put((await found(run, "east"))[0], Cancelled())
    for _ in range(3):
        await sites.keep(run.start)
    assert await names(run, "east") == ["Cancelled"]


async def test_a_run_that_claims_to_run_while_its_site_is_silent_is_ended_and_started_again(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flows.site_run, "LOST_S", -1.0)
    monkeypatch.setattr(flows.site_run, "CANCEL_S", -1.0)
    sites = keeper(run)
    await sites.keep(run.start)
    await put((await found(run, "east"))[0], Running())
    await sites.keep(run.start)
    assert await names(run, "east") == ["Cancelling"]
    await sites.keep(run.start)
    assert await names(run, "east") == ["Crashed"]
    await sites.keep(run.start)
    assert await names(run, "east") == ["Crashed", "Scheduled"]


async def test_a_site_whose_lease_moves_is_left_alone(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows.site_run, "LOST_S", 0.5)
    sites = keeper(run)
    await sites.keep(run.start)
    await put((await found(run, "east"))[0], Running())
    over = threading.Event()

    def beats() -> None:
        for beat in itertools.count():
            run.stores["east"].put(f"runs/{run.plan.run}/leases/east.json", b'{"attempt": "a", "beat": %d}' % beat)
            if over.wait(0.02):
                return

    thread = threading.Thread(target=beats)
    thread.start()
    until = time.monotonic() + 2.0
    while time.monotonic() < until:
        await sites.keep(run.start)
    over.set()
    thread.join()
    assert await names(run, "east") == ["Running"]


async def test_a_site_that_ended_whole_is_not_lost_though_the_chain_was_not_read_since(run: Run) -> None:
    sites = keeper(run)
    await sites.keep(run.start)
    await put((await found(run, "east"))[0], Completed(message="run is whole"))
    for _ in range(3):
        await sites.keep(run.start)
    assert await names(run, "east") == ["Completed"]
    assert sites.restarts == {}


async def test_a_paused_run_is_left_when_no_site_works_and_resumed_without_counting_a_loss(run: Run) -> None:
    sites = keeper(run)
    await sites.keep(run.start)
    await put((await found(run, "east"))[0], Running())
    assert await sites.busy()
    await put((await found(run, "east"))[0], Completed(name=PAUSED))
    # North's run waits for a worker: it may wait through the pause.
    assert not await sites.busy()
    await sites.keep(run.start)
    assert await names(run, "east") == [PAUSED, "Scheduled"]
    assert sites.restarts == {}


async def test_training_goes_on_by_its_deployment_only_where_there_is_one_and_only_once(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.remote.POLL_S", 0.0)
    assert await continue_training(run.plan.run) is None
    async with get_client() as client:
        await client.create_deployment(await client.create_flow_from_name("train"), "train", work_pool_name="p")
    first = await continue_training(run.plan.run)
    second = await continue_training(run.plan.run)
    assert first is not None
    assert second is not None
    assert (first[1], second[1], second[0].id) == (True, False, first[0].id)
    assert first[0].parameters == {"run": run.plan.run, "deployed": True}
    await put(first[0], Completed(name=PAUSED))
    third = await continue_training(run.plan.run)
    assert third is not None
    assert third[1]


async def test_an_evaluation_that_cannot_be_is_not_tried_again(tmp_path: Path) -> None:
    with pytest.raises(RoundError, match="no run 'nowhere'"):
        await evaluate(str(tmp_path), "nowhere")
    assert [r.run_count for r in await evaluations("nowhere")] == [1]


async def test_an_evaluation_that_a_fault_stopped_is_tried_again_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [OSError("the disk is away"), OSError("the disk is away")]

    async def sometimes(*_: Any) -> list[dict[str, Any]]:
        if left:
            raise left.pop()
        return []

    monkeypatch.setattr("flows.evaluate._evaluate", sometimes)
    assert await evaluate.with_options(retry_delay_seconds=0)(str(tmp_path), "sometimes") == []
    assert [r.run_count for r in await evaluations("sometimes")] == [3]


async def evaluations(run: str) -> list[FlowRun]:
    async with get_client() as client:
        found = await client.read_flow_runs(sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=200)
    return [r for r in found if r.name == f"evaluate {run}"]
