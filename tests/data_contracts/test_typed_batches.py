"""Whole columns are typed as their values would be one by one: the same values, faults and raw forms."""

from __future__ import annotations

import contextlib
import datetime
import decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data_contracts.contract import Contract
from data_contracts.errors import DataRefused
from data_contracts.sources import open_source
from data_contracts.sources.records import RawRecord, batches, typed_batches
from tests.data_contracts.making import column, make_contract

LOGICAL = ("string", "integer", "number", "boolean", "date", "timestamp")


@pytest.fixture(scope="module")
def contract(tmp_path_factory: pytest.TempPathFactory) -> Contract:
    columns = [column("day", partitioned=True), column("content"), *(column(f"a_{name}", name) for name in LOGICAL)]
    reader = {"format": "parquet", "timestampFormats": ["%m/%d/%y %H:%M"]}
    return make_contract(tmp_path_factory.mktemp("typed"), columns, reader=reader)


def one_by_one(contract: Contract, columns: dict[str, pa.Array]) -> list[dict[str, Any]]:
    """The reference: every value read alone; binary values are text where they are UTF-8."""
    rows = len(next(iter(columns.values())))
    records = []
    for row in range(rows):
        values = {name: array[row].as_py() for name, array in columns.items()}
        for name, value in values.items():
            if isinstance(value, bytes):
                with contextlib.suppress(UnicodeDecodeError):
                    values[name] = value.decode()
        records.append(RawRecord("f", row + 1, values))
    return [found for batch in batches(contract, records) for found in batch.to_pylist()]


def typed(contract: Contract, columns: dict[str, pa.Array]) -> list[dict[str, Any]]:
    rows = len(next(iter(columns.values())))
    found = list(typed_batches(contract, columns, "f", pa.array(np.arange(1, rows + 1))))
    for batch in found:
        batch.validate(full=True)
    return [row for batch in found for row in batch.to_pylist()]


TEXTS = st.one_of(
    st.none(),
    st.text(max_size=6).map(lambda text: text.encode("utf-8", "ignore").decode()),
    st.integers(-(2**70), 2**70).map(str),
    st.floats().map(repr),
    st.decimals(allow_nan=False).map(str),
    st.dates().map(str),
    st.datetimes().map(str),
    st.datetimes(timezones=st.just(datetime.UTC)).map(datetime.datetime.isoformat),
    st.datetimes(timezones=st.timezones()).map(datetime.datetime.isoformat),
    st.from_regex(r"\A[+-]?[0-9_ .eExX]{1,8}\Z"),
    st.from_regex(r"\A[0-9]{4}-[01][0-9]-[0-3][0-9]([T ][0-2]\d(:[0-6]\d){0,2}(\.\d{1,8})?)?(Z|\+\d\d)?\Z"),
    st.sampled_from(["true", "TRUE", "False", " 1 ", "0x1F", "1e400", "nan", "inf", "-0", "+7", "1.", ".5", "1e-400",
                     "2020-02-30", "2020-W05-1", "20200102", "3/22/20 23:45", "0000-01-01", "24:00", ""]),
)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(TEXTS, min_size=1, max_size=12))
@example(texts=["0x10", "12"])
@example(texts=["2020-01-01 24:00", "2020-01-01T23:59:60", "2020-06-01 12"])
@example(texts=["9999-12-31T23:00:00-05:00", "0001-01-01T00:00+05:00"])
def test_text_is_read_as_one_by_one(contract: Contract, texts: list[str | None]) -> None:
    for kind in (pa.string(), pa.large_binary(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())):
        array = pa.array(texts, pa.string()).cast(kind)
        columns = {"day": pa.repeat("d", len(texts)), "extra": array, **{f"a_{name}": array for name in LOGICAL}}
        assert typed(contract, columns) == one_by_one(contract, columns)


@settings(max_examples=60, deadline=None)
@given(values=st.lists(st.none() | st.binary(max_size=5), min_size=1, max_size=12))
def test_bytes_are_text_where_they_are_utf8(contract: Contract, values: list[bytes | None]) -> None:
    array = pa.array(values, pa.binary())
    columns = {f"a_{name}": array for name in LOGICAL}
    assert typed(contract, columns) == one_by_one(contract, columns)


