from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from data_contracts.canonical import canonical_json, document_sha, sha256
from data_contracts.errors import RoundError, StoreError
from data_contracts.signing import public_hex, sign
from tests.training.making import SHAPES, Run, contribute, key_of, make_run, tensors, write_commit
from training.rounds import contribution as contributions
from training.rounds.codec import encode, wire_bytes
from training.rounds.commit import check_against
from training.rounds.contribution import Contribution
from training.rounds.merge import halving_norm


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(tmp_path)


def judge(run: Run, made: Contribution) -> None:
    """What a closer and a verifier ask of a contribution to round 1."""
    what = f"contribution {made.sha}"
    check_against(run.plan, run.start, made.header, "", what)
    contributions.check(made, run.plan.site(made.header.site).public_key, SHAPES, what)


def forged(made: Contribution, signer: str, sent: bytes | None = None, **changes: Any) -> Contribution:
    """The same contribution with other fields, signed by whom you like."""
    body = {**made.header.body(), **changes}
    header = contributions.parse(json.loads(canonical_json(sign(body, key_of(signer)))), "forged")
    return Contribution(header, sign(body, key_of(signer)), made.payload if sent is None else sent)


def test_what_is_published_is_read_back_and_good(run: Run) -> None:
    made = contribute(run, run.start, "north")
    store = run.stores["north"]
    written = contributions.publish(store, made)
    assert contributions.publish(store, made) == written == sum(size for _, size in store.list("runs"))
    (key,) = contributions.find(store, run.plan.run, 1, "north")
    read = contributions.read(store, key)
    assert read == made
    judge(run, read)


def test_only_a_sites_own_headers_of_that_round_are_found(run: Run) -> None:
    store = run.stores["north"]
    contributions.publish(store, contribute(run, run.start, "north"))
    assert contributions.find(store, run.plan.run, 2, "north") == []
    assert contributions.find(store, run.plan.run, 1, "nor") == []


def test_the_same_update_gives_the_same_header_and_bytes(run: Run) -> None:
    assert contribute(run, run.start, "east") == contribute(run, run.start, "east")


def test_an_unsigned_contribution_is_refused(run: Run) -> None:
    made = contribute(run, run.start, "east")
    bare = replace(made, document=made.header.body())
    with pytest.raises(RoundError, match=f"contribution {bare.sha}: unsigned"):
        judge(run, bare)


@pytest.mark.parametrize("signer", ["west", "owner", "stranger"])
def test_a_contribution_signed_by_anybody_else_is_refused(run: Run, signer: str) -> None:
    made = forged(contribute(run, run.start, "east"), signer)
    with pytest.raises(RoundError, match=f"contribution {made.sha}: the signature is not one of key"):
        judge(run, made)


def test_a_signature_has_one_spelling(run: Run) -> None:
    made = contribute(run, run.start, "east")
    shouted = replace(made, document={**made.document, "signature": made.document["signature"].upper()})
    with pytest.raises(RoundError, match="signature"):
        judge(run, shouted)


def test_a_field_changed_after_signing_is_refused(run: Run) -> None:
    made = contribute(run, run.start, "east")
    changed = replace(made, document={**made.document, "loss": 0.1})
    with pytest.raises(RoundError, match="signature"):
        judge(run, changed)


def test_a_contribution_replayed_to_the_next_round_is_refused(run: Run) -> None:
    old = contribute(run, run.start, "east")
    given = [old, *(contribute(run, run.start, s) for s in ("north", "west"))]
    _, after = write_commit(run, run.start, given)
    with pytest.raises(RoundError, match="it: round is 1 where round 2 needs 2"):
        check_against(run.plan, after, old.header, "", "it")


def test_a_contribution_to_another_run_is_refused(run: Run, tmp_path: Path) -> None:
    other = make_run(tmp_path / "other", seed=6)
    with pytest.raises(RoundError, match="run is 'small-"):
        judge(run, contribute(other, other.start, "east"))


