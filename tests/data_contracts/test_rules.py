"""Rules: what a contract's clauses become, and which rows fail them."""

from __future__ import annotations

import datetime
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from data_contracts.contract import Contract, load_contract
from data_contracts.errors import ContractError
from data_contracts.rules import BatchRule, RowRule, batch_rules, failing, holds, row_rules
from data_contracts.ruling.formats import TEXT_FORMATS
from data_contracts.verdicts import of_format, passes

TERMS: dict[str, Any] = {
    "format": 1,
    "licence": {"expression": "MIT"},
    "purposes": {"permitted": ["pre-training"]},
    "residency": {"storage": ["SE"], "processing": ["SE"]},
    "heldOut": {"share": 0.1, "key": "k"},
    "text": "day",
}


def contract_of(
    folder: Path,
    column: dict[str, Any],
    quality: list[dict[str, Any]] | None = None,
    terms: dict[str, Any] | None = None,
    version: str = "v3.1.0",
) -> Contract:
    path = folder / "c.yaml"
    properties = [{"name": "day", "logicalType": "string", "partitioned": True}, {"name": "x", **column}]
    document = {
        "apiVersion": version,
        "kind": "DataContract",
        "id": "demo/x",
        "status": "active",
        "version": "1.0.0",
        "schema": [{"name": "t", "properties": properties, "quality": quality or []}],
        "customProperties": [{"property": "trainingTerms", "vendor": "causeway", "value": terms or TERMS}],
    }
    with path.open("w") as stream:
        YAML(typ="safe").dump(document, stream)
    return load_contract(path)


def verdicts(contract: Contract, name: str, values: pa.Array) -> list[bool]:
    rule = next(rule for rule in row_rules(contract) if rule.name == name)
    found: list[bool] = failing(rule, pa.record_batch({"x": values})).to_pylist()
    return found


@pytest.mark.parametrize(
    ("options", "name", "values", "fails"),
    [
        ({"minLength": 2}, "x.minLength", ["a", "ab", "é", "日本", "", None], [True, False, True, False, True, False]),
        ({"maxLength": 2}, "x.maxLength", ["ab", "abc", "日本", "😀😀😀", None], [False, True, False, True, False]),
        ({"pattern": "\\S"}, "x.pattern", [" \n", "a", "", None], [True, False, True, False]),
        ({"pattern": "^a+$"}, "x.pattern", ["aa", "ba", None], [False, True, False]),
    ],
)
def test_a_string_option_fails_the_rows_that_break_it(
    tmp_path: Path, options: dict[str, Any], name: str, values: list[str | None], fails: list[bool]
) -> None:
    contract = contract_of(tmp_path, {"logicalType": "string", "logicalTypeOptions": options})
    assert verdicts(contract, name, pa.array(values, pa.string())) == fails


@pytest.mark.parametrize(
    ("logical", "options", "name", "values", "fails"),
    [
        ("integer", {"minimum": 3}, "x.minimum", [2, 3, None], [True, False, False]),
        ("integer", {"minimum": 2.5}, "x.minimum", [2, 3], [True, False]),
        ("integer", {"exclusiveMinimum": 2.5}, "x.exclusiveMinimum", [2, 3], [True, False]),
        ("integer", {"maximum": 2.5}, "x.maximum", [2, 3], [False, True]),
        ("integer", {"exclusiveMaximum": 2.5}, "x.exclusiveMaximum", [2, 3], [False, True]),
        ("integer", {"exclusiveMaximum": 3}, "x.exclusiveMaximum", [2, 3], [False, True]),
        ("integer", {"maximum": 2**53}, "x.maximum", [2**53, 2**53 + 1], [False, True]),
        ("integer", {"multipleOf": 5}, "x.multipleOf", [0, -10, 7, 2**62, None], [False, False, True, True, False]),
        ("number", {"multipleOf": 0.1}, "x.multipleOf", [0.3, 0.35, 1e6, None], [False, True, False, False]),
        ("number", {"minimum": 0}, "x.minimum", [-0.1, 0.0, float("nan"), None], [True, False, True, False]),
        ("number", {}, "x.type", [1.0, float("nan"), float("inf"), None], [False, True, True, False]),
        ("integer", {"format": "u8"}, "x.type", [0, 255, 256, -1, None], [False, False, True, True, False]),
    ],
)
def test_a_numeric_option_fails_the_rows_that_break_it(
    tmp_path: Path, logical: str, options: dict[str, Any], name: str, values: list[Any], fails: list[bool]
) -> None:
    contract = contract_of(tmp_path, {"logicalType": logical, "logicalTypeOptions": options})
    assert verdicts(contract, name, pa.array(values, pa.int64() if logical == "integer" else pa.float64())) == fails


