"""Random contracts with rules of every kind that Great Expectations has an opinion on, and random tables for them."""

from __future__ import annotations

import datetime as dt
import json
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_contracts.contract import Contract, load_contract
from data_contracts.sources.records import source_schema

Draw = random.Random
_TEXTS = (
    "",
    " ",
    "a",
    "ab",
    "abc",
    "é",
    "ÉA",
    "日本",
    "😀",
    "A1",
    "12",
    "a b",
    "x" * 9,
    "true",
    "2024-01-31",
    "null",
    "a@b.org",
    "::1",
    "10.0.0.1",
    '{"a": 1}',
    "[1]",
    "a.b",
    "https://a.b/c",
    "b_%",
    "aab",
    "2024-02-30",
)
_INTEGERS = (-7, -1, 0, 1, 2, 3, 5, 8, 127, 128, 300, 2**31, 2**53, 2**53 + 1, -(2**62))
_NUMBERS = (-2.5, -0.1, 0.0, 0.1, 0.25, 0.3, 0.5, 1.0, 1.5, 3.0, 100.0, 1e300)
_DAYS = (*(dt.date(2024, 1, day) for day in (1, 2, 15, 31)), dt.date(1999, 12, 31), dt.date(2023, 7, 1))
_MOMENTS = tuple(
    dt.datetime(2024, 1, 1, hour, minute, second, micro, dt.UTC)
    for hour, minute, second, micro in (
        (0, 0, 0, 0),
        (5, 0, 0, 0),
        (5, 6, 0, 0),
        (5, 6, 7, 0),
        (5, 6, 7, 890_000),
        (23, 59, 59, 999_999),
    )
)
# Expressions that RE2 and Python's re read alike: GX takes the one or the other, as pandas will have it.
_PATTERNS = ("^a", "b$", "^[a-z]+$", "[0-9]{2}", "a|é", "^$", ".", "^.{2,3}$", "x{3}", "(ab)+", "日")
_LIKES = ("a%", "%b", "_", "__", "%a%", "", "%", "a_c")
_FORMATS = ("byte", "date", "email", "hostname", "ipv4", "ipv6", "uri", "uuid")
_COLUMNS = {
    "text": "string",
    "word": "string",
    "other": "string",
    "count": "integer",
    "size": "integer",
    "share": "number",
    "ratio": "number",
    "day": "date",
    "seen": "timestamp",
    "flag": "boolean",
}
_VALUES: dict[str, tuple[Any, ...]] = {
    "string": _TEXTS,
    "integer": _INTEGERS,
    "number": _NUMBERS,
    "date": _DAYS,
    "timestamp": _MOMENTS,
    "boolean": (True, False),
}
_SEVERITIES = ("error", "error", "warning")


def drawn_contract(draw: Draw) -> Contract:
    """Return a contract with random rules of every kind that can be compared."""
    properties: list[dict[str, Any]] = [{"name": "part", "logicalType": "string", "partitioned": True}]
    for name, logical in _COLUMNS.items():
        column: dict[str, Any] = {"name": name, "logicalType": logical, "required": draw.random() < 0.3}
        options = _options(draw, logical)
        if options:
            column["logicalTypeOptions"] = options
        if draw.random() < 0.4 and logical != "boolean":
            column["enum"] = [{"value": value} for value in _some(draw, logical)]
        column["unique"] = draw.random() < 0.3
        column["quality"] = [*_library(draw, logical), *_expected(draw, name, logical)]
        properties.append(column)
    terms = {
        "format": 1,
        "licence": {"expression": "CC0-1.0"},
        "purposes": {"permitted": ["pre-training"]},
        "residency": {"storage": ["anywhere"], "processing": ["anywhere"]},
        "heldOut": {"share": 0.1, "key": "drawn"},
        "text": "text",
    }
    document = {
        "apiVersion": "v3.1.0",
        "kind": "DataContract",
        "id": "drawn/table",
        "version": "1.0.0",
        "status": "active",
        "schema": [{"name": "drawn", "properties": properties, "quality": list(_of_the_object(draw))}],
        "customProperties": [{"property": "trainingTerms", "vendor": "causeway", "value": terms}],
    }
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "drawn.yaml"
        path.write_text(json.dumps(document, ensure_ascii=False), "utf-8")
        return load_contract(path)


