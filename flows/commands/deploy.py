"""Commands on deployments: deploy, up, down."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from flows.commands import DEFAULT_HOME, Home, Json, print_json, print_table


def deploy(
    *,
    home: Home = DEFAULT_HOME,
    check: Annotated[bool, Parameter(negative="")] = False,
    prune: Annotated[bool, Parameter(negative="")] = False,
    pool_type: Literal["process", "docker", "kubernetes"] | None = None,
    train: Path | None = None,
    json: Json = False,
) -> int:
    """Make this folder's work pools, queues, deployments, schedules and automations as deployments/prefect.yaml says.

    Done again, it changes nothing. What a person has added (parameters, job variables, a paused schedule, an automation
    that is switched off) stays. Exit 1: --check has found something to change.

    Examples:
        causeway deploy
        causeway deploy --check
        causeway deploy --train run.toml

    Parameters
    ----------
    check:
        Say what would change, and change nothing.
    prune:
        Remove our deployments and automations that are no longer wanted.
    pool_type:
        How runs are started at places for which sites.toml names no pool_type; default: process.
    train:
        A run.toml: when enough new text waits, the pipeline runs on it.
    """
    import asyncio

    from flows.server import use_running

    home = home.absolute()
    use_running(home)
    from flows.deploying.deploy import deploy as work
    from training.planning import load_run_config
    from training.workspace import Workspace

    config = load_run_config(train).model_dump(mode="json") if train else None
    done = asyncio.run(
        work(Workspace.open(home), pool_type=pool_type, train=config, prune=prune, check=check),
    )
    if json:
        left = [{"kind": t.kind, "name": t.name} for t in done.left] if not prune else []
        print_json({"changes": [c.document() for c in done.changes], "unwanted": left})
    else:
        for change in done.changes:
            print("\n".join(change.lines()))
        if done.left and not prune:
            for thing in done.left:
                print(f"? {thing.kind} {thing.name}: no longer wanted; causeway deploy --prune removes it")
        counted = f"{len(done.changes)} to change" if check else f"{len(done.changes)} changed"
        print(counted if done.changes else "nothing to change")
    return 1 if check and done.changes else 0


def up(
    *,
    home: Home = DEFAULT_HOME,
    port: int | None = None,
    host: str = "127.0.0.1",
    postgres: Annotated[str | None, Parameter(env_var="CAUSEWAY_POSTGRES")] = None,
    redis: Annotated[str | None, Parameter(env_var="CAUSEWAY_REDIS")] = None,
    no_workers: Annotated[bool, Parameter(negative="")] = False,
    sites: str | None = None,
    json: Json = False,
) -> int:
    """Start this folder's Prefect server and a worker for each work pool in the background, and deploy.

    Run again, it starts what is missing, such as a worker that died. Logs are in prefect/logs of the folder.

    Examples:
        causeway up
        causeway up --port 4300 --sites north,west
        causeway up --no-workers

    Parameters
    ----------
    port:
        Port of the server; default: where it was before, at first 4200.
    host:
        Address that the server listens on; beyond this machine only with a password (causeway secrets auth).
    postgres:
        postgresql:// URL of the server's database; better in the environment, where other users do not see it.
    redis:
        redis:// URL that the server's processes share; goes together with --postgres.
    no_workers:
        Start the server only; workers run elsewhere.
    sites:
        Comma-separated sites whose workers run here, besides home's; default: all.
    """
    from flows.up import scale_of
    from flows.up import up as start

    home = home.absolute()
    chosen = [name.strip() for name in sites.split(",") if name.strip()] if sites is not None else None
    done = start(home, port=port, host=host, scale=scale_of(postgres, redis), workers=not no_workers, sites=chosen)
    rows = [[p.name, p.pid, p.pool, "started" if p.name in done.started else "was up"] for p in done.processes]
    if json:
        columns = ["name", "pid", "pool", "state"]
        print_json(
            {
                "url": done.url,
                "ui": done.ui,
                "database": done.database,
                "processes": [dict(zip(columns, row, strict=True)) for row in rows],
                "elsewhere": done.elsewhere,
                "changes": len(done.changes),
            }
        )
        return 0
    print_table(f"{home}", ["process", "pid", "pool", ""], [[name, str(pid), *rest] for name, pid, *rest in rows])
    print(f"{len(done.changes)} deployments, pools and automations changed." if done.changes else "Nothing to deploy.")
    for pool, kind in done.elsewhere.items():
        print(f"Pool {pool} is of type {kind}: start its worker where it runs: prefect worker start --pool {pool}")
    print(f"UI: {done.ui}   (causeway down ends everything)")
    return 0


def down(*, home: Home = DEFAULT_HOME, json: Json = False) -> int:
    """End this folder's server, its workers and their runs; runs go on from their stores when they are started again.

    Examples:
        causeway down
    """
    from flows.up import down as stop

    ended = stop(home.absolute())
    if json:
        print_json({"ended": [{"name": p.name, "pid": p.pid} for p in ended]})
    else:
        print(f"ended: {', '.join(p.name for p in ended)}" if ended else "nothing was up")
    return 0
