"""The workload of the validation benchmark, small: every planted row is found, and only with what was planted."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest
from deltalake import DeltaTable

from benchmarks.ingesting import SECRET, ingest
from benchmarks.maintenance import Workload, write_workload
from benchmarks.validators import duckdb_split
from data_contracts.catalog.store import Store
from data_contracts.catalog.tables import Tables
from data_contracts.contract import load_contract
from data_contracts.rules import row_rules


@pytest.fixture(scope="module", params=["parquet", "csv"])
def workload(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Workload:
    return write_workload(tmp_path_factory.mktemp("planted"), 4000, request.param)


def test_quarantine_has_every_planted_row_with_its_reasons_and_no_other(workload: Workload, tmp_path: Path) -> None:
    contract = load_contract(workload.contract)
    result = ingest(workload.contract, workload.folder, tmp_path / "tables")
    tables = Tables(Store.open(tmp_path / "tables"), contract.slug)
    rows = tables.read_quarantine(result.version).select(["source_line", "reasons"]).to_pylist()
    assert {row["source_line"]: row["reasons"] for row in rows} == workload.planted
    assert result.report.rows_accepted == 4000 - len(workload.planted) == 3960
    assert len([rule for rule in row_rules(contract) if rule.kind != "decodes"]) == 20


def test_duckdb_names_each_record_and_its_side_as_we_do(tmp_path: Path) -> None:
    workload = write_workload(tmp_path, 4000, "parquet")
    contract = load_contract(workload.contract)
    ingest(workload.contract, workload.folder, tmp_path / "tables")
    share = contract.terms.held_out_share
    assert duckdb_split(workload.file, SECRET, contract.terms.held_out_key.encode(), share, tmp_path) == (3960, 40)
    theirs = duckdb.sql(f"SELECT id, record_id, split FROM '{tmp_path}/accepted.parquet' ORDER BY id").fetchall()
    accepted = DeltaTable(Tables(Store.open(tmp_path / "tables"), contract.slug).uri("accepted")).to_pyarrow_table()
    ours = accepted.sort_by("id").select(["id", "record_id", "split"]).to_pylist()
    assert [tuple(row.values()) for row in ours] == theirs
