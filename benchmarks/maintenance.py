"""The workload of the validation benchmark: a maintenance log of typed, text and key columns, with planted bad rows."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as csv
import pyarrow.parquet as pq

SITES = [f"S{number:03d}" for number in range(40)]
_CONTRACT = """
apiVersion: v3.1.0
kind: DataContract
id: bench/maintenance
name: Maintenance log
version: 1.0.0
status: active
servers:
  - {{server: local, type: local, path: "{path}", format: {form}}}
schema:
  - name: log
    logicalType: object
    properties:
      - {{name: day, logicalType: string, physicalType: VARCHAR, required: true, partitioned: true, partitionKeyPosition: 1}}
      - {{name: id, logicalType: integer, physicalType: BIGINT, required: true, primaryKey: true, primaryKeyPosition: 1}}
      - {{name: site, logicalType: string, physicalType: VARCHAR, required: true, quality: [{{type: library, metric: invalidValues, mustBe: 0, arguments: {{validValues: [{sites}]}}}}]}}
      - {{name: at, logicalType: timestamp, required: true, logicalTypeOptions: {{minimum: "2023-01-01T00:00:00Z", maximum: "2024-12-31T23:59:59Z"}}}}
      - {{name: hours, logicalType: number, physicalType: DOUBLE, logicalTypeOptions: {{minimum: 0, maximum: 10000}}}}
      - {{name: cycles, logicalType: integer, physicalType: BIGINT, logicalTypeOptions: {{multipleOf: 5}}}}
      - {{name: kind, logicalType: string, physicalType: VARCHAR, required: true, logicalTypeOptions: {{pattern: "^[A-Z]{{2}}[0-9]{{2}}$"}}}}
      - {{name: serial, logicalType: string, physicalType: VARCHAR, logicalTypeOptions: {{pattern: "^[A-Z]{{3}}-[0-9]{{6}}$"}}}}
      - {{name: text, logicalType: string, physicalType: VARCHAR, required: true, logicalTypeOptions: {{minLength: 5, maxLength: 400}}}}
customProperties:
  - property: reader
    vendor: causeway
    value: {{format: {form}, partition: {{constant: "2024-03-01"}}}}
  - property: trainingTerms
    vendor: causeway
    value:
      format: 1
      licence: {{expression: CC0-1.0}}
      purposes: {{permitted: [pre-training]}}
      residency: {{storage: [anywhere], processing: [anywhere]}}
      derivedUpdates: may-leave
      heldOut: {{share: 0.1, key: bench}}
      text: text
"""  # noqa: E501

Reasons = dict[int, list[str]]
"""Record number, from 1 -> the rules it breaks, in the contract's order."""


@dataclass(frozen=True)
class Workload:
    """One file of `rows` records in `folder`, its contract, and what each planted record breaks."""

    folder: Path
    file: Path
    contract: Path
    rows: int
    planted: Reasons


def write_workload(folder: Path, rows: int, form: str, copies: int = 1) -> Workload:
    """Write `rows` records as 'parquet' or 'csv', one per cent of them bad, and the contract beside the folder.

    With `copies` (Parquet only) the file holds the records as often, under other keys.
    """
    table, planted = maintenance_log(rows)
    data = folder / form
    data.mkdir(parents=True, exist_ok=True)
    file = data / f"log.{form}"
    if form == "parquet":
        with pq.ParquetWriter(file, table.schema) as writer:
            for copy in range(copies):
                ids = pc.add(table.column("id"), copy * rows)
                writer.write_table(table.set_column(1, "id", ids), row_group_size=1 << 20)
        planted = {record + copy * rows: names for copy in range(copies) for record, names in planted.items()}
    else:
        csv.write_csv(table, file)
        planted = {record + 1: reasons for record, reasons in planted.items()}  # the header is record 1
    contract = folder / f"{form}.yaml"
    contract.write_text(_CONTRACT.format(path=file, form=form, sites=", ".join(SITES)))
    return Workload(data, file, contract, rows * copies, planted)


