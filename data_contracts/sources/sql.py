"""The rows of a query as a source: through SQLAlchemy, or through ADBC where the driver is one.

The query only reads: it is one SELECT, SQLite opens the file read-only, the other databases are asked for a read-only
transaction, and whatever the transaction did is rolled back.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np
import pyarrow as pa

from data_contracts.contract import Contract
from data_contracts.errors import CausewayError, ContractError, DataRefused, StoreError
from data_contracts.sources.arrow_files import plain
from data_contracts.sources.columns import typed_records
from data_contracts.sources.drift import columns_in
from data_contracts.sources.records import RawRecord, typed_batches
from data_contracts.sources.spooled import Spooled

_ROWS = 8_192
_SELECT = re.compile(r"\s*(?:--[^\n]*\n\s*|/\*.*?\*/\s*)*(select|with|values|table)\b", re.IGNORECASE | re.DOTALL)
_DRIVERS = ("sqlite", "postgresql", "snowflake", "flightsql", "duckdb", "bigquery")
_PASSWORD = re.compile(r"^[a-z0-9+]+://[^/@:]*:[^/@]+@|[?&;](password|pwd|token)=", re.IGNORECASE)
FILE = "query"


class SqlQuery(Spooled):
    """`sqlite:///FILE`, any URL of SQLAlchemy, or `adbc+DRIVER://...`; `reader.query` gives the records.

    Columns are found by their names in the query. Records are numbered in the order that the database gives them: a
    query without ORDER BY may number them otherwise next time, and is then another version of the data.
    """

    def __init__(self, contract: Contract, location: str) -> None:
        self.url = location
        self.query = str(contract.reader.get("query", ""))
        if not _SELECT.match(self.query) or ";" in self.query.rstrip().rstrip(";"):
            raise ContractError(f"{contract.path}: reader.query: a query is one SELECT; correct it")
        if _PASSWORD.search(unquote(location)):
            # A location is registered and shown; the URL is not quoted here either.
            raise DataRefused(
                f"{contract.id}: the URL of its source holds a password, which would be registered with it; leave it"
                " out and set it in the environment or the files that the database's own driver reads (PGPASSWORD ...)"
            )
        path = _sqlite_file(location)
        if path is not None and not path.is_file():
            raise DataRefused(f"{path}: no such database; give the place where the data of {contract.id} lies")
        super().__init__(contract, self._batches, FILE, self._changed)

    def _changed(self) -> object:
        path = _sqlite_file(self.url)
        if path is None:
            # Nothing says whether a server's rows changed: a source that was opened stays as it was first read.
            return None
        files = [path, path.with_name(path.name + "-wal")]
        return [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()]

    def _batches(self) -> Iterator[pa.RecordBatch]:
        try:
            if self.url.startswith("adbc+"):
                yield from self._through_adbc()
            else:
                yield from self._through_sqlalchemy()
        except CausewayError:
            raise
        except Exception as error:  # each database has errors of its own, and drivers raise what they like
            first = str(error).strip().split("\n", 1)[0]
            # A server that does not answer may answer soon; a file is what it is.
            passing = type(error).__name__ == "OperationalError" and _sqlite_file(self.url) is None
            raise (StoreError if passing else DataRefused)(
                f"{self.contract.id}: the query failed: {type(error).__name__}: {first[:300]}; check the source and"
                " reader.query"
            ) from error

    def _through_sqlalchemy(self) -> Iterator[pa.RecordBatch]:
        import sqlalchemy

        engine = sqlalchemy.create_engine(_readonly(self.url), poolclass=sqlalchemy.pool.NullPool)
        options: dict[str, Any] = {"stream_results": True, "yield_per": _ROWS}
        if engine.dialect.name == "postgresql":
            options["postgresql_readonly"] = True
        if engine.dialect.name == "sqlite":
            sqlalchemy.event.listen(engine, "connect", _keep_bytes)
        try:
            with engine.connect().execution_options(**options) as connection:
                if engine.dialect.name == "sqlite":
                    connection.exec_driver_sql("PRAGMA query_only = ON")
                elif engine.dialect.name in ("mysql", "mariadb"):
                    connection.exec_driver_sql("SET TRANSACTION READ ONLY")
                result = connection.exec_driver_sql(self.query)
                names = list(result.keys())
                found = columns_in(self.contract, names, FILE)
                places = {name: names.index(physical) for name, physical in found.items()}
                yield from typed_records(self.contract, self._records(result, places))
                connection.rollback()
        finally:
            engine.dispose()

    def _records(self, result: Any, places: dict[str, int]) -> Iterator[RawRecord]:
        constants = self._constants()
        for number, row in enumerate(result, start=1):
            values = {**constants, **{name: row[place] for name, place in places.items()}}
            yield RawRecord(FILE, number, values)

    def _through_adbc(self) -> Iterator[pa.RecordBatch]:
        import importlib

        driver, _, rest = self.url.removeprefix("adbc+").partition(":")
        if driver not in _DRIVERS:
            raise DataRefused(f"{self.url}: no such driver of ADBC; use adbc+ and one of {', '.join(_DRIVERS)}")
        try:
            dbapi = importlib.import_module(f"adbc_driver_{driver}.dbapi")
        except ImportError as error:
            raise DataRefused(
                f"{self.url}: its driver is not installed; run: pip install adbc-driver-{driver}"
            ) from error
        path = _sqlite_file(self.url)
        constants, number = self._constants(), 0
        with (
            dbapi.connect(f"file:{path}?mode=ro" if path is not None else f"{driver}:{rest}") as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(self.query)
            reader = cursor.fetch_record_batch()
            found = columns_in(self.contract, reader.schema.names, FILE)
            for batch in reader:
                columns = {n: pa.repeat(pa.scalar(v, pa.string()), len(batch)) for n, v in constants.items()}
                columns |= {name: plain(batch.column(physical)) for name, physical in found.items()}
                numbers = pa.array(np.arange(number + 1, number + len(batch) + 1))
                number += len(batch)
                yield from typed_batches(self.contract, columns, FILE, numbers)
            connection.rollback()


def _keep_bytes(connection: Any, _: object) -> None:
    """Let SQLite give text that is no UTF-8 as its bytes: it is then a fault of its record, not of the query."""

    def text(data: bytes) -> str | bytes:
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            return data

    connection.text_factory = text


def _sqlite_file(url: str) -> Path | None:
    for prefix in ("sqlite:///", "adbc+sqlite:///"):
        if url.startswith(prefix):
            return Path(url.removeprefix(prefix).split("?", 1)[0])
    return None


def _readonly(url: str) -> str:
    path = _sqlite_file(url)
    if path is None:
        return url
    return f"sqlite:///file:{quote(str(path.absolute()))}?mode=ro&uri=true"