def test_dates_and_timestamps_have_bounds_in_iso_8601(tmp_path: Path) -> None:
    date = contract_of(tmp_path, {"logicalType": "date", "logicalTypeOptions": {"minimum": "2026-01-01"}})
    days = pa.array([datetime.date(2025, 12, 31), datetime.date(2026, 1, 1), None])
    assert verdicts(date, "x.minimum", days) == [True, False, False]
    options = {"exclusiveMaximum": "2026-01-01T00:00:00+01:00"}
    moment = contract_of(tmp_path, {"logicalType": "timestamp", "logicalTypeOptions": options})
    utc = pa.timestamp("us", tz="UTC")
    moments = pa.array([datetime.datetime(2025, 12, 31, 22), datetime.datetime(2025, 12, 31, 23)], pa.timestamp("us"))
    assert verdicts(moment, "x.exclusiveMaximum", moments.cast(utc)) == [False, True]


FORMATS = {
    "email": (["a.b+c@example.org", "x@a-b.co"], ["a@b", "a b@example.org", ".a@b.cd", "a@-b.cd", "é@b.cd", ""]),
    "uuid": (["123e4567-E89B-12d3-a456-426614174000"], ["123e4567e89b12d3a456426614174000", "x", ""]),
    "uri": (["https://a.b/c?d=%20#e", "urn:isbn:1"], ["//a.b", "http://a b", "http:%2", "1a:b", "a:", ""]),
    "hostname": (["example.org", "a", "a-1.b"], ["-a.b", "a..b", "a_b", "x" * 64, ".".join(["a" * 49] * 6), ""]),
    "ipv4": (["127.0.0.1", "255.255.255.255"], ["256.0.0.1", "1.2.3", "01.2.3.4", ""]),
    "ipv6": (["::1", "2001:db8::8a2e:370:7334", "::ffff:1.2.3.4"], ["1::2::3", ":", "1.2.3.4", "fe80::1%eth0", ""]),
    "byte": (["YQ==", "YWJj", ""], ["YQ", "YQ=a", "Y Q=="]),
    "date": (["2024-02-29"], ["2023-02-29", "2024-2-9", "20240229", ""]),
    "date-time": (["2024-02-29T23:59:59Z", "2024-01-01t00:00:00.5+01:00"], ["2024-01-01T00:00:00", "2024-01-01", ""]),
    "time": (["23:59:59Z", "00:00:00.25-05:30"], ["24:00:00Z", "12:00:00", "12:00Z", ""]),
}


@pytest.mark.parametrize("name", FORMATS)
def test_a_string_is_of_its_format_by_both_implementations(tmp_path: Path, name: str) -> None:
    good, bad = FORMATS[name]
    contract = contract_of(tmp_path, {"logicalType": "string", "logicalTypeOptions": {"format": name}})
    found = verdicts(contract, "x.format", pa.array([*good, *bad, None]))
    assert found == [False] * len(good) + [True] * len(bad) + [False]
    assert [not of_format(name, value) for value in [*good, *bad]] == found[:-1]
    assert set(FORMATS) == set(TEXT_FORMATS)


def test_formats_that_promise_nothing_of_a_value_make_no_rule(tmp_path: Path) -> None:
    for logical, name in (("string", "password"), ("string", "binary"), ("number", "f64")):
        contract = contract_of(tmp_path, {"logicalType": logical, "logicalTypeOptions": {"format": name}})
        assert "x.format" not in [rule.name for rule in row_rules(contract)]


def test_a_number_of_32_bits_stays_within_its_range(tmp_path: Path) -> None:
    contract = contract_of(tmp_path, {"logicalType": "number", "logicalTypeOptions": {"format": "f32"}})
    assert verdicts(contract, "x.format", pa.array([1e38, -3.5e38, 1e300, None])) == [False, True, True, False]