MOMENTS = st.none() | st.datetimes()
INNER = st.none() | st.datetimes(datetime.datetime(2, 1, 1), datetime.datetime(9998, 1, 1))
NATIVE: list[tuple[pa.DataType, st.SearchStrategy[Any]]] = [
    (pa.int64(), st.none() | st.integers(-(2**63), 2**63 - 1)),
    (pa.int8(), st.none() | st.integers(-128, 127)),
    (pa.uint64(), st.none() | st.integers(0, 2**64 - 1)),
    (pa.float64(), st.none() | st.floats() | st.integers(-5, 5).map(float) | st.sampled_from([2.0**63, -(2.0**63)])),
    (pa.float32(), st.none() | st.floats(width=32)),
    (pa.bool_(), st.none() | st.booleans()),
    (pa.decimal128(20, 2), st.none() | st.decimals(-1000, 1000, places=2)),
    (pa.date32(), st.none() | st.dates()),
    (pa.date64(), st.none() | st.dates()),
    (pa.timestamp("us"), MOMENTS),
    (pa.timestamp("s"), st.none() | st.datetimes().map(lambda t: t.replace(microsecond=0))),
    (pa.timestamp("ns"), st.none() | st.datetimes(datetime.datetime(1700, 1, 1), datetime.datetime(2200, 1, 1))),
    (pa.timestamp("us", tz="UTC"), MOMENTS),
    (pa.timestamp("us", tz="+02:00"), INNER),
    (pa.time64("us"), st.none() | st.times()),
    (pa.list_(pa.int64()), st.none() | st.lists(st.integers(0, 3), max_size=2)),
    (pa.null(), st.none()),
]  # fmt: skip


@settings(max_examples=15, deadline=None)
@given(data=st.data())
@pytest.mark.parametrize("kind", [kind for kind, _ in NATIVE], ids=str)
def test_native_columns_are_read_as_one_by_one(contract: Contract, kind: pa.DataType, data: st.DataObject) -> None:
    values = data.draw(st.lists(dict(NATIVE)[kind], min_size=1, max_size=10))
    array = pa.array(values, kind)
    columns = {f"a_{name}": array for name in LOGICAL}
    assert repr(typed(contract, columns)) == repr(one_by_one(contract, columns))  # NaN equals itself here


def test_text_that_a_parquet_file_wrongly_calls_utf8_is_a_fault_of_its_row_only(contract: Contract) -> None:
    lying = pa.array([b"good", b"\xff\xfe", None, b"also"], pa.binary()).view(pa.string())
    rows = typed(contract, {"content": lying})
    assert [row["content"] for row in rows] == ["good", None, None, "also"]
    assert [bool(row["_fault"]) for row in rows] == [False, True, False, False]
    assert b"xff" in rows[1]["_raw"]


def test_a_date_that_python_lacks_is_a_fault_and_not_a_crash(contract: Contract) -> None:
    far = pa.array([10**7, 0], pa.int32()).cast(pa.date32())
    rows = typed(contract, {"a_date": far, "a_timestamp": far, "content": far})
    assert [row["a_date"] for row in rows] == [None, datetime.date(1970, 1, 1)]
    assert "a_date" in rows[0]["_fault"] and rows[1]["_fault"] is None


def test_slices_keep_the_numbers_of_their_records(contract: Contract) -> None:
    texts = pa.array([str(n) if n % 7 else "x" for n in range(150_000)])
    found = list(typed_batches(contract, {"a_integer": texts}, "f", pa.array(np.arange(5, 150_005))))
    assert [batch.num_rows for batch in found] == [65536, 65536, 18928]
    lines = [line for batch in found for line in batch.column("_source_line").to_pylist()]
    assert lines == list(range(5, 150_005))
    bad = sum(batch.num_rows - batch.column("_fault").null_count for batch in found)
    assert bad == len(range(0, 150_000, 7))


def test_a_decimal_that_is_whole_is_an_integer(contract: Contract) -> None:
    array = pa.array([decimal.Decimal("7.00"), decimal.Decimal("7.50")])
    rows = typed(contract, {"a_integer": array})
    assert [row["a_integer"] for row in rows] == [7, None]


def test_a_block_of_no_records_has_no_batches(contract: Contract, tmp_path: Path) -> None:
    assert list(typed_batches(contract, {"content": pa.array([], pa.string())}, "f", pa.array([], pa.int64()))) == []


def test_a_parquet_file_that_changed_after_it_was_hashed_is_refused_and_tried_unhashed(tmp_path: Path) -> None:
    pq.write_table(pa.table({"content": ["one", "two"], "day": ["d", "d"]}), tmp_path / "a.parquet")
    contract = make_contract(
        tmp_path / "contract", [column("day", partitioned=True), column("content")], reader={"format": "parquet"}
    )
    source = open_source(contract, str(tmp_path))
    (hashed,), (unhashed,) = source.partitions(), source.partitions()
    assert len(hashed.source_sha) == 64
    pq.write_table(pa.table({"content": ["one", "two"], "day": ["d", "e"]}), tmp_path / "a.parquet")
    assert sum(batch.num_rows for batch in source.read(unhashed)) == 2
    with pytest.raises(DataRefused, match="changed while it was read"):
        list(source.read(hashed))
