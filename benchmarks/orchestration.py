"""What a backfill costs: beside bare Prefect runs of the same function, and beside plain calls of it.

`prefect_floor_ratio`: seconds a partition of a deployed backfill, over those of bare runs (`benchmarks/bare_flow.py`)
of a deployment in the same pool, as many at once, in turn; ours with the job variables that `causeway deploy` sets, the
bare one with Prefect's own. `direct_ratio`: a whole `--inline` backfill, plan to last
outcome, over plain calls of `ingest_one`. `peak_mb_per_1000_partitions`: how the memory of an inline backfill grows.
`status_ms_at_10000_partitions`: `causeway status --json` as a process. Figures are medians.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

CONTRACT = """
apiVersion: v3.1.0
kind: DataContract
id: bench/days
name: Days
version: 1.0.0
status: active
schema:
  - name: days
    logicalType: object
    properties:
      - {name: day, logicalType: date, required: true, partitioned: true, partitionKeyPosition: 1}
      - {name: place, logicalType: string, required: true, logicalTypeOptions: {minLength: 1, maxLength: 100}}
      - {name: count, logicalType: integer, logicalTypeOptions: {minimum: 0}}
      - {name: text, logicalType: string, required: true, logicalTypeOptions: {minLength: 5}}
customProperties:
  - property: reader
    vendor: causeway
    value:
      format: csv
      partition: {from: path, pattern: '(?P<year>[0-9]{4})-(?P<month>[0-9]{2})-(?P<day>[0-9]{2})[.]csv$'}
  - property: trainingTerms
    vendor: causeway
    value:
      format: 1
      licence: {expression: CC0-1.0}
      purposes: {permitted: [pre-training]}
      residency: {storage: [anywhere], processing: [anywhere]}
      derivedUpdates: may-leave
      heldOut: {share: 0.1, key: bench}
      text: text
"""
DATASET = "bench/days"
FIRST = dt.date(2000, 1, 1)
AT_ONCE = 2


def run(quick: bool) -> dict[str, Any]:
    """Return the figures named above."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        direct = _direct(root, 10 if quick else 60, 2 if quick else 5)
        peak = _peak(root, 60 if quick else 1000)
        status = _status(root, 2 if quick else 7)
        floor = _floor(root, 3 if quick else 12, 1 if quick else 3)
    return {**floor, **direct, **peak, **status}


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


def _source(folder: Path, days: int, rows: int) -> Path:
    """Write one CSV file a day."""
    folder.mkdir(parents=True, exist_ok=True)
    for n in range(days):
        lines = [f"place {r},{r * n},the report of place {r} on day {n}" for r in range(rows)]
        (folder / f"{FIRST + dt.timedelta(n)}.csv").write_text("\n".join(["place,count,text", *lines]) + "\n")
    return folder


def _home(root: Path, name: str, source: Path) -> Any:
    from data_contracts.contract import load_contract
    from training.steps import admit
    from training.workspace import Workspace

    path = root / "contract.yaml"
    path.write_text(CONTRACT)
    shutil.rmtree(root / name, ignore_errors=True)
    workspace = Workspace.open(root / name)
    admit(workspace, load_contract(path), str(source))
    return workspace


def _plain(workspace: Any) -> None:
    from data_contracts.sources import open_source
    from training.steps import ingest_one

    contract = workspace.contract(DATASET)
    source = open_source(contract, workspace.source(DATASET)[1])
    for partition in source.partitions():
        ingest_one(workspace, contract, source, partition)


def _inline(workspace: Any) -> None:
    from data_contracts.backfill.selection import Request
    from flows.backfilling.executor import Executor
    from flows.backfilling.inline import Inline
    from training.backfilling import plan_backfill, start_backfill

    plan = plan_backfill(workspace, DATASET, Request(), max_active=1).plan
    record, _ = start_backfill(workspace, plan)
    state = asyncio.run(Executor(record, Inline(workspace, record)).run())
    if state.word != "done":
        raise RuntimeError(f"the backfill ended {state.word}: {state.causes}")


