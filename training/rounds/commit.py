"""Commits and the chain they make: the only authority on what a model is.

    runs/<run>/commits/000042.json       create-only, so a round is decided once
    runs/<run>/commits/000042.1.json     supersedes an invalid 000042.json, naming its hash and the rule it broke
    runs/<run>/inputs/<sha>.json|.safetensors   the contributions that commits name

Whether a commit is valid is a pure function of plan, chain and contributions (`check_commit`). An object that cannot
be reached makes nothing invalid: the reader waits or fails, it never decides.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from data_contracts.canonical import canonical_json, document_sha
from data_contracts.errors import RoundError
from data_contracts.signing import check_signature, sign
from training.rounds import merge
from training.rounds.amendment import Amendment, apply_members
from training.rounds.carrying import check_carried
from training.rounds.codec import Tensors
from training.rounds.contribution import Contribution, Header, check
from training.rounds.fragments import exchanged
from training.rounds.lengths import Measured, measured_after, steps_of
from training.rounds.outliers import Norm, norms_after, outlying
from training.rounds.plan import Plan
from training.rounds.segments import Opening, in_force, opening
from training.shards.schedule import LANES

FORMAT = 1


@dataclass(frozen=True)
class ChainState:
    """The model after a round, and what the next round builds on.

    `head` is the hash of the last commit (before round 1: of the plan); `tensors` the outer state, `state_sha` the
    hash of its snapshot bytes; `index` the committed lane index, 64 numbers a region; `members` the live sites;
    `openings` where the segments after the first one began; `measured` what the chain knows of the sites' speed, where
    the plan's pace asks for it; `norms` those of the last updates that counted, where the plan bounds norms by them.
    """

    round: int
    head: str
    tensors: Tensors = field(repr=False)
    state_sha: str
    index: Mapping[str, tuple[int, ...]] = field(repr=False)
    members: tuple[str, ...]
    amendments: tuple[str, ...] = ()
    openings: tuple[Opening, ...] = ()
    measured: Mapping[str, Measured] = field(default_factory=dict)
    norms: tuple[Norm, ...] = ()


def genesis(plan: Plan, tensors: Tensors) -> ChainState:
    """Return the state before round 1.

    Raises:
        RoundError: the tensors are not the plan's snapshot 0.
    """
    _, sha = merge.pack_state(tensors)
    if sha != plan.snapshot0:
        raise RoundError(f"run {plan.run}: snapshot 0 hashes to {sha}, the plan says {plan.snapshot0}")
    return replace(before_round_1(plan), tensors=tensors)


def before_round_1(plan: Plan) -> ChainState:
    """Return the state before round 1 without the model's tensors: what the plan says of it."""
    regions = sorted({s.region for s in plan.sites})
    members = tuple(sorted(s.name for s in plan.sites if s.name not in plan.later))
    return ChainState(0, plan.sha, {}, plan.snapshot0, dict.fromkeys(regions, (0,) * LANES), members)


def lanes_of(plan: Plan, members: tuple[str, ...], region: str) -> dict[str, list[int]]:
    """Return the lanes of each live site of a region: dealt round robin in the order of the sites' names."""
    sites = [m for m in sorted(members) if plan.site(m).region == region]
    return {site: list(range(k, LANES, len(sites))) for k, site in enumerate(sites)}


def check_against(plan: Plan, state: ChainState, header: Header, terms_head: str, what: str) -> None:
    """Check that a contribution belongs to the next round of this chain.

    Raises:
        RoundError: another run, plan, round, base, codec or older terms, ranges outside its lanes, or error feedback
            that the plan does not have, or has; names `what`.
    """
    expected = {
        "run": plan.run,
        "plan": plan.sha,
        "round": state.round + 1,
        "base": state.head,
        "base_state": state.state_sha,
        "codec": plan.codec_of(header.site),
        "terms_head": terms_head,
    }
    for name, value in expected.items():
        found = getattr(header, name)
        if found != value:
            raise RoundError(f"{what}: {name} is {found!r} where round {state.round + 1} needs {value!r}")
    decay = plan.feedback_of(header.site)
    if bool(header.feedback) != (decay > 0):
        raise RoundError(f"{what}: feedback is {header.feedback!r} where the plan's decay is {decay}")
    if header.site not in state.members:
        raise RoundError(f"{what}: site {header.site!r} is no member in round {state.round + 1}")
    steps = steps_of(plan, state, header.site)
    if header.made_for:
        check_carried(plan, state, header, what)
    elif header.steps != steps:
        raise RoundError(f"{what}: {header.steps} steps where {header.site} takes {steps} in round {state.round + 1}")
    if (header.seconds > 0) != (plan.pace != "fixed"):
        raise RoundError(f"{what}: seconds are {header.seconds:g} where the plan's pace is {plan.pace!r}")
    # An update of ten times the model's own norm is no training step; summed, a few would overflow fp32.
    bound = 10.0 * (1.0 + merge.halving_norm(exchanged(plan, state.tensors, state.round + 1)))
    if header.norm > bound:
        raise RoundError(f"{what}: outlying: norm {header.norm:g} is beyond {bound:g}")
    region = plan.site(header.site).region
    mine = set(lanes_of(plan, state.members, region)[header.site])
    claimed = 0
    for lane, start, end in header.claims:
        if lane not in mine:
            raise RoundError(f"{what}: claims lane {lane} of {region}, which is not its own")
        if start != state.index[region][lane] or end <= start:
            raise RoundError(
                f"{what}: claims lane {lane} from {start} to {end}; the chain stands at {state.index[region][lane]}"
            )
        claimed += end - start
    by_dataset = header.tokens_by_dataset
    if set(by_dataset) - set(in_force(plan, state.openings).datasets) or sum(by_dataset.values()) != header.tokens:
        raise RoundError(
            f"{what}: {header.tokens} tokens are not those of the data sets in force that it names: {by_dataset}"
        )
    if len({lane for lane, _, _ in header.claims}) != len(header.claims):
        raise RoundError(f"{what}: claims a lane twice")
    read = claimed - _skipped(plan, header, what)
    if claimed != header.steps * plan.batch_windows or not 0 < header.tokens <= read * plan.window:
        raise RoundError(
            f"{what}: {header.steps} steps of {plan.batch_windows} windows do not make {claimed} positions, {read} of"
            f" them read, and {header.tokens} tokens"
        )


