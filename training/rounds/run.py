"""Reading a run: its plan, its snapshots, its chain up to the newest commit. Every site and every check starts here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from data_contracts.catalog.store import Store
from data_contracts.errors import RoundError, StoreError
from training.rounds import merge
from training.rounds.amendment import list_amendments
from training.rounds.chain import Slot, advance
from training.rounds.chain import snapshot_key as snapshot_key
from training.rounds.codec import Tensors
from training.rounds.commit import ChainState, genesis
from training.rounds.contribution import Contribution, read_input
from training.rounds.joining import begin_at_snapshots
from training.rounds.plan import Plan
from training.rounds.segments import InForce, in_force, named_versions, region_orders
from training.shards.manifest import DatasetVersion, ShardRef, Split, read_version
from training.shards.region import RegionOrder, settled


def start_state(home: Store, plan: Plan) -> ChainState:
    """Return the state before round 1, read from snapshot 0.

    Raises:
        StoreError: snapshot 0 is missing or damaged.
    """
    key = snapshot_key(plan.run, 0, plan.snapshot0)
    return genesis(plan, merge.unpack_state(home.get(key, plan.snapshot0), f"{home.url}/{key}"))


def newest_state(home: Store, plan: Plan) -> ChainState:
    """Return the state after the newest commit, as `newest_round` finds it."""
    return newest_round(home, plan)[0]


def newest_round(home: Store, plan: Plan) -> tuple[ChainState, tuple[str, ...]]:
    """Return the state after the newest commit and whose work that commit applied.

    The commits up to the newest snapshot that another commit follows are read, those after it are made again
    (training/rounds/joining.py). Where that does not work out, every commit from round 1 on is made again: what is
    wrong is found and named there.

    Raises:
        StoreError: an object that a commit names is missing or damaged; names it.
    """
    for state in begin_at_snapshots(home, plan):
        try:
            found = _follow(home, plan, state)
        except (RoundError, StoreError):
            continue
        if found[0].round > state.round:
            return found
    return _follow(home, plan, start_state(home, plan))


def _follow(home: Store, plan: Plan, state: ChainState) -> tuple[ChainState, tuple[str, ...]]:
    applied: tuple[str, ...] = ()
    for after, _, inputs in replay(home, plan, state):
        state, applied = after, tuple(c.header.site for c in inputs)
    return state, applied


def replay(
    home: Store, plan: Plan, state: ChainState
) -> Iterator[tuple[ChainState, dict[str, Any], list[Contribution]]]:
    """Yield (state after, commit, inputs) for every commit that follows a state.

    Raises:
        StoreError: an object that a commit names is missing or damaged; names it.
    """
    while True:
        step = advance(home, plan, state)
        if isinstance(step, Slot):
            return
        state, document = step
        inputs = [read_input(home, plan.run, i["contribution"], i["payload"]) for i in document["inputs"]]
        yield state, document, inputs


@dataclass(frozen=True)
class RunData:
    """A run's plan, every data set version that it ever trained on, and the order of each region of the plan.

    `in_force` are the versions and weights that the next round trains on.
    """

    plan: Plan
    versions: tuple[DatasetVersion, ...]
    orders: dict[str, RegionOrder]
    in_force: InForce

    def shards(self, dataset: str, region: str, split: Split) -> tuple[ShardRef, ...]:
        """Return the shards of a data set's versions in force in one region, each once, by key."""
        live = [v for v in self.versions if v.sha in self.in_force.versions and v.dataset == dataset]
        regions = settled(live)
        found = {s.arrow_sha256: s for v in live for s in v.of(region, split) if regions[s.arrow_sha256] == region}
        return tuple(sorted(found.values(), key=lambda s: s.key))


def read_run_data(home: Store, plan: Plan, state: ChainState | None = None) -> RunData:
    """Read the versions that plan and chain name, and derive each region's order up to a state (None: before round 1).

    Raises:
        StoreError: a version is missing or damaged.
        RoundError: a site of the plan lies in a region that holds nothing to train on.
    """
    openings = state.openings if state else ()
    versions = {sha: read_version(home, dataset, sha) for sha, dataset in named_versions(plan, openings).items()}
    orders = region_orders(plan, versions, openings)
    return RunData(plan, tuple(versions.values()), orders, in_force(plan, openings))


def every_version(home: Store, plan: Plan) -> dict[str, str]:
    """Return every data set version that plan and signed amendments name, in force or not: sha to data set.

    Raises:
        RoundError: an amendment is damaged or wrongly signed.
    """
    added = {a.version: a.dataset for a in list_amendments(home, plan) if a.kind == "add-version"}
    return {d.version: d.dataset for d in plan.datasets} | added


def find_run(home: Store, run: str | None) -> str:
    """Return the named run, or the only one when none is named.

    Raises:
        RoundError: there is none, or there are several and none was named.
    """
    runs = sorted({k.split("/")[1] for k, _ in home.list("runs") if k.endswith("/plan.json")})
    if run is not None:
        return run
    if len(runs) != 1:
        raise RoundError(f"{home.url} holds {len(runs)} runs: name one of: {', '.join(runs) or '(none yet)'}")
    return runs[0]


def final_parameters(home: Store, plan: Plan) -> tuple[Tensors, Tensors, ChainState]:
    """Return the parameters before training, those after the newest commit, and the state they belong to."""
    state = newest_state(home, plan)
    before = start_state(home, plan)
    return merge.parameters(before.tensors), merge.parameters(state.tensors), state