def _direct(root: Path, days: int, repeats: int) -> dict[str, Any]:
    source = _source(root / "direct", days, 400)
    taken: dict[str, list[float]] = {"plain": [], "inline": []}
    for repeat in range(repeats):
        for name, job in (("plain", _plain), ("inline", _inline)):
            workspace = _home(root, "home-direct", source)
            began = time.perf_counter()
            job(workspace)
            taken[name].append((time.perf_counter() - began) / days)
            _say(f"direct, repeat {repeat + 1} of {repeats}: {name} {1000 * taken[name][-1]:.0f} ms a partition")
    plain, inline = (statistics.median(taken[name]) for name in ("plain", "inline"))
    ratio = statistics.median(i / p for i, p in zip(taken["inline"], taken["plain"], strict=True))
    return {
        "direct_ratio": round(ratio, 3),
        "plain_ms_per_partition": round(1000 * plain, 1),
        "inline_ms_per_partition": round(1000 * inline, 1),
    }


_PEAK = """
import json, sys
from pathlib import Path
from benchmarks.orchestration import _home, _inline
root, few, many = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
peaks = []
for name in (few, many):
    _inline(_home(root, "home-peak", Path(name)))
    # Not ru_maxrss: it keeps what the process that started this one had.
    lines = Path("/proc/self/status").read_text().splitlines()
    peaks.append(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024)
print(json.dumps(peaks))
"""


def _peak(root: Path, days: int) -> dict[str, Any]:
    """A process takes in a few partitions, then many: what its peak grew by is what the many cost."""
    few, many = _source(root / "few", 20, 5), _source(root / "many", days, 5)
    done = subprocess.run(
        [sys.executable, "-c", _PEAK, str(root), str(few), str(many)],
        check=True,
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
    )
    before, after = json.loads(done.stdout.strip().splitlines()[-1])
    _say(f"memory: {before:.0f} MB after 20 partitions, {after:.0f} MB after {days} more")
    return {"peak_mb_per_1000_partitions": round((after - before) / days * 1000, 1), "peak_mb": round(after, 1)}


def _status(root: Path, repeats: int) -> dict[str, Any]:
    """`causeway status --json` over one data set with ten thousand published partitions."""
    import pyarrow as pa
    from deltalake import write_deltalake

    from data_contracts.catalog.tables import PartitionVersion

    workspace = _home(root, "home-status", _source(root / "one", 1, 5))
    _plain(workspace)
    contract = workspace.contract(DATASET)
    tables = workspace.tables(contract)
    (one,) = tables.versions()
    # What publishing leaves after its own compaction: one file. Publishing ten thousand would take half an hour.
    rows = [
        asdict(PartitionVersion(**{**asdict(one), "partition": str(FIRST + dt.timedelta(n)), "ingest_id": f"{n:064x}"}))
        for n in range(1, 10_000)
    ]
    for row in rows:
        row["reasons"] = json.dumps(row["reasons"])
    schema = pa.schema(tables.versions_table().schema)
    write_deltalake(tables.uri("versions"), pa.Table.from_pylist(rows, schema), mode="append")
    taken = []
    for repeat in range(repeats):
        began = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "flows.cli", "status", "--json", "--home", str(workspace.root)],
            check=True,
            capture_output=True,
            text=True,
        )
        taken.append(1000 * (time.perf_counter() - began))
        shown = json.loads(done.stdout.strip().splitlines()[-1])["datasets"][0]["partitions"]
        _say(f"status, repeat {repeat + 1} of {repeats}: {taken[-1]:.0f} ms, {shown:,} partitions")
    return {"status_ms_at_10000_partitions": round(statistics.median(taken))}


def _floor(root: Path, each: int, repeats: int) -> dict[str, Any]:
    """Bare runs and a backfill's runs in turn, in one pool of one worker on a server of their own."""
    from flows.server import server

    source = _source(root / "floor", 2 * each * repeats, 400)
    workspace = _home(root, "home-floor", source)
    _say("floor: a Prefect server and a worker start")
    with server(workspace.root, _free_port()) as url:
        os.environ.update({"PREFECT_API_URL": url, "PREFECT_LOGGING_LEVEL": "ERROR"})
        worker = _worker(workspace.root, url)
        try:
            return asyncio.run(_measure(workspace, each, repeats))
        finally:
            worker.terminate()
            worker.wait(timeout=30)


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _worker(home: Path, url: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PREFECT_API_URL": url, "PREFECT_WORKER_QUERY_SECONDS": "1"}
    log = (home / "worker.log").open("wb")
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "bench", "--type", "process"]
    return subprocess.Popen([*command, "--limit", str(AT_ONCE)], env=environment, stdout=log, stderr=subprocess.STDOUT)


