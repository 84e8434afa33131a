from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from data_contracts.canonical import canonical_json, document_sha, sha256
from data_contracts.catalog.store import Store
from data_contracts.errors import RoundError, StoreError
from data_contracts.signing import sign
from tests.data_contracts.making import make_contract
from tests.training.making import Run, contribute, key_of, make_run, write_commit
from training.rounds import contribution as contributions
from training.rounds import merge
from training.rounds.amendment import list_amendments, read_amendment, write_amendment
from training.rounds.closing import Closer
from training.rounds.commit import ChainState, Slot, advance, build, check_commit, commit_key, genesis, lanes_of
from training.rounds.contribution import Contribution
from training.rounds.plan import Membership
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


def publish(run: Run, given: list[Contribution]) -> None:
    for one in given:
        contributions.publish(run.stores[one.header.site], one)


def test_a_closer_commits_what_the_sites_published(run: Run) -> None:
    publish(run, everybody(run, run.start, ("east", "north")))
    east = closer(run, "east")
    assert not east.try_commit(run.start, slot_of(run, run.start), 0)
    publish(run, everybody(run, run.start, ("west",)))
    assert east.try_commit(run.start, slot_of(run, run.start), 0)
    found, document = step(run, run.start)
    assert found.round == 1
    assert (document["committer"], document["deadline"], document["absent"]) == ("east", {"closed_by": "all"}, [])


def test_the_second_site_leaves_the_first_its_turn(run: Run) -> None:
    publish(run, everybody(run, run.start))
    assert not closer(run, "north").try_commit(run.start, slot_of(run, run.start), 0)


def test_many_committers_at_once_make_one_history(run: Run) -> None:
    publish(run, everybody(run, run.start))
    rivals = [closer(run, "east") for _ in range(4)]
    slot = slot_of(run, run.start)
    together = threading.Barrier(len(rivals))
    tried: list[bool] = []

    def race(one: Closer) -> None:
        together.wait()
        tried.append(one.try_commit(run.start, slot, 0))

    threads = [threading.Thread(target=race, args=(one,)) for one in rivals]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tried == [True] * 4
    assert [k for k, _ in run.home.list(f"runs/{run.plan.run}/commits")] == [slot.key]
    assert step(run, run.start)[0].round == 1


def test_two_different_commits_of_one_round_cannot_both_stand(run: Run) -> None:
    given = everybody(run, run.start)
    document, _ = write_commit(run, run.start, given, "east")
    assert slot_of(run, step(run, run.start)[0]).key.endswith("000002.json")
    with pytest.raises(StoreError, match="already there"):
        run.home.create(commit_key(run.plan.run, 1), canonical_json(sign(document, key_of("north"))))


def test_a_refused_contribution_is_on_record_and_the_round_goes_on(run: Run) -> None:
    publish(run, everybody(run, run.start, ("east", "north")))
    bad = contribute(run, run.start, "west", base="f" * 64)
    publish(run, [bad])
    assert closer(run, "east").try_commit(run.start, slot_of(run, run.start), 0)
    _, document = step(run, run.start)
    (refusal,) = document["refusals"]
    assert refusal["site"] == "west"
    assert bad.sha in refusal["contribution"]
    assert "base is" in refusal["reason"]
    assert document["absent"] == ["west"]


def test_junk_in_a_sites_store_stops_no_closer(run: Run) -> None:
    publish(run, everybody(run, run.start))
    junk = f"{contributions.folder(run.plan.run, 1)}/west-{'0' * 64}.json"
    run.stores["west"].put(junk, b'{"format": 1, "claims": [], "norm": NaN}')
    assert closer(run, "east").try_commit(run.start, slot_of(run, run.start), 0)
    assert [i["site"] for i in step(run, run.start)[1]["inputs"]] == list(ALL)


