"""Row rules at speed, on one workload of typed, text and key columns with 20 rules and one per cent of bad rows.

Ours and each peer run in turn, several times; ratios are of medians.

| figure | what it compares |
|---|---|
| `scan_fraction` | a bare Arrow decode of the Parquet file, over our row rules and the split of decoded batches, no keys, no write. `pass_fraction`: over ours with our own reading of the file |
| `duckdb_fraction` | DuckDB doing the identical split, keyed ids, sides and Parquet files, over our ingest into the tables (which also hashes the source twice and commits) |
| `gx_speedup` | Great Expectations on pandas, from a ready frame, listing every failing row of every rule (it has none for `multipleOf`), over ours from ready batches to quarantine rows, repeated keys included |
| `datacontract_speedup` | datacontract-cli's `test`, in an environment of its own, over what `causeway contracts test` does, both in a warm process; `datacontract_process_speedup`: the two commands from start to end |
| `peak_mb`, `peak_mb_10x` | peak memory of a process that ingests the file, and ten times the file, keys checked. A key costs 2.1 bytes for ever and 16 more while it is one of the last quarter million (`data_contracts/keyset.py`) |
| `quarantine_complete` | every planted row, and no other, is in the quarantine table with exactly its planted reasons, from Parquet and from CSV |
"""  # noqa: E501

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks import validators
from benchmarks.ingesting import SECRET, ingest
from benchmarks.maintenance import Workload, write_workload
from data_contracts.ahead import read_ahead
from data_contracts.catalog.store import Store
from data_contracts.catalog.tables import Tables
from data_contracts.contract import load_contract
from data_contracts.contracting.trial import try_contract
from data_contracts.rules import row_rules
from data_contracts.sources import open_source
from data_contracts.splitting import RowSplitter, any_of
from data_contracts.validation import validate

_ROOT = Path(__file__).parents[1]
_PEAK = (
    "import re, sys; from pathlib import Path; from benchmarks.ingesting import ingest\n"
    "ingest(*map(Path, sys.argv[1:4]))\n"
    # ru_maxrss would begin with the peak of the process that started this one.
    "print(re.search(r'VmHWM:\\s+(\\d+) kB', Path('/proc/self/status').read_text()).group(1))"
)
# The first call pays what datacontract-cli imports late; then each line asks for one more.
_TESTED = (
    "import sys, time; from datacontract.data_contract import DataContract\n"
    "def seconds():\n"
    "    began = time.perf_counter()\n"
    "    run = DataContract(data_contract_file=sys.argv[1]).test()\n"
    "    assert any('duplicate_count(id)' in (check.reason or '') for check in run.checks), run.checks\n"
    "    return time.perf_counter() - began\n"
    "seconds(); print('ready', flush=True)\n"
    "for line in sys.stdin:\n"
    "    print(seconds(), flush=True)\n"
)


