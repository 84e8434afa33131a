"""Every shard in every region against its manifest, the terms in force and the tables."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby

from data_contracts.errors import CausewayError, StoreError
from data_contracts.terms import TrainingTerms
from training.shards.audit import Content, Lying, misfits, misplaced_records, read_content, unlawful
from training.shards.curated_ids import CuratedIds
from training.shards.manifest import read_manifest
from training.sites import Region, Site
from training.workspace import Workspace

Progress = Callable[[int, int], None]
# Shards whose bytes are read before the units that were asked for first are judged.
_AHEAD = 4


@dataclass(frozen=True)
class ShardVerdict:
    """What became of one shard; `problems` is empty when it is what it should be, a sentence each otherwise."""

    region: str
    key: str
    dataset: str
    split: str
    shards: int
    tokens: int
    arrow_bytes: int
    problems: tuple[str, ...]


def lying_in(workspace: Workspace, region: str, dataset: str | None = None) -> tuple[list[Lying], list[ShardVerdict]]:
    """Return the shards of a region, of one data set or all, unit by unit; and the manifests that cannot be read."""
    store = workspace.sites.region_store(region)
    folder = "shards" if dataset is None else f"shards/{dataset.replace('/', '--')}"
    found: list[Lying] = []
    unreadable: list[ShardVerdict] = []
    for key in [key for key, _ in store.list(folder) if key.endswith(".json")]:
        try:
            found.append(Lying(region, store, key, read_manifest(store, key)))
        except StoreError as error:
            slug = key.split("/")[1] if key.count("/") > 1 else ""
            unreadable.append(ShardVerdict(region, key, slug.replace("--", "/"), "", 0, 0, 0, (str(error),)))
    return sorted(found, key=lambda one: (one.unit, one.manifest.part, one.key)), unreadable


def units(lying: Sequence[Lying]) -> Iterator[list[Lying]]:
    """Yield shards, sorted as `lying_in` does, by their units; a part that is there twice makes a unit of its own."""
    for _, group in groupby(lying, key=lambda one: one.unit):
        rounds: list[list[Lying]] = []
        for one in group:
            free = next((r for r in rounds if all(o.manifest.part != one.manifest.part for o in r)), None)
            if free is None:
                rounds.append([one])
            else:
                free.append(one)
        yield from rounds


def judge(
    unit: Sequence[Lying],
    contents: Sequence[Content],
    ids: CuratedIds,
    terms: Mapping[str, TrainingTerms],
    where: Site | Region,
) -> list[tuple[str, ...]]:
    """Return, for each shard of a unit whose contents were read, all that is wrong with it.

    Records are compared with the tables only where the shard may lie.
    """
    outer = [
        [*misfits(one.key, one.manifest, where.name if isinstance(where, Region) else where.region)] for one in unit
    ]
    refused = [[*unlawful(one.manifest, terms, where)] for one in unit]
    inner = [[] for _ in unit] if any(refused) else misplaced_records(unit, contents, ids)
    return [
        tuple(dict.fromkeys([*a, *b, *(() if b else content.problems), *c]))
        for a, b, content, c in zip(outer, refused, contents, inner, strict=True)
    ]


def verify_shards(
    workspace: Workspace,
    regions: Collection[str] = (),
    datasets: Collection[str] = (),
    *,
    workers: int | None = None,
    progress: Progress = lambda done, total: None,
) -> Iterator[ShardVerdict]:
    """Read every shard of these regions and data sets, by default all, and say what is wrong with each.

    `workers` files are hashed at once, by default one a core; memory does not grow with the shards. `progress` is told
    bytes read and to be read.

    Raises:
        CausewayError: the terms in force or a region's store cannot be read; sites.toml has no such region.
    """
    terms = workspace.terms().terms
    workers = workers or os.cpu_count() or 1
    chosen = chosen_regions(workspace, regions)
    work: list[tuple[Region, list[Lying]]] = []
    for region in chosen:
        names: list[str | None] = [*sorted(datasets)]
        for dataset in names or [None]:
            lying, unreadable = lying_in(workspace, region.name, dataset)
            yield from unreadable
            work += [(region, unit) for unit in units(lying)]
    total, done = sum(one.manifest.arrow_bytes for _, unit in work for one in unit), 0

    def read(count: int) -> None:
        nonlocal done
        done += count
        progress(done, total)

    ids = CuratedIds(workspace)
    waiting: deque[tuple[Region, list[Lying], list[Future[Content]]]] = deque()

    def judged() -> Iterator[ShardVerdict]:
        region, unit, futures = waiting.popleft()
        for one, problems in zip(unit, judge(unit, [f.result() for f in futures], ids, terms, region), strict=True):
            m = one.manifest
            yield ShardVerdict(region.name, one.key, m.dataset, m.split, 1, m.tokens, m.arrow_bytes, problems)

    with ThreadPoolExecutor(workers, thread_name_prefix="verify") as pool:
        try:
            for region, unit in work:
                waiting.append((region, unit, [pool.submit(read_content, one, ids, read) for one in unit]))
                while sum(len(futures) for _, _, futures in waiting) > _AHEAD * workers:
                    yield from judged()
            while waiting:
                yield from judged()
        finally:
            for _, _, futures in waiting:
                for future in futures:
                    future.cancel()


def chosen_regions(workspace: Workspace, regions: Collection[str] = ()) -> list[Region]:
    """Return regions by their names, by default all.

    Raises:
        CausewayError: sites.toml has no such region; lists those it has.
    """
    known = {region.name: region for region in workspace.sites.regions}
    for name in regions:
        if name not in known:
            raise CausewayError(f"no region {name!r} in sites.toml; it has: {', '.join(sorted(known))}")
    return [known[name] for name in sorted(regions or known)]
