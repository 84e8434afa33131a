"""`causeway verify RUN`: recompute the chain from its contributions to the model, and check every object on the way.

It trusts nothing but the owner's public key in the plan: each object is read again and compared with what names it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from data_contracts.catalog.store import Store
from data_contracts.catalog.terms_chain import read_terms
from data_contracts.errors import CausewayError, ObjectMissing, RoundError, StoreError
from training.rounds import contribution as contributions
from training.rounds import ledger
from training.rounds.chain import Slot, advance, commit_key
from training.rounds.commit import ChainState
from training.rounds.plan import Plan, read_plan
from training.rounds.run import every_version, replay, snapshot_key, start_state
from training.shards.manifest import read_manifest, read_version
from training.workspace import Workspace

__all__ = ["Verification", "verify_run"]


@dataclass(frozen=True)
class Verification:
    """What was checked and what is wrong; `problems` name objects. `state_sha` is the model's, if the chain holds."""

    run: str
    rounds: int
    objects: int
    problems: tuple[str, ...]
    head: str
    state_sha: str
    tokens: int

    @property
    def ok(self) -> bool:
        """True when nothing is wrong and every planned round is committed."""
        return not self.problems


def _ends(state: ChainState | None) -> tuple[str, str]:
    return (state.head, state.state_sha) if state else ("", "")


class _Checks:
    def __init__(self) -> None:
        self.objects = 0
        self.problems: list[str] = []

    def check(self, what: Callable[[], object]) -> None:
        self.objects += 1
        try:
            what()
        except CausewayError as error:
            self.problems.append(str(error))


def verify_run(workspace: Workspace, run: str) -> Verification:
    """Check plan, versions, manifests, shards, tokenizer, terms, contributions, commits and snapshots of a run.

    The plan must be readable; every other fault is collected, so one pass names all damaged objects it can reach.

    Raises:
        RoundError: there is no such run, or its plan is damaged.
    """
    home = workspace.home
    plan = read_plan(home, run)
    checks = _Checks()
    checks.check(lambda: home.get(f"tokenizers/{plan.tokenizer}.json", plan.tokenizer))
    _verify_shards(workspace, plan, checks)
    state, rounds, tokens = _verify_chain(workspace, plan, checks)
    if rounds < plan.rounds and not checks.problems:
        key = commit_key(run, rounds + 1)
        checks.problems.append(
            f"{home.url}/{key}: the chain ends at round {rounds} of {plan.rounds}; go on with: causeway train"
        )
    return Verification(run, rounds, checks.objects, tuple(checks.problems), *_ends(state), tokens)


def _verify_shards(workspace: Workspace, plan: Plan, checks: _Checks) -> None:
    try:
        named = every_version(workspace.home, plan)
    except RoundError as error:
        checks.problems.append(str(error))
        return
    for sha, dataset in named.items():
        try:
            version = read_version(workspace.home, dataset, sha)
        except StoreError as error:
            checks.problems.append(str(error))
            continue
        checks.objects += 1
        for ref in version.shards:
            try:
                store = workspace.sites.region_store(ref.region)
            except CausewayError as error:
                checks.problems.append(f"shard {ref.key}: {error}")
                continue
            checks.check(lambda store=store, ref=ref: read_manifest(store, ref.key, ref.manifest_sha256))  # type: ignore[misc]
            checks.check(lambda store=store, ref=ref: store.get(ref.arrow_key, ref.arrow_sha256))  # type: ignore[misc]


def _verify_chain(workspace: Workspace, plan: Plan, checks: _Checks) -> tuple[ChainState | None, int, int]:
    home = workspace.home
    state: ChainState | None = None
    committed = []
    tokens = 0
    try:
        heads = read_terms(home, plan.owner).chain
        stood = _terms_place(heads, plan.terms_head, f"plan {plan.run}")
        state = start_state(home, plan)
        checks.objects += 1
        for after, document, inputs in replay(home, plan, state):
            number, state = after.round, after
            committed.append((number, inputs))
            tokens += sum(c.header.tokens for c in inputs)
            checks.objects += 1 + 2 * len(inputs)
            for one in inputs:
                checks.check(lambda one=one: _at_its_site(workspace, plan, one))  # type: ignore[misc]
            if number % plan.snapshot_every == 0 or number == plan.rounds:
                key = snapshot_key(plan.run, number, after.state_sha)
                checks.check(lambda key=key, after=after: home.get(key, after.state_sha))  # type: ignore[misc]
            at = _terms_place(heads, document["terms_head"], f"{home.url}/{commit_key(plan.run, number)}")
            if at < stood:
                raise RoundError(f"{home.url}/{commit_key(plan.run, number)}: goes back to older terms")
            stood = at
        ledger.entries(plan, committed)
        _name_what_stops(home, plan, state, checks)
    except (StoreError, RoundError) as error:
        checks.problems.append(str(error))
    return state, state.round if state else 0, tokens


def _terms_place(heads: tuple[str, ...], sha: str, what: str) -> int:
    """Return where in the chain of terms an entry stands; one that is not there was rolled back or made up."""
    if sha not in heads:
        raise RoundError(f"{what}: made under terms {sha[:12]}, which are not in the chain of terms; restore terms/")
    return heads.index(sha)


def _name_what_stops(home: Store, plan: Plan, state: ChainState, checks: _Checks) -> None:
    """Report a commit that is there but invalid: the chain stops at it until a site supersedes it."""
    step = advance(home, plan, state)
    if isinstance(step, Slot) and step.supersedes is not None:
        key = commit_key(plan.run, state.round + 1)
        checks.problems.append(f"{home.url}/{key}: {step.supersedes['rule']}")


def _at_its_site(workspace: Workspace, plan: Plan, one: contributions.Contribution) -> None:
    """Check the contribution at the site that published it; its copy at home has been checked by the chain."""
    header = one.header
    store = workspace.store(header.site)
    stem = f"{contributions.folder(plan.run, header.round)}/{header.site}"
    try:
        store.get(f"{stem}-{one.sha}.json", one.sha)
        store.get(f"{stem}-{header.payload}.safetensors", header.payload)
    except ObjectMissing as error:
        raise StoreError(f"{error}; home keeps a copy under runs/{plan.run}/inputs/") from error
