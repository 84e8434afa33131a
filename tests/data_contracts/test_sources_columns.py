"""Blocks of columns give what value by value gives, whatever the values are and however the records come."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.sources import columns
from data_contracts.sources.records import RawRecord, batches
from tests.data_contracts.making import column, make_contract

PROPERTIES = (
    column("count", "integer"),
    column("share", "number"),
    column("content"),
    column("part", partitioned=True),
)
VALUES: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.booleans(),
    st.text(max_size=4),
    st.just("\ud800"),
    st.just([1]),
)
UNIFORM = st.sampled_from([st.integers(-9, 9), st.floats(-9, 9), st.booleans(), st.sampled_from(["1", "x", "", "2.5"])])


@st.composite
def blocks(draw: st.DrawFn) -> list[RawRecord]:
    kinds = [draw(UNIFORM) if draw(st.booleans()) else VALUES for _ in range(3)]
    found = []
    for file in range(draw(st.integers(1, 3))):
        for line in range(1, draw(st.integers(0, 12)) + 1):
            names = ("count", "share", "content")
            values = {n: draw(kind) for n, kind in zip(names, kinds, strict=True) if draw(st.integers(0, 9))}
            bad = not draw(st.integers(0, 5))
            found.append(RawRecord(f"f{file}", line, values, "broken" if bad else None, b"raw" if bad else None))
    return found


@given(records=blocks(), rows=st.sampled_from([3, 1000]), few=st.sampled_from([1, 4]))
@settings(deadline=None, max_examples=60)
def test_typing_by_columns_is_typing_by_values(
    tmp_path_factory: pytest.TempPathFactory, records: list[RawRecord], rows: int, few: int
) -> None:
    contract = make_contract(tmp_path_factory.getbasetemp() / "columns", PROPERTIES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "_BLOCK_ROWS", rows)
        patch.setattr(columns, "_FEW", few)
        found = [row for batch in columns.typed_records(contract, records) for row in batch.to_pylist()]
    expected = [row for batch in batches(contract, records) for row in batch.to_pylist()]
    for row, known in zip(found, expected, strict=True):
        # The raw form of a record names its missing columns or leaves them out.
        assert {n: v for n, v in row.items() if n != "_raw"} == {n: v for n, v in known.items() if n != "_raw"}
        assert (row["_raw"] is None) == (known["_raw"] is None)


def test_batches_of_one_file_are_put_in_order() -> None:
    parts = [pa.record_batch({"_source_line": [1, 4]}), pa.record_batch({"_source_line": [2, 3]})]
    assert [batch.column(0).to_pylist() for batch in columns.in_order(parts)] == [[1, 2, 3, 4]]