async def _measure(workspace: Any, each: int, repeats: int) -> dict[str, Any]:
    import logging

    from prefect.client.orchestration import get_client

    from data_contracts.backfill.selection import Request
    from flows.backfilling.executor import Executor
    from flows.backfilling.launchers import Deployed
    from flows.ingest import ingest_partition_flow
    from training.backfilling import plan_backfill, start_backfill

    home = str(workspace.root)
    # As deployments/prefect.yaml has it: the engine itself, not Prefect's supervisor before it.
    engine = {"command": f"{sys.executable} -m prefect.engine"}
    await _deploy(ingest_partition_flow, "home", "flows.ingest.ingest_partition_flow", home, engine)
    from benchmarks.bare_flow import bare_ingest

    await _deploy(bare_ingest, "bare", "benchmarks.bare_flow.bare_ingest", home, {})
    days = [str(FIRST + dt.timedelta(n)) for n in range(2 * each * repeats)]
    taken: dict[str, list[float]] = {"bare": [], "ours": []}
    await _bare(days[:1])  # the worker's first run is slower than the rest
    for repeat in range(repeats):
        mine = days[2 * each * repeat : 2 * each * (repeat + 1)]
        began = time.perf_counter()
        await _bare(mine[:each])
        taken["bare"].append((time.perf_counter() - began) / each)
        began = time.perf_counter()
        request = Request("all", partitions=tuple(mine[each:]))
        record, _ = start_backfill(workspace, plan_backfill(workspace, DATASET, request, max_active=AT_ONCE).plan)
        launcher = Deployed(workspace, record, "home", logging.getLogger("bench"), queue="default")
        state = await Executor(record, launcher).run()
        taken["ours"].append((time.perf_counter() - began) / each)
        if state.word != "done":
            raise RuntimeError(f"the backfill ended {state.word}: {state.causes}")
        _say(
            f"floor, repeat {repeat + 1} of {repeats}: bare {taken['bare'][-1]:.2f} s,"
            f" ours {taken['ours'][-1]:.2f} s a partition"
        )
    async with get_client() as client:
        runs = await client.count_flow_runs()
    ratio = statistics.median(o / b for o, b in zip(taken["ours"], taken["bare"], strict=True))
    return {
        "seconds_per_partition": round(statistics.median(taken["ours"]), 3),
        "bare_seconds_per_partition": round(statistics.median(taken["bare"]), 3),
        "prefect_floor_ratio": round(ratio, 3),
        "flow_runs": runs,
        "at_once": AT_ONCE,
    }


async def _deploy(flow: Any, name: str, entrypoint: str, home: str, job_variables: dict[str, str]) -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import WorkPoolCreate
    from prefect.exceptions import ObjectAlreadyExists
    from prefect.utilities.callables import parameter_schema

    async with get_client() as client:
        with suppress(ObjectAlreadyExists):
            await client.create_work_pool(WorkPoolCreate(name="bench", type="process"))
        await client.create_deployment(
            flow_id=await client.create_flow(flow),
            name=name,
            work_pool_name="bench",
            entrypoint=entrypoint,
            pull_steps=[],
            parameters={"home": home},
            job_variables=job_variables,
            parameter_openapi_schema=parameter_schema(flow).model_dump_for_openapi(),
            enforce_parameter_schema=False,
        )


async def _bare(days: list[str]) -> None:
    """Run the bare deployment once a day, AT_ONCE at a time, as a Prefect user would wait for it."""
    from prefect.deployments import arun_deployment

    gate = asyncio.Semaphore(AT_ONCE)

    async def one(day: str) -> None:
        async with gate:
            run = await arun_deployment(
                "bare-ingest/bare",
                parameters={"dataset": DATASET, "partition": day},
                as_subflow=False,
                poll_interval=0.5,
            )
            if run.state is None or not run.state.is_completed():
                raise RuntimeError(f"bare run of {day} ended {run.state}")

    await asyncio.gather(*(one(day) for day in days))