WRONG = {
    "base": ({"base": "f" * 64}, "base is"),
    "state": ({"base_state": "f" * 64}, "base_state is"),
    "older terms": ({"terms_head": "e" * 64}, "terms_head is 'eeee"),
    "another's lanes": ({"claims": ((64, 0, 6),)}, "claims lane 64 of asia"),
    "skipped positions": ({"claims": ((0, 1, 7),)}, "claims lane 0 from 1 to 7; the chain stands at 0"),
    "empty range": ({"claims": ((0, 0, 0),)}, "claims lane 0 from 0 to 0"),
    "one lane twice": ({"claims": ((0, 0, 3), (0, 0, 3))}, "claims a lane twice"),
    "fewer positions": ({"claims": ((0, 0, 5),)}, "3 steps of 2 windows do not make 5 positions"),
    "more tokens than targets": ({"tokens": 49}, "and 49 tokens"),
    "no tokens": ({"tokens": 0}, "and 0 tokens"),
    "a data set of no plan": ({"tokens_by_dataset": {"test/other": 14}}, "test/other"),
    "tokens of no data set": ({"tokens_by_dataset": {"test/notes": 3}}, "14 tokens are not those"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_header_that_does_not_fit_the_round_is_refused(run: Run, name: str) -> None:
    changes, why = WRONG[name]
    made = contribute(run, run.start, "east", **changes)
    with pytest.raises(RoundError, match=why) as caught:
        judge(run, made)
    assert str(caught.value).startswith(f"contribution {made.sha}: ")


def test_another_codec_than_the_plans_is_refused(run: Run) -> None:
    with pytest.raises(RoundError, match="codec is 'zip'"):
        judge(run, forged(contribute(run, run.start, "east"), "east", codec="zip"))


def test_a_removed_site_is_refused(run: Run) -> None:
    without = replace(run.start, members=("north", "west"))
    with pytest.raises(RoundError, match="'east' is no member in round 1"):
        check_against(run.plan, without, contribute(run, run.start, "east").header, "", "it")


def test_a_payload_over_size_is_refused(run: Run) -> None:
    large = encode("fp32", {"a": np.zeros((3, 2), np.float32), "b": np.zeros(9000, np.float32)})
    facts = {"payload": sha256(large), "payload_bytes": len(large)}
    made = forged(contribute(run, run.start, "east"), "east", large, **facts)
    with pytest.raises(RoundError, match=f"contribution {made.sha}: over size"):
        judge(run, made)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_update_that_is_not_finite_is_refused(run: Run, value: float) -> None:
    update = tensors(3)
    update["b"][2] = value
    payload = encode("fp32", update)
    facts = {"payload": sha256(payload), "payload_bytes": len(payload)}
    made = forged(contribute(run, run.start, "east"), "east", payload, **facts)
    with pytest.raises(RoundError, match=f"contribution {made.sha}: b has values that are not finite"):
        judge(run, made)


def test_a_site_does_not_even_send_what_is_not_finite(run: Run) -> None:
    with pytest.raises(RoundError, match="not finite"):
        contribute(run, run.start, "east", {"a": np.full((3, 2), np.nan, np.float32), "b": np.zeros(5, np.float32)})


def test_a_norm_that_differs_in_the_last_bit_is_refused(run: Run) -> None:
    made = contribute(run, run.start, "east")
    off = float(np.nextafter(made.header.norm, 1e9))
    with pytest.raises(RoundError, match="declares norm"):
        judge(run, forged(made, "east", norm=off))
    assert made.header.norm == halving_norm(contributions.check(made, public_hex(key_of("east")), SHAPES, "it"))


def test_a_payload_that_is_not_the_one_named_is_refused(run: Run) -> None:
    made = contribute(run, run.start, "east")
    other = contribute(run, run.start, "east", tensors(99))
    for wrong in (replace(made, payload=other.payload), forged(made, "east", payload_bytes=3)):
        with pytest.raises(RoundError, match=f"contribution {wrong.sha}: the payload is not the one its header names"):
            judge(run, wrong)


def test_two_contributions_are_never_one_because_names_are_hashes(run: Run) -> None:
    a, b = contribute(run, run.start, "east"), contribute(run, run.start, "east", loss=2.6)
    assert a.sha != b.sha
    assert a.header.payload == b.header.payload


def test_a_header_moved_under_another_name_is_refused(run: Run) -> None:
    made, store = contribute(run, run.start, "north"), run.stores["north"]
    contributions.publish(store, made)
    key = f"{contributions.folder(run.plan.run, 2)}/north-{made.sha}.json"
    store.put(key, canonical_json(made.document))
    with pytest.raises(RoundError, match="not the header its name says"):
        contributions.read(store, key)


def test_a_changed_or_missing_payload_is_named(run: Run) -> None:
    made, store = contribute(run, run.start, "north"), run.stores["north"]
    contributions.publish(store, made)
    (key,) = contributions.find(store, run.plan.run, 1, "north")
    payload = f"{contributions.folder(run.plan.run, 1)}/north-{made.header.payload}.safetensors"
    store.put(payload, b"x" + made.payload[1:])
    with pytest.raises(RoundError, match=f"{made.header.payload}.safetensors: damaged"):
        contributions.read(store, key)
    store.delete(payload)
    with pytest.raises(RoundError, match=f"north-{made.sha}.json: its payload is not there"):
        contributions.read(store, key)


DEEP = b"[" * 100_000
JUNK = [b"", b"\xff\xfe", b"{", b"[]", b"3", b'"x"', b"{}", b'{"format": 2}', b'{"format": 1}', DEEP]


@pytest.mark.parametrize("data", JUNK)
def test_junk_in_the_place_of_a_header_is_refused_by_name(run: Run, data: bytes) -> None:
    key = f"{contributions.folder(run.plan.run, 1)}/north-{'0' * 64}.json"
    run.stores["north"].put(key, data)
    with pytest.raises(RoundError, match=f"north-{'0' * 64}.json"):
        contributions.read(run.stores["north"], key)


ODD = {
    "norm": "1.0",
    "loss": None,
    "tokens": 3.0,
    "steps": True,
    "round": -1,
    "claims": [[0, 1]],
    "site": 5,
    "payload": "../../../home/plan",
    "tokens_by_dataset": {"test/notes": float("nan")},
    "device": "\ud800",
}


@pytest.mark.parametrize("name", ODD)
def test_a_field_of_a_wrong_type_is_refused_and_brings_nobody_down(run: Run, name: str) -> None:
    made = contribute(run, run.start, "north")
    data = json.dumps({**made.document, name: ODD[name]}).encode()
    key = f"{contributions.folder(run.plan.run, 1)}/north-{sha256(data)}.json"
    run.stores["north"].put(key, data)
    with pytest.raises(RoundError, match=f"north-{sha256(data)}.json"):
        contributions.read(run.stores["north"], key)


def test_a_field_too_many_is_refused(run: Run) -> None:
    made = contribute(run, run.start, "north")
    with pytest.raises(RoundError, match="not a contribution header"):
        contributions.parse({**made.document, "extra": 1}, "it")


def test_a_committed_input_is_read_from_home_and_its_damage_is_named(run: Run) -> None:
    made = contribute(run, run.start, "north")
    contributions.copy_input(run.home, made)
    assert contributions.read_input(run.home, run.plan.run, made.sha, made.header.payload) == made
    header = f"runs/{run.plan.run}/inputs/{made.sha}.json"
    run.home.put(header, canonical_json({**made.document, "loss": 1.0}))
    with pytest.raises(StoreError, match=f"{made.sha}.json: damaged"):
        contributions.read_input(run.home, run.plan.run, made.sha, made.header.payload)
    assert document_sha(made.document) == made.sha


def test_a_header_without_skipped_positions_is_as_it_was(run: Run) -> None:
    body = contribute(run, run.start, "north").header.body()
    assert body["format"] == 1
    assert "skipped" not in body


def test_skipped_positions_are_part_of_the_claims_where_the_plan_lets_them_be(tmp_path: Path) -> None:
    run = make_run(tmp_path, unreadable="skip")
    claims = ((0, 0, 4), (1, 0, 2))
    good = contribute(run, run.start, "north", claims=claims, skipped=((0, 1, 2), (0, 3, 4), (1, 0, 1)), tokens=24)
    assert good.header.body()["format"] == 2
    contributions.publish(run.stores["north"], good)
    (key,) = contributions.find(run.stores["north"], run.plan.run, 1, "north")
    judge(run, contributions.read(run.stores["north"], key))
    with pytest.raises(RoundError, match="3 of them read, and 25 tokens"):
        judge(run, contribute(run, run.start, "north", claims=claims, skipped=good.header.skipped, tokens=25))
    for wrong in ((2, 0, 1), (0, 3, 5), (0, 2, 2), (0, -1, 1)):
        with pytest.raises(RoundError, match=f"skips lane {wrong[0]} from {wrong[1]}"):
            judge(run, contribute(run, run.start, "north", claims=claims, skipped=(wrong,)))
    with pytest.raises(RoundError, match="skips lane 0 from 1"):
        judge(run, contribute(run, run.start, "north", claims=claims, skipped=((0, 1, 2), (0, 1, 3))))
    stopping = make_run(tmp_path / "stop")
    with pytest.raises(RoundError, match="skips positions; the plan says unreadable = 'stop'"):
        judge(stopping, contribute(stopping, stopping.start, "north", claims=claims, skipped=((0, 1, 2),)))


def test_a_format_that_does_not_go_with_the_skipped_positions_is_refused(run: Run) -> None:
    made = contribute(run, run.start, "north")
    with pytest.raises(RoundError, match="contribution format 5; this Causeway reads 1 to 4"):
        forged(made, "north", format=5)
    with pytest.raises(RoundError, match="format 2 does not go with 0 skipped ranges"):
        forged(made, "north", format=2)
    with pytest.raises(RoundError, match="format 1 does not go with 1 skipped ranges"):
        forged(made, "north", skipped=[[0, 0, 1]])


def test_error_feedback_is_said_where_the_plan_has_it_and_nowhere_else(run: Run, tmp_path: Path) -> None:
    assert "feedback" not in contribute(run, run.start, "north").header.body()
    feeding = make_run(tmp_path / "feeding", codec="topk-4096-64-2", feedback=0.95)
    good = contribute(feeding, feeding.start, "north", feedback="clean")
    assert (good.header.body()["format"], good.header.body()["feedback"]) == (3, "clean")
    contributions.publish(feeding.stores["north"], good)
    (key,) = contributions.find(feeding.stores["north"], feeding.plan.run, 1, "north")
    judge(feeding, contributions.read(feeding.stores["north"], key))
    with pytest.raises(RoundError, match="feedback is '' where the plan's decay is 0.95"):
        judge(feeding, contribute(feeding, feeding.start, "north", feedback=""))
    with pytest.raises(RoundError, match="feedback is 'new' where the plan's decay is 0.0"):
        judge(run, contribute(run, run.start, "north", feedback="new"))
    with pytest.raises(RoundError, match="feedback is 'lost'"):
        forged(good, "north", feedback="lost")
    with pytest.raises(RoundError, match="format 1 does not go with 0 skipped ranges and feedback 'clean'"):
        forged(good, "north", format=1)


@pytest.mark.parametrize("codec", ["bf16", "int8-256", "e3m0-128", "topk-4096-64-2"])
def test_the_norm_is_that_of_what_was_sent(tmp_path: Path, codec: str) -> None:
    run = make_run(tmp_path, codec=codec)
    one = contribute(run, run.start, "north")
    judge(run, one)
    decoded = contributions.check(one, run.plan.site("north").public_key, SHAPES, "it")
    assert halving_norm(decoded) == one.header.norm
    assert one.header.payload_bytes == wire_bytes(codec, SHAPES)


def test_a_site_sends_with_its_own_codec_and_feedback(tmp_path: Path) -> None:
    run = make_run(tmp_path / "mixed", codec="bf16", codecs={"north": "topk-4096-64-2"})
    assert (run.plan.feedback_of("north"), run.plan.feedback_of("east")) == (0.95, 0.0)
    assert [site.get("codec") for site in run.plan.body()["sites"]] == [None, "topk-4096-64-2", None]
    for site, codec in (("north", "topk-4096-64-2"), ("east", "bf16")):
        made = contribute(run, run.start, site)
        assert made.header.codec == codec
        judge(run, made)
    with pytest.raises(RoundError, match="codec is 'bf16' where round 1 needs 'topk-4096-64-2'"):
        other = replace(contribute(run, run.start, "north").header, codec="bf16")
        check_against(run.plan, run.start, other, "", "it")
