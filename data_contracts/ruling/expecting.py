"""Quality entries of `engine: greatExpectations`: any expectation of GX's own library, by its name there.

Those about single rows become row rules, the others batch rules. Where there is an Arrow kernel it runs, else Great
Expectations itself does; `runs` of the rule says which. Source: `great_expectations.expectations`, 1.x.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from data_contracts.odcs import Fault, FieldPath, nearest
from data_contracts.rowchecks import bound_scalar, constants, pattern_fault
from data_contracts.ruling.comparison import severity_fault
from data_contracts.ruling.kinds import SEVERITIES, BatchRule, Engine, Finding, RowRule

_MIN_MAX = ("min_value", "max_value")
_STRICT = (*_MIN_MAX, "strict_min", "strict_max")
_NUMERIC = ("integer", "number")
_ORDERED = (*_NUMERIC, "date", "timestamp")
_ANY = (*_ORDERED, "string", "boolean")
_TEXT = ("string",)


@dataclass(frozen=True)
class Expectation:
    """What is known of one: what it is about, its arguments, the types it takes, and where it runs."""

    about: Literal["column", "pair", "columns", "table"]
    level: Literal["row", "batch"]
    runs: Engine
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    types: tuple[str, ...] = _ANY


def _rows(runs: Engine, required: tuple[str, ...], types: tuple[str, ...] = _ANY, *optional: str) -> Expectation:
    return Expectation("column", "row", runs, required, (*optional, "mostly"), types)


def _figure(runs: Engine, required: tuple[str, ...], optional: tuple[str, ...], *types: str) -> Expectation:
    return Expectation("column", "batch", runs, required, optional, types or _ANY)


_GX: Engine = "great-expectations"
EXPECTATIONS: dict[str, Expectation] = {
    "expect_column_values_to_not_be_null": _rows("arrow", ()),
    "expect_column_values_to_be_null": _rows("arrow", ()),
    "expect_column_values_to_be_in_set": _rows("arrow", ("value_set",)),
    "expect_column_values_to_not_be_in_set": _rows("arrow", ("value_set",)),
    "expect_column_values_to_be_between": _rows("arrow", (), _ORDERED, *_STRICT),
    "expect_column_value_lengths_to_be_between": _rows("arrow", (), _TEXT, *_STRICT),
    "expect_column_value_lengths_to_equal": _rows("arrow", ("value",), _TEXT),
    "expect_column_values_to_match_regex": _rows("arrow", ("regex",), _TEXT),
    "expect_column_values_to_not_match_regex": _rows("arrow", ("regex",), _TEXT),
    "expect_column_values_to_match_regex_list": _rows("arrow", ("regex_list",), _TEXT, "match_on"),
    "expect_column_values_to_not_match_regex_list": _rows("arrow", ("regex_list",), _TEXT),
    "expect_column_values_to_match_like_pattern": _rows("arrow", ("like_pattern",), _TEXT),
    "expect_column_values_to_not_match_like_pattern": _rows("arrow", ("like_pattern",), _TEXT),
    "expect_column_values_to_match_like_pattern_list": _rows("arrow", ("like_pattern_list",), _TEXT, "match_on"),
    "expect_column_values_to_not_match_like_pattern_list": _rows("arrow", ("like_pattern_list",), _TEXT),
    "expect_column_values_to_match_strftime_format": _rows(_GX, ("strftime_format",), _TEXT),
    "expect_column_values_to_be_dateutil_parseable": _rows(_GX, (), _TEXT),
    "expect_column_values_to_be_json_parseable": _rows(_GX, (), _TEXT),
    "expect_column_values_to_match_json_schema": _rows(_GX, ("json_schema",), _TEXT),
    "expect_column_pair_values_a_to_be_greater_than_b": Expectation(
        "pair", "row", "arrow", (), ("or_equal", "ignore_row_if", "mostly"), (*_ORDERED, "string")
    ),
    "expect_column_pair_values_to_be_equal": Expectation("pair", "row", "arrow", (), ("ignore_row_if", "mostly")),
    "expect_column_pair_values_to_be_in_set": Expectation(
        "pair", "row", "arrow", ("value_pairs_set",), ("ignore_row_if", "mostly")
    ),
    "expect_multicolumn_sum_to_equal": Expectation(
        "columns", "row", "arrow", ("sum_total",), ("ignore_row_if", "mostly"), _NUMERIC
    ),
    "expect_multicolumn_values_to_be_equal": Expectation("columns", "row", "arrow", (), ("ignore_row_if", "mostly")),
    "expect_select_column_values_to_be_unique_within_record": Expectation(
        "columns", "row", "arrow", (), ("ignore_row_if", "mostly")
    ),
    "expect_compound_columns_to_be_unique": Expectation("columns", "batch", "arrow", (), ("ignore_row_if", "mostly")),
    "expect_column_values_to_be_unique": _figure("arrow", (), ("mostly",)),
    "expect_column_values_to_be_increasing": _figure("arrow", (), ("strictly", "mostly"), *_NUMERIC, "timestamp"),
    "expect_column_values_to_be_decreasing": _figure("arrow", (), ("strictly", "mostly"), *_NUMERIC, "timestamp"),
    "expect_column_min_to_be_between": _figure("arrow", (), _STRICT, *_NUMERIC),
    "expect_column_max_to_be_between": _figure("arrow", (), _STRICT, *_NUMERIC),
    "expect_column_mean_to_be_between": _figure("arrow", (), _STRICT, *_NUMERIC),
    "expect_column_sum_to_be_between": _figure("arrow", (), _STRICT, *_NUMERIC),
    "expect_column_stdev_to_be_between": _figure("arrow", (), _STRICT, *_NUMERIC),
    "expect_column_unique_value_count_to_be_between": _figure("arrow", (), _STRICT),
    "expect_column_proportion_of_unique_values_to_be_between": _figure("arrow", (), _STRICT),
    "expect_column_proportion_of_non_null_values_to_be_between": _figure("arrow", (), _STRICT),
    "expect_column_distinct_values_to_be_in_set": _figure("arrow", ("value_set",), ()),
    "expect_column_distinct_values_to_contain_set": _figure("arrow", ("value_set",), ()),
    "expect_column_distinct_values_to_equal_set": _figure("arrow", ("value_set",), ()),
    "expect_column_median_to_be_between": _figure(_GX, (), _STRICT, *_NUMERIC),
    "expect_column_quantile_values_to_be_between": _figure(
        _GX, ("quantile_ranges",), ("allow_relative_error",), *_NUMERIC
    ),
    "expect_column_most_common_value_to_be_in_set": _figure(_GX, ("value_set",), ("ties_okay",)),
    "expect_column_kl_divergence_to_be_less_than": _figure(
        _GX,
        ("partition_object",),
        ("threshold", "internal_weight_holdout", "tail_weight_holdout", "bucketize_data", *_MIN_MAX),
    ),
    "expect_column_value_z_scores_to_be_less_than": _figure(_GX, ("threshold", "double_sided"), ("mostly",), *_NUMERIC),
    "expect_column_values_to_not_be_outliers": _figure(_GX, (), ("method", "multiplier", "mostly"), *_NUMERIC),
    "expect_column_values_to_be_of_type": _figure(_GX, ("type_",), ("mostly",)),
    "expect_column_values_to_be_in_type_list": _figure(_GX, ("type_list",), ("mostly",)),
    "expect_column_type_to_be": _figure(_GX, ("type_",), ()),
    "expect_column_to_exist": _figure("arrow", (), ("column_index",)),
    "expect_table_row_count_to_be_between": Expectation("table", "batch", "arrow", (), _STRICT),
    "expect_table_row_count_to_equal": Expectation("table", "batch", "arrow", ("value",)),
    "expect_table_column_count_to_be_between": Expectation("table", "batch", "arrow", (), _MIN_MAX),
    "expect_table_column_count_to_equal": Expectation("table", "batch", "arrow", ("value",)),
    "expect_table_columns_to_match_ordered_list": Expectation("table", "batch", "arrow", ("column_list",)),
    "expect_table_columns_to_match_set": Expectation("table", "batch", "arrow", ("column_set",), ("exact_match",)),
}
# GX runs these against a database only.
NEED_SQL = (
    "expect_query_results_to_match_comparison", "expect_table_row_count_to_equal_other_table",
    "unexpected_rows_expectation",
)  # fmt: skip
# GX has a class of that name and no metric for it.
EMPTY = ("expect_multicolumn_values_to_be_unique",)
_PAIR = ("column_A", "column_B")
_IGNORE = {
    "pair": ("both_values_are_missing", "either_value_is_missing", "neither"),
    "columns": ("all_values_are_missing", "any_value_is_missing", "never"),
}


def expectation_findings(
    check: Mapping[str, Any], column: Mapping[str, Any] | None, types: Mapping[str, str], path: FieldPath
) -> Iterator[Finding]:
    """Translate an entry; `implementation` is {type: name, kwargs: {...}} or that as YAML or JSON text."""
    path = (*path, "implementation")
    given = _read(check.get("implementation"))
    name = _name(given)
    if given is None or name is None:
        yield Fault(path, "no expectation is named; write {type: expect_column_values_to_..., kwargs: {...}}")
        return
    if name in NEED_SQL:
        yield Fault(path, f"{name} asks a database, and there is none; write it as a rule of type sql")
        return
    if name not in EXPECTATIONS:
        yield Fault(path, f"Great Expectations has no {name}{nearest(name, EXPECTATIONS)}; correct it")
        return
    known = EXPECTATIONS[name]
    kwargs = {_snake(key): value for key, value in (given.get("kwargs") or {}).items()}
    if column is not None and known.about == "column":
        kwargs.setdefault("column", column["name"])
    severity = {name: entry[name] for entry in (given, check) for name in ("severity",) if name in entry}
    faults = [*_faults(name, known, kwargs, types, path), *severity_fault(severity, path)]
    if faults:
        yield from faults
        return
    columns = [name for name in _columns(known, kwargs) if name in types]
    mostly = float(kwargs.pop("mostly", 1.0))
    if known.about in _IGNORE:
        kwargs.setdefault("ignore_row_if", _IGNORE[known.about][0])
    words = check.get("description") or given.get("description") or _words(name, kwargs, mostly)
    label = f"{kwargs['column']}.{name}" if known.about == "column" else name
    weight = SEVERITIES[severity.get("severity", "error")]
    inner: dict[str, Any] = {
        "expectation": name,
        "kwargs": kwargs,
        "types": {key: types[key] for key in columns if key in types},
    }
    if known.level == "row":
        rule = RowRule(label, columns[0], "expectation", inner, words, known.runs)
        if mostly == 1.0 and weight == "error":
            yield rule
            return
        inner = {"rules": (rule,)}
    compared = {"columns": columns, "operator": "mustBe", "value": 0, "unit": "rows", "mostly": mostly}
    kind = "mostly" if known.level == "row" else "expectation"
    yield BatchRule(label, kind, {**compared, **inner}, words, weight, known.runs)


def _read(given: Any) -> Mapping[str, Any] | None:
    if isinstance(given, str):
        try:
            given = YAML(typ="safe", pure=True).load(given)
        except YAMLError:
            return None
    return given if isinstance(given, dict) and isinstance(given.get("kwargs") or {}, dict) else None


def _name(given: Mapping[str, Any] | None) -> str | None:
    named = [given[key] for key in ("expectation", "type", "expectation_type") if key in given] if given else []
    return _snake(named[0]) if named and isinstance(named[0], str) else None


def _snake(name: str) -> str:
    """`minValue` and `ExpectColumnToExist` as GX writes them in Python; column_A stays."""
    return name if name in _PAIR else re.sub(r"(?<=[a-z0-9])([A-Z])", r"_\1", name).lower()


def _columns(known: Expectation, kwargs: Mapping[str, Any]) -> list[str]:
    if known.about == "column":
        return [kwargs["column"]]
    if known.about == "pair":
        return [kwargs[name] for name in _PAIR]
    return list(kwargs["column_list"]) if known.about == "columns" else []


def _words(name: str, kwargs: Mapping[str, Any], mostly: float) -> str:
    listed = ", ".join(f"{key}={value!r}" for key, value in kwargs.items())
    return f"{name}({listed[:200]}{', ...' if len(listed) > 200 else ''})" + (f" for {mostly:.6g}" * (mostly < 1))


def _faults(
    name: str, known: Expectation, kwargs: Mapping[str, Any], types: Mapping[str, str], path: FieldPath
) -> Iterator[Fault]:
    path = (*path, "kwargs")
    subject = {"column": ("column",), "pair": _PAIR, "columns": ("column_list",), "table": ()}[known.about]
    allowed = (*subject, *known.required, *known.optional)
    for key in kwargs:
        if key not in allowed:
            listed = ", ".join(allowed) or "none"
            yield Fault((*path, key), f"{name} has no such argument here{nearest(key, allowed)}; it has {listed}")
    missing = [key for key in (*subject, *known.required) if key not in kwargs]
    if missing:
        yield Fault(path, f"{name} needs {', '.join(missing)}; add it")
        return
    listed_columns = kwargs.get("column_list", ()) if known.about == "columns" else [kwargs[key] for key in subject]
    if not isinstance(listed_columns, list | tuple) or (known.about == "columns" and len(listed_columns) < 2):
        yield Fault((*path, "column_list"), f"{listed_columns!r} are no two columns; list at least two")
        return
    for column in listed_columns:
        if column not in types:
            if name != "expect_column_to_exist":
                yield Fault(path, f"there is no column {column!r}{nearest(column, types)}; correct it")
        elif types[column] not in known.types:
            yield Fault(
                path, f"{name} asks for a column of type {' or '.join(known.types)}, {column} is {types[column]}"
            )
    kinds = {types[column] for column in listed_columns if column in types}
    if known.about in _IGNORE:
        if len(kinds) > 1 and not kinds <= set(_NUMERIC) and known.required != ("value_pairs_set",):
            yield Fault(path, f"{name} compares columns of types {', '.join(sorted(kinds))}; name columns of one type")
        given = kwargs.get("ignore_row_if", _IGNORE[known.about][0])
        if given not in _IGNORE[known.about]:
            yield Fault(
                (*path, "ignore_row_if"), f"{given!r} is not allowed; use one of {', '.join(_IGNORE[known.about])}"
            )
    yield from _value_faults(name, kwargs, next(iter(kinds), "string"), known, path)


def _value_faults(
    name: str, kwargs: Mapping[str, Any], logical: str, known: Expectation, path: FieldPath
) -> Iterator[Fault]:
    mostly = kwargs.get("mostly", 1.0)
    if isinstance(mostly, bool) or not isinstance(mostly, int | float) or not 0 <= mostly <= 1:
        yield Fault((*path, "mostly"), f"{mostly!r} is no share; give a number from 0 to 1")
    bounds = [(key, kwargs[key]) for key in _MIN_MAX if kwargs.get(key) is not None]
    if "min_value" in known.optional and not bounds and name != "expect_column_kl_divergence_to_be_less_than":
        yield Fault(path, f"{name} has neither min_value nor max_value; give one")
    of_values = name == "expect_column_values_to_be_between"
    for key, bound in bounds:
        try:
            bound_scalar("minimum", bound, logical if of_values else "number")
        except ValueError as error:
            yield Fault((*path, key), f"{bound!r} is no {logical if of_values else 'number'}: {error}; correct it")
            return
    if len(bounds) == 2 and type(bounds[0][1]) is type(bounds[1][1]) and bounds[0][1] > bounds[1][1]:
        yield Fault((*path, "min_value"), "more than max_value, so nothing passes; correct one")
    for reference in _references(kwargs.get("json_schema")):
        if not reference.startswith("#"):
            yield Fault(
                (*path, "json_schema"), f"{reference!r} would be fetched; write the schema out, with $ref '#/...' only"
            )
    if "value_set" in kwargs:
        listed = kwargs["value_set"]
        try:
            constants([v for v in listed if v is not None] if isinstance(listed, list) else [listed, None], logical)
        except ValueError as error:
            yield Fault((*path, "value_set"), f"a value is no {logical}: {error}; correct it")
    patterns = kwargs.get("regex_list", [kwargs["regex"]] if "regex" in kwargs else [])
    if not isinstance(patterns, list) or ("regex_list" in kwargs and not patterns):
        yield Fault((*path, "regex_list"), f"{patterns!r} is no list of expressions; give at least one")
        return
    for pattern in patterns:
        problem = pattern_fault(pattern)
        if problem:
            yield Fault(path, f"{pattern!r} is no RE2 expression: {problem}; RE2 has no look-around or back-references")
    likes = kwargs.get("like_pattern_list", [kwargs["like_pattern"]] if "like_pattern" in kwargs else ["%"])
    if not isinstance(likes, list) or not likes or not all(isinstance(like, str) for like in likes):
        yield Fault(path, f"{likes!r} is no list of patterns of LIKE; give texts with % and _")
    if kwargs.get("match_on", "any") not in ("any", "all"):
        yield Fault((*path, "match_on"), f"{kwargs['match_on']!r} is not allowed; use any or all")


def _references(schema: Any) -> Iterator[str]:
    """Every $ref of a JSON schema, and the like: what may lead out of it."""
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key in ("$ref", "$dynamicRef", "$recursiveRef") and isinstance(value, str):
                yield value
            yield from _references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from _references(value)
