from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from data_contracts.canonical import canonical_json, document_sha
from data_contracts.catalog.store import Store
from data_contracts.errors import RoundError, StoreError
from data_contracts.signing import sign
from tests.data_contracts.making import make_contract
from tests.training.making import Run, contribute, key_of, make_run, write_commit
from training.rounds import contribution as contributions
from training.rounds.amendment import list_amendments, read_amendment, write_amendment
from training.rounds.chain import Slot, advance, commit_key
from training.rounds.closing import Closer
from training.rounds.commit import ChainState, build, check_commit, lanes_of
from training.rounds.contribution import Contribution
from training.rounds.plan import Membership
from training.rounds.run import newest_state

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
    bad = contribute(run, run.start, "west", base_state="f" * 64)
    publish(run, [bad])
    assert closer(run, "east").try_commit(run.start, slot_of(run, run.start), 0)
    _, document = step(run, run.start)
    (refusal,) = document["refusals"]
    assert refusal["site"] == "west"
    assert bad.sha in refusal["contribution"]
    assert "base_state is" in refusal["reason"]
    assert document["absent"] == ["west"]


class Counting(Store):
    """A store that notes what is downloaded from it."""

    def get(self, key: str, sha: str | None = None) -> bytes:
        data = super().get(key, sha)
        downloaded.append((key, len(data)))
        return data


downloaded: list[tuple[str, int]] = []


@pytest.mark.parametrize("oversized", ["payload", "header"])
def test_what_is_over_size_is_refused_on_record_without_a_download(run: Run, tmp_path: Path, oversized: str) -> None:
    publish(run, everybody(run, run.start, ("east", "north")))
    good = contribute(run, run.start, "west")
    claimed = {**good.document, "payload": "f" * 64, "payload_bytes": 100_000_000}
    document = sign(claimed, key_of("west"))
    stem = f"{contributions.folder(run.plan.run, 1)}/west"
    header = f"{stem}-{document_sha(document)}.json"
    run.stores["west"].put(header, canonical_json(document) + b" " * (0 if oversized == "payload" else 100_000_000))
    payload = run.stores["west"].path(f"{stem}-{'f' * 64}.safetensors")
    with payload.open("wb") as file:
        file.truncate(100_000_000)
    downloaded.clear()
    run.stores["west"] = Counting.open(tmp_path / "sites" / "west")
    assert closer(run, "east").try_commit(run.start, slot_of(run, run.start), 0)
    (refusal,) = step(run, run.start)[1]["refusals"]
    assert "over size: 1000" in refusal["reason"]
    assert max((size for _, size in downloaded), default=0) < 10_000


def test_a_payload_of_another_length_than_its_header_names_is_refused(run: Run) -> None:
    publish(run, everybody(run, run.start, ("east", "north")))
    good = contribute(run, run.start, "west")
    document = sign({**good.document, "payload_bytes": 5}, key_of("west"))
    stem = f"{contributions.folder(run.plan.run, 1)}/west"
    run.stores["west"].put(f"{stem}-{document_sha(document)}.json", canonical_json(document))
    run.stores["west"].put(f"{stem}-{good.header.payload}.safetensors", good.payload)
    assert closer(run, "east").try_commit(run.start, slot_of(run, run.start), 0)
    (refusal,) = step(run, run.start)[1]["refusals"]
    assert "names a payload of 5 bytes" in refusal["reason"]


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