def test_a_contribution_in_another_sites_name_is_refused(run: Run) -> None:
    publish(run, everybody(run, run.start, ("east", "north")))
    stolen = contribute(run, run.start, "east")
    stem = f"{contributions.folder(run.plan.run, 1)}/west"
    run.stores["west"].put(f"{stem}-{stolen.header.payload}.safetensors", stolen.payload)
    run.stores["west"].put(f"{stem}-{stolen.sha}.json", canonical_json(stolen.document))
    assert closer(run, "east").try_commit(run.start, slot_of(run, run.start), 0)
    _, document = step(run, run.start)
    assert [i["site"] for i in document["inputs"]] == ["east", "north"]
    assert [r["site"] for r in document["refusals"]] == ["west"]


def test_a_contribution_made_under_older_terms_is_refused_and_made_again_counts(run: Run, tmp_path: Path) -> None:
    from data_contracts.catalog.terms_chain import put_terms

    publish(run, everybody(run, run.start))
    north, east = closer(run, "north"), closer(run, "east")
    north.try_commit(run.start, slot_of(run, run.start), 0)  # it has seen them, and it is not its turn
    head = put_terms(run.home, "test/notes", make_contract(tmp_path / "c").terms, key_of("owner")).sha
    assert not east.try_commit(run.start, slot_of(run, run.start), 0)
    assert not north.try_commit(run.start, slot_of(run, run.start), 0)
    publish(run, everybody(run, run.start, terms_head=head))
    assert east.try_commit(run.start, slot_of(run, run.start), 0)
    assert step(run, run.start)[1]["terms_head"] == head


def test_a_late_site_is_left_out_when_the_plan_reweights_and_a_quorum_waited(tmp_path: Path) -> None:
    rule = Membership(lost_region="reweight", quorum=2, grace_floor_s=0.05)
    run = make_run(tmp_path, membership=rule)
    east = closer(run, "east")
    publish(run, everybody(run, run.start, ("east",)))
    assert not east.try_commit(run.start, slot_of(run, run.start), 9)
    publish(run, everybody(run, run.start, ("north",)))
    assert not east.try_commit(run.start, slot_of(run, run.start), 9)
    threading.Event().wait(0.06)
    assert east.try_commit(run.start, slot_of(run, run.start), 9)
    after, document = step(run, run.start)
    assert document["absent"] == ["west"]
    assert document["deadline"]["closed_by"] == "grace"
    assert document["deadline"]["waited_s"] >= 0.05
    assert after.members == ALL
    assert after.index["america"] == (0,) * 64
    # What the late site sends now was trained from an older model: its ranges are issued again.
    with pytest.raises(RoundError, match="round is 1"):
        build_with(run, after, [*everybody(run, after, ("east", "north")), contribute(run, run.start, "west")])
    assert contribute(run, after, "west").header.claims == contribute(run, run.start, "west").header.claims


def build_with(run: Run, state: ChainState, given: list[Contribution], **changes: Any) -> Any:
    facts = {"terms_head": "", "refusals": [], "amendments": [], "deadline": {}, "committer": "east", **changes}
    return build(run.plan, state, given, **facts)


def test_too_few_contributions_or_two_of_one_site_make_no_commit(tmp_path: Path) -> None:
    run = make_run(tmp_path, membership=Membership(quorum=2))
    with pytest.raises(RoundError, match="1 contributions are below the quorum"):
        build_with(run, run.start, everybody(run, run.start, ("east",)))
    with pytest.raises(RoundError, match="two contributions of one site"):
        build_with(run, run.start, everybody(run, run.start, ("east", "east")))


def test_lanes_of_a_region_are_dealt_to_its_live_sites_without_gap_or_overlap(tmp_path: Path) -> None:
    run = make_run(tmp_path, {"a": "asia", "b": "asia", "c": "asia", "d": "europe"})
    dealt = lanes_of(run.plan, ("a", "b", "c", "d"), "asia")
    assert sorted(dealt) == ["a", "b", "c"]
    assert sorted(lane for lanes in dealt.values() for lane in lanes) == list(range(64))
    assert lanes_of(run.plan, ("b", "d"), "asia") == {"b": list(range(64))}
    assert lanes_of(run.plan, ("d",), "asia") == {}


