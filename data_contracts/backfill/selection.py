"""Which partitions a backfill takes in, and why each one: a source compared with the tables. Pure."""

from __future__ import annotations

import datetime as dt
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from data_contracts.backfill.plan import Item, Only, Order, Skipped
from data_contracts.catalog.registry import SourceEntry
from data_contracts.catalog.tables import PartitionVersion
from data_contracts.errors import DataRefused
from data_contracts.sources import SourcePartition


@dataclass(frozen=True)
class Offer:
    """One partition as one registered source has it."""

    entry: SourceEntry
    partition: SourcePartition

    @property
    def slot(self) -> tuple[str, str]:
        """Partition value and publication."""
        return (self.partition.value, self.entry.published)


@dataclass(frozen=True)
class Request:
    """What somebody asks to have backfilled; `start` and `end` are partition values, both included, '' for no bound."""

    only: Only = "missing"
    start: str = ""
    end: str = ""
    partitions: tuple[str, ...] = ()
    order: Order = "oldest"


@dataclass(frozen=True)
class Known:
    """What is known before a backfill.

    `versions` are all versions of the data set; `failed` says of a slot how its last attempt in an earlier backfill
    failed; `in_flight` says of a partition what works on it; `expected` are the values that should exist.
    """

    versions: Sequence[PartitionVersion]
    failed: Mapping[tuple[str, str], str]
    in_flight: Mapping[str, str]
    expected: Sequence[str]


def select(
    dataset: str, offers: Iterable[Offer], request: Request, known: Known
) -> tuple[tuple[Item, ...], tuple[Skipped, ...]]:
    """Return what to take in, numbered in the order of the request, and what is left alone and why.

    Raises:
        DataRefused: a named partition is in no source; names those that are.
    """
    offered = list(offers)
    values = {o.partition.value for o in offered}
    unknown = sorted(set(request.partitions) - values)
    if unknown:
        raise DataRefused(f"{dataset}: no source has partition {', '.join(unknown)}; they have {_some(values)}")
    slots = _by_slot(known.versions)
    newest = {v.partition: v for v in sorted(known.versions, key=lambda v: v.rank) if v.verdict != "refused"}
    rate = _seconds_per_byte(known.versions)
    items: list[Item] = []
    skipped: list[Skipped] = []
    for offer in offered:
        value, published = offer.slot
        if not _asked_for(value, request, values):
            continue
        labels = _labels(offer, slots.get(offer.slot, []), newest.get(value), known.failed.get(offer.slot))
        reason = (
            labels.get(request.only) if request.only != "all" else "; ".join(labels.values()) or "all were asked for"
        )
        if value in known.in_flight:
            skipped.append(Skipped(value, published, known.in_flight[value]))
        elif reason is None:
            skipped.append(Skipped(value, published, _why_not(request.only, labels)))
        else:
            size = offer.partition.size
            items.append(
                Item(
                    number=0,
                    partition=value,
                    published=published,
                    contract_sha=offer.entry.sha,
                    contract_version=offer.entry.version,
                    source=offer.entry.source,
                    source_sha=offer.partition.source_sha,
                    bytes=size,
                    reason=reason,
                    estimate_s=round(rate(size), 3),
                )
            )
    absent = [v for v in known.expected if v not in values and _asked_for(v, request, values | set(known.expected))]
    skipped += [Skipped(v, "", "the contract's frequency expects it, and no source has it") for v in absent]
    items.sort(key=lambda i: (_sort_key(i.partition), i.published), reverse=request.order == "newest")
    numbered = (Item(**{**vars(item), "number": n}) for n, item in enumerate(items, start=1))
    return tuple(numbered), tuple(sorted(skipped, key=lambda s: (_sort_key(s.partition), s.published)))


