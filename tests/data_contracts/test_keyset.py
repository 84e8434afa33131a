from __future__ import annotations

import hashlib

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.keyset import KeySet


def keys(numbers: list[int]) -> np.ndarray:
    data = b"".join(hashlib.sha256(str(number).encode()).digest()[:16] for number in numbers)
    return np.frombuffer(data, dtype=np.uint8).reshape(-1, 16)


@settings(max_examples=60, deadline=None)
@given(batches=st.lists(st.lists(st.integers(0, 40), max_size=20), max_size=8))
def test_a_key_is_new_once_in_memory_and_in_the_file(batches: list[list[int]]) -> None:
    seen: set[int] = set()
    found = KeySet(run_keys=16)
    for numbers in batches:
        expected = []
        for number in numbers:
            expected.append(number in seen)
            seen.add(number)
        assert found.add(keys(numbers)).tolist() == expected


def test_keys_that_share_their_first_half_are_told_apart() -> None:
    one, two = np.zeros((2, 16), dtype=np.uint8)
    two[15] = 1
    found = KeySet(run_keys=2)
    assert found.add(np.stack([one, two, one])).tolist() == [False, False, True]
    assert found.add(np.stack([two, one])).tolist() == [True, True]


def test_three_million_keys_are_new_and_then_known() -> None:
    rng = np.random.default_rng(3)
    found = KeySet()
    drawn = [rng.integers(0, 256, (1 << 18, 16), dtype=np.uint8) for _ in range(12)]
    assert not any(found.add(batch).any() for batch in drawn)
    assert found.add(drawn[0][:100]).all() and found.add(drawn[-1][:100]).all()


def test_one_key_a_hundred_thousand_times_is_new_once() -> None:
    found = KeySet().add(np.ones((100_000, 16), dtype=np.uint8))
    assert found.sum() == 99_999 and not found[0]