@pytest.mark.parametrize(
    ("pattern", "moment", "fails"),
    [
        ("yyyy-MM-dd HH:mm:ss", "2024-01-02T03:04:05", False),
        ("yyyy-MM-dd HH:mm:ss", "2024-01-02T03:04:05.000001", True),
        ("yyyy-MM-dd'T'HH:mmXXX", "2024-01-02T03:04:05", True),
        ("yyyy-MM-dd HH:mm:ss.SSS", "2024-01-02T03:04:05.123", False),
        ("yyyy-MM-dd HH:mm:ss.SSS", "2024-01-02T03:04:05.1234", True),
        ("yyyy-MM-dd HH:mm:ss.S", "2024-01-02T03:04:05.12", True),
        ("yyyy-MM-dd", "2024-01-02T00:00:01", True),
        ("yyyy-MM", "2024-01-01T00:00:00", False),
        ("yyyy-MM", "2024-01-02T00:00:00", True),
        ("yyyy", "2024-02-01T00:00:00", True),
        ("QQQ yyyy", "2024-04-01T00:00:00", False),
        ("QQQ yyyy", "2024-05-01T00:00:00", True),
    ],
)
def test_a_timestamp_is_no_finer_than_its_pattern(tmp_path: Path, pattern: str, moment: str, fails: bool) -> None:
    contract = contract_of(tmp_path, {"logicalType": "timestamp", "logicalTypeOptions": {"format": pattern}})
    value = datetime.datetime.fromisoformat(moment).replace(tzinfo=datetime.UTC)
    assert verdicts(contract, "x.format", pa.array([value, None], pa.timestamp("us", "UTC"))) == [fails, False]
    (rule,) = (rule for rule in row_rules(contract) if rule.name == "x.format")
    assert passes(rule, value) is not fails


def test_a_pattern_that_writes_every_value_makes_no_rule(tmp_path: Path) -> None:
    options = {"format": "yyyy-MM-dd HH:mm:ss.SSSSSS", "timezone": True, "defaultTimezone": "Etc/UTC"}
    contract = contract_of(tmp_path, {"logicalType": "timestamp", "logicalTypeOptions": options})
    assert "x.format" not in [rule.name for rule in row_rules(contract)]
    date = contract_of(tmp_path, {"logicalType": "date", "logicalTypeOptions": {"format": "yyyy-MM"}})
    days = pa.array([datetime.date(2024, 1, 1), datetime.date(2024, 1, 2)])
    assert verdicts(date, "x.format", days) == [False, True]


def test_required_is_the_only_rule_of_a_column_that_null_fails(tmp_path: Path) -> None:
    options = {"minLength": 1, "maxLength": 9, "pattern": "a"}
    column = {"logicalType": "string", "required": True, "logicalTypeOptions": options, "enum": [{"value": "a"}]}
    contract = contract_of(tmp_path, column)
    nulls = pa.array([None], pa.string())
    failed = {rule.name: verdicts(contract, rule.name, nulls)[0] for rule in row_rules(contract) if rule.column == "x"}
    assert [name for name, fails in failed.items() if fails] == ["x.required"] and len(failed) == 5


def test_an_enum_and_valid_values_refuse_what_is_not_listed(tmp_path: Path) -> None:
    quality = [{"metric": "invalidValues", "mustBe": 0, "arguments": {"validValues": ["b", "c"], "pattern": "^[a-c]$"}}]
    column = {"logicalType": "string", "enum": [{"value": "a"}, {"value": "b"}], "quality": quality}
    contract = contract_of(tmp_path, column)
    values = pa.array(["a", "b", "c", "d", None])
    assert verdicts(contract, "x.enum", values) == [False, False, True, True, False]
    assert verdicts(contract, "x.validValues", values) == [True, False, False, True, False]
    assert verdicts(contract, "x.pattern", values) == [False, False, False, True, False]


def test_the_licence_rule_refuses_other_licences_and_none(tmp_path: Path) -> None:
    terms = {**TERMS, "licence": {"column": "x", "allowed": ["MIT", "ISC"]}}
    contract = contract_of(tmp_path, {"logicalType": "string"}, terms=terms)
    values = pa.array(["MIT", "GPL-3.0-only", "MIT OR GPL-3.0-only", "MIT AND GPL-3.0-only", "junk", None])
    assert verdicts(contract, "x.allowed", values) == [False, True, False, True, True, True]


def test_a_record_that_could_not_be_decoded_fails(tmp_path: Path) -> None:
    rule = row_rules(contract_of(tmp_path, {"logicalType": "string"}))[0]
    assert rule.name == "record.decodes"
    assert failing(rule, pa.record_batch({"_fault": pa.array(["not UTF-8", None])})).to_pylist() == [True, False]


def test_text_that_is_not_of_the_type_fails_type_alone(tmp_path: Path) -> None:
    contract = contract_of(tmp_path, {"logicalType": "integer", "logicalTypeOptions": {"minimum": 3}})
    values = pa.array(["4", "2", "four", None])
    assert verdicts(contract, "x.type", values) == [False, False, True, False]
    assert verdicts(contract, "x.minimum", values) == [False, True, False, False]


