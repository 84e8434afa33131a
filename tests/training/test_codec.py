from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load, save
from safetensors.torch import save as save_torch

from data_contracts.errors import RoundError
from tests.training.making import SHAPES, tensors
from training.rounds.codec import Tensors, decode, encode, parse_codec, wire_bytes

DENSE = ("bf16", "int8-256", "int8-64", "int4-128", "int4-16", "e3m0-128", "e3m0-32")
SPARSE = ("topk-4096-64-2", "topk-4096-4-2", "topk-4096-1024-2")
LOSSY = DENSE + SPARSE
FINITE = st.floats(allow_nan=False, allow_infinity=False, width=32)
# Few different values: many are equal, many zero.
COARSE = st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, 3.0, 1e-30, -1e-40])
ARRAYS = hnp.arrays(np.float32, hnp.array_shapes(max_dims=3, max_side=5), elements=FINITE | COARSE)
UPDATES = st.dictionaries(st.text("abc.é", min_size=1, max_size=5), ARRAYS, min_size=1, max_size=4)
SEEDS = st.integers(0, 2**32 - 1)


def shapes_of(update: Tensors) -> dict[str, tuple[int, ...]]:
    return {name: tensor.shape for name, tensor in update.items()}


def crossed(codec: str, update: Tensors) -> Tensors:
    return decode(codec, encode(codec, update), shapes_of(update), "it")


def large(seed: int, scale: float = 1e-3) -> Tensors:
    """An update of several blocks and chunks, none of them whole at the end, with rows of zeros in it."""
    update = tensors(seed, scale, {"a.w": (70, 131), "b.w": (3, 5), "c.w": (41, 100), "n": (131,)})
    update["c.w"][7:] = 0
    return update


def row_of(update: Tensors) -> np.ndarray[Any, Any]:
    """The values that a codec packs: those of the matrices, end to end."""
    return np.concatenate([np.zeros(0, np.float32), *(update[n].ravel() for n in sorted(update) if update[n].ndim > 1)])


def same_bytes(left: Tensors, right: Tensors) -> bool:
    return left.keys() == right.keys() and all(left[n].tobytes() == right[n].tobytes() for n in left)


# --- fp32


@given(UPDATES)
def test_fp32_gives_back_every_bit(update: Tensors) -> None:
    back = crossed("fp32", update)
    assert same_bytes(back, update)
    assert all(back[n].dtype == np.float32 for n in update)


@given(UPDATES)
def test_fp32_is_what_safetensors_itself_writes(update: Tensors) -> None:
    assert encode("fp32", update) == save({n: update[n] for n in sorted(update)}, metadata={"format": "1"})


# --- sizes and names


@settings(max_examples=25)
@given(UPDATES, st.sampled_from(("fp32", *LOSSY)))
def test_the_bytes_on_the_wire_are_exactly_those_foretold(update: Tensors, codec: str) -> None:
    payload = encode(codec, update)
    assert len(payload) == wire_bytes(codec, shapes_of(update))
    assert payload == encode(codec, dict(reversed(list(update.items()))))
    assert load(payload)  # any reader of safetensors reads it


@pytest.mark.parametrize(
    ("codec", "per_value"),
    [
        ("fp32", 4.0),
        ("bf16", 2.0),
        ("int8-256", 1 + 2 / 256),
        ("int4-128", (64 + 2) / 128),
        ("e3m0-128", (64 + 2) / 128),
        ("topk-4096-64-2", (64 * 14 / 8 + 4) / 4096),
    ],
)
def test_a_value_costs_what_the_table_says(codec: str, per_value: float) -> None:
    shapes = {"w": (1024, 4096)}
    assert 0 < wire_bytes(codec, shapes) - per_value * 1024 * 4096 <= 400
    assert wire_bytes(codec, {**shapes, "n": (4096,)}) - wire_bytes(codec, shapes) <= (4 if codec == "fp32" else 2) * (
        4096 + 40
    )


