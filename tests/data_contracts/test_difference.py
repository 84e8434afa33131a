"""What differs between two versions of a partition: every row is counted once, whatever the key."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.catalog.difference import compare_versions, difference
from data_contracts.catalog.rows import version_before
from data_contracts.catalog.tables import PartitionVersion
from data_contracts.errors import DataRefused
from tests.data_contracts.made_versions import FIRST, RENAMED, UNKEYED, WIDER, Made, notes

SCHEMA = pa.schema([("key", pa.string()), ("n", pa.int64()), ("x", pa.float64())])


def table(*rows: tuple[Any, ...]) -> pa.Table:
    return pa.table([[row[k] for row in rows] for k in range(3)], schema=SCHEMA)


def test_rows_are_added_removed_and_changed_by_key() -> None:
    found = difference(
        table(("a", 1, 0.5), ("b", 2, 0.5), ("c", 3, 0.5)), table(("b", 2, 0.5), ("c", 4, 0.5), ("d", 9, 0.5)), ["key"]
    )
    assert (found.added, found.removed, found.changed, found.unchanged) == (1, 1, 1, 1)
    assert found.changed_columns == {"n": 1}
    assert found.added_rows["key"].to_pylist() == ["d"]
    assert found.removed_rows["key"].to_pylist() == ["a"]
    assert (found.changed_from["n"].to_pylist(), found.changed_to["n"].to_pylist()) == ([3], [4])


def test_a_null_equals_a_null_and_nothing_else_in_keys_and_in_values() -> None:
    old, new = table((None, 1, None), ("b", None, 0.0)), table((None, 1, 0.5), ("b", None, -0.0))
    found = difference(old, new, ["key"])
    assert (found.added, found.removed, found.changed, found.unchanged) == (0, 0, 1, 1)
    assert found.changed_columns == {"x": 1}


def test_nan_equals_nan_and_minus_zero_equals_zero_alone_and_among_duplicates() -> None:
    nan, other = float("nan"), np.array([0x7FF8000000000001], np.uint64).view(np.float64)[0]
    old = table(("a", 1, nan), ("b", 1, 0.0), ("c", 1, nan), ("c", 1, 0.0))
    new = table(("a", 1, other), ("b", 1, -0.0), ("c", 1, -0.0), ("c", 1, other))
    found = difference(old, new, ["key"])
    assert (found.added, found.removed, found.changed, found.unchanged) == (0, 0, 0, 4)


def test_duplicate_keys_are_counted_and_compared_as_multisets() -> None:
    old = table(("a", 1, 0.5), ("a", 1, 0.5), ("a", 2, 0.5), ("b", 1, 0.5))
    new = table(("a", 1, 0.5), ("a", 3, 0.5), ("b", 1, 0.5))
    found = difference(old, new, ["key"])
    assert (found.duplicates_from, found.duplicates_to) == (1, 1)
    assert (found.added, found.removed, found.changed, found.unchanged) == (1, 2, 0, 2)
    assert found.removed_rows.to_pylist() == [{"key": "a", "n": 1, "x": 0.5}, {"key": "a", "n": 2, "x": 0.5}]


def test_a_key_of_two_columns_needs_both_to_be_equal() -> None:
    old, new = table(("a", 1, 0.5), ("a", 2, 0.5), ("b", 1, 0.5)), table(("a", 1, 0.7), ("b", 2, 0.5), ("b", 1, 0.5))
    found = difference(old, new, ["key", "n"])
    assert (found.added, found.removed, found.changed, found.unchanged) == (1, 1, 1, 1)


def test_a_column_that_one_side_lacks_is_null_there_and_named() -> None:
    old = table(("a", 1, 0.5), ("b", 2, None)).rename_columns(["key", "n", "old"])
    new = table(("a", 1, 0.5), ("b", 2, None)).rename_columns(["key", "n", "new"])
    found = difference(old, new, ["key"])
    assert (found.columns_from, found.columns_to) == (("old",), ("new",))
    assert (found.changed, found.unchanged) == (1, 1)
    assert found.changed_columns == {"old": 1, "new": 1}


def test_a_key_that_is_no_column_is_refused_with_the_nearest() -> None:
    with pytest.raises(DataRefused, match=r"no column 'kye' .*perhaps key"):
        difference(table(), table(), ["kye"])


CELL = st.tuples(
    st.sampled_from("abc") | st.none(), st.integers(0, 2) | st.none(), st.sampled_from([0.0, 0.5]) | st.none()
)


@given(
    st.lists(CELL, max_size=12),
    st.lists(CELL, max_size=12),
    st.sampled_from([["key"], ["n"], ["key", "n"], ["x", "key"]]),
)
def test_the_counts_are_those_of_python_objects_compared_one_by_one(
    old: list[tuple[Any, ...]], new: list[tuple[Any, ...]], key: list[str]
) -> None:
    at = [SCHEMA.names.index(name) for name in key]
    sides = [Counter(rows) for rows in (old, new)]
    keys = [Counter(tuple(row[k] for k in at) for row in rows) for rows in (old, new)]
    added = removed = changed = 0
    for name in {*keys[0], *keys[1]}:
        mine = [Counter({row: n for row, n in side.items() if tuple(row[k] for k in at) == name}) for side in sides]
        if keys[0][name] == keys[1][name] == 1:
            changed += mine[0] != mine[1]
        else:
            removed += (mine[0] - mine[1]).total()
            added += (mine[1] - mine[0]).total()
    found = difference(table(*old), table(*new), key, limit=100)
    assert (found.added, found.removed, found.changed) == (added, removed, changed)
    assert found.rows_from == len(old) == found.unchanged + found.changed + found.removed
    assert found.rows_to == len(new) == found.unchanged + found.changed + found.added
    assert (found.added_rows.num_rows, found.removed_rows.num_rows) == (added, removed)
    assert found.duplicates_from == sum(n > 1 for n in keys[0].values())


def test_a_million_rows_with_text_are_compared_within_seconds() -> None:
    count = 1_000_000
    numbers = np.arange(count)
    old = pa.table({"key": pa.array(numbers), "text": pa.array([f"some text of row {n % 1000}" for n in numbers])})
    new = old.slice(10).append_column("more", pa.nulls(count - 10, pa.int64()))
    began = time.perf_counter()
    found = difference(old, new, ["key"])
    assert (found.removed, found.unchanged) == (10, count - 10)
    # 0.5 s on a quiet machine; row loops over Python objects take more than ten times as long.
    assert time.perf_counter() - began < 15


def counts(made: Made, old: PartitionVersion, new: PartitionVersion, key: tuple[str, ...] = ()) -> tuple[Any, ...]:
    found, kind = compare_versions(made.tables, old, new, key)
    return kind, found.added, found.removed, found.changed, found.unchanged


def test_versions_are_compared_by_the_primary_key_of_their_contracts(tmp_path: Path) -> None:
    made = Made(tmp_path)
    old = made.publish(notes(a="apple", b="berry", c="cherry"))
    new = made.publish(notes(a="apple", b="banana", d="date"))
    assert counts(made, old, new) == ("primary key", 1, 1, 1, 1)
    found, _ = compare_versions(made.tables, old, new)
    assert found.key == ("key",)
    assert found.changed_columns == {"content": 1}


def test_bytes_that_return_differ_from_what_they_replaced_and_not_from_themselves(tmp_path: Path) -> None:
    made = Made(tmp_path)
    a = made.publish(notes(a="apple"))
    b = made.publish(notes(a="banana"))
    again = made.publish(notes(a="apple"))
    assert version_before(made.tables, made.tables.version("monday")) == b
    assert counts(made, b, again) == ("primary key", 0, 0, 1, 0)
    assert counts(made, a, again) == ("primary key", 0, 0, 0, 1)


def test_a_late_older_publication_is_what_stood_before_not_what_is_current(tmp_path: Path) -> None:
    made = Made(tmp_path)
    contract = made.contract(sequence="publication")
    made.publish(notes(a="first"), contract, published="2026-01-01")
    final = made.publish(notes(a="final"), contract, published="2026-01-03")
    late = made.publish(notes(a="between"), contract, published="2026-01-02")
    assert made.tables.version("monday") == final
    assert version_before(made.tables, final) == late


def test_a_first_version_has_nothing_before_it(tmp_path: Path) -> None:
    made = Made(tmp_path)
    with pytest.raises(DataRefused, match="nothing to compare it with"):
        version_before(made.tables, made.publish(notes(a="apple")))


def test_a_renamed_key_matches_by_record_id_and_the_renamed_columns_are_named(tmp_path: Path) -> None:
    made = Made(tmp_path)
    rows = [{"key": key, "content": f"text {key}", "count": n} for n, key in enumerate("abc")]
    first = made.publish(rows, made.contract(FIRST))
    renamed = made.publish(
        [{"name": r["key"], "content": r["content"], "cases": r["count"]} for r in rows],
        made.contract(RENAMED, version="2.0.0"),
    )
    wider = made.publish(
        [{"name": r["key"], "content": r["content"], "cases": r["count"], "active": None} for r in rows[:2]],
        made.contract(WIDER, version="3.0.0"),
    )
    assert counts(made, first, renamed) == ("record_id", 0, 0, 3, 0)
    found, _ = compare_versions(made.tables, first, renamed)
    assert (found.columns_from, found.columns_to) == (("key", "count"), ("name", "cases"))
    assert found.changed_columns == {"key": 3, "count": 3, "name": 3, "cases": 3}
    # An added column without values changes no row.
    assert counts(made, renamed, wider) == ("primary key", 0, 1, 0, 2)
    assert compare_versions(made.tables, renamed, wider)[0].columns_to == ("active",)


def test_without_a_primary_key_changed_content_is_removed_and_added(tmp_path: Path) -> None:
    made = Made(tmp_path)
    contract = made.contract(UNKEYED)
    rows = [*notes(a="apple", b="berry"), *notes(a="apple")]
    old = made.publish(rows, contract)
    new = made.publish([*notes(a="apple", b="banana")], contract)
    assert counts(made, old, new) == ("record_id", 1, 2, 0, 1)


def test_a_chosen_key_may_stand_more_than_once_and_no_row_is_dropped(tmp_path: Path) -> None:
    made = Made(tmp_path)
    old = made.publish(notes(a="same", b="same", c="other"))
    new = made.publish(notes(a="same", d="same", c="other"))
    assert counts(made, old, new, ("content",)) == ("chosen", 1, 1, 0, 2)
    found, _ = compare_versions(made.tables, old, new, ("content",))
    assert (found.duplicates_from, found.duplicates_to) == (1, 1)


def test_a_version_without_rows_is_compared_under_its_own_contract(tmp_path: Path) -> None:
    made = Made(tmp_path)
    full = made.publish([{"name": "a", "content": "apple", "cases": 1}], made.contract(RENAMED))
    empty = made.publish([], made.contract(WIDER, version="2.0.0"))
    assert (empty.verdict, empty.rows_accepted) == ("empty", 0)
    assert counts(made, full, empty) == ("primary key", 0, 1, 0, 0)