def test_a_removed_site_loses_its_lanes_and_may_return(tmp_path: Path) -> None:
    run = make_run(tmp_path, {"a": "asia", "b": "asia"})
    removal = write_amendment(run.home, run.plan, "remove-site", "b", "power cut", key_of("owner"))
    document, after = write_commit(run, run.start, everybody(run, run.start, ("a", "b")), amendments=[removal])
    assert (document["amendments"], document["members"]) == ([removal.sha], ["a"])
    assert step(run, run.start)[0].members == ("a",)
    assert lanes_of(run.plan, after.members, "asia") == {"a": list(range(64))}
    with pytest.raises(RoundError, match="'b' is no member in round 2"):
        build_with(run, after, everybody(run, after, ("a", "b")), committer="a")
    back = write_amendment(run.home, run.plan, "add-site", "b", "power is back", key_of("owner"))
    assert back.sequence == 2
    _, later = write_commit(run, after, everybody(run, after, ("a",)), amendments=[back])
    assert later.members == ("a", "b")
    _, last = write_commit(run, later, everybody(run, later, ("a", "b")))
    found = newest_state(run.home, run.plan)
    assert (found.round, found.head, found.amendments) == (3, last.head, (removal.sha, back.sha))


def test_an_amendment_is_applied_once_and_in_its_order(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    first = write_amendment(run.home, run.plan, "remove-site", "west", "maintenance", key_of("owner"))
    second = write_amendment(run.home, run.plan, "add-site", "west", "done", key_of("owner"))
    given = everybody(run, run.start)
    _, after = write_commit(run, run.start, given, amendments=[first, second])
    assert after.members == ALL
    for wrong in ([second, first], [first, first]):
        with pytest.raises(RoundError, match="amendments repeated or out of their order"):
            build_with(run, run.start, given, amendments=wrong)
    with pytest.raises(RoundError, match="amendments repeated"):
        build_with(run, after, everybody(run, after), amendments=[first])


def test_a_closer_applies_the_amendments_that_the_chain_has_not(run: Run) -> None:
    write_amendment(run.home, run.plan, "remove-site", "west", "sold", key_of("owner"))
    publish(run, everybody(run, run.start))
    closer(run, "east").try_commit(run.start, slot_of(run, run.start), 0)
    state, _ = step(run, run.start)
    assert state.members == ("east", "north")
    publish(run, everybody(run, state, ("east", "north")))
    closer(run, "east").try_commit(state, slot_of(run, state), 0)
    assert step(run, state)[1]["amendments"] == []


def test_amendments_that_are_unknown_unsigned_or_leave_nobody_are_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path, {"a": "asia"})
    with pytest.raises(RoundError, match="unknown amendment 'rename'.*remove-site, add-site"):
        write_amendment(run.home, run.plan, "rename", "a", "", key_of("owner"))
    with pytest.raises(RoundError, match="site 'z' is not in its plan"):
        write_amendment(run.home, run.plan, "remove-site", "z", "", key_of("owner"))
    with pytest.raises(RoundError, match="amendment 1 of small-.*signature"):
        write_amendment(run.home, run.plan, "remove-site", "a", "", key_of("a"))
    assert list_amendments(run.home, run.plan) == []
    last = write_amendment(run.home, run.plan, "remove-site", "a", "", key_of("owner"))
    assert read_amendment(run.home, run.plan.run, last.sha) == last
    with pytest.raises(RoundError, match="would leave no site"):
        build_with(run, run.start, everybody(run, run.start, ("a",)), amendments=[last], committer="a")


def test_an_amendment_of_another_run_is_refused(run: Run, tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", seed=9)
    foreign = write_amendment(other.home, other.plan, "remove-site", "west", "", key_of("owner"))
    with pytest.raises(RoundError, match="of run 'small-"):
        build_with(run, run.start, everybody(run, run.start), amendments=[foreign])


def test_a_hundred_invalid_commits_are_an_alarm(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    home = Store.open(tmp_path / "home")
    for attempt in range(100):
        home.create(commit_key(run.plan.run, 1, attempt), b"garbage")
    with pytest.raises(RoundError, match="100 invalid commits"):
        advance(home, run.plan, run.start)
