"""Which stretches of shards are asked for so that the blocks that are needed come with few requests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from training.shards.blocks import Array, ShardFile

LONGEST = 16  # blocks a request at most: 4 MiB; more no longer raises the rate of S3, and costs memory
DENSE = 3  # blocks of a longest stretch: so many requests cost more than one for all of it, at 2 MiB a request

Needs = Sequence[tuple[ShardFile, Array]]
Stretch = tuple[ShardFile, int, int]


def of(needs: Needs, reach: int, dense: int) -> list[Stretch]:
    """Return the stretches (file, start, end) that hold all blocks, int64 [k] of each file; see `runs`."""
    return [(file, *run) for file, blocks in needs for run in runs(blocks, reach, dense, file.blocks)]


def runs(blocks: Array, reach: int, dense: int, count: int) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of stretches of 0..count-1 that hold all of `blocks`, ascending, none across a `LONGEST`.

    Each block stands for `reach` of them, and `dense` blocks in one `LONGEST` for all of it.
    """
    stretches, often = np.unique(blocks // LONGEST, return_counts=True)
    whole = stretches[often >= dense]
    units = [whole[:, None] * LONGEST + np.arange(LONGEST)]
    few = np.unique(blocks[~np.isin(blocks // LONGEST, whole)] // reach)
    units.append(few[:, None] * reach + np.arange(reach))
    wanted = np.unique(np.concatenate([unit.reshape(-1) for unit in units]))
    cuts = np.flatnonzero((np.diff(wanted) > 1) | (wanted[1:] % LONGEST == 0)) + 1
    for run in np.split(wanted, cuts):
        if run[0] < count:
            yield int(run[0]), min(int(run[-1]) + 1, count)


def size(asked: Sequence[Stretch]) -> int:
    """Return how many bytes of these stretches are not here yet."""
    missing = ((file, file.missing(np.arange(start, end))) for file, start, end in asked)
    return sum(
        file.span(block, block + 1)[1] - file.span(block, block)[0] for file, blocks in missing for block in blocks
    )
