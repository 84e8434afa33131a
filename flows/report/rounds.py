"""What happened round by round, as the chain says it, and what the sites kept of it themselves."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from data_contracts.canonical import canonical_json
from data_contracts.errors import ObjectMissing, StoreError
from flows.report.facts import Change, RoundSite
from training.rounds.amendment import Amendment, read_amendment
from training.rounds.commit import ChainState
from training.rounds.contribution import Contribution
from training.rounds.plan import Plan
from training.workspace import Workspace

_SECONDS = ("compute_s", "wait_s", "encode_s", "transfer_s")
_KEPT = ("grad_norm", *_SECONDS, "utilisation", "mfu", "mfu_note", "energy_j", "energy")


def round_sites(
    plan: Plan,
    document: Mapping[str, Any],
    inputs: list[Contribution],
    kept: Mapping[tuple[int, str], Mapping[str, Any]],
) -> Iterable[RoundSite]:
    """Yield what each site did in the round of a commit; `kept` are the sites' own figures by round and site."""
    number = int(document["round"])
    weights = {i["site"]: i["weight"] for i in document["inputs"]}
    refused = {r["site"]: r["reason"] for r in document["refusals"]}
    for made in inputs:
        h = made.header
        figures = kept.get((number, h.site), {})
        own: dict[str, Any] = {name: figures[name] for name in _KEPT if name in figures}
        yield RoundSite(
            round=number,
            site=h.site,
            outcome="counted",
            tokens=h.tokens,
            loss=h.loss,
            weight=weights[h.site],
            norm=h.norm,
            device=device_of(plan, h.device),
            bytes_out=len(canonical_json(made.document)) + len(made.payload),
            **own,
        )
    for site in document["absent"]:
        yield RoundSite(number, site, f"refused: {refused[site]}" if site in refused else "late")


def changes(
    plan: Plan, before: ChainState, after: ChainState, document: Mapping[str, Any], amendments: Mapping[str, Amendment]
) -> Iterable[Change]:
    """Yield what the commit of a round changed; it is in force from the next round on."""
    number = after.round + 1
    for sha in document["amendments"]:
        yield Change(number, f"amendment: {amendments[sha].words}", amendments[sha].reason)
    for site in sorted(set(after.members) - set(before.members)):
        yield Change(number, f"{site} joins")
    for site in sorted(set(before.members) - set(after.members)):
        yield Change(number, f"{site} leaves")
    if weights := plan.weights_from(number):
        yield Change(number, "curriculum: " + " ".join(f"{d}={w:g}" for d, w in sorted(weights.items())))


def read_amendments(workspace: Workspace, plan: Plan, state: ChainState) -> dict[str, Amendment]:
    """Return the amendments that the chain has applied, by sha."""
    return {sha: read_amendment(workspace.home, plan.run, sha) for sha in state.amendments}


def read_kept(workspace: Workspace, plan: Plan) -> dict[tuple[int, str], dict[str, Any]]:
    """Return the telemetry objects of all sites by round and site; those of a store out of reach are left out."""
    found: dict[tuple[int, str], dict[str, Any]] = {}
    for listed in plan.sites:
        try:
            store = workspace.store(listed.name)
            keys = [k for k, _ in store.list(f"runs/{plan.run}/telemetry") if k.endswith(f"/{listed.name}.json")]
            for key in keys:
                facts = store.get_json(key)
                found[int(facts["round"]), listed.name] = facts
        except (StoreError, ObjectMissing):
            continue
    return found


def device_of(plan: Plan, said: str) -> str:
    """Return the device of a header with its dtype: where it names none it is the recipe's."""
    dtype = str(plan.inner.get("dtype", "float32"))
    return (
        said if {"float32", "bfloat16"} & set(said.split()) else " ".join([*said.split()[:1], dtype, *said.split()[1:]])
    )
