"""Where a reader of the chain begins: at the newest snapshot that the chain names, not at round 1.

Up to that snapshot the documents are read and their rounds booked: each commit names the one before it, is signed by
a member, and says what its signed inputs give of members, lanes and amendments; the snapshot is the bytes that its
commit calls the result. That the merges gave these bytes is not computed again: `causeway verify` does that. A snapshot
is used only when a commit follows it, which its reader makes again in full: its inputs are the sites' own word, signed,
that they too stood at that commit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, TypeVar

from data_contracts.canonical import canonical_json, sha256
from data_contracts.catalog.store import Store
from data_contracts.errors import RoundError, StoreError
from training.rounds import merge
from training.rounds.chain import parse_commit, read_amendments, snapshot_key
from training.rounds.commit import ChainState, before_round_1, booked, check_author, lanes_document
from training.rounds.contribution import Header, read_input_header
from training.rounds.plan import Plan

Given = TypeVar("Given")
Found = TypeVar("Found")
_TRIES = 2  # snapshots; a store in which both are damaged is one to be looked at from round 1
_AT_ONCE = 16


def begin_at_snapshots(home: Store, plan: Plan) -> Iterator[ChainState]:
    """Yield the states that the newest snapshots hold, newest first; those that cannot be used are passed over."""
    rounds: dict[int, list[str]] = {}
    for key, _ in home.list(f"runs/{plan.run}/commits"):
        rounds.setdefault(int(key.rsplit("/", 1)[1][:6]), []).append(key)
    newest = max(rounds, default=0)
    due = [n for n in range(newest - 1, 0, -1) if n % plan.snapshot_every == 0]
    for number in due[:_TRIES]:
        try:
            yield _at_snapshot(home, plan, number, rounds)
        except (RoundError, StoreError):
            continue


def _at_snapshot(home: Store, plan: Plan, number: int, rounds: dict[int, list[str]]) -> ChainState:
    """Return the state after a round, read from its snapshot.

    Raises:
        RoundError, StoreError: a commit, an input's header or the snapshot is missing, damaged or not what names it.
    """
    state = before_round_1(plan)
    chain = _linked(home, plan, number, rounds)
    named = [i["contribution"] for _, _, document in chain for i in document["inputs"]]
    headers = dict(zip(named, _at_once(lambda sha: read_input_header(home, plan, sha), named), strict=True))
    for key, sha, document in chain:
        inputs = [headers[i["contribution"]] for i in document["inputs"]]
        state = _book(home, plan, state, document, inputs, key)
        state = replace(state, head=sha, state_sha=document["result"])
    key = snapshot_key(plan.run, number, state.state_sha)
    return replace(state, tensors=merge.unpack_state(home.get(key, state.state_sha), f"{home.url}/{key}"))


def _linked(
    home: Store, plan: Plan, number: int, rounds: dict[int, list[str]]
) -> list[tuple[str, str, dict[str, Any]]]:
    """Return key, hash and document of the commits 1..number, each the one that the next names as the one before it."""
    keys = [key for n in range(1, number + 1) for key in rounds.get(n, [])]
    read = dict(zip(keys, _at_once(home.get, keys), strict=True))
    if len(rounds.get(number, [])) != 1:
        raise RoundError(f"run {plan.run} round {number}: not one commit alone, so what follows must say which")
    found: list[tuple[str, str, dict[str, Any]]] = []
    previous = sha256(read[rounds[number][0]])
    for n in range(number, 0, -1):
        key = next((k for k in rounds.get(n, []) if sha256(read[k]) == previous), None)
        if key is None:
            raise RoundError(f"run {plan.run} round {n}: no commit is the one that round {n + 1} follows")
        document = parse_commit(read[key], f"{home.url}/{key}")
        found.append((f"{home.url}/{key}", previous, document))
        previous = document.get("previous", "")
    if previous != plan.sha:
        raise RoundError(f"run {plan.run} round 1: its commit does not follow the plan")
    return found[::-1]


def _book(
    home: Store, plan: Plan, state: ChainState, document: dict[str, Any], inputs: list[Header], what: str
) -> ChainState:
    """Return what a commit makes of a state, but for the model, checked against what the commit says."""
    check_author(plan, state, document, what)
    number, sites = state.round + 1, [h.site for h in inputs]
    strays = [h.site for h in inputs if (h.round, h.base, h.base_state) != (number, state.head, state.state_sha)]
    if strays:
        raise RoundError(f"{what}: the contributions of {', '.join(strays)} were made for another state")
    after = booked(plan, state, inputs, read_amendments(home, plan.run, document["amendments"]))
    expected = {
        "run": plan.run,
        "plan": plan.sha,
        "round": number,
        "previous": state.head,
        "absent": [m for m in state.members if m not in sites],
        "members": list(after.members),
        "lanes": lanes_document(plan, after),
    }
    for name, value in expected.items():
        if name not in document or canonical_json(document[name]) != canonical_json(value):
            raise RoundError(f"{what}: {name} is not what its inputs give")
    return after


def _at_once(call: Callable[[Given], Found], given: Iterable[Given]) -> list[Found]:
    # Hundreds of small objects, each a way to the store and back.
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(call, given))
