from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.errors import RoundError
from tests.training.making import tensors
from training.rounds.codec import Tensors, decode, encode
from training.rounds.feedback import Feedback

SHAPES = {"w": (70, 131), "n": (7,)}
CODECS = ("topk-4096-64-2", "topk-4096-4-2", "e3m0-128", "int4-128", "int8-256", "bf16")


def send(feedback: Feedback, codec: str, update: Tensors) -> Tensors:
    owed = feedback.owed(update)
    sent = decode(codec, encode(codec, owed), SHAPES, "it")
    feedback.settle(owed, sent)
    return sent


@settings(max_examples=15)
@given(st.integers(0, 2**32 - 1), st.sampled_from(CODECS), st.integers(1, 6))
def test_what_was_sent_and_what_is_owed_is_all_there_was(seed: int, codec: str, rounds: int) -> None:
    feedback = Feedback(1.0, SHAPES)
    given_, sent = ({n: np.zeros(s) for n, s in SHAPES.items()} for _ in range(2))
    for number in range(rounds):
        update = tensors(seed + number, 1e-3, SHAPES)
        crossed = send(feedback, codec, update)
        for name in SHAPES:
            given_[name] += update[name]
            sent[name] += crossed[name]
    for name in SHAPES:
        np.testing.assert_allclose(sent[name] + feedback.state()[name], given_[name], rtol=0, atol=1e-8)


@settings(max_examples=10)
@given(st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_a_residual_is_a_plain_fp32_sequence(seed: int, decay: float) -> None:
    feedback, codec = Feedback(decay, SHAPES), "topk-4096-64-2"
    residual = np.zeros(7, np.float32)
    for number in range(3):
        update = tensors(seed + number, 1e-3, SHAPES)
        sent = send(feedback, codec, update)
        owed = [np.float32(np.float32(r * np.float32(decay)) + u) for r, u in zip(residual, update["n"], strict=True)]
        residual = np.array([np.float32(o - s) for o, s in zip(owed, sent["n"], strict=True)], np.float32)
        assert feedback.state()["n"].tobytes() == residual.tobytes()


def test_a_constant_update_gets_through_top_k_in_the_long_run() -> None:
    update = tensors(3, 1e-3, SHAPES)
    feedback, total = Feedback(1.0, SHAPES), np.zeros(SHAPES["w"])
    without = np.zeros(SHAPES["w"])
    for _ in range(60):
        total += send(feedback, "topk-4096-64-2", update)["w"]
        without += send(Feedback(1.0, SHAPES), "topk-4096-64-2", update)["w"]

    def missing(sent: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> float:
        return float(np.linalg.norm(sent / 60 - update["w"]) / np.linalg.norm(update["w"]))

    assert missing(total) < 0.6 < 0.9 < missing(without)


def test_state_gives_back_the_same_next_payload() -> None:
    feedback = Feedback(0.95, SHAPES)
    send(feedback, "int4-128", tensors(1, 1e-3, SHAPES))
    again = Feedback(0.95, SHAPES)
    again.load_state(feedback.state())
    update = tensors(2, 1e-3, SHAPES)
    assert encode("int4-128", again.owed(update)) == encode("int4-128", feedback.owed(update))
    assert encode("int4-128", feedback.owed(update)) != encode("int4-128", update)


def test_owed_is_asked_as_often_as_one_likes() -> None:
    feedback = Feedback(0.95, SHAPES)
    send(feedback, "int4-128", tensors(1, 1e-3, SHAPES))
    update = tensors(2, 1e-3, SHAPES)
    assert feedback.owed(update)["w"].tobytes() == feedback.owed(update)["w"].tobytes()


@pytest.mark.parametrize(
    "state",
    [{}, {"w": np.zeros((70, 131), np.float32)}, {"w": np.zeros((70, 13), np.float32), "n": np.zeros(7, np.float32)}],
)
def test_a_state_of_another_model_is_refused_and_changes_nothing(state: Tensors) -> None:
    feedback = Feedback(0.95, SHAPES)
    send(feedback, "int4-128", tensors(1, 1e-3, SHAPES))
    before = {name: value.tobytes() for name, value in feedback.state().items()}
    with pytest.raises(RoundError, match="error feedback: (n|w) has shape"):
        feedback.load_state(state)
    assert {name: value.tobytes() for name, value in feedback.state().items()} == before
