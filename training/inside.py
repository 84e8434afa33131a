"""What a site is inside: how many processes train there, in which form, dtype and threads. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Form = Literal["ddp", "fsdp"]
Dtype = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Inside:
    """What sites.toml says of the inside of a site; None: nothing, so the worker's own defaults hold.

    `ranks` are processes that step together, `form` how they divide the model, `threads` the CPU threads of each;
    `dtype` is that of forward and backward at this site, in place of the recipe's.
    """

    ranks: int | None = None
    form: Form | None = None
    dtype: Dtype | None = None
    threads: int | None = None

    @property
    def arguments(self) -> list[str]:
        """The options of `python -m training.worker` that say the same."""
        return [word for name, value in vars(self).items() if value is not None for word in (f"--{name}", str(value))]

    @property
    def words(self) -> str:
        """The same for a person: `2 ranks fsdp, bfloat16, 4 threads`; empty where nothing is said."""
        ranks = "" if self.ranks is None else f"{self.ranks} rank{'' if self.ranks == 1 else 's'}"
        threads = "" if self.threads is None else f"{self.threads} thread{'' if self.threads == 1 else 's'}"
        return ", ".join(word for word in (f"{ranks} {self.form or ''}".strip(), self.dtype or "", threads) if word)


def device_words(device: str, dtype: str | None, recipe_dtype: str, form: str, ranks: int) -> str:
    """Return how a contribution names what made it: `cpu`, or `cpu bfloat16 ddp-2`.

    The dtype stands there where it is not the recipe's, ranks where there are several: what every site of every plan
    does is not said, and chains from before keep their bytes.
    """
    own = [dtype] if dtype not in (None, recipe_dtype) else []
    return " ".join([device, *filter(None, own), *([f"{form}-{ranks}"] if ranks > 1 else [])])