def test_a_threshold_a_share_and_uniqueness_judge_the_batch(tmp_path: Path) -> None:
    checks: list[dict[str, Any]] = [
        {"metric": "nullValues", "mustBe": 0},
        {"metric": "invalidValues", "mustBeLessThan": 5, "unit": "percent", "arguments": {"validValues": ["a"]}},
        {"metric": "invalidValues", "mustBe": 0, "severity": "warning", "arguments": {"validValues": ["a"]}},
        {"metric": "duplicateValues", "mustBe": 0},
        {"type": "text", "description": "people read this"},
    ]
    table: list[dict[str, Any]] = [
        {"metric": "rowCount", "mustBeBetween": [1, 10]},
        {"metric": "duplicateValues", "mustBe": 0, "arguments": {"properties": ["day", "x"]}},
        {"type": "custom", "engine": "causeway", "implementation": {"metric": "quarantineShare", "mustBeLessThan": 5}},
    ]
    contract = contract_of(tmp_path, {"logicalType": "string", "unique": True, "quality": checks}, table)
    rules = {rule.name: rule for rule in batch_rules(contract)}
    assert list(rules) == [
        "x.unique", "x.nullValues", "x.invalidValues", "x.invalidValues#2", "x.duplicateValues", "rowCount",
        "duplicateValues", "quarantineShare",
    ]  # fmt: skip
    assert rules["x.invalidValues#2"].severity == "warning"
    assert rules["duplicateValues"].arguments["columns"] == ["day", "x"]
    assert rules["quarantineShare"].arguments["unit"] == "percent"
    assert [rule.name for rule in row_rules(contract)] == ["record.decodes"]


def test_the_older_spelling_of_a_metric_means_the_metric_of_today(tmp_path: Path) -> None:
    checks: list[dict[str, Any]] = [
        {"type": "library", "rule": "nullCheck", "mustBeLessThan": 3},
        {"type": "library", "rule": "duplicateCount", "mustBe": 0},
        {"type": "library", "rule": "validValues", "mustBe": 0, "arguments": {"validValues": ["a"]}},
    ]
    table: list[dict[str, Any]] = [{"type": "library", "rule": "countCheck", "mustBeGreaterThan": 0}]
    contract = contract_of(tmp_path, {"logicalType": "string", "quality": checks}, table, version="v3.0.2")
    found = {rule.name: rule.arguments["operator"] for rule in batch_rules(contract)}
    assert found == {"x.nullValues": "mustBeLessThan", "x.duplicateValues": "mustBe", "rowCount": "mustBeGreaterThan"}
    assert [rule.name for rule in row_rules(contract)] == ["record.decodes", "x.validValues"]


@pytest.mark.parametrize(
    ("column", "says"),
    [
        ({"logicalTypeOptions": {"format": "emial"}}, "format 'emial' of a string is not checked (perhaps email?)"),
        ({"logicalType": "number", "logicalTypeOptions": {"format": "f16"}}, "use one of f32, f64"),
        ({"logicalType": "date", "logicalTypeOptions": {"format": "yyyy-MM-dd HH"}}, "a date has no hour"),
        ({"logicalType": "timestamp", "logicalTypeOptions": {"format": "yyyy-bb"}}, "the letter b means nothing"),
        ({"logicalType": "timestamp", "logicalTypeOptions": {"format": "yyyy'T"}}, "quotation mark is not closed"),
        ({"logicalType": "timestamp", "logicalTypeOptions": {"defaultTimezone": "Europe/Oslo"}}, "is read as UTC"),
        ({"logicalTypeOptions": {"pattern": "(?=a)"}}, "no RE2 expression"),
        ({"logicalTypeOptions": {"minLength": 5, "maxLength": 4}}, "nothing passes"),
        ({"logicalType": "integer", "logicalTypeOptions": {"format": "i128"}}, "i128"),
        ({"logicalType": "integer", "logicalTypeOptions": {"minimum": 10**30}}, "is no integer"),
        ({"logicalType": "date", "logicalTypeOptions": {"minimum": "yesterday"}}, "is no date"),
        ({"logicalType": "integer", "enum": [{"value": 1.5}]}, "a value is no integer"),
        ({"logicalType": "string", "enum": [{"value": 1}]}, "a value is no string"),
        ({"quality": [{"type": "sql", "query": "DELETE FROM t", "mustBe": 0}]}, "it is no single SELECT"),
        ({"quality": [{"type": "custom", "engine": "soda", "implementation": "x"}]}, "engine soda cannot be run"),
        ({"quality": [{"metric": "rowCount", "mustBe": 1}]}, "metric rowCount of a column cannot be run"),
        ({"quality": [{"metric": "nullValues", "mustBe": "none"}]}, "is compared with 'none'"),
        ({"quality": [{"metric": "nullValues", "mustBe": 0, "unit": "dozen"}]}, "'dozen' is not allowed"),
        ({"quality": [{"metric": "nullValues", "mustBe": 0, "severity": "fatal"}]}, "'fatal' is not allowed"),
        ({"quality": [{"metric": "invalidValues", "mustBe": 0}]}, "has no arguments"),
        ({"quality": [{"metric": "nullValues", "mustBe": 0, "arguments": {"colour": 1}}]}, "no such argument"),
    ],
)
def test_a_rule_that_cannot_be_run_is_a_fault_with_its_line(tmp_path: Path, column: dict[str, Any], says: str) -> None:
    with pytest.raises(ContractError) as caught:
        contract_of(tmp_path, {"logicalType": "string", **column})
    assert says in str(caught.value) and re.match(r".*c\.yaml:\d+:\d+: schema\[t\]", str(caught.value))


