from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from data_contracts.canonical import canonical_json, document_sha, sha256
from data_contracts.errors import RoundError, StoreError
from data_contracts.signing import sign
from tests.training.making import Run, contribute, key_of, make_run, tensors, write_commit
from training.rounds import contribution as contributions
from training.rounds import merge
from training.rounds.chain import Slot, advance, commit_key
from training.rounds.closing import Closer
from training.rounds.commit import ChainState, build, check_commit, genesis
from training.rounds.contribution import Contribution
from training.rounds.run import newest_state, replay, snapshot_key, start_state

ALL = ("east", "north", "west")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(tmp_path)


def everybody(run: Run, state: ChainState, sites: tuple[str, ...] = ALL, **changes: Any) -> list[Contribution]:
    return [contribute(run, state, site, **changes) for site in sites]


def step(run: Run, state: ChainState) -> tuple[ChainState, dict[str, Any]]:
    found = advance(run.home, run.plan, state)
    assert not isinstance(found, Slot)
    return found


def judge(run: Run, state: ChainState, document: Any, given: list[Contribution]) -> ChainState:
    return check_commit(run.plan, state, document, {c.sha: c for c in given}, [], None, "the commit")


def slot_of(run: Run, state: ChainState) -> Slot:
    found = advance(run.home, run.plan, state)
    assert isinstance(found, Slot)
    return found


def closer(run: Run, site: str) -> Closer:
    return Closer(run.plan, site, run.home, run.stores, key_of(site))


def test_what_was_built_and_sealed_is_found_good_and_gives_the_same_state(run: Run) -> None:
    document, after = write_commit(run, run.start, everybody(run, run.start), "west")
    found, read = step(run, run.start)
    assert read == document
    assert (found.head, found.state_sha, found.index, found.members) == (
        after.head,
        after.state_sha,
        after.index,
        after.members,
    )
    assert found.head == document_sha(document)
    assert merge.pack_state(found.tensors)[1] == document["result"]
    assert [i["site"] for i in document["inputs"]] == list(ALL)
    assert sum(i["weight"] for i in document["inputs"]) == pytest.approx(1)


def test_the_order_in_which_contributions_arrive_does_not_matter(run: Run, tmp_path: Path) -> None:
    other = make_run(tmp_path / "other")
    first, _ = write_commit(run, run.start, everybody(run, run.start))
    second, _ = write_commit(other, other.start, everybody(other, other.start)[::-1])
    assert first == second


def test_a_chain_is_replayed_from_the_home_store_alone(run: Run) -> None:
    state = run.start
    for _ in range(3):
        _, state = write_commit(run, state, everybody(run, state))
    replayed = list(replay(run.home, run.plan, start_state(run.home, run.plan)))
    assert [(s.round, len(inputs)) for s, _, inputs in replayed] == [(1, 3), (2, 3), (3, 3)]
    assert newest_state(run.home, run.plan).head == state.head
    index = state.index["asia"]
    assert sum(index) == 3 * run.plan.steps * run.plan.batch_windows


def test_snapshot_0_must_be_the_plans(run: Run) -> None:
    other = {name: t + 1 for name, t in run.start.tensors.items()}
    with pytest.raises(RoundError, match="snapshot 0 hashes to"):
        genesis(run.plan, other)
    run.home.put(snapshot_key(run.plan.run, 0, run.plan.snapshot0), b"x")
    with pytest.raises(StoreError, match=f"{run.plan.snapshot0}.safetensors: damaged"):
        start_state(run.home, run.plan)


TAMPERED: dict[str, Any] = {
    "format": 2,
    "run": "other-00000000",
    "plan": "f" * 64,
    "round": 2,
    "previous": "f" * 64,
    "terms_head": "f" * 64,
    "inputs": [],
    "absent": ["west"],
    "refusals": "none",
    "amendments": ["f" * 64],
    "members": ["east"],
    "lanes": {},
    "result": "f" * 64,
    "deadline": None,
    "committer": "stranger",
    "supersedes": {"sha": "f" * 64, "rule": "none"},
    "extra": 1,
}


def test_every_field_of_a_commit_is_in_the_next_test(run: Run) -> None:
    document, _ = write_commit(run, run.start, everybody(run, run.start))
    assert document.keys() - {"signature"} == TAMPERED.keys() - {"extra"}


@pytest.mark.parametrize("name", TAMPERED)
def test_a_commit_with_one_field_changed_is_refused_even_when_a_member_signs_it(run: Run, name: str) -> None:
    given = everybody(run, run.start)
    document, _ = write_commit(run, run.start, given)
    assert judge(run, run.start, document, given).round == 1
    with pytest.raises(RoundError, match=r"the commit: |contribution \w{64} of east: terms_head|below the quorum"):
        judge(run, run.start, sign({**document, name: TAMPERED[name]}, key_of("east")), given)
    with pytest.raises(RoundError, match="the commit: "):
        judge(run, run.start, {**document, name: TAMPERED[name]}, given)


@pytest.mark.parametrize("name", ["weight", "tokens", "payload", "site"])
def test_an_input_described_wrongly_is_refused(run: Run, name: str) -> None:
    given = everybody(run, run.start)
    document, _ = write_commit(run, run.start, given)
    inputs = [{**document["inputs"][0], name: 0.5}, *document["inputs"][1:]]
    with pytest.raises(RoundError, match="the commit: inputs is"):
        judge(run, run.start, sign({**document, "inputs": inputs}, key_of("east")), given)