def run(quick: bool) -> dict[str, Any]:
    """Return rows per second, the ratios to the peers, peak memory, and whether quarantine is complete."""
    rows, repeats = (300_000, 3) if quick else (1_000_000, 5)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parquet = write_workload(folder / "1x", rows, "parquet")
        delimited = write_workload(folder / "1x", rows // 5, "csv")
        tables = folder / "tables"
        medians = _medians(_jobs(parquet, delimited, folder), repeats)
        complete = _complete(parquet, tables / "parquet") and _complete(delimited, tables / "csv")
        peaks = [int(statistics.median(_peak(parquet, folder / "peak") for _ in range(3)))]
        tenfold = write_workload(folder / "10x", rows, "parquet", copies=10)
        peaks.append(_peak(tenfold, folder / "peak"))
        peer = _datacontract(parquet, repeats)
        rules = row_rules(load_contract(parquet.contract))
        size = parquet.file.stat().st_size
    return {
        "rows": rows,
        "rules": len([rule for rule in rules if rule.kind != "decodes"]),
        "file_mb": round(size / 1e6, 1),
        "rows_per_s": round(rows / medians["ingest"]),
        "csv_rows_per_s": round(delimited.rows / medians["csv"]),
        "scan_fraction": round(medians["scan"] / medians["split"], 3),
        "pass_fraction": round(medians["scan"] / medians["pass"], 3),
        "duckdb_fraction": round(medians["duckdb"] / medians["ingest"], 3),
        "gx_speedup": round(medians["gx"] / medians["list"], 1),
        **peer,
        "peak_mb": peaks[0],
        "peak_mb_10x": peaks[1],
        "peak_ratio": round(peaks[1] / peaks[0], 3),
        "quarantine_complete": complete,
        "planted": len(parquet.planted) + len(delimited.planted),
        "seconds": {job: round(value, 3) for job, value in medians.items()},
    }


def _jobs(parquet: Workload, delimited: Workload, folder: Path) -> dict[str, Callable[[], Any]]:
    contract = load_contract(parquet.contract)
    source = open_source(contract, str(parquet.folder))
    (partition,) = source.partitions()
    partition.files[0].sha  # noqa: B018  hashed once, as ingest does before it reads
    splitter, ready = RowSplitter(contract), list(source.read(partition))
    terms = contract.terms

    def split(batches: Any) -> None:
        for batch in batches:
            refused = any_of(splitter.failures(batch))
            if refused is not None:
                batch.filter(pc.invert(refused)), batch.filter(refused)

    def scan() -> None:
        for _ in pq.ParquetFile(parquet.file).iter_batches(batch_size=65_536):
            pass

    def duckdb() -> None:
        out = Path(tempfile.mkdtemp(dir=folder))
        key = terms.held_out_key.encode()
        counts = validators.duckdb_split(parquet.file, SECRET, key, terms.held_out_share, out)
        assert counts == (parquet.rows - len(parquet.planted), len(parquet.planted)), counts
        shutil.rmtree(out)

    def listed() -> None:
        kept: list[pa.Table] = []
        validate(contract, ready, "2024-03-01", None, None, kept.append)
        assert sum(table.num_rows for table in kept) == len(parquet.planted)

    return {
        "scan": scan,
        "split": lambda: split(ready),
        "pass": lambda: split(read_ahead(source.read(partition))),
        "ingest": lambda: ingest(parquet.contract, parquet.folder, folder / "tables" / "parquet"),
        "duckdb": duckdb,
        "csv": lambda: ingest(delimited.contract, delimited.folder, folder / "tables" / "csv"),
        "list": listed,
        "gx": validators.great_expectations(pq.read_table(parquet.file)),
    }


def _complete(workload: Workload, tables: Path) -> bool:
    """Compare the quarantine table with what was planted, row by row."""
    contract = load_contract(workload.contract)
    found = Tables(Store.open(tables), contract.slug)
    table = found.read_quarantine(found.version("2024-03-01")).select(["source_line", "reasons"])
    return dict(zip(*table.to_pydict().values(), strict=True)) == workload.planted


def _peak(workload: Workload, tables: Path) -> int:
    done = subprocess.run(
        [sys.executable, "-c", _PEAK, workload.contract, workload.folder, tables],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    shutil.rmtree(tables)
    return int(done.stdout) // 1024  # kilobytes on Linux


def _datacontract(workload: Workload, repeats: int) -> dict[str, Any]:
    command = validators.datacontract_cli(_ROOT)
    if command is None:
        return {"datacontract_speedup": None, "datacontract_note": "datacontract-cli 1.2.8 could not be installed"}

    def trial() -> None:
        contract = load_contract(workload.contract)
        found = try_contract(contract, open_source(contract, str(workload.folder)))
        assert found.quarantined == len(workload.planted)

    trial()
    peer = subprocess.Popen(
        [command.parent / "python", "-c", _TESTED, workload.contract],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    asked, answered = peer.stdin, peer.stdout
    assert asked is not None and answered is not None
    theirs: list[float] = []
    with asked, answered:
        if answered.readline() != "ready\n":
            raise RuntimeError("datacontract-cli did not test the contract")

        def tested() -> None:
            print("once more", file=asked, flush=True)
            theirs.append(float(answered.readline()))

        ours = _medians({"contracts test": trial, "datacontract": tested}, repeats)["contracts test"]
    peer.wait()
    arguments: list[str | Path] = [
        sys.executable,
        "-m",
        "flows.cli",
        "contracts",
        "test",
        workload.contract,
        workload.folder,
    ]
    process = _medians(
        {
            "causeway": lambda: subprocess.run(arguments, cwd=_ROOT, stdout=subprocess.DEVNULL, check=False),
            "datacontract": lambda: validators.tested_by_datacontract(command, workload.contract),
        },
        1,
    )
    return {
        "datacontract_speedup": round(statistics.median(theirs) / ours, 2),
        "datacontract_process_speedup": round(process["datacontract"] / process["causeway"], 2),
        "datacontract_seconds": {"ours": round(ours, 3), "theirs": round(statistics.median(theirs), 3)},
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
