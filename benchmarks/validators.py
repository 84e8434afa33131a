"""The peers of the validation benchmark: DuckDB, Great Expectations and datacontract-cli, each at its best."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from benchmarks.maintenance import SITES

_RULES = """list_filter([
    CASE WHEN day IS NULL THEN 'day.required' END,
    CASE WHEN id IS NULL THEN 'id.required' END,
    CASE WHEN site IS NULL THEN 'site.required' END,
    CASE WHEN site NOT IN ({sites}) THEN 'site.validValues' END,
    CASE WHEN "at" IS NULL THEN 'at.required' END,
    CASE WHEN "at" < TIMESTAMPTZ '2023-01-01 00:00:00+00' THEN 'at.minimum' END,
    CASE WHEN "at" > TIMESTAMPTZ '2024-12-31 23:59:59+00' THEN 'at.maximum' END,
    CASE WHEN NOT isfinite(hours) THEN 'hours.type' END,
    CASE WHEN hours < 0 THEN 'hours.minimum' END,
    CASE WHEN hours > 10000 THEN 'hours.maximum' END,
    CASE WHEN cycles % 5 <> 0 THEN 'cycles.multipleOf' END,
    CASE WHEN kind IS NULL THEN 'kind.required' END,
    CASE WHEN NOT regexp_matches(kind, '^[A-Z]{{2}}[0-9]{{2}}$') THEN 'kind.pattern' END,
    CASE WHEN NOT regexp_matches(serial, '^[A-Z]{{3}}-[0-9]{{6}}$') THEN 'serial.pattern' END,
    CASE WHEN text IS NULL THEN 'text.required' END,
    CASE WHEN length(text) < 5 THEN 'text.minLength' END,
    CASE WHEN length(text) > 400 THEN 'text.maxLength' END,
    CASE WHEN nth > 1 THEN 'primaryKey.duplicate' END], lambda rule: rule IS NOT NULL)"""


def duckdb_split(file: Path, secret: bytes, held_out_key: bytes, share: float, folder: Path) -> tuple[int, int]:
    """Split the log by its rules, name its records, hold out its share, and write both parts as Parquet.

    Returns how many rows were accepted and refused. The ids and sides are byte for byte ours: SQL has no HMAC, so each
    is two nested SHA-256.
    """
    import duckdb

    record_id = _hmac(secret, """'["bench/maintenance","2024-03-01",[' || id || ']]'""")
    side = _hmac(held_out_key, "'[' || id || ']'")
    rules = _RULES.format(sites=", ".join(f"'{site}'" for site in SITES))
    origin = "'2024-03-01' AS partition, 'i' AS ingest_id, 'a' AS attempt_id, 'log.parquet' AS source_file, source_line"
    with duckdb.connect() as duck:
        duck.execute(f"SET threads = {os.cpu_count()}; SET preserve_insertion_order = false")
        duck.execute(f"""
            CREATE TEMP TABLE judged AS
            SELECT *, {rules} AS reasons, substr({record_id}, 1, 32) AS record_id
            FROM (SELECT *, file_row_number + 1 AS source_line,
                         row_number() OVER (PARTITION BY id ORDER BY file_row_number) AS nth
                  FROM read_parquet('{file}', file_row_number = true))""")
        duck.execute(f"""
            COPY (SELECT day, id, site, "at", hours, cycles, kind, serial, text, record_id,
                         CASE WHEN ('0x' || substr({side}, 1, 16))::UBIGINT::DOUBLE / 18446744073709551616.0 < {share}
                              THEN 'held-out' ELSE 'train' END AS split,
                         strlen(text) AS text_bytes, {origin}
                  FROM judged WHERE len(reasons) = 0) TO '{folder}/accepted.parquet' (FORMAT parquet)""")
        duck.execute(f"""
            COPY (SELECT record_id, reasons, to_json(reasons) AS detail,
                         to_json({{"at": "at", cycles: cycles, day: day, hours: hours, id: id, kind: kind,
                                   serial: serial, site: site, text: text}}) AS raw, {origin}
                  FROM judged WHERE len(reasons) > 0) TO '{folder}/quarantine.parquet' (FORMAT parquet)""")
        counts = duck.execute("SELECT count(*) FILTER (len(reasons) = 0), count(*) FROM judged").fetchall()
    return int(counts[0][0]), int(counts[0][1] - counts[0][0])


def great_expectations(table: pa.Table) -> Callable[[], int]:
    """Return what runs the rules as GX's own expectations and returns how many failing (row, rule) it listed.

    The frame and the suite are made before. GX has no expectation for `multipleOf`; every other rule stands.
    """
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    import great_expectations as gx

    e = gx.expectations
    frame = table.to_pandas()
    suite = gx.ExpectationSuite(
        name="log",
        expectations=[
            *(e.ExpectColumnValuesToNotBeNull(column=name) for name in ("day", "id", "site", "at", "kind", "text")),
            e.ExpectColumnValuesToBeInSet(column="site", value_set=SITES),
            e.ExpectColumnValuesToBeBetween(column="at", min_value=_moment("2023-01-01T00:00:00")),
            e.ExpectColumnValuesToBeBetween(column="at", max_value=_moment("2024-12-31T23:59:59")),
            e.ExpectColumnValuesToBeBetween(column="hours", min_value=0),
            e.ExpectColumnValuesToBeBetween(column="hours", max_value=10_000),
            e.ExpectColumnValuesToMatchRegex(column="kind", regex="^[A-Z]{2}[0-9]{2}$"),
            e.ExpectColumnValuesToMatchRegex(column="serial", regex="^[A-Z]{3}-[0-9]{6}$"),
            e.ExpectColumnValueLengthsToBeBetween(column="text", min_value=5),
            e.ExpectColumnValueLengthsToBeBetween(column="text", max_value=400),
            e.ExpectColumnValuesToBeUnique(column="id"),
        ],
    )
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False, "metric_calculations": False}
    asset = context.data_sources.add_pandas("frame").add_dataframe_asset("frame")
    batch = asset.add_batch_definition_whole_dataframe("whole").get_batch({"dataframe": frame})

    def run() -> int:
        found = batch.validate(suite, result_format={"result_format": "COMPLETE", "partial_unexpected_count": 0})
        return sum(len(result["result"]["unexpected_index_list"] or []) for result in found["results"])

    return run


def datacontract_cli(root: Path, version: str = "1.2.8") -> Path | None:
    """Return the `datacontract` command of an environment under `.bench/`, installed when first asked for."""
    home = root / ".bench" / f"datacontract-cli-{version}"
    command = home / "bin" / "datacontract"
    if command.exists():
        return command
    sys.stderr.write(f"installing datacontract-cli {version} into {home}\n")
    venv.create(home, with_pip=True)
    wanted = f"datacontract-cli[duckdb,parquet]=={version}"
    done = subprocess.run([home / "bin" / "pip", "install", "-q", wanted], stdout=sys.stderr, check=False)
    return command if done.returncode == 0 else None


def tested_by_datacontract(command: Path, contract: Path) -> int:
    """Run `datacontract test` and return how many of its checks failed; those on types it does not run itself."""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [command, "test", contract, "--output", f"{folder}/out.xml", "--output-format", "junit"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
    if "duplicate values" not in done.stdout or "Parser Error" in done.stdout:
        raise RuntimeError(f"datacontract-cli did not test the contract: {done.stdout[-2000:]} {done.stderr[-2000:]}")
    return done.returncode


def _hmac(key: bytes, message: str) -> str:
    inner, outer = ("".join(f"\\x{byte ^ pad:02X}" for byte in key.ljust(64, b"\0")) for pad in (0x36, 0x5C))
    return f"sha256('{outer}'::BLOB || unhex(sha256('{inner}'::BLOB || encode({message}))))"


def _moment(text: str) -> Any:
    import pandas as pd

    return pd.Timestamp(text, tz="UTC")