def test_a_rule_over_a_column_that_is_not_there_is_a_fault(tmp_path: Path) -> None:
    quality = [{"metric": "duplicateValues", "mustBe": 0, "arguments": {"properties": ["dya"]}}]
    with pytest.raises(ContractError, match=r"no column 'dya' \(perhaps day"):
        contract_of(tmp_path, {"logicalType": "string"}, quality)


@pytest.mark.parametrize(
    ("operator", "value", "passing", "breaking"),
    [
        ("mustBe", 0, 0, 1),
        ("mustNotBe", 0, 1, 0),
        ("mustBeGreaterThan", 1, 2, 1),
        ("mustBeGreaterOrEqualTo", 1, 1, 0),
        ("mustBeLessThan", 1, 0, 1),
        ("mustBeLessOrEqualTo", 1, 1, 2),
        ("mustBeBetween", [1, 2], 2, 3),
        ("mustNotBeBetween", [1, 2], 3, 1),
    ],
)
def test_every_operator_of_the_standard_compares(operator: str, value: Any, passing: int, breaking: int) -> None:
    rule = BatchRule("r", "rowCount", {"operator": operator, "value": value}, "", "error")
    assert holds(rule, passing) and not holds(rule, breaking)


@given(st.lists(st.none() | st.text(max_size=8)), st.integers(0, 5), st.integers(0, 5))
def test_length_rules_agree_with_python(values: list[str | None], least: int, most: int) -> None:
    batch = pa.record_batch({"x": pa.array(values, pa.string())})
    low = failing(RowRule("x.minLength", "x", "minLength", {"value": least}, ""), batch).to_pylist()
    high = failing(RowRule("x.maxLength", "x", "maxLength", {"value": most}, ""), batch).to_pylist()
    assert low == [value is not None and len(value) < least for value in values]
    assert high == [value is not None and len(value) > most for value in values]


_bounds = {
    "minimum": lambda v, b: v < b,
    "maximum": lambda v, b: v > b,
    "exclusiveMinimum": lambda v, b: v <= b,
    "exclusiveMaximum": lambda v, b: v >= b,
}


@given(
    st.sampled_from(sorted(_bounds)),
    st.lists(st.none() | st.integers(-(2**63), 2**63 - 1)),
    st.integers(-(2**62), 2**62) | st.floats(-(2.0**60), 2.0**60),
)
def test_integer_bounds_agree_with_exact_arithmetic(kind: str, values: list[int | None], bound: float) -> None:
    rule = RowRule("x", "x", kind, {"value": bound, "logicalType": "integer"}, "")
    found = failing(rule, pa.record_batch({"x": pa.array(values, pa.int64())})).to_pylist()
    assert found == [value is not None and _bounds[kind](value, bound) for value in values]


@pytest.mark.parametrize("distinct", [3, 5000], ids=["few values", "many values"])
def test_a_pattern_over_a_long_column_says_the_same_of_each_value(tmp_path: Path, distinct: int) -> None:
    contract = contract_of(tmp_path, {"logicalType": "string", "logicalTypeOptions": {"pattern": "^[0-9]*[02468]$"}})
    values = [None if n % 11 == 0 else str(n % distinct) for n in range(10_000)]
    expected = [value is not None and int(value) % 2 == 1 for value in values]
    assert verdicts(contract, "x.pattern", pa.array(values)) == expected