@pytest.mark.parametrize("codec", ["fp32", *LOSSY])
def test_a_codec_has_one_name(codec: str) -> None:
    assert parse_codec(codec).name == codec


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("zip", "unknown codec 'zip'.*fp32, bf16, int8-BLOCK"),
        ("int8", "unknown codec"),
        ("int8-0256", "unknown codec"),
        ("int8-256 ", "unknown codec"),
        ("fp32-4", "unknown codec"),
        ("topk-1024-64-2", "unknown codec"),
        ("topk-4096-64-3", "unknown codec"),
        ("int4-24", "its block is 24; a multiple of 16 up to 65536"),
        ("e3m0-131072", "its block is 131072"),
        ("topk-4096-30-2", "it keeps 30; a multiple of 4 up to 1024"),
        ("topk-4096-2048-2", "it keeps 2048"),
    ],
)
def test_a_name_that_is_no_codec_is_refused_wherever_it_is_used(name: str, why: str) -> None:
    for call in (lambda: encode(name, tensors(1)), lambda: decode(name, b"", SHAPES, "it")):
        with pytest.raises(RoundError, match=why):
            call()
    with pytest.raises(RoundError, match=why):
        wire_bytes(name, SHAPES)


# --- decode, as the page says, written again value by value


def bf16(bits: int) -> float:
    (value,) = struct.unpack("<f", struct.pack("<I", bits << 16))
    return float(value)