def _by_slot(versions: Iterable[PartitionVersion]) -> dict[tuple[str, str], list[PartitionVersion]]:
    """Return the versions of each slot, oldest first; by arrival the slot's publication is ''."""
    found: dict[tuple[str, str], list[PartitionVersion]] = {}
    for version in sorted(versions, key=lambda v: v.published_at):
        found.setdefault((version.partition, ""), []).append(version)
        # Sequences of publications are microseconds since 1970; those by arrival count from 1.
        if version.sequence > 1_000_000_000_000:
            moment = dt.datetime.fromtimestamp(version.sequence / 1e6, dt.UTC).isoformat(timespec="seconds")
            found.setdefault((version.partition, moment), []).append(version)
    return found


def _labels(
    offer: Offer, slot: list[PartitionVersion], current: PartitionVersion | None, failed: str | None
) -> dict[str, str]:
    """Return each reason that holds for an offer, by the `--only` that asks for it."""
    labels: dict[str, str] = {}
    sha = offer.partition.source_sha
    last = slot[-1] if slot else None
    if last is None:
        which = f"this publication ({offer.entry.published[:10]})" if offer.entry.published else "it"
        labels["missing"] = f"{which} was never taken in"
        if current is not None and current.source_sha != sha and _later(offer, current):
            labels["restated"] = _other_bytes(current.source_sha, sha)
    elif last.source_sha != sha:
        labels["restated"] = _other_bytes(last.source_sha, sha)
    if last is not None and last.verdict == "refused" and last.source_sha == sha:
        rules = ", ".join(f"{name} {count}" for name, count in sorted(last.reasons.items())) or "a rule of the whole"
        labels["failed"] = f"refused on {last.published_at[:10]}: {rules}"
    elif failed is not None and (last is None or last.source_sha != sha):
        labels["failed"] = f"failed before: {failed}"
    if last is not None and last.contract_sha != offer.entry.sha:
        labels["stale-contract"] = (
            f"taken in under contract {last.contract_version} ({last.contract_sha[:8]}),"
            f" it is now {offer.entry.version} ({offer.entry.sha[:8]})"
        )
    return labels


def _later(offer: Offer, current: PartitionVersion) -> bool:
    """Whether an offer would take the current version's place; by arrival what comes last always does."""
    moment = offer.entry.moment
    return moment is None or moment.timestamp() * 1_000_000 > current.sequence


def _other_bytes(before: str, now: str) -> str:
    return f"the source has other bytes: {before[:8]} was taken in, now {now[:8]}"


def _why_not(only: str, labels: Mapping[str, str]) -> str:
    if not labels:
        return "it is there: the same bytes under the same contract"
    others = "; ".join(f"{label}: {why}" for label, why in labels.items())
    return f"not {only}, but {others}"


def _asked_for(value: str, request: Request, values: Collection[str]) -> bool:
    if request.partitions and value not in request.partitions:
        return False
    key = _sort_key(value)
    low = not request.start or key >= _sort_key(request.start)
    return low and (not request.end or key <= _sort_key(request.end))


def _sort_key(value: str) -> tuple[int, int, str]:
    """Numbers by their size, before texts by theirs; ISO dates are texts in order."""
    return (0, int(value), "") if value.isascii() and value.isdigit() else (1, 0, value)


def _seconds_per_byte(versions: Sequence[PartitionVersion]) -> SecondsOf:
    timed = [v for v in versions if v.seconds > 0]
    if not timed:
        return SecondsOf(0.0, 0.0)
    floor = min(v.seconds for v in timed)
    return SecondsOf(floor, statistics.median((v.seconds - floor) / max(1, v.bytes_in) for v in timed))


@dataclass(frozen=True)
class SecondsOf:
    """What a partition takes: a floor in seconds, and seconds per byte of source, from past runs."""

    floor: float
    per_byte: float

    def __call__(self, size: int) -> float:
        """Return seconds for a partition of this many bytes."""
        return self.floor + self.per_byte * size


def _some(values: Collection[str]) -> str:
    listed = sorted(values, key=_sort_key)
    return ", ".join(listed) if len(listed) <= 12 else f"{', '.join(listed[:6])} ... {', '.join(listed[-3:])}"
