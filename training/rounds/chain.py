"""Reading the chain: the next valid commit, or the slot where it would go.

runs/<run>/commits/000042.json       create-only, so a round is decided once
runs/<run>/commits/000042.1.json     supersedes an invalid 000042.json, naming its hash and the rule it broke
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from data_contracts.canonical import canonical_json, sha256
from data_contracts.catalog.store import Store
from data_contracts.errors import ObjectMissing, RoundError, StoreError
from data_contracts.signing import check_signature
from training.rounds.amendment import Amendment, read_amendment
from training.rounds.commit import ChainState, check_author, check_commit
from training.rounds.contribution import read_input
from training.rounds.plan import Plan


def commit_key(run: str, number: int, attempt: int = 0) -> str:
    """Key of a round's commit; `attempt` above 0 supersedes an invalid one."""
    return f"runs/{run}/commits/{number:06d}{f'.{attempt}' if attempt else ''}.json"


def snapshot_key(run: str, number: int, sha: str) -> str:
    """Key of the outer state after a round, in the home store."""
    return f"runs/{run}/snapshots/{number:06d}/{sha}.safetensors"


def read_amendments(home: Store, run: str, shas: list[str]) -> list[Amendment]:
    """Return the amendments that a commit names."""
    return [read_amendment(home, run, sha) for sha in shas]


@dataclass(frozen=True)
class Slot:
    """Where the next commit goes: its key, and what it supersedes when invalid ones stand before it."""

    key: str
    supersedes: dict[str, str] | None


def advance(home: Store, plan: Plan, state: ChainState) -> tuple[ChainState, dict[str, Any]] | Slot:
    """Return the state after the next valid commit and its document, or the free slot when there is none yet.

    Raises:
        StoreError: an object that a commit names is missing, damaged, or cannot be reached; or a commit is, and later
            rounds follow it: the history was decided, so it is never decided again.
    """
    supersedes: dict[str, str] | None = None
    for attempt in range(100):
        key = commit_key(plan.run, state.round + 1, attempt)
        try:
            data = home.get(key)
        except ObjectMissing:
            if not _later_round(home, plan, state.round + 1):
                return Slot(key, supersedes)
            try:
                data = home.get(key)  # it may have been written between the two looks
            except ObjectMissing:
                why = f"damaged: {supersedes['rule']}" if supersedes else "missing"
                lost = commit_key(plan.run, state.round + 1)
                raise StoreError(f"{home.url}/{lost}: {why}; later rounds follow it: restore it from a copy") from None
        what = f"{home.url}/{key}"
        try:
            document = parse_commit(data, what)
            # Before its inputs are looked for: what no member signed must not make anybody wait for objects it names.
            check_author(plan, state, document, what)
            inputs = [read_input(home, plan.run, i["contribution"], i["payload"]) for i in document["inputs"]]
            amendments = read_amendments(home, plan.run, document["amendments"])
            by_sha = {c.sha: c for c in inputs}
            return check_commit(plan, state, document, by_sha, amendments, supersedes, what), document
        except RoundError as error:
            supersedes = {"sha": sha256(data), "rule": str(error).removeprefix(f"{what}: ")}
    raise RoundError(f"run {plan.run} round {state.round + 1}: 100 invalid commits; a site is misbehaving")


def _later_round(home: Store, plan: Plan, number: int) -> bool:
    """Say whether a member of the plan has signed a commit of a later round."""
    for key, _ in home.list(f"runs/{plan.run}/commits"):
        if int(key.rsplit("/", 1)[1][:6]) <= number:
            continue
        try:
            document = parse_commit(home.get(key), key)
            check_signature(document, plan.site(str(document.get("committer"))).public_key, key)
        except (RoundError, ObjectMissing):
            continue
        return True
    return False


def parse_commit(data: bytes, what: str) -> dict[str, Any]:
    """Return a commit's document, so far whole that what it names can be looked for.

    Raises:
        RoundError: the bytes are not the canonical JSON of one; names `what`.
    """
    try:
        document = json.loads(data)
        for entry in document["inputs"]:
            if not (_is_sha(entry["contribution"]) and _is_sha(entry["payload"])):
                raise TypeError("inputs name no contribution")
        if not all(_is_sha(a) for a in document["amendments"]):
            raise TypeError("amendments are not hashes")
        if canonical_json(document) != data:
            raise ValueError("not canonical JSON")
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise RoundError(f"{what}: not a commit ({error})") from error
    parsed: dict[str, Any] = document
    return parsed


def _is_sha(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value) is not None