def _skipped(plan: Plan, header: Header, what: str) -> int:
    """Return how many of the claimed positions the site could not read.

    Raises:
        RoundError: the plan stops at what cannot be read, or the ranges are not within the claims, each once.
    """
    if header.skipped and plan.unreadable != "skip":
        raise RoundError(f"{what}: skips positions; the plan says unreadable = {plan.unreadable!r}")
    claims = {lane: (start, end) for lane, start, end in header.claims}
    reached: dict[int, int] = {}
    for lane, start, end in header.skipped:
        low, high = claims.get(lane, (0, 0))
        if not max(low, reached.get(lane, low)) <= start < end <= high:
            raise RoundError(f"{what}: skips lane {lane} from {start} to {end}, not a range of its claims, in order")
        reached[lane] = end
    return sum(end - start for _, start, end in header.skipped)


def booked(plan: Plan, state: ChainState, headers: Sequence[Header], amendments: Sequence[Amendment]) -> ChainState:
    """Return what a commit of these inputs makes of a state, but for the model: its tensors and hashes are as before.

    All that the chain says and the snapshot does not: who reads a chain without merging books its rounds with this.

    Raises:
        RoundError: amendments are repeated, out of their order, wrongly signed, or leave no site.
    """
    number = state.round + 1
    index = {region: list(lanes) for region, lanes in state.index.items()}
    for header in headers:
        for lane, _, end in header.claims:
            index[plan.site(header.site).region][lane] = end
    again = [a.sequence for a in amendments if a.sha in state.amendments]
    if again or any(a.sequence >= b.sequence for a, b in itertools.pairwise(amendments)):
        raise RoundError(f"run {plan.run} round {number}: amendments repeated or out of their order")
    reached = {region: tuple(lanes) for region, lanes in index.items()}
    opened = opening(plan, number + 1, reached, amendments)
    return replace(
        state,
        round=number,
        index=reached,
        members=apply_members(state.members, amendments, plan),
        amendments=state.amendments + tuple(a.sha for a in amendments),
        openings=(*state.openings, opened) if opened else state.openings,
        measured=measured_after(plan, state, headers),
        norms=norms_after(plan, state, headers),
    )


def lanes_document(plan: Plan, state: ChainState) -> dict[str, Any]:
    """Return what a commit says of the lanes: how far each has come, and whose it is in the round after it."""
    return {
        region: {"index": list(lanes), "sites": lanes_of(plan, state.members, region)}
        for region, lanes in sorted(state.index.items())
    }


@dataclass(frozen=True)
class Round:
    """A commit being made: the state after it, and its document before it is signed."""

    state: ChainState
    body: dict[str, Any]
    snapshot: bytes