def drawn_table(draw: Draw, contract: Contract, rows: int) -> pa.Table:
    """Return rows of a contract with many equal values, edges of every type, and NULL."""
    columns: dict[str, list[Any]] = {}
    for prop in contract.properties:
        pool = draw.sample(_VALUES[prop.logical_type], k=min(6, len(_VALUES[prop.logical_type])))
        nulls = draw.choice((0.0, 0.1, 0.5))
        columns[prop.name] = [None if draw.random() < nulls else draw.choice(pool) for _ in range(rows)]
    columns |= {"_source_file": ["drawn"] * rows, "_source_line": list(range(1, rows + 1))}
    schema = source_schema(contract)
    return pa.table({name: columns.get(name, [None] * rows) for name in schema.names}, schema=schema)


def _some(draw: Draw, logical: str, most: int = 5) -> list[Any]:
    return [_plain(v) for v in draw.sample(_VALUES[logical], k=min(draw.randint(1, most), len(_VALUES[logical])))]


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, dt.date) else value


def _options(draw: Draw, logical: str) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if logical == "string":
        if draw.random() < 0.6:
            low = draw.randint(0, 4)
            options |= {"minLength": low, "maxLength": low + draw.randint(0, 6)}
        if draw.random() < 0.5:
            options["pattern"] = draw.choice(_PATTERNS)
        if draw.random() < 0.5:
            options["format"] = draw.choice(_FORMATS)
    elif logical != "boolean":
        low, high = sorted(draw.sample(_VALUES[logical], k=2))
        options[draw.choice(("minimum", "exclusiveMinimum"))] = _plain(low)
        options[draw.choice(("maximum", "exclusiveMaximum"))] = _plain(high)
        if logical in ("integer", "number") and draw.random() < 0.5:
            options["multipleOf"] = draw.choice((2, 3, 5) if logical == "integer" else (0.1, 0.25, 0.5, 2))
        if draw.random() < 0.5:
            options["format"] = draw.choice(
                {
                    "integer": ("i8", "u8", "i32", "u16"),
                    "number": ("f32", "f64"),
                    "date": ("yyyy-MM-dd", "yyyy-MM", "yyyy"),
                    "timestamp": (
                        "yyyy-MM-dd HH:mm",
                        "yyyy-MM-dd HH:mm:ss",
                        "yyyy-MM-dd'T'HH:mm:ss.SS",
                        "yyyy-MM-dd HH",
                    ),
                }[logical]
            )
    return options


def _compare(draw: Draw, most: int, percent: bool = True) -> dict[str, Any]:
    unit = draw.choice(("rows", "percent")) if percent else "rows"
    top = most if unit == "rows" else 100
    operator = draw.choice(
        (
            "mustBe",
            "mustNotBe",
            "mustBeGreaterThan",
            "mustBeGreaterOrEqualTo",
            "mustBeLessThan",
            "mustBeLessOrEqualTo",
            "mustBeBetween",
            "mustNotBeBetween",
        )
    )
    value: Any = draw.choice((0, draw.randint(0, top), draw.randint(0, top)))
    if "Between" in operator:
        low = draw.randint(0, top - 1)
        value = [low, draw.randint(low + 1, top)]
    return {operator: value, "unit": unit, "severity": draw.choice(_SEVERITIES)}


