"""Row rules at speed, beside a bare Arrow decode of the same file and beside Great Expectations on the same rules.

Both peers run in the same process, in turn, several times; the figures are medians and ratios.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from data_contracts.contract import Contract, load_contract
from data_contracts.expectations import run_expectations
from data_contracts.sources.records import source_schema
from data_contracts.validation import validate

CONTRACT = """
apiVersion: v3.1.0
kind: DataContract
id: bench/maintenance
name: Maintenance log
version: 1.0.0
status: active
schema:
  - name: log
    logicalType: object
    properties:
      - {name: day, logicalType: string, required: true, partitioned: true, partitionKeyPosition: 1}
      - {name: id, logicalType: integer, required: true, primaryKey: true, primaryKeyPosition: 1}
      - {name: hours, logicalType: number, required: true, logicalTypeOptions: {minimum: 0, maximum: 10000}}
      - {name: kind, logicalType: string, required: true, logicalTypeOptions: {pattern: "^[A-Z]{2}[0-9]{2}$"}}
      - {name: text, logicalType: string, required: true, logicalTypeOptions: {minLength: 5, maxLength: 400}}
customProperties:
  - property: reader
    vendor: causeway
    value: {format: parquet, partition: {constant: all}}
  - property: trainingTerms
    vendor: causeway
    value:
      format: 1
      licence: {expression: CC0-1.0}
      purposes: {permitted: [pre-training]}
      residency: {storage: [anywhere], processing: [anywhere]}
      derivedUpdates: may-leave
      heldOut: {share: 0.1, key: bench}
      text: text
"""


def workload(rows: int) -> tuple[pa.Table, dict[str, int]]:
    """Return a table with one per cent of bad rows, and how many rows each rule must find."""
    rng = np.random.default_rng(7)
    hours = rng.uniform(0, 9999, rows)
    kinds = np.array([f"{a}{b}{n:02d}" for a in "ABC" for b in "XYZ" for n in range(20)])[rng.integers(0, 180, rows)]
    words = np.array(["engine", "replaced gasket", "left wing", "torqued bolts", "inspected", "no fault found"])
    text = np.char.add(np.char.add(words[rng.integers(0, 6, rows)], " "), words[rng.integers(0, 6, rows)]).astype(
        object
    )
    bad = rng.choice(rows, rows // 100, replace=False)
    parts = np.array_split(bad, 3)
    hours[parts[0]] = -1.0
    kinds = kinds.astype(object)
    kinds[parts[1]] = "bad"
    text[parts[2]] = "x"
    table = pa.table({"day": ["all"] * rows, "id": np.arange(rows), "hours": hours, "kind": kinds, "text": text})
    planted = {"hours.minimum": len(parts[0]), "kind.pattern": len(parts[1]), "text.minLength": len(parts[2])}
    return table, planted


def run(quick: bool) -> dict[str, Any]:
    """Return rows per second, the ratios to both peers, and whether every planted row was found with its reason."""
    rows, repeats = (100_000, 3) if quick else (500_000, 5)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "log.parquet"
        table, planted = workload(rows)
        pq.write_table(table, path)
        contract_path = Path(folder) / "contract.yaml"
        contract_path.write_text(CONTRACT)
        contract = load_contract(contract_path)
        batches = _as_source(contract, table).to_batches(max_chunksize=65_536)
        found: dict[str, int] = {}

        def ours() -> None:
            report = validate(contract, iter(batches), "all", b"k" * 32, _drop, _drop)
            found.clear()
            found.update(report.reasons)

        def scan() -> None:
            for _ in pq.ParquetFile(path).iter_batches(batch_size=65_536):
                pass

        whole = pa.Table.from_batches(batches)
        times = {"ours": ours, "scan": scan, "gx": lambda: run_expectations(contract, whole, None)}
        medians = _medians(times, repeats)
    return {
        "rows": rows,
        "rows_per_s": round(rows / medians["ours"]),
        "scan_fraction": round(medians["scan"] / medians["ours"], 4),
        "gx_speedup": round(medians["gx"] / medians["ours"], 2),
        "quarantine_complete": found == planted,
        "seconds": {name: round(value, 3) for name, value in medians.items()},
        "found": json.loads(json.dumps(found)),
    }


def _as_source(contract: Contract, table: pa.Table) -> pa.Table:
    rows = table.num_rows
    extra = {
        "_source_file": pa.array(["log.parquet"] * rows),
        "_source_line": pa.array(np.arange(1, rows + 1)),
        "_fault": pa.nulls(rows, pa.string()),
        "_raw": pa.nulls(rows, pa.binary()),
    }
    schema = source_schema(contract)
    columns = {**{name: table.column(name) for name in table.column_names}, **extra}
    return pa.table({name: columns[name] for name in schema.names}).cast(schema)


def _medians(jobs: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    taken: dict[str, list[float]] = {name: [] for name in jobs}
    for repeat in range(repeats):
        for name, job in jobs.items():
            began = time.perf_counter()
            job()
            taken[name].append(time.perf_counter() - began)
            sys.stderr.write(f"repeat {repeat + 1} of {repeats}: {name} {taken[name][-1]:.2f} s\n")
    return {name: statistics.median(values) for name, values in taken.items()}


def _drop(_table: pa.Table) -> None:
    """What is split off goes nowhere: writing is not measured here."""
