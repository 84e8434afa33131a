"""The ledger: which positions a chain has trained on, and which rounds trained on a record. Arithmetic, no index."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from data_contracts.errors import RoundError
from training.rounds.commit import ChainState
from training.rounds.contribution import Claim, Contribution
from training.rounds.plan import Plan
from training.shards.cache import ShardCache
from training.shards.region import RegionOrder
from training.shards.schedule import LANES
from training.shards.writer import open_shard


@dataclass(frozen=True)
class Entry:
    """One ledger entry: lane indices `start`..`end`-1 of a region's lane were applied by a round, trained at a site.

    `skipped`: the site could not read them; they are booked, and nothing was trained on them.
    """

    round: int
    region: str
    site: str
    lane: int
    start: int
    end: int
    skipped: bool = False


def entries(plan: Plan, rounds: Iterable[tuple[int, list[Contribution]]]) -> list[Entry]:
    """Return the ledger of committed inputs, checked: each lane's ranges join without gap or overlap.

    Raises:
        RoundError: a position would be applied twice or skipped; names lane and round.
    """
    found: list[Entry] = []
    reached: dict[tuple[str, int], int] = {}
    for number, inputs in rounds:
        for c in sorted(inputs, key=lambda c: c.header.site):
            region = plan.site(c.header.site).region
            for lane, start, end in c.header.claims:
                if start != reached.get((region, lane), 0):
                    raise RoundError(
                        f"round {number}: {region} lane {lane} is claimed from {start}; it stood at"
                        f" {reached.get((region, lane), 0)}"
                    )
                reached[region, lane] = end
                found += _parts(number, region, c, (lane, start, end))
    return found


def _parts(number: int, region: str, one: Contribution, claim: Claim) -> list[Entry]:
    """Return a claim as entries: what was read and what was skipped, in turn."""
    lane, reached, end = claim
    found = []
    for _, low, high in (s for s in one.header.skipped if s[0] == lane):
        found.append(Entry(number, region, one.header.site, lane, reached, low))
        found.append(Entry(number, region, one.header.site, lane, low, high, skipped=True))
        reached = high
    found.append(Entry(number, region, one.header.site, lane, reached, end))
    return [e for e in found if e.end > e.start]


@dataclass(frozen=True)
class Trained:
    """A round that trained on a record: where in which shard and epoch, and at which lane index."""

    round: int
    site: str
    dataset: str
    shard: str
    epoch: int
    window: int
    lane: int
    index: int


def rounds_of_record(
    record_id: str, order: RegionOrder, shards: ShardCache, window: int, ledger: list[Entry], state: ChainState
) -> list[Trained]:
    """Return every training of a record in one region, in the order of the rounds.

    A window trains on a record when one of its inputs or targets is a token of it.
    """
    by_lane: dict[int, list[Entry]] = {}
    for entry in ledger:
        if entry.region == order.region and not entry.skipped:
            by_lane.setdefault(entry.lane, []).append(entry)
    found: list[Trained] = []
    for number, stream in enumerate(order.streams):
        reached = _positions(order, number, state)
        for shard_number, ref in enumerate(order.shards[number]):
            shard = open_shard(shards.path(ref))
            if record_id not in shard.record_ids:
                continue
            row = shard.record_ids.index(record_id)
            first, last = int(shard.offsets[row]), int(shard.offsets[row + 1]) - 1
            base = stream.ends[shard_number - 1] if shard_number else 0
            count = stream.ends[shard_number] - base
            # Window w reads tokens w*L .. w*L + L: the last of them only as a target.
            for inner in range(max(0, (first - 1) // window), min(count - 1, last // window) + 1):
                for epoch in range(reached // stream.windows + 1):
                    place = order.find(number, stream.position(epoch, base + inner))
                    if place is None:
                        continue
                    lane, index = place
                    for entry in by_lane.get(lane, []):
                        if entry.start <= index < entry.end:
                            found.append(
                                Trained(
                                    entry.round, entry.site, stream.dataset, ref.arrow_sha256, epoch, inner, lane, index
                                )
                            )
    return sorted(found, key=lambda t: (t.round, t.lane, t.index))


def _positions(order: RegionOrder, stream: int, state: ChainState) -> int:
    """Return a bound on the positions of a stream that the chain has reached."""
    return max(order.segments.handed(state.index[order.region])[stream]) * LANES + LANES