def _library(draw: Draw, logical: str) -> Iterator[dict[str, Any]]:
    yield {"metric": "nullValues", **_compare(draw, 20)}
    yield {"metric": "duplicateValues", **_compare(draw, 20)}
    yield {
        "metric": "missingValues",
        "arguments": {"missingValues": [None, "n/a", *_some(draw, logical)]},
        **_compare(draw, 20),
    }
    listed = {"metric": "invalidValues", "arguments": {"validValues": _some(draw, logical)}}
    yield {**listed, **draw.choice(({"mustBe": 0}, _compare(draw, 20)))}
    if logical == "string":
        yield {
            "metric": "invalidValues",
            "arguments": {"pattern": draw.choice(_PATTERNS)},
            **draw.choice(({"mustBe": 0}, _compare(draw, 20))),
        }


def _bounds(draw: Draw, pool: tuple[Any, ...]) -> dict[str, Any]:
    # GX makes float64 of a bound, so to it 2^53 + 1 is 2^53.
    low, high = sorted(draw.sample([v for v in pool if not isinstance(v, int) or abs(v) < 2**53], k=2))
    given = {"min_value": _plain(low), "max_value": _plain(high)}
    if draw.random() < 0.3:
        del given[draw.choice(("min_value", "max_value"))]
    # GX reads an absent strict_min as False.
    return given | {
        key: True for key in ("strict_min", "strict_max") if draw.random() < 0.3 and f"{key[-3:]}_value" in given
    }


def _entry(draw: Draw, name: str, kwargs: dict[str, Any], severity: str = "") -> dict[str, Any]:
    spelling = draw.choice(("type", "expectation", "expectation_type"))
    inner = {spelling: name, "kwargs": kwargs}
    return {
        "type": "custom",
        "engine": "greatExpectations",
        "implementation": inner,
        "severity": severity or draw.choice(_SEVERITIES),
    }


def _mostly(draw: Draw) -> dict[str, Any]:
    return {"mostly": draw.choice((0, 0.5, 0.75, 0.9))} if draw.random() < 0.3 else {}


def _expected(draw: Draw, name: str, logical: str) -> Iterator[dict[str, Any]]:
    singles: list[tuple[str, dict[str, Any]]] = [
        ("expect_column_values_to_not_be_null", {}),
        ("expect_column_values_to_be_null", {}),
        ("expect_column_values_to_be_in_set", {"value_set": _some(draw, logical)}),
        ("expect_column_values_to_not_be_in_set", {"value_set": _some(draw, logical)}),
        ("expect_column_values_to_be_unique", {}),
    ]
    wholes: list[tuple[str, dict[str, Any]]] = [
        ("expect_column_distinct_values_to_be_in_set", {"value_set": _some(draw, logical, 9)}),
        ("expect_column_distinct_values_to_contain_set", {"value_set": _some(draw, logical, 2)}),
        ("expect_column_distinct_values_to_equal_set", {"value_set": _some(draw, logical, 6)}),
        ("expect_column_unique_value_count_to_be_between", _bounds(draw, tuple(range(8)))),
        ("expect_column_proportion_of_unique_values_to_be_between", _bounds(draw, (0.0, 0.2, 0.5, 1.0))),
        ("expect_column_proportion_of_non_null_values_to_be_between", _bounds(draw, (0.0, 0.5, 0.9, 1.0))),
        ("expect_column_to_exist", draw.choice(({}, {"column_index": draw.randint(1, 10)}))),
    ]
    if logical == "string":
        singles += [
            ("expect_column_value_lengths_to_be_between", _bounds(draw, tuple(range(10)))),
            ("expect_column_value_lengths_to_equal", {"value": draw.randint(0, 4)}),
            ("expect_column_values_to_match_regex", {"regex": draw.choice(_PATTERNS)}),
            ("expect_column_values_to_not_match_regex", {"regex": draw.choice(_PATTERNS)}),
            (
                "expect_column_values_to_match_regex_list",
                {"regex_list": draw.sample(_PATTERNS, k=2), "match_on": draw.choice(("any", "all"))},
            ),
            ("expect_column_values_to_not_match_regex_list", {"regex_list": draw.sample(_PATTERNS, k=2)}),
            ("expect_column_values_to_match_strftime_format", {"strftime_format": "%Y-%m-%d"}),
            ("expect_column_values_to_be_json_parseable", {}),
        ]
    if logical in ("integer", "number", "timestamp", "date"):
        singles += [("expect_column_values_to_be_between", _bounds(draw, _VALUES[logical]))]
    if logical in ("integer", "number", "timestamp"):
        # 2^53 and 2^53 + 1 are one value to pandas' differences of a float column, not of an integer one.
        singles += [
            (f"expect_column_values_to_be_{way}", {"strictly": draw.random() < 0.3})
            for way in ("increasing", "decreasing")
        ]
    if logical in ("integer", "number"):
        pool = _VALUES[logical]
        for figure in ("min", "max", "mean", "sum", "stdev", "median"):
            wholes.append((f"expect_column_{figure}_to_be_between", _bounds(draw, pool)))
    for kind, kwargs in draw.sample(singles, k=5):
        yield _entry(draw, kind, kwargs | _mostly(draw))
    for kind, kwargs in draw.sample(wholes, k=4):
        yield _entry(draw, kind, kwargs)


