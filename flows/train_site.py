"""Train at one site: the flow that a site's own worker runs. It starts the site's process and says how it ended."""

# No postponed annotations here: a Prefect worker that loads a flow could not resolve the names in them.

import asyncio
import subprocess
from collections import deque
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from flows.credentials import load_where_deployed
from flows.remote import LEFT, PAUSED, REFUSED
from flows.site_process import site_command
from training.admission import EXIT_REFUSED
from training.rounds.control import EXIT_LEFT, EXIT_PAUSED
from training.rounds.plan import read_plan
from training.workspace import Workspace

LAST_LINES = 30
TERMINATE_S = 10


@flow(name="train-site", flow_run_name="train {run} at {site}")
def train_site(home: str, run: str, site: str, loader_log: str | None = None) -> State[Any]:
    """Train a run's share at one site, to the run's last round or until it is paused.

    Args:
        home: The --home folder, as this site sees it.
        run: The run's id.
        site: The site.
        loader_log: Folder for an independent log of what the site's loader handed out.
    """
    logger = get_run_logger()
    asyncio.run(load_where_deployed(site))
    workspace = Workspace.open(Path(home))
    plan = read_plan(workspace.home, run)
    command = site_command(workspace, plan, plan.site(site).name, Path(loader_log) if loader_log else None)
    # Not an async flow: a cancelled run's signal arrives in this thread, and the process is ended in order.
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace")
    logger.info("site %s: process %d trains run %s", site, process.pid, run)
    said: deque[str] = deque(maxlen=LAST_LINES)
    try:
        for line in process.stdout or ():
            said.append(line.rstrip())
        code = process.wait()
    finally:
        _end(process)
    for line in said:
        logger.info("%s", line)
    last = said[-1] if said else "no message"
    if code == 0:
        return Completed(message=f"run {run} is whole")
    if code == EXIT_PAUSED:
        return Completed(name=PAUSED, message=last)
    if code == EXIT_LEFT:
        return Completed(name=LEFT, message=last)
    if code == EXIT_REFUSED:
        return Failed(name=REFUSED, message="\n".join(said))
    return Failed(message=f"site {site}: exit {code}: {last}")


def _end(process: subprocess.Popen[str]) -> None:
    """End the site's process if it still runs: it publishes nothing half, and goes on from the chain next time."""
    if process.poll() is not None:
        return
    process.terminate()
    try:
        process.wait(timeout=TERMINATE_S)
    except subprocess.TimeoutExpired:
        process.kill()
