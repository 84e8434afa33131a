from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.canonical import sha256
from data_contracts.errors import CausewayError
from training.tokenizer import END_OF_TEXT, load_tokenizer, train_tokenizer

TEXTS = [f"def area_{i}(width, height):\n    return width * height + {i}\n" for i in range(40)]
DATA = train_tokenizer(iter(TEXTS), 320)
TOKENIZER = load_tokenizer(DATA)


def test_training_twice_gives_the_same_bytes_in_another_process() -> None:
    program = (
        "import sys; from tests.training.test_tokenizer import TEXTS; from training.tokenizer import train_tokenizer; "
        "sys.stdout.buffer.write(train_tokenizer(iter(TEXTS), 320))"
    )
    again = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True).stdout
    assert again == DATA


def test_the_order_of_the_texts_does_not_change_the_tokenizer() -> None:
    assert train_tokenizer(reversed(TEXTS), 320) == DATA


def test_the_tokenizer_has_the_size_asked_for_the_end_first_and_every_byte() -> None:
    vocabulary = json.loads(DATA)["model"]["vocab"]
    assert TOKENIZER.vocab_size == len(vocabulary) == 320
    assert vocabulary[END_OF_TEXT] == TOKENIZER.end_id == 0
    assert TOKENIZER.sha == sha256(DATA)
    single = {TOKENIZER.decode([i]) for i in range(1, 257)}
    assert {chr(i) for i in range(128)} <= single


@given(st.lists(st.text(max_size=200), max_size=5))
def test_any_unicode_text_survives_the_round_trip(texts: list[str]) -> None:
    assert [TOKENIZER.decode(ids) for ids in TOKENIZER.encode_batch(texts)] == texts


@given(st.text(max_size=20), st.text(max_size=20))
def test_text_that_spells_the_special_token_is_ordinary_text(before: str, after: str) -> None:
    text = before + END_OF_TEXT + after
    (ids,) = TOKENIZER.encode_batch([text])
    assert 0 not in ids
    assert TOKENIZER.decode(ids) == text


def test_a_tokenizer_trained_on_the_special_tokens_spelling_keeps_it_apart() -> None:
    tokenizer = load_tokenizer(train_tokenizer(iter([END_OF_TEXT * 50] * 20), 400))
    (ids,) = tokenizer.encode_batch([END_OF_TEXT * 3])
    assert 0 not in ids


def test_learned_merges_make_text_shorter_than_its_bytes() -> None:
    (ids,) = TOKENIZER.encode_batch([TEXTS[7]])
    assert len(ids) < len(TEXTS[7]) / 2


def test_ids_are_the_narrowest_type_that_holds_the_vocabulary() -> None:
    assert [ids.dtype for ids in TOKENIZER.encode_batch(["", "a"])] == [np.uint16, np.uint16]
    wide = json.loads(DATA)
    wide["model"]["vocab"].update({f"<{i}>": i for i in range(320, 70_000)})
    assert load_tokenizer(json.dumps(wide).encode()).encode_batch(["a"])[0].dtype == np.uint32


def test_a_lone_surrogate_is_refused_with_its_position() -> None:
    with pytest.raises(CausewayError, match="text 1 of the batch, character 2"):
        TOKENIZER.encode_batch(["fine", "ab\ud800"])


def test_a_vocabulary_smaller_than_the_bytes_is_refused() -> None:
    with pytest.raises(CausewayError, match="257"):
        train_tokenizer(iter(TEXTS), 256)


def test_bytes_that_are_no_tokenizer_are_refused() -> None:
    with pytest.raises(CausewayError, match="not a tokenizer.json"):
        load_tokenizer(b"{}")


def test_a_tokenizer_without_the_end_at_id_0_is_refused() -> None:
    with pytest.raises(CausewayError, match="has id None"):
        load_tokenizer(DATA.replace(b"endoftext", b"endofline"))


def test_a_tokenizer_that_normalises_is_refused() -> None:
    changed = {**json.loads(DATA), "normalizer": {"type": "NFC"}}
    with pytest.raises(CausewayError, match="normalises"):
        load_tokenizer(json.dumps(changed).encode())