def _of_the_object(draw: Draw) -> Iterator[dict[str, Any]]:
    yield {"metric": "rowCount", **_compare(draw, 50, percent=False)}
    yield {
        "metric": "duplicateValues",
        "arguments": {"properties": draw.sample(tuple(_COLUMNS), k=2)},
        **_compare(draw, 20),
    }
    pair = draw.choice((("count", "size"), ("share", "ratio"), ("text", "word")))
    named = {"column_A": pair[0], "column_B": pair[1]}
    pairs = [[draw.choice(_VALUES[_COLUMNS[name]]) for name in pair] for _ in range(12)]
    some = draw.choice((["text", "word"], ["text", "word", "other"], ["count", "size"]))
    columns = {
        "column_list": some,
        "ignore_row_if": draw.choice(("all_values_are_missing", "any_value_is_missing", "never")),
    }
    ignore = {"ignore_row_if": draw.choice(("both_values_are_missing", "either_value_is_missing", "neither"))}
    row_count = draw.randint(0, 40)
    for name, kwargs in (
        ("expect_column_pair_values_a_to_be_greater_than_b", named | ignore | {"or_equal": draw.random() < 0.5}),
        ("expect_column_pair_values_to_be_equal", named | ignore),
        ("expect_column_pair_values_to_be_in_set", named | ignore | {"value_pairs_set": pairs}),
        ("expect_multicolumn_values_to_be_equal", columns),
        ("expect_select_column_values_to_be_unique_within_record", columns),
        ("expect_compound_columns_to_be_unique", columns),
        (
            "expect_multicolumn_sum_to_equal",
            {
                **columns,
                "column_list": list(draw.choice((("count", "size"), ("share", "ratio")))),
                "sum_total": draw.choice((0, 1, 2, 3, 5)),
            },
        ),
        ("expect_table_row_count_to_be_between", {"min_value": row_count, "max_value": row_count + 10}),
        ("expect_table_row_count_to_equal", {"value": draw.choice((1, 2, 7, 40))}),
        ("expect_table_column_count_to_equal", {"value": draw.choice((10, 11))}),
        ("expect_table_column_count_to_be_between", {"min_value": draw.randint(9, 12), "max_value": 12}),
        (
            "expect_table_columns_to_match_ordered_list",
            {"column_list": draw.choice((["part", *_COLUMNS], list(_COLUMNS)))},
        ),
        ("expect_table_columns_to_match_set", {"column_set": list(_COLUMNS), "exact_match": draw.random() < 0.5}),
    ):
        yield _entry(draw, name, kwargs)
