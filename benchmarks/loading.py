"""Token windows from shards, in the order of a run: blocks checked, batches assembled in the background.

Ours and the bare gather run in turn, several times; ratios are of medians. Windows of 2,048 tokens in batches of 128.

| figure | what it compares |
|---|---|
| `tokens_per_s` | a whole epoch through `Loader.ahead`, all blocks checked by an epoch before; `first_epoch_tokens_per_s`: with the checking of every block against the manifests |
| `memmap_fraction` | a bare numpy gather of the same windows from one flat memory-mapped file, at indices made beforehand, over ours |
| `mosaic_speedup`, `litdata_speedup`, `hf_datasets_speedup` | our tokens per second over those of MosaicML Streaming, LitData and Hugging Face datasets, each in its own format, shuffled, in one process |
| `startup_ratio` | a new process, from its start to its first batch, over manifests of 10^7 windows, over the same at 10^4; `open_ms`: the part of it after the imports, at both sizes |
| `order_us_per_window` | lane index to stream, position, epoch and window in a stream of 10^12 windows, amortised over a batch of 8,192 |
| `resume_ms` | a new loader over opened manifests to the first batch of a far position, its blocks checked |
| `s3_fraction` | bare `obstore` gets of all shards of a Swift region on this machine, as many at a time, over an epoch of ours from an empty cache |
| `peak_mb`, `peak_mb_10x` | peak anonymous memory of a process that hands out an epoch, and one of ten times the data; mapped file pages are the kernel's to take back |
"""  # noqa: E501

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import obstore

from benchmarks import loaders
from benchmarks.windows import batches, order_of, write_drawn, write_hollow
from data_contracts.catalog.store import Store
from training.shards.cache import ShardCache
from training.shards.loader import Loader
from training.shards.manifest import DatasetVersion
from training.shards.order import Stream
from training.shards.region import RegionOrder
from training.shards.schedule import Schedule, Segment, Segments

WINDOW, BATCH = 2048, 128
_ROOT = Path(__file__).parents[1]
_FETCHERS = 8


def run(quick: bool) -> dict[str, Any]:
    """Return tokens per second, the ratios to the peers, and what opening, resuming and the order cost."""
    shards, repeats = (4, 5) if quick else (16, 9)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = Store.open(folder / "region")
        version = write_drawn(store, shards, 1 << 24)
        local = _local(store, version, repeats)
        flat = folder / "peers.bin"
        np.random.default_rng(0).integers(0, 65536, (4096 if quick else 16_384) * WINDOW, dtype=np.uint16).tofile(flat)
        peers = {}
        for peer in ("mosaic", "litdata", "hf_datasets"):
            rates = loaders.measured(peer, flat, WINDOW, BATCH, folder, 2 if quick else 5)
            peers[peer] = None if rates is None else statistics.median(rates)
            sys.stderr.write(f"{peer}: {(peers[peer] or 0) / 1e6:.1f} million tokens/s\n")
        started = _started(folder, 3 if quick else 7)
        memory = _memory(folder, store, version)
        resumed = _resumed(store, version)
        distant = _distant(folder, store, version, 3 if quick else 5)
    return {
        "windows": order_of(version, WINDOW).streams[0].windows,
        "window": WINDOW,
        "batch": BATCH,
        **local,
        **{
            f"{peer}_speedup": None if rate is None else round(local["tokens_per_s"] / rate, 1)
            for peer, rate in peers.items()
        },
        **started,
        "order_us_per_window": round(_order_us(), 4),
        **resumed,
        **distant,
        **memory,
        "peer_tokens_per_s": {peer: None if rate is None else round(rate) for peer, rate in peers.items()},
    }


def _local(store: Store, version: DatasetVersion, repeats: int) -> dict[str, Any]:
    order = order_of(version, WINDOW)
    count = order.streams[0].windows // BATCH * BATCH  # whole batches
    asked = list(batches(count, BATCH))
    loader = Loader(ShardCache(store), order, WINDOW)
    began = time.perf_counter()
    _taken(loader, asked)
    first = time.perf_counter() - began
    flat = store.path("flat.bin")
    with flat.open("wb") as out:
        for ref in order.shards[0]:
            file = ShardCache(store).open(ref)
            out.write(file.data[file.manifest.token_offset :][: 2 * file.manifest.tokens].data)
    starts = np.cumsum([0, *(ref.tokens for ref in order.shards[0])])
    places = [loader.places(*one) for one in asked]
    where = [starts[p.shards] + p.first for p in places]
    # A shard's last window may be short: the bare gather reads on into the next shard, and stops before the end.
    last = int(starts[-1]) - WINDOW - 1
    where = [np.minimum(w, last) for w in where]
    view = np.lib.stride_tricks.sliding_window_view(np.memmap(flat, dtype=np.uint16, mode="r"), WINDOW + 1)

    def bare() -> None:
        for rows in where:
            found = view[rows]
            assert found[0, 0] >= 0

    bare()
    medians = _medians({"bare": bare, "ours": lambda: _taken(loader, asked)}, repeats)
    flat.unlink()
    tokens = count * WINDOW
    return {
        "tokens_per_s": round(tokens / medians["ours"]),
        "memmap_fraction": round(medians["bare"] / medians["ours"], 3),
        "first_epoch_tokens_per_s": round(tokens / first),
        "memmap_tokens_per_s": round(tokens / medians["bare"]),
    }