def build(
    plan: Plan,
    state: ChainState,
    contributions: list[Contribution],
    *,
    terms_head: str,
    refusals: list[dict[str, str]],
    amendments: list[Amendment],
    deadline: dict[str, Any],
    committer: str,
    supersedes: dict[str, str] | None = None,
) -> Round:
    """Merge checked contributions into the next state and describe it; a pure function of its arguments.

    Raises:
        RoundError: a contribution is not valid for this round, or too few are there.
    """
    ordered = sorted(contributions, key=lambda c: c.header.site)
    sites = [c.header.site for c in ordered]
    if len(set(sites)) != len(sites):
        raise RoundError(f"run {plan.run} round {state.round + 1}: two contributions of one site")
    if len(ordered) < min(plan.membership.quorum, len(state.members)):
        raise RoundError(f"run {plan.run} round {state.round + 1}: {len(ordered)} contributions are below the quorum")
    if state.round >= plan.rounds:
        raise RoundError(f"run {plan.run}: its plan ends with round {plan.rounds}")
    if plan.membership.lost_region == "wait":
        answered = {*sites, *(r["site"] for r in refusals), *(a.site for a in amendments if a.kind == "remove-site")}
        missing = ", ".join(sorted(set(state.members) - answered))
        if missing:
            raise RoundError(f"run {plan.run} round {state.round + 1}: the plan waits for {missing}")
    shapes = {name: t.shape for name, t in exchanged(plan, state.tensors, state.round + 1).items()}
    updates = []
    for c in ordered:
        what = f"contribution {c.sha} of {c.header.site}"
        check_against(plan, state, c.header, terms_head, what)
        updates.append(check(c, plan.site(c.header.site).public_key, shapes, what))
    for site, why in outlying(plan, state, [c.header for c in ordered]).items():
        raise RoundError(f"run {plan.run} round {state.round + 1}: contribution of {site}: {why}")
    tokens = [c.header.tokens for c in ordered]
    outer = plan.outer
    weights = merge.shares(tokens, plan.weight_cap)
    clips = merge.median_clips([c.header.norm for c in ordered]) if plan.clip == "median" else None
    update = merge.weighted_mean(updates, weights, clips)
    moved = merge.outer_step(state.tensors, update, outer.method, outer.lr, outer.momentum)
    tensors = {**state.tensors, **moved}
    snapshot, result = merge.pack_state(tensors)
    after = replace(booked(plan, state, [c.header for c in ordered], amendments), tensors=tensors, state_sha=result)
    body = {
        "format": FORMAT,
        "run": plan.run,
        "plan": plan.sha,
        "round": after.round,
        "previous": state.head,
        "terms_head": terms_head,
        "inputs": [
            {
                "site": c.header.site,
                "contribution": c.sha,
                "payload": c.header.payload,
                "tokens": c.header.tokens,
                "weight": weights[k],
                **({"clip": clips[k]} if clips else {}),
                **({"made_for": c.header.made_for} if c.header.made_for else {}),
            }
            for k, c in enumerate(ordered)
        ],
        "absent": [m for m in state.members if m not in sites],
        "refusals": refusals,
        "amendments": [a.sha for a in amendments],
        "members": list(after.members),
        "lanes": lanes_document(plan, after),
        "result": result,
        "deadline": deadline,
        "committer": committer,
        "supersedes": supersedes,
    }
    return Round(after, body, snapshot)


def seal(made: Round, key: Ed25519PrivateKey) -> tuple[dict[str, Any], ChainState]:
    """Sign a commit; return its document and the state whose head it is."""
    document = sign(made.body, key)
    return document, replace(made.state, head=document_sha(document))


def check_author(plan: Plan, state: ChainState, document: Any, what: str) -> str:
    """Check that a member of the next round wrote and signed this commit; return its name.

    Raises:
        RoundError: it is no commit, or none of a member.
    """
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise RoundError(f"{what}: not a commit of format {FORMAT}")
    committer = document.get("committer")
    if not isinstance(committer, str) or committer not in state.members:
        raise RoundError(f"{what}: committer {committer!r} is no member of round {state.round + 1}")
    check_signature(document, plan.site(committer).public_key, what)
    return committer


def check_commit(
    plan: Plan,
    state: ChainState,
    document: Any,
    contributions: Mapping[str, Contribution],
    amendments: list[Amendment],
    supersedes: dict[str, str] | None,
    what: str,
) -> ChainState:
    """Check a commit by making it again from its inputs; return the state after it.

    Raises:
        RoundError: it breaks a rule: wrongly signed, or any field differs from what the inputs give; names the field.
    """
    committer = check_author(plan, state, document, what)
    named = [str(i.get("contribution")) for i in document.get("inputs", []) if isinstance(i, dict)]
    refusals, deadline = document.get("refusals"), document.get("deadline")
    if not isinstance(refusals, list) or not isinstance(deadline, dict):
        raise RoundError(f"{what}: refusals or deadline facts are missing")
    made = build(
        plan,
        state,
        [contributions[sha] for sha in named if sha in contributions],
        terms_head=str(document.get("terms_head")),
        refusals=refusals,
        amendments=amendments,
        deadline=deadline,
        committer=committer,
        supersedes=supersedes,
    )
    for name, value in made.body.items():
        # As bytes: 1, 1.0 and true are equal in Python, and are three different documents.
        if name not in document or canonical_json(document[name]) != canonical_json(value):
            raise RoundError(f"{what}: {name} is {_short(document.get(name))}, its inputs give {_short(value)}")
    if document.keys() - made.body.keys() - {"signature"}:
        raise RoundError(f"{what}: unknown fields {sorted(document.keys() - made.body.keys() - {'signature'})}")
    return replace(made.state, head=document_sha(document))


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else text[:97] + "..."
