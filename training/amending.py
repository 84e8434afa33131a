"""The owner's changes to a run under way: asked of the run and of the policy first, then signed for committers to find.

What is written here comes into force with the next commit. A commit applies any signed amendment, so what must not
happen is refused here: a change that leaves a region, or the run, with nothing to do, or that the terms forbid.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from data_contracts.errors import RoundError
from data_contracts.policy import Purpose
from training import steps
from training.admission import require_version
from training.planning import RunConfig
from training.rounds.amendment import Amendment, apply_members, list_amendments, write_amendment, write_data_amendment
from training.rounds.commit import ChainState
from training.rounds.control import read_control, require_not_cancelled
from training.rounds.plan import Plan, read_plan
from training.rounds.run import newest_state
from training.rounds.segments import InForce, Opening, in_force, named_versions, region_orders
from training.shards import tokenizers
from training.shards.manifest import DatasetVersion, read_version
from training.workspace import Workspace


@dataclass(frozen=True)
class Outlook:
    """A run as it will be when all that was written so far is in force."""

    workspace: Workspace
    plan: Plan
    state: ChainState
    members: tuple[str, ...]
    pending: tuple[Amendment, ...]

    @property
    def openings(self) -> tuple[Opening, ...]:
        """The segments of the chain, and the one that the pending amendments open."""
        return (*self.state.openings, Opening(self.state.round + 2, self.state.index, self.pending))

    @property
    def in_force(self) -> InForce:
        """The versions and weights then."""
        return in_force(self.plan, self.openings)


def outlook(workspace: Workspace, run: str) -> Outlook:
    """Read a run and the amendments that wait for the next commit.

    Raises:
        RoundError: there is no such run, or it is finished or cancelled: nothing would come into force.
    """
    plan = read_plan(workspace.home, run)
    require_not_cancelled(plan, read_control(workspace.home, run))
    state = newest_state(workspace.home, plan)
    if state.round >= plan.rounds:
        raise RoundError(f"run {run} is finished: all its {plan.rounds} rounds are committed; plan a new one")
    pending = tuple(a for a in list_amendments(workspace.home, plan) if a.sha not in state.amendments)
    return Outlook(workspace, plan, state, apply_members(state.members, pending, plan), pending)


def change_site(workspace: Workspace, run: str, kind: str, site: str, reason: str) -> Amendment:
    """Remove a site, or take one back.

    Raises:
        RoundError: the site is not in the plan, is gone or there already, or would be the last to go.
    """
    found = outlook(workspace, run)
    found.plan.site(site)
    if (site in found.members) == (kind == "add-site"):
        state = "a member" if kind == "add-site" else "no member"
        raise RoundError(f"run {run}: site {site} is {state} already; its members are {', '.join(found.members)}")
    if kind == "remove-site" and found.members == (site,):
        raise RoundError(f"run {run}: {site} is its last site; to end the run: causeway train cancel {run}")
    return write_amendment(workspace.home, found.plan, kind, site, reason, workspace.owner)


def change_weights(workspace: Workspace, run: str, weights: Mapping[str, float], reason: str) -> Amendment:
    """Change mixture weights; a data set that is not named keeps its own, one of weight 0 rests.

    Raises:
        RoundError: a data set is not of the run, some have a weight and others none, or a region of the run would have
            nothing to train on.
    """
    found = outlook(workspace, run)
    _require_weights(found, weights, found.in_force.datasets)
    _require_work(found, "change-weights", {"weights": dict(weights)})
    return _write(found, "change-weights", {"weights": dict(weights)}, reason)


def add_version(
    workspace: Workspace, run: str, dataset: str, version: str | None, weights: Mapping[str, float], reason: str
) -> Amendment:
    """Add a data set version: the named one, or the data set's curated rows as they are now, sharded where needed.

    Raises:
        RoundError: it is of the run already, brings nothing new to the run's regions, or needs a weight.
        PolicyRefused: the terms in force do not let this run train on it.
    """
    found = outlook(workspace, run)
    chosen = _named(found, dataset, version) if version else _sharded(found, dataset)
    if chosen.tokenizer != found.plan.tokenizer:
        raise RoundError(
            f"{dataset}@{chosen.sha[:12]}: sharded for tokenizer {chosen.tokenizer[:12]}, run {run} has"
            f" {found.plan.tokenizer[:12]}; leave --version out to shard it for this run"
        )
    if chosen.sha in found.in_force.versions:
        raise RoundError(
            f"run {run}: trains on {dataset}@{chosen.sha[:12]} already; ingest and curate something new first"
        )
    sites = [workspace.sites.site(s.name) for s in found.plan.sites]
    purpose = Purpose.parse(found.plan.purpose)
    require_version(workspace.terms(), chosen, purpose, workspace.sites.home.place, sites)
    _require_weights(found, weights, {*found.in_force.datasets, dataset})
    facts = {"dataset": dataset, "version": chosen.sha, "weights": dict(weights)}
    before, after = _streams(found, None), _require_work(found, "add-version", facts)
    if before == after:
        regions = ", ".join(sorted({s.region for s in found.plan.sites}))
        raise RoundError(f"run {run}: {dataset}@{chosen.sha[:12]} holds nothing new to train on in {regions}")
    return _write(found, "add-version", facts, reason)


def withdraw_version(workspace: Workspace, run: str, dataset: str, version: str | None, reason: str) -> Amendment:
    """Withdraw a data set version: no contribution after the next commit is trained on it.

    Raises:
        RoundError: the run does not train on it, it is not the only one and none is named, or a region would have
            nothing left to train on.
    """
    found = outlook(workspace, run)
    mine = [sha for sha, name in found.in_force.versions.items() if name == dataset]
    chosen = [sha for sha in mine if sha.startswith(version or "")]
    if len(chosen) != 1:
        listed = ", ".join(sha[:12] for sha in mine) or "no version"
        raise RoundError(f"run {run}: has {listed} of {dataset} in force; name one of them with --version")
    facts = {"dataset": dataset, "version": chosen[0]}
    _require_work(found, "withdraw-version", facts)
    return _write(found, "withdraw-version", facts, reason)


def _write(found: Outlook, kind: str, facts: Mapping[str, object], reason: str) -> Amendment:
    return write_data_amendment(found.workspace.home, found.plan, kind, facts, reason, found.workspace.owner)


def _named(found: Outlook, dataset: str, version: str) -> DatasetVersion:
    home = found.workspace.home
    folder = f"datasets/{dataset.replace('/', '--')}"
    known = [key.rsplit("/", 1)[1].removesuffix(".json") for key, _ in home.list(folder)]
    chosen = [sha for sha in known if sha.startswith(version)]
    if len(chosen) != 1:
        listed = ", ".join(sha[:12] for sha in known) or "none"
        raise RoundError(f"{dataset}: {len(chosen)} versions begin with {version!r}; there are: {listed}")
    return read_version(home, dataset, chosen[0])


def _sharded(found: Outlook, dataset: str) -> DatasetVersion:
    workspace, plan = found.workspace, found.plan
    tokenizer, data = tokenizers.load(workspace, plan.tokenizer)
    record = tokenizers.TokenizerRecord(
        tokenizer, data, workspace.home.get_json(tokenizers.lineage_key(plan.tokenizer)), False
    )
    # All data sets of the run, so that the new shards go where the run as a whole is done soonest.
    datasets = sorted({*found.in_force.datasets, dataset})
    config = RunConfig(name=plan.name, purpose=plan.purpose, tokenizer=tokenizer.vocab_size, datasets=datasets)
    made = steps.make_shards(workspace, config, steps.read_sets(workspace, datasets), record)
    return next(v for v in made.versions if v.dataset == dataset)


def _require_weights(found: Outlook, weights: Mapping[str, float], datasets: Iterable[str]) -> None:
    names = set(datasets)
    unknown = ", ".join(sorted(set(weights) - names))
    if unknown:
        raise RoundError(f"run {found.plan.run}: {unknown} is no data set of it; it has {', '.join(sorted(names))}")
    after = {**found.in_force.weights, **weights}
    missing = ", ".join(sorted(names - set(after)))
    if after and missing:
        raise RoundError(f"run {found.plan.run}: give {missing} a weight as well: beside one, tokens are no measure")


def _streams(found: Outlook, more: Amendment | None) -> dict[str, tuple[tuple[str, bool], ...]]:
    """Return each region's streams, and whether they are handed out, when an amendment comes on top."""
    openings = found.openings
    if more is not None:
        openings = (*found.state.openings, Opening(openings[-1].round, found.state.index, (*found.pending, more)))
    named = named_versions(found.plan, openings)
    versions = {sha: read_version(found.workspace.home, dataset, sha) for sha, dataset in named.items()}
    return {
        region: tuple((s.version, share > 0) for s, share in zip(order.streams, order.mixed, strict=True))
        for region, order in region_orders(found.plan, versions, openings).items()
    }


def _require_work(found: Outlook, kind: str, facts: Mapping[str, object]) -> dict[str, tuple[tuple[str, bool], ...]]:
    """Check that each region with a member keeps something to train on; return the streams of each region then."""
    after = _streams(found, Amendment(kind, "", 0, {}, **facts))  # type: ignore[arg-type]
    for site in found.members:
        region = found.plan.site(site).region
        if not any(handed for _, handed in after[region]):
            raise RoundError(
                f"run {found.plan.run}: would leave {region} nothing to train on; first take {site} out, or"
                " give another data set there a weight"
            )
    return after
