"""What a codec is called: its kind and its parameters in one string, such as `int8-256` or `topk-4096-64-2`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from data_contracts.errors import RoundError

Kind = Literal["fp32", "bf16", "int8", "int4", "e3m0", "topk"]
CHUNK = 4096  # values of which top-k keeps some: an index within it has 12 bits
FORMS = ("fp32", "bf16", "int8-BLOCK", "int4-BLOCK", "e3m0-BLOCK", "topk-4096-KEPT-2")
_NUMBER = r"([1-9][0-9]{0,5})"
_BLOCKWISE = re.compile(rf"(int8|int4|e3m0)-{_NUMBER}")
_TOPK = re.compile(rf"topk-{CHUNK}-{_NUMBER}-2")
_TOPK_DECAY = 0.95  # SparseLoCo, arXiv 2508.15706
_GBIT = 1e9 / 8  # bytes per second


@dataclass(frozen=True)
class Codec:
    """A codec: `block` values share a scale, of them `kept` cross the wire (0: all)."""

    kind: Kind
    block: int = 1
    kept: int = 0

    @property
    def name(self) -> str:
        """The name that plans and headers use; `parse_codec` of it is this codec."""
        if self.kind == "topk":
            return f"topk-{self.block}-{self.kept}-2"
        return self.kind if self.block == 1 else f"{self.kind}-{self.block}"

    @property
    def decay(self) -> float:
        """What of the residual a site carries into the next round unless the plan says otherwise; 0: none is kept."""
        return _TOPK_DECAY if self.kind == "topk" else 0.0


@lru_cache
def parse_codec(name: str) -> Codec:
    """Return the codec of this name.

    Raises:
        RoundError: no codec is called so, or a parameter is out of its range; says what is allowed.
    """
    if name in ("fp32", "bf16"):
        return Codec("fp32" if name == "fp32" else "bf16")
    if found := _BLOCKWISE.fullmatch(name):
        block = int(found[2])
        if block % 16 or block > 65536:
            raise RoundError(f"codec {name!r}: its block is {block}; a multiple of 16 up to 65536 is allowed")
        return Codec("int8" if found[1] == "int8" else "int4" if found[1] == "int4" else "e3m0", block)
    if found := _TOPK.fullmatch(name):
        kept = int(found[1])
        if kept % 4 or kept > CHUNK // 4:
            raise RoundError(f"codec {name!r}: it keeps {kept}; a multiple of 4 up to {CHUNK // 4} is allowed")
        return Codec("topk", CHUNK, kept)
    raise RoundError(f"unknown codec {name!r}; this Causeway speaks {', '.join(FORMS)}")


def codec_for(bytes_per_s: float | None, momentum: float) -> str:
    """Return the name of the codec for a site whose way home has this speed; None: no speed is stated.

    Below 1 Gbit/s the sparse one with error feedback, which goes with an outer optimizer without momentum (SparseLoCo,
    arXiv 2508.15706; docs/codecs.md has the figures) and otherwise gives way to 4 bits; up to 10 Gbit/s 4 bits; above
    8 bits; bfloat16 where nothing is stated, as on one machine.
    """
    if bytes_per_s is None:
        return "bf16"
    if bytes_per_s < _GBIT and momentum == 0:
        return "topk-4096-64-2"
    return "int4-128" if bytes_per_s <= 10 * _GBIT else "int8-256"