def maintenance_log(rows: int) -> tuple[pa.Table, Reasons]:
    """Return the table and its planted rows: each breaks one rule, every tenth a second one, or repeats a key."""
    rng = np.random.default_rng(7)
    columns = {
        "id": np.arange(rows),
        "at": rng.integers(1_680_000_000, 1_720_000_000, rows) * 1_000_000,
        "hours": rng.uniform(0, 9999, rows).round(2),
        "cycles": rng.integers(0, 20_000, rows) * 5,
    }
    kinds = [f"{a}{b}{n:02d}" for a in "ABC" for b in "XYZ" for n in range(20)]
    heads = [f"{a}{b}{c}" for a in "ABCDEFGH" for b in "KLMNOP" for c in "XYZ"]
    numbers = pa.array(rng.integers(100_000, 1_000_000, rows)).cast(pa.string())
    texts = {
        "site": _drawn(rng, SITES, rows).to_pylist(),
        "kind": _drawn(rng, kinds, rows).to_pylist(),
        "serial": pc.binary_join_element_wise(_drawn(rng, heads, rows), numbers, "-").to_pylist(),
        "text": _texts(rng, rows).to_pylist(),
    }
    nulls = {name: np.zeros(rows, dtype=np.bool_) for name in ("at", "kind")}
    ways: list[tuple[str, Callable[[int], None]]] = [
        ("site.validValues", lambda row: texts["site"].__setitem__(row, "S999")),
        ("at.required", lambda row: nulls["at"].__setitem__(row, True)),
        ("at.minimum", lambda row: columns["at"].__setitem__(row, 1_000_000_000_000_000)),
        ("hours.minimum", lambda row: columns["hours"].__setitem__(row, -1.0)),
        ("hours.maximum", lambda row: columns["hours"].__setitem__(row, 10_000.5)),
        ("cycles.multipleOf", lambda row: columns["cycles"].__setitem__(row, 7)),
        ("kind.required", lambda row: nulls["kind"].__setitem__(row, True)),
        ("kind.pattern", lambda row: texts["kind"].__setitem__(row, "bad")),
        ("serial.pattern", lambda row: texts["serial"].__setitem__(row, "AAA-12345x")),
        ("text.minLength", lambda row: texts["text"].__setitem__(row, "x")),
        ("text.maxLength", lambda row: texts["text"].__setitem__(row, "long " * 100)),
    ]
    planted: Reasons = {}
    # Row 0 stays good: the repeated keys are its.
    for number, row in enumerate(sorted(1 + rng.choice(rows - 1, rows // 100, replace=False))):
        name, spoil = ways[number % len(ways)]
        spoil(int(row))
        planted[int(row) + 1] = [name]
        if number % 10 == 0:
            columns["id"][row] = 0
            planted[int(row) + 1] = [name, "primaryKey.duplicate"]
    arrays = {
        "day": pa.repeat("2024-03-01", rows),
        "id": pa.array(columns["id"]),
        "site": pa.array(texts["site"]),
        "at": pa.array(columns["at"], mask=nulls["at"]).cast(pa.timestamp("us", tz="UTC")),
        "hours": pa.array(columns["hours"]),
        "cycles": pa.array(columns["cycles"]),
        "kind": pa.array(np.array(texts["kind"], dtype=object), pa.string(), mask=nulls["kind"]),
        "serial": pa.array(texts["serial"]),
        "text": pa.array(texts["text"]),
    }
    return pa.table(arrays), planted


def _drawn(rng: np.random.Generator, values: list[str], rows: int) -> pa.Array:
    return pa.array(values).take(pa.array(rng.integers(0, len(values), rows)))


def _texts(rng: np.random.Generator, rows: int) -> pa.Array:
    """About a hundred characters each, nearly all different."""
    words = np.array(
        re.findall(
            r"\w+",
            "engine replaced gasket left wing torqued bolts inspected no fault found leaking hydraulic pump removed"
            " rebuilt per manual chapter seventy two checked ok",
        )
    )
    phrases = [" ".join(words[rng.integers(0, len(words), rng.integers(4, 14))]) for _ in range(5000)]
    return pc.binary_join_element_wise(_drawn(rng, phrases, rows), _drawn(rng, phrases, rows), " ")
