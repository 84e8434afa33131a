"""The plan of a backfill: what it will do, item by item, and what it leaves out and why. Made once, never changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from data_contracts.canonical import document_sha

Only = Literal["missing", "failed", "restated", "stale-contract", "all"]
Order = Literal["oldest", "newest"]
Through = Literal["ingest", "curate", "shard"]
FORMAT = 1


@dataclass(frozen=True)
class Item:
    """One publication of one partition to take in. `bytes` are the source's, `estimate_s` is from past runs."""

    number: int
    partition: str
    published: str
    contract_sha: str
    contract_version: str
    source: str
    source_sha: str
    bytes: int
    reason: str
    estimate_s: float = 0.0

    @property
    def name(self) -> str:
        """What a person calls it: the partition, and which publication where there are several."""
        return f"{self.partition} published {self.published[:10]}" if self.published else self.partition

    def key(self, backfill: str, attempt: int) -> str:
        """The idempotency key of one attempt: a retry is another attempt, the same attempt is never run twice."""
        return f"{backfill}/{self.partition}/{self.published}/{self.source_sha[:16]}/{attempt}"


@dataclass(frozen=True)
class Skipped:
    """A partition that the backfill leaves alone, and why."""

    partition: str
    published: str
    reason: str


@dataclass(frozen=True)
class BackfillPlan:
    """A backfill as it was agreed to.

    `items` are in the order in which they will be started. `breaker` failures in a row stop it. `run` is the run.toml
    of `through = shard` as a JSON value, else empty. `id` is derived from what is to be done, not from how or by whom:
    whoever asks for the same work gets the same backfill.
    """

    id: str
    dataset: str
    only: str
    start: str
    end: str
    partitions: tuple[str, ...]
    order: str
    through: str
    max_active: int
    breaker: int
    reason: str
    asked_by: str
    asked_at: str
    items: tuple[Item, ...]
    skipped: tuple[Skipped, ...]
    run: Mapping[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    @property
    def slug(self) -> str:
        """The data set's id as one path segment."""
        return self.dataset.replace("/", "--")

    @property
    def bytes(self) -> int:
        """Bytes of source to read."""
        return sum(item.bytes for item in self.items)

    @property
    def estimate_s(self) -> float:
        """Seconds it will take with `max_active` at once, from past runs; 0 when nothing is known."""
        return sum(item.estimate_s for item in self.items) / max(1, min(self.max_active, len(self.items)))

    def item(self, number: int) -> Item:
        """Return an item by its number, which counts from 1."""
        return self.items[number - 1]

    def document(self) -> dict[str, Any]:
        """Return the plan as a JSON value."""
        return asdict(self)

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> BackfillPlan:
        """Read a stored plan."""
        given = dict(document)
        given["items"] = tuple(Item(**item) for item in given["items"])
        given["skipped"] = tuple(Skipped(**one) for one in given["skipped"])
        given["partitions"] = tuple(given["partitions"])
        return cls(**given)


def name_of(dataset: str, through: str, items: tuple[Item, ...], run: Mapping[str, Any]) -> str:
    """Return what names the work: `bf-` and 10 hex digits over data set, stages, and each item's contract and bytes."""
    what = sorted([i.partition, i.published, i.contract_sha, i.source_sha] for i in items)
    return f"bf-{document_sha([dataset, through, what, dict(run)])[:10]}"
