"""From curated rows in their table to shards in a store, and back: reading every shard against manifest and table.

Ours and each peer run in turn, several times; ratios are of medians.

| figure | what it compares |
|---|---|
| `tokens_per_s` | tokens written a second, end to end: open the tables, sort, redact, tokenize, write, hash, put, manifest |
| `tokenizer_fraction` | bare `tokenizers` `encode_batch` of the same texts, ready in memory, on the same cores, over ours end to end. `tokenizer_cpu_fraction`: the same of CPU seconds, which other work on the machine moves less |
| `datatrove_speedup` | datatrove's `DocumentTokenizer` over Parquet files of the same texts with the same tokenizer, in an environment of its own, its imports left out, on one process or one a core, whichever is faster; over ours |
| `deterministic` | the same manifests, so the same bytes, with one worker and with three, sorted in memory and on disk |
| `verify_fraction` | bare `hashlib.sha256` over the same Arrow files in as many threads, over `causeway shards verify`, which also compares blocks, terms, and every record id with the tables; a record has 600 tokens of 4 bytes |
| `peak_mb`, `peak_mb_10x` | peak memory of a process that shards a third of the set, and ten times as much; the limits of shards and sorted runs are below both |
"""  # noqa: E501

from __future__ import annotations

import hashlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import tokenizers

from benchmarks import corpus
from data_contracts.catalog.store import Store
from training.shards.manifest import Manifest
from training.shards.ordering import RUN_BYTES
from training.shards.rows import CuratedRows
from training.shards.tokenizing import Tokenizer
from training.shards.verifying import verify_shards
from training.shards.writer import SHARD_TOKENS, UnitFacts, write_unit
from training.tokenizer import load_tokenizer
from training.workspace import Workspace

_ROOT = Path(__file__).parents[1]
_PEAK = "import sys; from benchmarks.sharding import shard_alone; shard_alone(*sys.argv[1:])"
_CHUNK = 1024


