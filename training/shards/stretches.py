"""Which stretches of shards are asked for so that the blocks that are needed come with few requests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from training.shards.blocks import Array, ShardFile

LONGEST = 32  # blocks a request at most: 8 MiB; the server works 35 % more than for whole objects, with 4 MiB 50 %
DENSE = 5  # blocks of a longest stretch: so many requests cost more than one for all of it, at 2 MiB a request

Needs = Sequence[tuple[ShardFile, Array]]
Stretch = tuple[ShardFile, int, int]


def of(needs: Needs, reach: int, dense: int) -> list[Stretch]:
    """Return the stretches (file, start, end) that hold all blocks, int64 [k] of each file; see `runs`."""
    return [(file, *run) for file, blocks in needs for run in runs(blocks, reach, dense, file.blocks)]


def runs(blocks: Array, reach: int, dense: int, count: int) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of stretches of 0..count-1 that hold all of `blocks`, ascending, none across a `LONGEST`.

    Each block stands for `reach` of them, and `dense` blocks in one `LONGEST` for all of it. A short rest at the end
    of the file goes with the stretch before it.
    """
    every = np.arange(count)
    owner = np.minimum(every // LONGEST, max(0, (count - 1 - LONGEST // 4) // LONGEST))
    wanted = np.isin(every // reach, blocks // reach)
    often = np.bincount(owner[blocks])
    wanted |= np.isin(owner, np.flatnonzero(often >= dense))
    chosen = every[wanted]
    cuts = np.flatnonzero((np.diff(chosen) > 1) | (np.diff(owner[wanted]) > 0)) + 1
    for run in np.split(chosen, cuts):
        yield int(run[0]), int(run[-1]) + 1


def size(asked: Sequence[Stretch]) -> int:
    """Return how many bytes of these stretches are not here yet."""
    missing = ((file, file.missing(np.arange(start, end))) for file, start, end in asked)
    return sum(
        file.span(block, block + 1)[1] - file.span(block, block)[0] for file, blocks in missing for block in blocks
    )
