"""What a rule may ask beyond the rows: other data sets, the partition before, a tokenizer, reviewers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa

from data_contracts.catalog.store import Store
from data_contracts.errors import ObjectMissing


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
class Reviews:
    """The folder of a store in which a data set's review files lie."""

    store: Store
    folder: str

    def place(self, name: str) -> str:
        """Return the path or URL of a file, for the people who fill it in."""
        return self.store.uri(f"{self.folder}/{name}")

    def read(self, name: str) -> bytes | None:
        """Return a file's bytes, or None when there is no such file."""
        try:
            return self.store.get(f"{self.folder}/{name}")
        except ObjectMissing:
            return None

    def write(self, name: str, data: bytes) -> None:
        """Put a file; readers see all of it or nothing."""
        self.store.put(f"{self.folder}/{name}", data)


@dataclass(frozen=True)
class RuleContext:
    """What rules ask beyond the rows of a batch. What is None is not there, and each rule says what that means.

    `count_tokens` maps texts to their numbers of tokens. `reviews` is where the review files lie.
    """

    references: References | None = None
    previous: Previous | None = None
    count_tokens: Callable[[Sequence[str]], Sequence[int]] | None = None
    reviews: Reviews | None = None


NOTHING = RuleContext()