def run(quick: bool) -> dict[str, Any]:
    """Return tokens per second, ratios to the peers, peak memory, and whether the same data makes the same bytes."""
    size, repeats, records = (3_000_000, 3, 300_000) if quick else (40_000_000, 5, 1_000_000)
    bounds = (1 << 20, 1 << 17) if quick else (1 << 22, 1 << 19)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "tokenizer.json").write_bytes(corpus.tokenizer_json())
        tokenizer = load_tokenizer((folder / "tokenizer.json").read_bytes())
        documents = list(corpus.texts(size))
        one = corpus.make_set(folder / "1x", iter(documents))
        speed = _speed(one, documents, tokenizer, folder, repeats)
        same = _deterministic(one, tokenizer, folder)
        part = documents[: len(documents) // 3]
        small = corpus.make_set(folder / "part", iter(part), curate=False)
        ten = corpus.make_set(folder / "10x", (text for _ in range(10) for text in part), curate=False)
        peaks = [_peak(w, folder / "tokenizer.json", bounds, 1 if quick else 3) for w in (small, ten)]
        verified = _verify(folder / "verify", records, repeats)
    return {
        "text_mb": round(size / 1e6, 1),
        **speed,
        "deterministic": same,
        **verified,
        "peak_mb": peaks[0],
        "peak_mb_10x": peaks[1],
        "peak_ratio": round(peaks[1] / peaks[0], 3),
    }


def write_set(
    workspace: Workspace,
    tokenizer: Tokenizer,
    store: Store,
    workers: int | None = None,
    run_bytes: int = RUN_BYTES,
    shard_tokens: int = SHARD_TOKENS,
) -> list[Manifest]:
    """Write the shards of the whole set to a store."""
    rows = corpus.rows_of(workspace)
    made: list[Manifest] = []
    for unit in rows.units:
        facts = _facts(rows, unit.partition)
        batches = rows.batches(unit.partition, unit.split, run_bytes)
        made += write_unit(store, batches, tokenizer, facts, workers=workers, shard_tokens=shard_tokens)
    return made


def shard_alone(home: str, tokenizer: str, run_bytes: str, shard_tokens: str) -> None:
    """Write the shards of a set in this process and print its peak memory in kB."""
    with tempfile.TemporaryDirectory() as out:
        loaded = load_tokenizer(Path(tokenizer).read_bytes())
        store = Store.open(out)
        write_set(Workspace.open(Path(home)), loaded, store, None, int(run_bytes), int(shard_tokens))
    # ru_maxrss would begin with the peak of the process that started this one.
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    print(found.group(1) if found else 0)


def _facts(rows: CuratedRows, partition: str) -> UnitFacts:
    return UnitFacts(
        dataset=rows.contract.id,
        partition=partition,
        ingest_id=rows.versions[partition].ingest_id,
        curation_id=rows.curation_id,
        split="train",
        region="eu-north",
        terms_sha=rows.contract.terms.sha,
        purpose="research pre-training",
        decision=("residency.storage: anywhere.",),
    )


def _speed(
    workspace: Workspace, documents: list[str], tokenizer: Tokenizer, folder: Path, repeats: int
) -> dict[str, Any]:
    bare = tokenizers.Tokenizer.from_buffer((folder / "tokenizer.json").read_bytes())
    tokens: list[int] = []

    def encode() -> None:
        for start in range(0, len(documents), _CHUNK):
            bare.encode_batch(documents[start : start + _CHUNK], add_special_tokens=False)

    def ours() -> None:
        with tempfile.TemporaryDirectory(dir=folder) as out:
            tokens.append(sum(m.tokens for m in write_set(workspace, tokenizer, Store.open(out))))

    wall, cpu = _medians({"encode_batch": encode, "shards": ours}, repeats)
    facts = {
        "tokens_per_s": round(tokens[0] / wall["shards"]),
        "tokenizer_fraction": round(wall["encode_batch"] / wall["shards"], 3),
        "tokenizer_cpu_fraction": round(cpu["encode_batch"] / cpu["shards"], 3),
    }
    python = _datatrove()
    if python is None:
        return {**facts, "datatrove_speedup": None, "datatrove_note": "datatrove could not be installed"}
    theirs = min(_datatrove_seconds(python, documents, folder, tasks) for tasks in (1, os.cpu_count() or 1))
    again = _medians({"shards": ours}, 2)[0]["shards"]
    return {**facts, "datatrove_speedup": round(theirs / again, 2)}


def _datatrove(version: str = "0.10.1") -> Path | None:
    """Return the Python of an environment under `.bench/` that has datatrove, installed when first asked for."""
    home = _ROOT / ".bench" / f"datatrove-{version}"
    python = home / "bin" / "python"
    if not python.exists():
        sys.stderr.write(f"installing datatrove {version} into {home}\n")
        venv.create(home, with_pip=True)
        wanted = [f"datatrove[io,processing]=={version}", f"tokenizers=={tokenizers.__version__}"]
        subprocess.run([home / "bin" / "pip", "install", "-q", *wanted], stdout=sys.stderr, check=False)
    asked = [python, "-c", "from datatrove.pipeline.tokens import DocumentTokenizer"]
    return python if subprocess.run(asked, capture_output=True, check=False).returncode == 0 else None


def _datatrove_seconds(python: Path, documents: list[str], folder: Path, tasks: int) -> float:
    with tempfile.TemporaryDirectory(dir=folder) as out:
        source = Path(out) / "in"
        source.mkdir()
        for task in range(tasks):
            part = documents[task::tasks]
            keys = [f"{task}-{n}" for n in range(len(part))]
            pq.write_table(pa.table({"key": keys, "content": part}), source / f"{task}.parquet")
        job = [python, _ROOT / "benchmarks" / "datatrove_job.py", source, folder / "tokenizer.json", out, str(tasks)]
        done = subprocess.run(job, capture_output=True, text=True, check=True)
        return float(done.stdout.splitlines()[-1])


def _deterministic(workspace: Workspace, tokenizer: Tokenizer, folder: Path) -> bool:
    found = []
    for workers, run_bytes in ((1, RUN_BYTES), (3, 1 << 19)):
        with tempfile.TemporaryDirectory(dir=folder) as out:
            made = write_set(workspace, tokenizer, Store.open(out), workers, run_bytes, 1 << 17)
            found.append([m.sha for m in made])
    return len(found[0]) > 1 and found[0] == found[1]


def _peak(workspace: Workspace, tokenizer: Path, bounds: tuple[int, int], processes: int) -> int:
    """Return the peak memory in MB: the median of so many processes."""
    command = [sys.executable, "-c", _PEAK, workspace.root, tokenizer, *map(str, bounds)]
    said = [
        subprocess.run(command, cwd=_ROOT, capture_output=True, text=True, check=True).stdout for _ in range(processes)
    ]
    return round(statistics.median(int(one.splitlines()[-1]) for one in said) / 1024)


class _Numbers:
    """A tokenizer that costs nothing: 600 tokens a record of a vocabulary of 100,000, as a page of text has."""

    sha, vocab_size, end_id = "0" * 64, 100_000, 0

    def encode_batch(self, texts: list[str]) -> list[np.ndarray[Any, Any]]:
        return [np.arange(599, dtype=np.uint32) + len(text) for text in texts]

    def encode_offsets(self, texts: list[str]) -> list[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
        raise NotImplementedError


def _verify(folder: Path, records: int, repeats: int) -> dict[str, Any]:
    workspace = corpus.make_set(folder, (f"note {n}" for n in range(records)), curate=False)
    store = workspace.sites.region_store("eu-north")
    write_set(workspace, _Numbers(), store, None, RUN_BYTES, 1 << 24)
    files = [store.path(key) for key, _ in store.list("shards") if key.endswith(".arrow")]
    threads = os.cpu_count() or 1

    def digest(path: Path) -> str:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def bare() -> None:
        with ThreadPoolExecutor(threads) as pool:
            assert set(pool.map(digest, files)) == {path.stem for path in files}

    def ours() -> None:
        assert [v for v in verify_shards(workspace, workers=threads) if v.problems] == []

    wall, _ = _medians({"sha256": bare, "verify": ours}, repeats)
    size = sum(path.stat().st_size for path in files)
    return {
        "verify_fraction": round(wall["sha256"] / wall["verify"], 3),
        "verify_mb_per_s": round(size / 1e6 / wall["verify"]),
        "verify_records": records,
    }


def _medians(jobs: dict[str, Callable[[], Any]], repeats: int) -> tuple[dict[str, float], dict[str, float]]:
    """Run the jobs in turn; return the median wall and CPU seconds of each."""
    wall: dict[str, list[float]] = {name: [] for name in jobs}
    cpu: dict[str, list[float]] = {name: [] for name in jobs}
    for name, job in _turns(jobs, repeats):
        began, busy = time.perf_counter(), time.process_time()
        job()
        wall[name].append(time.perf_counter() - began)
        cpu[name].append(time.process_time() - busy)
    sys.stderr.write(json.dumps({name: [round(s, 3) for s in values] for name, values in wall.items()}) + "\n")
    medians = [{name: statistics.median(values) for name, values in found.items()} for found in (wall, cpu)]
    return medians[0], medians[1]


def _turns(jobs: dict[str, Callable[[], Any]], repeats: int) -> Iterator[tuple[str, Callable[[], Any]]]:
    for _ in range(repeats):
        yield from jobs.items()
