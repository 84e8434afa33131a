"""Which stretches of shards are asked for so that the blocks that are needed come with few requests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from training.shards.blocks import Array, ShardFile

STRETCH = 32  # blocks, 8 MiB: what is read ahead at most for one that is missed
DENSE = 5  # blocks of a stretch: so many requests cost more than one for all of it, at 2 MiB a request
LONGEST = 256  # blocks a request, 64 MiB, which are streamed; a server works a third more for pieces of 8 MiB
# Bytes: a region that is no larger is read as a whole. Its first batches touch all of it, and their requests, a few
# hundred at 2 MiB each, would cost as much again.
SMALL = 1 << 30

Needs = Sequence[tuple[ShardFile, Array]]
Stretch = tuple[ShardFile, int, int]


def of(needs: Needs, reach: int, dense: int) -> list[Stretch]:
    """Return the stretches (file, start, end) that hold all blocks, int64 [k] of each file; see `runs`."""
    return [(file, *run) for file, blocks in needs for run in runs(blocks, reach, dense, file.blocks)]


def runs(blocks: Array, reach: int, dense: int, count: int) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of stretches of 0..count-1 that hold all of `blocks`, ascending, `LONGEST` at most.

    Each block stands for `reach` of them, and `dense` blocks in one `STRETCH` for all of it. A short rest at the end
    of the file goes with the stretch before it.
    """
    every = np.arange(count)
    owner = np.minimum(every // STRETCH, max(0, (count - 1 - STRETCH // 4) // STRETCH))
    wanted = np.isin(every // reach, blocks // reach)
    often = np.bincount(owner[blocks])
    wanted |= np.isin(owner, np.flatnonzero(often >= dense))
    chosen = every[wanted]
    cuts = np.flatnonzero((np.diff(chosen) > 1) | (np.diff(owner[wanted] // (LONGEST // STRETCH)) > 0)) + 1
    for run in np.split(chosen, cuts):
        yield int(run[0]), int(run[-1]) + 1


def size(asked: Sequence[Stretch]) -> int:
    """Return how many bytes of these stretches are not here yet."""
    missing = ((file, file.missing(np.arange(start, end))) for file, start, end in asked)
    return sum(
        file.span(block, block + 1)[1] - file.span(block, block)[0] for file, blocks in missing for block in blocks
    )
