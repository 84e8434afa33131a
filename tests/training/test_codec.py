from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import save
from safetensors.torch import save as save_torch

from data_contracts.errors import RoundError
from tests.training.making import SHAPES, tensors
from training.rounds.codec import Tensors, decode, encode

FINITE = st.floats(allow_nan=False, allow_infinity=False, width=32)
UPDATES = st.dictionaries(
    st.text("abc.", min_size=1, max_size=5),
    hnp.arrays(np.float32, hnp.array_shapes(max_dims=3, max_side=5), elements=FINITE),
    min_size=1,
    max_size=4,
)


@given(UPDATES)
def test_what_is_encoded_is_decoded_bit_for_bit(update: Tensors) -> None:
    back = decode("fp32", encode("fp32", update), {n: t.shape for n, t in update.items()}, "it")
    assert back.keys() == update.keys()
    assert all(back[n].tobytes() == update[n].tobytes() and back[n].dtype == np.float32 for n in update)


@given(UPDATES)
def test_the_bytes_do_not_depend_on_the_order_of_the_names(update: Tensors) -> None:
    assert encode("fp32", update) == encode("fp32", dict(reversed(list(update.items()))))


def test_fp32_sends_four_bytes_a_number_and_a_header() -> None:
    update = {"w": np.zeros((200, 50), dtype=np.float32)}
    assert 40_000 < len(encode("fp32", update)) < 40_000 + 512


def test_an_unknown_codec_is_refused_and_the_known_ones_are_named() -> None:
    for call in (lambda: encode("zip", tensors(1)), lambda: decode("zip", b"", SHAPES, "it")):
        with pytest.raises(RoundError, match="unknown codec 'zip'.*fp32"):
            call()


GOOD = tensors(1)
BAD = {
    "over size": (encode("fp32", GOOD) + b"\0" * 6000, "over size"),
    "cut": (encode("fp32", GOOD)[:-1], "not a safetensors payload"),
    "nothing": (b"", "not a safetensors payload"),
    "other bytes": (b"\x80\x04pickle" * 5, "not a safetensors payload"),
    "one missing": (save({"a": GOOD["a"]}), "not the model's: b"),
    "one unknown": (save({**GOOD, "c": GOOD["a"]}), "not the model's: c"),
    "misshapen": (save({**GOOD, "b": np.zeros(4, np.float32)}), r"b is float32\[4\], the model's is float32\[5\]"),
    "float64": (save({**GOOD, "b": np.zeros(5)}), r"b is float64\[5\]"),
    "half": (save({**GOOD, "b": np.zeros(5, np.float16)}), r"b is float16\[5\]"),
    "bfloat16": (save_torch({n: torch.tensor(t).bfloat16() for n, t in GOOD.items()}), "not a safetensors payload"),
    "nan": (save({**GOOD, "b": np.array([0, 0, np.nan, 0, 0], np.float32)}), "b has values that are not finite"),
    "infinite": (save({**GOOD, "b": np.full(5, -np.inf, np.float32)}), "b has values that are not finite"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_payload_that_is_not_the_models_update_is_refused_by_name(name: str) -> None:
    payload, why = BAD[name]
    with pytest.raises(RoundError, match=why) as caught:
        decode("fp32", payload, SHAPES, "contribution 42 of east")
    assert str(caught.value).startswith("contribution 42 of east: ")


@given(st.binary(max_size=200))
def test_no_bytes_at_all_bring_down_the_decoder(payload: bytes) -> None:
    with pytest.raises(RoundError):
        decode("fp32", payload, SHAPES, "it")