def _taken(loader: Loader, asked: Any) -> int:
    rows = 0
    with loader.ahead(asked) as ahead:
        for batch in ahead:
            rows += len(batch.tokens)
    return rows


def _started(folder: Path, repeats: int) -> dict[str, Any]:
    store = Store.open(folder / "hollow")
    versions = {size: write_hollow(store, size, WINDOW).sha for size in (10**4, 10**7)}
    seconds: dict[int, list[float]] = {size: [] for size in versions}
    opening: dict[int, list[float]] = {size: [] for size in versions}
    for _ in range(repeats + 1):
        for size, sha in versions.items():
            began = time.time()
            found = _process("first", folder / "hollow", sha)
            seconds[size].append(found["at"] - began)
            opening[size].append(found["seconds"])
    small, large = (statistics.median(seconds[size][1:]) for size in versions)
    opened = [round(1000 * statistics.median(opening[size][1:]), 1) for size in versions]
    return {
        "startup_ratio": round(large / small, 3),
        "startup_s": [round(small, 3), round(large, 3)],
        "open_ms": opened,
    }


def _process(job: str, store: Path, sha: str) -> dict[str, Any]:
    arguments = [str(a) for a in (job, store, sha, WINDOW, BATCH)]
    command = [sys.executable, "-m", "benchmarks.windows", *arguments]
    done = subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _memory(folder: Path, store: Store, version: DatasetVersion) -> dict[str, Any]:
    tenth = Store.open(folder / "tenth")
    small = write_drawn(tenth, 1, version.shards[0].tokens * len(version.shards) // 10)
    peaks = [_process("epoch", Path(s.url), v.sha)["peak_mb"] for s, v in ((tenth, small), (store, version))]
    return {"peak_mb": round(peaks[0], 1), "peak_mb_10x": round(peaks[1], 1)}


def _resumed(store: Store, version: DatasetVersion) -> dict[str, Any]:
    order, cache = order_of(version, WINDOW), ShardCache(store)
    taken = []
    for k in range(20):
        began = time.perf_counter()
        loader = Loader(cache, order, WINDOW)
        _taken(loader, batches(BATCH, BATCH, start=10**9 + 10**6 * k))
        taken.append(time.perf_counter() - began)
    return {"resume_ms": round(1000 * statistics.median(taken), 2)}


def _order_us() -> float:
    stream = Stream("bench/tokens", "v", "here", 1, (10**12,), 2)
    order = RegionOrder("here", (stream,), ((),), Segments((Segment(Schedule.of([1.0])),)), (True,), (1.0,))
    taken = []
    for k in range(200):
        positions = np.arange(10**9 * k, 10**9 * k + 8192)
        lanes, indices = positions % 64, positions // 64
        began = time.perf_counter()
        _, found = order.locate_many(lanes, indices)
        stream.visits(found)
        taken.append((time.perf_counter() - began) / 8192)
    return 1e6 * statistics.median(taken)


def _distant(folder: Path, store: Store, version: DatasetVersion, repeats: int) -> dict[str, Any]:
    try:
        from tests.stores import Swift, Unavailable
    except ImportError:
        return {"s3_fraction": None, "s3_note": "tests/stores.py, which starts Swift, is not here"}
    try:
        with Swift(folder / "swift", "bench") as swift:
            os.environ.update(swift.access.environment())
            far = Store.open(swift.access.bucket("region"))
            return _from_swift(folder / "cache", store, far, order_of(version, WINDOW), repeats)
    except Unavailable as error:
        return {"s3_fraction": None, "s3_note": str(error)}


def _from_swift(cache: Path, store: Store, far: Store, order: RegionOrder, repeats: int) -> dict[str, Any]:
    refs = order.shards[0]
    for ref in refs:
        far.put_file(ref.arrow_key, store.path(ref.arrow_key))
        far.put(ref.key, store.get(ref.key))
    size = sum(ref.arrow_bytes for ref in refs)
    count = order.streams[0].windows

    def bare() -> None:
        with ThreadPoolExecutor(_FETCHERS) as pool:
            got = pool.map(lambda ref: len(obstore.get(far.inner, ref.arrow_key).bytes()), refs)
            assert sum(got) == size

    def ours() -> None:
        shutil.rmtree(cache, ignore_errors=True)
        fetched = ShardCache(far, cache)
        assert _taken(Loader(fetched, order, WINDOW), batches(count, BATCH)) == count
        fetched.close()

    medians = _medians({"obstore": bare, "swift": ours}, repeats)
    return {
        "s3_fraction": round(medians["obstore"] / medians["swift"], 3),
        "s3_mb_per_s": round(size / medians["swift"] / 1e6),
        "obstore_mb_per_s": round(size / medians["obstore"] / 1e6),
    }


def _medians(jobs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    taken: dict[str, list[float]] = {name: [] for name in jobs}
    for repeat in range(repeats):
        for name, job in jobs.items():
            began = time.perf_counter()
            job()
            taken[name].append(time.perf_counter() - began)
            sys.stderr.write(f"repeat {repeat + 1} of {repeats}: {name} {taken[name][-1]:.2f} s\n")
    return {name: statistics.median(values) for name, values in taken.items()}
