"""Deploy: compare a home with its server, and make the server as it should be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prefect.client.orchestration import get_client

from flows.deploying.actual import read_server
from flows.deploying.apply import apply
from flows.deploying.compare import Change, compare, unwanted
from flows.deploying.desired import HomeFacts, desired, entrypoints, facts, load_flows, read_file, templates
from flows.deploying.thing import Thing
from training.sites import PoolType
from training.workspace import Workspace


@dataclass(frozen=True)
class Deployed:
    """What changed, or would; and what is ours and no longer wanted, which stays without `prune`."""

    home: HomeFacts
    changes: tuple[Change, ...]
    left: tuple[Thing, ...]


async def deploy(
    workspace: Workspace,
    *,
    pool_type: PoolType | None = None,
    train: Mapping[str, Any] | None = None,
    prune: bool = False,
    check: bool = False,
) -> Deployed:
    """Make the server of this process's settings hold what the home needs; with `check` only say what would change.

    Raises:
        CausewayError: an entrypoint cannot be imported, or a pool is there with another type.
    """
    document = read_file()
    flows = load_flows(entrypoints(document))
    async with get_client() as client:
        server = await read_server(client)
        known = {t.name: t.fields["type"] for t in server.things if t.kind == "pool"}
        home = facts(workspace, pool_type, train, known)
        wanted = desired(document, home, flows, templates([p.pool_type for p in home.places]))
        changes = compare(wanted, server.things, prune)
        if not check:
            await apply(client, changes, server)
    return Deployed(home, tuple(changes), tuple(unwanted(wanted, server.things)))