def plainly_decoded(codec: str, payload: bytes, count: int) -> list[float]:
    """Decode the row of a payload in Python's own numbers, rounding each product once to fp32."""
    parsed, packed = parse_codec(codec), load(payload)
    codes = packed["codes"].reshape(-1).tolist()
    if parsed.kind == "bf16":
        return [bf16(code) for code in codes]
    if parsed.kind == "topk":
        row = [0.0] * (len(packed["levels"]) * 4096)
        for chunk, (low, high) in enumerate(packed["levels"].tolist()):
            index_bytes, code_bytes = packed["indices"][chunk].tolist(), packed["codes"][chunk].tolist()
            for i in range(parsed.kept):
                three = int.from_bytes(bytes(index_bytes[3 * (i // 2) : 3 * (i // 2) + 3]), "little")
                index = (three >> (12 * (i % 2))) & 0xFFF
                code = (code_bytes[i // 4] >> (2 * (i % 4))) & 3
                row[4096 * chunk + index] = bf16(high if code & 2 else low) * (-1 if code & 1 else 1)
        return row[:count]
    if parsed.kind != "int8":
        codes = [nibble for byte in codes for nibble in (byte & 15, byte >> 4)]
    if parsed.kind == "int4":
        codes = [code - 8 for code in codes]
    if parsed.kind == "e3m0":
        halves = [0.0, *(2.0 ** (m - 7) for m in range(1, 8))]
        codes = [-halves[code - 8] if code & 8 else halves[code] for code in codes]
    scales = [bf16(bits) for bits in packed["scales"].tolist() for _ in range(parsed.block)]
    return [float(np.float32(code * scale)) for code, scale in zip(codes, scales, strict=True)][:count]


@settings(max_examples=25)
@given(UPDATES, st.sampled_from(LOSSY))
def test_decode_is_what_the_page_says(update: Tensors, codec: str) -> None:
    payload = encode(codec, update)
    found = row_of(decode(codec, payload, shapes_of(update), "it"))
    assert found.tolist() == plainly_decoded(codec, payload, len(found))


@pytest.mark.parametrize("codec", LOSSY)
def test_decode_is_what_the_page_says_over_many_blocks(codec: str) -> None:
    payload = encode(codec, large(3))
    found = row_of(decode(codec, payload, shapes_of(large(3)), "it"))
    assert found.tolist() == plainly_decoded(codec, payload, len(found))


# --- how near the decoded update is


def blocks(codec: str, row: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The largest magnitude of each value's block."""
    block = parse_codec(codec).block
    padded = np.pad(np.abs(row).astype(np.float64), (0, -len(row) % block)).reshape(-1, block)
    return np.repeat(padded.max(axis=1), block)[: len(row)]


# Half a step, and the 2^-9 by which rounding may move a scale. Below 2^-126 a scale is sent as zero.
HALF_STEP: dict[str, Callable[[Any, Any], Any]] = {
    "int8": lambda x, top: top / 127 * 0.502,
    "int4": lambda x, top: top / 7 * 0.51,
    # Powers of two: a third of the value between two of them, the smallest of them below.
    "e3m0": lambda x, top: np.maximum(x / 3 * 1.02, top / 64 * 0.76),
}


@settings(max_examples=40)
@given(UPDATES, SEEDS, st.sampled_from(DENSE))
def test_a_dense_codec_errs_by_half_a_step_at_most(update: Tensors, seed: int, codec: str) -> None:
    for given_update in (update, large(seed)):
        row = row_of(given_update)
        error = np.abs(row_of(crossed(codec, given_update)).astype(np.float64) - row)
        if codec == "bf16":
            # The largest bfloat16 is two parts in a thousand below the largest fp32; subnormals have fewer bits.
            assert (error <= np.abs(row) * 2.0**-8 + 2.0**-134).all()
            continue
        kind = parse_codec(codec).kind
        lowest = {"int8": 127, "int4": 7, "e3m0": 1}[kind] * 2.0**-126
        # Where 127 (8) scales overflow fp32, the scale is the largest that does not: up to a step less than the values.
        extreme = np.where(blocks(codec, row) > 2.9e38, blocks(codec, row) / (16 if kind == "int4" else 64), 0)
        bound = HALF_STEP[kind](np.abs(row), blocks(codec, row)) + extreme
        assert (error <= np.maximum(bound, np.where(blocks(codec, row) < 1.01 * lowest, lowest, 0))).all()


@given(UPDATES, st.sampled_from(LOSSY))
@settings(max_examples=25)
def test_vectors_cross_as_bfloat16_whatever_the_codec(update: Tensors, codec: str) -> None:
    found = crossed(codec, update)
    for name in (n for n in update if update[n].ndim < 2):
        exact = np.abs(update[name]) < 3.38e38
        nearest = torch.from_numpy(np.array(update[name])).bfloat16().float().numpy()
        assert found[name][exact].tobytes() == nearest[exact].tobytes()
        assert np.isfinite(found[name]).all()


@settings(max_examples=20)
@given(SEEDS, st.sampled_from(SPARSE), st.booleans())
def test_topk_sends_exactly_the_largest_of_each_chunk(seed: int, codec: str, coarse: bool) -> None:
    update = large(seed)
    if coarse:  # many equal magnitudes: of these the first ones go
        update = {name: np.round(value * 1000) for name, value in update.items()}
    row, found = row_of(update), row_of(crossed(codec, update))
    kept = parse_codec(codec).kept
    for start in range(0, len(row), 4096):
        chunk, sent = row[start : start + 4096], found[start : start + 4096]
        order = sorted(range(len(chunk)), key=lambda i: (-abs(chunk[i]), i))[:kept]
        assert set(np.flatnonzero(sent)) == {i for i in order if chunk[i]}
        assert (np.sign(sent[order]) == np.sign(chunk[order])).all()
        levels = np.unique(np.abs(sent[order]))
        assert len(levels[levels > 0]) <= 2
        # Two levels are nearer than one: the mean magnitude of all that was kept.
        one = np.abs(chunk[order]).mean()
        plain = ((np.abs(chunk[order]) - one) ** 2).sum()
        assert ((np.abs(chunk[order]) - np.abs(sent[order])) ** 2).sum() <= plain + 1e-4 * (chunk**2).sum()


@settings(max_examples=40)
@given(UPDATES, SEEDS, st.sampled_from(LOSSY))
def test_what_was_decoded_crosses_again_unchanged(update: Tensors, seed: int, codec: str) -> None:
    for once in (crossed(codec, update), crossed(codec, large(seed))):
        again = crossed(codec, once)
        extreme = any(np.abs(t).max(initial=0) > 1e38 or 0 < np.abs(t).max(initial=1) < 1e-30 for t in once.values())
        assert extreme or all(np.array_equal(again[n], once[n]) for n in once)


@pytest.mark.parametrize("codec", LOSSY)
def test_an_update_of_zeros_is_an_update_of_zeros(codec: str) -> None:
    update = {"a": np.zeros((70, 70), np.float32), "n": np.zeros(3, np.float32)}
    assert all(not value.any() for value in crossed(codec, update).values())


@pytest.mark.parametrize("codec", LOSSY)
@pytest.mark.parametrize("names", [("m",), ("n",)])
def test_models_of_only_matrices_or_only_vectors_cross(codec: str, names: tuple[str, ...]) -> None:
    update = {name: {"m": np.ones((2, 2), np.float32), "n": np.ones(4, np.float32)}[name] for name in names}
    found = crossed(codec, update)
    assert found.keys() == update.keys()
    assert all(np.allclose(found[name], update[name], atol=0.01) for name in names)


# --- what is refused

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


def forged(codec: str, **changes: Any) -> bytes:
    packed = {name: np.array(value) for name, value in load(encode(codec, GOOD)).items()}
    for name, change in changes.items():
        packed[name] = change(packed[name])
    return save(packed, metadata={"format": "1"})


def put(value: int) -> Callable[[Any], Any]:
    def change(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        array.reshape(-1)[0] = value
        return array

    return change


FORGED = {
    "infinite bf16": ("bf16", {"codes": put(0x7F80)}, "bf16 has values that are not finite"),
    "infinite vector": ("int8-256", {"vectors": put(0xFF80)}, "vectors has values that are not finite"),
    "no number for a scale": ("int8-256", {"scales": put(0x7FC0)}, "scale that is negative or whose"),
    "negative scale": ("int4-128", {"scales": put(0x8100)}, "scale that is negative"),
    "scale that overflows": ("int8-256", {"scales": put(0x7F00)}, "values are not finite"),
    "infinite scale": ("e3m0-128", {"scales": put(0x7F80)}, "not finite"),
    "infinite level": ("topk-4096-64-2", {"levels": put(0x7F80)}, "not finite"),
    "negative level": ("topk-4096-64-2", {"levels": put(0x8100)}, "magnitude that is negative or not finite"),
    "index twice": ("topk-4096-64-2", {"indices": put(1)}, "indices that do not ascend"),
    "other type": ("int8-256", {"codes": lambda a: a.view(np.uint8)}, r"codes is uint8\[1, 256\], the model's is int8"),
    "other shape": (
        "int4-128",
        {"codes": lambda a: a.reshape(-1)},
        r"codes is uint8\[64\], the model's is .*\[1, 64\]",
    ),
    "over size": ("topk-4096-64-2", {"levels": lambda a: np.concatenate([a, a])}, "over size: .* bytes where topk"),
}


@pytest.mark.parametrize("name", FORGED)
def test_a_forged_payload_of_a_packing_codec_is_refused_by_name(name: str) -> None:
    codec, changes, why = FORGED[name]
    with pytest.raises(RoundError, match=why) as caught:
        decode(codec, forged(codec, **changes), SHAPES, "contribution 42 of east")
    assert str(caught.value).startswith("contribution 42 of east: ")


@pytest.mark.parametrize("codec", LOSSY)
def test_an_update_that_fell_back_to_fp32_is_refused(codec: str) -> None:
    with pytest.raises(RoundError, match="over size|not the model's"):
        decode(codec, encode("fp32", large(1)), shapes_of(large(1)), "it")


@pytest.mark.parametrize("codec", LOSSY)
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_not_sent(codec: str, value: float) -> None:
    for name in ("a", "b"):
        update = {n: t.copy() for n, t in GOOD.items()}
        update[name].reshape(-1)[0] = value
        with pytest.raises(RoundError, match=f"{name} has values that are not finite"):
            encode(codec, update)


@settings(max_examples=50)
@given(st.binary(max_size=200), st.sampled_from(("fp32", *LOSSY)))
def test_no_bytes_at_all_bring_down_the_decoder(payload: bytes, codec: str) -> None:
    with pytest.raises(RoundError):
        decode(codec, payload, SHAPES, "it")