@pytest.mark.parametrize("value", [1.0, True])
def test_a_number_has_one_spelling(run: Run, value: object) -> None:
    given = everybody(run, run.start)
    document, _ = write_commit(run, run.start, given)
    with pytest.raises(RoundError, match="round is"):
        judge(run, run.start, sign({**document, "round": value}, key_of("east")), given)


def test_a_commit_signed_by_another_member_or_by_nobody_is_refused(run: Run) -> None:
    given = everybody(run, run.start)
    document, _ = write_commit(run, run.start, given, "north")
    for wrong in (sign(document, key_of("west")), {k: v for k, v in document.items() if k != "signature"}):
        with pytest.raises(RoundError, match=r"signature is not one of key|unsigned"):
            judge(run, run.start, wrong, given)


def invalid_commits(run: Run) -> dict[str, bytes]:
    """Objects in the place of 000001.json that no reader may follow, by the rule that each breaks."""
    given = everybody(run, run.start)
    for one in given:
        contributions.copy_input(run.home, one)
    made = build(
        run.plan,
        run.start,
        given,
        terms_head="",
        refusals=[],
        amendments=[],
        deadline={"closed_by": "all"},
        committer="west",
    )
    lied = canonical_json(sign({**made.body, "result": "0" * 64}, key_of("west")))
    absent = [{**i, "contribution": "a" * 64} for i in made.body["inputs"]]
    return {
        "result is": lied,
        "not canonical": json.dumps(json.loads(lied)).encode(),
        "not a commit of format": b'{"amendments":[],"inputs":[]}',
        "not a commit (": b"\x00garbage\xff",
        "Out of range float": b'{"amendments":[],"inputs":[],"x":NaN}',
        "not a commit (maximum recursion": b"[" * 100_000,
        "inputs name no contribution": canonical_json(
            sign({**made.body, "inputs": [{"contribution": "../x", "payload": "y"}]}, key_of("west"))
        ),
        # Nobody waits for objects that only an unsigned document says exist.
        "unsigned": canonical_json({**made.body, "inputs": absent}),
        "the signature": canonical_json({**made.body, "inputs": absent, "signature": "00" * 64}),
    }


RULES = (
    "result is",
    "not canonical",
    "not a commit of format",
    "not a commit (",
    "Out of range float",
    "not a commit (maximum recursion",
    "inputs name no contribution",
    "unsigned",
    "the signature",
)


@pytest.mark.parametrize("rule", RULES)
def test_an_invalid_commit_is_superseded_by_one_that_names_its_hash_and_rule(run: Run, rule: str) -> None:
    data = invalid_commits(run)[rule]
    run.home.create(commit_key(run.plan.run, 1), data)
    slot = slot_of(run, run.start)
    assert slot.key == f"runs/{run.plan.run}/commits/000001.1.json"
    assert slot.supersedes is not None
    assert slot.supersedes["sha"] == sha256(data)
    assert rule in slot.supersedes["rule"]
    document, after = write_commit(run, run.start, everybody(run, run.start))
    assert document["supersedes"] == slot.supersedes
    found, read = step(run, run.start)
    assert (found.head, read) == (after.head, document)
    assert newest_state(run.home, run.plan).round == 1


def test_a_commit_that_supersedes_nothing_cannot_stand_behind_another(run: Run) -> None:
    run.home.create(commit_key(run.plan.run, 1), b"garbage")
    write_commit(run, run.start, everybody(run, run.start), supersedes=None)
    slot = slot_of(run, run.start)
    assert slot.key.endswith("000001.2.json")
    assert slot.supersedes is not None
    assert "supersedes is None" in slot.supersedes["rule"]


def test_an_input_that_is_missing_makes_nothing_invalid(run: Run) -> None:
    document, _ = write_commit(run, run.start, everybody(run, run.start))
    key = f"runs/{run.plan.run}/inputs/{document['inputs'][1]['payload']}.safetensors"
    data = run.home.get(key)
    run.home.delete(key)
    with pytest.raises(StoreError, match=document["inputs"][1]["payload"]):
        advance(run.home, run.plan, run.start)
    run.home.put(key, data[:-1] + b"x")
    with pytest.raises(StoreError, match="damaged"):
        advance(run.home, run.plan, run.start)
    run.home.put(key, data)
    assert step(run, run.start)[0].round == 1


def test_shares_are_capped_and_clips_are_on_record_as_the_plan_says(tmp_path: Path) -> None:
    run = make_run(tmp_path, weight_cap=0.5, clip="median", codec="int8-256")
    given = [
        contribute(run, run.start, site, tensors(k, scale), tokens=tokens)
        for k, (site, scale, tokens) in enumerate([("east", 0.01, 40), ("north", 0.01, 4), ("west", 1.0, 4)])
    ]
    document, _ = write_commit(run, run.start, given)
    assert [i["weight"] for i in document["inputs"]] == [0.5, 0.25, 0.25]
    norms = [c.header.norm for c in given]
    median = sorted(norms)[1]
    assert [i["clip"] for i in document["inputs"]] == [1.0 if n <= median else median / n for n in norms]
    assert min(i["clip"] for i in document["inputs"]) < 0.1
    judge(run, run.start, document, given)
    for name, value in (("clip", 1.0), ("weight", 0.4)):
        inputs = [{**i, name: value} for i in document["inputs"]]
        forged = sign({k: v for k, v in {**document, "inputs": inputs}.items() if k != "signature"}, key_of("east"))
        with pytest.raises(RoundError, match="inputs is"):
            judge(run, run.start, forged, given)
    plain = make_run(tmp_path / "plain")
    assert "clip" not in write_commit(plain, plain.start, everybody(plain, plain.start))[0]["inputs"][0]
