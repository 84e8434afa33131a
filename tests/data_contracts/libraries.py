"""Take in a data set of the shared material under its contract of the library, in memory; prove what was found."""

from __future__ import annotations

import datetime
import hashlib
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from data_contracts.batchchecks import BatchResult
from data_contracts.catalog.tables import QUARANTINE_SCHEMA
from data_contracts.contract import Contract, load_contract
from data_contracts.schedule import expected
from data_contracts.sources import SourceFile, open_source
from data_contracts.validation import accepted_schema, validate
from tests.data_contracts.making import SECRET
from tests.data_contracts.oddities import (
    CONTRACTS,
    Guarded,
    Missing,
    Oddity,
    Outcome,
    Read,
    Refused,
    Restated,
    SameBytes,
    Stopped,
    Warned,
)
from tests.data_contracts.oddity_table import ODDITIES

ROOT = Path(__file__).parents[2]
LIBRARY = ROOT / "data_contracts" / "library"
SHARED = ROOT.parent / "shared" / "data"
NOT_HERE = pytest.mark.skipif(
    not SHARED.exists() and not os.environ.get("CI"), reason="the shared data sets are not here"
)


@dataclass(frozen=True)
class Taken:
    """What became of a data set: rows of the partitions that were not refused, and of quarantine."""

    contract: Contract
    rows_in: int
    rows_accepted: int
    accepted: pa.Table
    quarantine: pa.Table
    results: tuple[tuple[str, BatchResult], ...]
    refused: tuple[str, ...]
    files: tuple[SourceFile, ...]
    partitions: tuple[str, ...]

    @property
    def outcome(self) -> Outcome:
        """The counts, as the table has them."""
        return Outcome(self.rows_in, self.rows_accepted, self.quarantine.num_rows, self.refused)


@cache
def take_in(stem: str, folder: str) -> Taken:
    """Validate every partition as an ingest does, once for all tests of a process."""
    contract = load_contract(LIBRARY / f"{stem}.yaml")
    source = open_source(contract, str(SHARED / folder))
    good: list[pa.Table] = [accepted_schema(contract).empty_table()]
    bad: list[pa.Table] = [QUARANTINE_SCHEMA.empty_table()]
    results: list[tuple[str, BatchResult]] = []
    refused: list[str] = []
    files: list[SourceFile] = []
    partitions = source.partitions()
    rows_in = rows_accepted = 0
    for partition in partitions:
        held: list[pa.Table] = []
        report = validate(contract, source.read(partition), partition.value, SECRET, held.append, bad.append)
        assert report.rows_in == report.rows_accepted + report.rows_quarantined
        rows_in += report.rows_in
        rows_accepted += report.rows_accepted
        results += [(partition.value, result) for result in report.batch_results]
        files += partition.files
        if report.verdict == "refused":
            refused.append(partition.value)
        else:
            good += held
    return Taken(
        contract,
        rows_in,
        rows_accepted,
        pa.concat_tables(good),
        pa.concat_tables(bad),
        tuple(results),
        tuple(refused),
        tuple(files),
        tuple(partition.value for partition in partitions),
    )


def contracts_of(*industries: str) -> list[str]:
    """Return the contracts whose data lies in these folders of the shared material."""
    return [stem for stem, (folder, _) in CONTRACTS.items() if folder.split("/")[0] in industries]


def oddities_of(*industries: str) -> list[Any]:
    """Return the oddities of these folders as parameters of a test, each under a name that says what it is."""
    return [
        pytest.param(oddity, id=f"{oddity.contract}: {oddity.words}")
        for oddity in ODDITIES
        if oddity.of.split("/")[0] in industries
    ]


def prove(oddity: Oddity, taken: Taken) -> None:
    """Assert that the contract dealt with an oddity as the table says."""
    match oddity.evidence:
        case Stopped(rule, rows, at):
            places = [
                f"{row['source_file']}:{row['source_line']}"
                for row in taken.quarantine.select(["source_file", "source_line", "reasons"]).to_pylist()
                if rule in row["reasons"]
            ]
            assert len(places) == rows
            assert not set(at) - set(places)
        case Warned(rule, observed, partition):
            found = [
                result
                for value, result in taken.results
                if result.rule.name == rule and partition in (None, value) and not result.passed
            ]
            assert found, f"{rule} warned of nothing"
            assert all(result.rule.severity == "warning" for result in found)
            assert round(sum(result.observed for result in found), 1) == observed
        case Refused(partition, rule):
            assert partition in taken.refused
            assert any(
                value == partition and result.rule.name == rule and not result.passed for value, result in taken.results
            )
        case Read(query, gives):
            assert value_of(query, taken.accepted) == gives
        case Guarded(columns):
            terms = taken.contract.terms
            for name in columns:
                assert taken.contract.property(name).classification in ("restricted", "confidential")
                assert name not in (*terms.train_on, terms.text) or terms.pii_classifications
        case SameBytes(pairs):
            shas = {file.name: file.sha for file in taken.files}
            assert all(shas[one] == shas[other] for one, other in pairs)
            assert len(set(shas.values())) == len(shas) - len(pairs)
        case Restated(folder, same_size):
            others = [SHARED / folder / file.name for file in taken.files]
            assert all(_sha(other) != file.sha for file, other in zip(taken.files, others, strict=True))
            sizes = [other.stat().st_size == file.size for file, other in zip(taken.files, others, strict=True)]
            assert sum(sizes) == same_size
        case Missing(days):
            promised = expected(taken.contract, taken.partitions, datetime.date(2026, 1, 1))
            assert sorted(set(promised) - set(taken.partitions)) == list(days)
        case other:
            raise AssertionError(f"no proof for {other!r}")


def value_of(query: str, accepted: pa.Table) -> Any:
    """Return the one value of a query over the accepted rows."""
    with duckdb.connect() as connection:
        connection.register("accepted", accepted)
        row = connection.execute(query).fetchone()
    assert row is not None
    return row[0]


def _sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
