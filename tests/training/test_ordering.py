from __future__ import annotations

import tempfile
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from training.shards.ordering import by_record_id

IDS = st.text(alphabet="0123456789abcdefé-", min_size=0, max_size=6)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(IDS, max_size=20), max_size=8), st.integers(1, 400))
def test_rows_come_out_in_order_whatever_their_batches_and_the_memory(parts: list[list[str]], run_bytes: int) -> None:
    batches = [
        pa.record_batch({"record_id": pa.array(p, pa.string()), "n": pa.array(range(len(p)), pa.int64())})
        for p in parts
    ]
    found = [row for batch in by_record_id(batches, run_bytes) for row in batch.to_pylist()]
    given_rows = [row for batch in batches for row in batch.to_pylist()]
    assert [row["record_id"] for row in found] == sorted(row["record_id"] for row in given_rows)
    key = lambda row: (row["record_id"], row["n"])  # noqa: E731
    assert sorted(found, key=key) == sorted(given_rows, key=key)


def test_nothing_is_left_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    rows = [pa.record_batch({"record_id": pa.array([f"{n:03x}{k}" for n in range(99)])}) for k in range(4)]
    left = by_record_id(rows, 1000)
    next(left)
    assert list(tmp_path.iterdir())
    left.close()  # type: ignore[attr-defined]
    assert list(tmp_path.iterdir()) == []
    assert sum(batch.num_rows for batch in by_record_id(rows, 1000)) == 396
    assert list(tmp_path.iterdir()) == []
