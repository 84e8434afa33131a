"""What a rule may ask beyond the rows: other data sets, the partition before, a tokenizer, reviewers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pyarrow as pa


class References(Protocol):
    """The current accepted rows of data sets, by id."""

    def __call__(self, dataset: str, columns: Sequence[str]) -> Iterable[pa.Table]:
        """Yield the columns of the rows in force.

        Raises:
            DataRefused: there is no such data set here.
        """


class Previous(Protocol):
    """The accepted rows of the partition before this one."""

    def __call__(self, columns: Sequence[str]) -> tuple[str, pa.Table] | None:
        """Return its value and its columns, or None when there is none."""


@dataclass(frozen=True)
class RuleContext:
    """What rules ask beyond the rows of a batch. What is None is not there, and each rule says what that means.

    `count_tokens` maps texts to their numbers of tokens. `reviews` is the folder of the review files.
    """

    references: References | None = None
    previous: Previous | None = None
    count_tokens: Callable[[Sequence[str]], Sequence[int]] | None = None
    reviews: Path | None = None


NOTHING = RuleContext()
