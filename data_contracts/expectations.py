"""The rules of a contract as a Great Expectations suite: a second opinion on validation, and Data Docs.

Every rule stands in one expectation of GX's own library (1.x), whose `meta` holds the rule's name. What GX has no
expectation for is computed by `verdicts` into a column of the rule's name that must be True; so are patterns, which
GX's own reads as RE2 or as Python's re, as the version of pandas will have it. GX sees values only in memory: results
and Data Docs hold counts and row numbers, because values may be restricted.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from data_contracts.batchchecks import BatchCheck
from data_contracts.checks import gx
from data_contracts.contract import Contract
from data_contracts.errors import CausewayError, DataRefused
from data_contracts.rowchecks import bound_scalar, constants
from data_contracts.rules import BatchRule, RowRule, batch_rules, failing, row_rules
from data_contracts.ruling.context import NOTHING, RuleContext
from data_contracts.sources.records import source_schema
from data_contracts.validation import DUPLICATE_KEY, Report
from data_contracts.verdicts import SECOND, observed_by, passes

if TYPE_CHECKING:
    import pandas as pd

_LOG = logging.getLogger(__name__)
_ROWS, _PARTITION = "rows", "partition"
_BY_PEOPLE = ("acceptanceSampling",)


def suite(contract: Contract) -> Any:
    """Return the ExpectationSuite of a contract: its row rules, its key, and its batch rules (`meta.scope` partition).

    Row rules expect a frame of `source_schema`; a batch rule expects a column of its name with what was observed.
    """
    library = gx.library()
    expectations = [
        *(row_expectation(rule, computed=_trips_over_null(rule)) for rule in row_rules(contract)),
        *_key_expectations(library.expectations, contract),
        *(_batch_expectation(library.expectations, rule) for rule in _judged_by_figures(contract)),
    ]
    return library.ExpectationSuite(name=contract.slug, expectations=expectations)


def run_expectations(
    contract: Contract,
    records: pa.Table | Sequence[pa.Table],
    docs_dir: Path | None,
    contexts: Sequence[RuleContext] = (),
) -> dict[str, int]:
    """Run the suite over all records of one partition or several, as a source gives them; Data Docs to `docs_dir`.

    Returns rule -> number of failing rows; for a batch rule the number of partitions that fail it. Keys repeat within
    a partition only. `contexts` are those of the partitions. Memory holds all tables.

    Raises:
        DataRefused: the table is not of `source_schema(contract)`.
        CausewayError: GX could not run an expectation.
    """
    schema = source_schema(contract)
    tables = [records] if isinstance(records, pa.Table) else list(records)
    if not all(table.schema.equals(schema) for table in tables):
        raise DataRefused(
            f"{contract.id}: expectations run over the batches of a source; its columns are {schema.names}"
        )
    ours, contexts = _context(docs_dir), contexts or [NOTHING] * len(tables)
    verdicts = {rule.name: 0 for rule in row_rules(contract)} | ({DUPLICATE_KEY: 0} if contract.primary_key else {})
    refused = np.zeros(sum(table.num_rows for table in tables), dtype=np.bool_)
    if len(refused):
        frames = [frame_for(contract, t, context) for t, context in zip(tables, contexts, strict=True) if t.num_rows]
        frame = _pandas().concat(frames, ignore_index=True)
        for name, result in _run(gx.library(), ours, contract, _ROWS, frame):
            verdicts[name] += int(result["unexpected_count"])
            refused[list(result.get("unexpected_index_list") or [])] = True
    rules = _judged_by_figures(contract)
    if rules and tables:
        ends = np.cumsum([table.num_rows for table in tables])[:-1]
        parts = list(zip(tables, np.split(refused, ends), contexts, strict=True))
        observed = {
            rule.name: [
                _observed(rule, contract, t.filter(pa.array(~part)), part, context) for t, part, context in parts
            ]
            for rule in rules
        }
        for name, result in _run(gx.library(), ours, contract, _PARTITION, _pandas().DataFrame(observed)):
            verdicts[name] = int(result["unexpected_count"])
    if docs_dir is not None:
        ours.build_data_docs()
    return verdicts


def _judged_by_figures(contract: Contract) -> tuple[BatchRule, ...]:
    return tuple(rule for rule in batch_rules(contract) if rule.kind not in _BY_PEOPLE)


def _observed(rule: BatchRule, contract: Contract, accepted: pa.Table, refused: Any, context: RuleContext) -> Any:
    """The figure of a batch rule by a second implementation, by GX itself, or where there is neither once more by ours.

    An expectation's column says whether it holds.
    """
    if rule.kind in ("expectation", "mostly"):
        return holds_in_gx(rule, contract, accepted)
    if rule.kind in SECOND:
        return observed_by(rule, accepted, refused)
    check = BatchCheck(rule, contract, context)
    check.add(accepted)
    found = check.judge(len(refused), accepted.num_rows)
    if rule.arguments["operator"] == "mustNotBeBetween":
        low, high = rule.arguments["value"]
        return low <= found.observed <= high
    return found.observed


def holds_in_gx(rule: BatchRule, contract: Contract, accepted: pa.Table) -> bool:
    """Say whether GX itself finds that a rule of engine greatExpectations holds over a table."""
    if not accepted.num_rows:
        return BatchCheck(rule, contract).judge(0, 0).passed  # GX cannot run most of them over no rows
    given = rule.arguments["rules"][0].arguments if rule.kind == "mostly" else rule.arguments
    shares = {"mostly": rule.arguments["mostly"]} if rule.arguments["mostly"] < 1 else {}
    columns = [name for name in accepted.column_names if not name.startswith("_")]
    (result,) = gx.results(gx.frame_of(accepted.select(columns)), [native(given, **shares)])
    return bool(result.success)


def native(given: Mapping[str, Any], **more: Any) -> Any:
    """Return an expectation of GX from a rule's arguments; constants are of their column's type, as in the frame."""
    kwargs = dict(given["kwargs"])
    logical = given["types"].get(kwargs.get("column"))
    if logical in ("date", "timestamp"):
        for key in ("min_value", "max_value"):
            if kwargs.get(key) is not None and given["expectation"] == "expect_column_values_to_be_between":
                kwargs[key] = constants([kwargs[key]], logical)[0].as_py()
        if "value_set" in kwargs:
            kwargs["value_set"] = constants(kwargs["value_set"], logical).to_pylist()
    return gx.made(given["expectation"], kwargs, **more)


def agreement(report: Report, verdicts: Mapping[str, int]) -> list[str]:
    """Return every difference between a validation report and the verdicts of `run_expectations`, as sentences."""
    failed: dict[str, int] = {}
    for result in report.batch_results:
        if result.rule.kind not in _BY_PEOPLE:
            failed[result.rule.name] = failed.get(result.rule.name, 0) + int(not result.passed)
    ours = {**dict(report.reasons), **failed}
    return [
        f"{name}: validation counts {ours.get(name, 0)}, expectations {verdicts.get(name, 0)}"
        for name in sorted({*ours, *verdicts})
        if ours.get(name, 0) != verdicts.get(name, 0)
    ]


def _pandas() -> Any:
    import pandas

    return pandas


def _context(docs_dir: Path | None) -> Any:
    context = gx.library().get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False, "metric_calculations": False}
    for site in list(context.get_site_names()):
        context.delete_data_docs_site(site)
    if docs_dir is not None:
        context.add_data_docs_site(
            "causeway",
            {
                "class_name": "SiteBuilder",
                "store_backend": {
                    "class_name": "TupleFilesystemStoreBackend",
                    "base_directory": str(docs_dir.absolute()),
                },
                "site_index_builder": {"class_name": "DefaultSiteIndexBuilder"},
            },
        )
    return context


def _run(
    library: Any, context: Any, contract: Contract, scope: str, frame: pd.DataFrame
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (rule, GX result) of each expectation of one scope."""
    name = f"{contract.slug}-{scope}"
    chosen = [entry for entry in suite(contract).expectations if entry.meta["scope"] == scope]
    for entry in chosen:
        entry.id = None
    part = context.suites.add(library.ExpectationSuite(name=name, expectations=chosen))
    asset = context.data_sources.add_pandas(name).add_dataframe_asset(name)
    batch = asset.add_batch_definition_whole_dataframe(name)
    definition = context.validation_definitions.add(library.ValidationDefinition(name=name, data=batch, suite=part))
    outcome = definition.run(batch_parameters={"dataframe": frame}, result_format=gx.RESULT)
    for result in outcome.results:
        rule = result.expectation_config.meta["rule"]
        if "unexpected_count" not in result.result:
            _LOG.error("%s: Great Expectations could not run %s: %s", contract.id, rule, result.exception_info)
            raise CausewayError(
                f"{contract.id}: Great Expectations could not run {rule}: {gx.error_type(result.exception_info)}; "
                "the process' own log has the message"
            )
        yield rule, result.result


def row_expectation(rule: RowRule, *, computed: bool = False) -> Any:
    """Return the expectation of a row rule; without one in GX, or `computed`: that the column of its name be True."""
    library = gx.library().expectations
    given, column = rule.arguments, rule.column
    common = {"meta": {"rule": rule.name, "scope": _ROWS}, "description": rule.description}
    match rule.kind:
        case "decodes":
            return library.ExpectColumnValuesToBeNull(column=column, **common)
        case "required":
            return library.ExpectColumnValuesToNotBeNull(column=column, **common)
        case "minLength":
            return library.ExpectColumnValueLengthsToBeBetween(column=column, min_value=given["value"], **common)
        case "maxLength":
            return library.ExpectColumnValueLengthsToBeBetween(column=column, max_value=given["value"], **common)
        case "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" if _is_exact(given):
            bound = bound_scalar(rule.kind, given["value"], given["logicalType"]).as_py()
            side = "min" if rule.kind.lower().endswith("minimum") else "max"
            limits = {f"{side}_value": bound, f"strict_{side}": rule.kind.startswith("exclusive")}
            return library.ExpectColumnValuesToBeBetween(column=column, **limits, **common)
        case "enum" | "validValues" if given["logicalType"] in ("string", "integer"):
            values = constants(given["values"], given["logicalType"]).to_pylist()
            return library.ExpectColumnValuesToBeInSet(column=column, value_set=values, **common)
        case "expectation" if not computed:
            return native(given, **common)
        case _:
            return library.ExpectColumnValuesToBeInSet(column=rule.name, value_set=[True], **common)


def _trips_over_null(rule: RowRule) -> bool:
    """Whether GX cannot run it where an integer is NULL ("boolean value of NA is ambiguous")."""
    types = rule.arguments.get("types", {}) if rule.kind == "expectation" else {}
    return len(types) > 1 and "integer" in types.values()


def _is_exact(given: Mapping[str, Any]) -> bool:
    """Whether a bound is a number that GX keeps: it makes float64 of 2^53 + 1."""
    logical = given["logicalType"]
    return bool(logical == "number" or (logical == "integer" and abs(given["value"]) <= 2**53))


def _key_expectations(library: Any, contract: Contract) -> Iterator[Any]:
    if contract.primary_key:
        meta = {"rule": DUPLICATE_KEY, "scope": _ROWS}
        words = f"no earlier record has the same {', '.join(contract.primary_key)}"
        yield library.ExpectColumnValuesToBeInSet(column=DUPLICATE_KEY, value_set=[True], meta=meta, description=words)


def _batch_expectation(library: Any, rule: BatchRule) -> Any:
    if rule.kind in ("expectation", "mostly"):
        # Its column says whether it holds: the library's own result over the accepted rows.
        return library.ExpectColumnValuesToBeInSet(
            column=rule.name,
            value_set=[True],
            meta={"rule": rule.name, "scope": _PARTITION},
            description=rule.description,
            severity="critical" if rule.severity == "error" else "warning",
        )
    value = rule.arguments["value"]
    common = {
        "column": rule.name,
        "meta": {"rule": rule.name, "scope": _PARTITION},
        "description": rule.description,
        "severity": "critical" if rule.severity == "error" else "warning",
    }
    match rule.arguments["operator"]:
        case "mustNotBe":
            return library.ExpectColumnValuesToNotBeInSet(value_set=[value], **common)
        case "mustNotBeBetween":
            # The figure's column says whether it lies between.
            return library.ExpectColumnValuesToBeInSet(value_set=[False], **common)
        case "mustBe":
            limits = {"min_value": value, "max_value": value}
        case "mustBeBetween":
            limits = {"min_value": value[0], "max_value": value[1]}
        case "mustBeGreaterThan" | "mustBeGreaterOrEqualTo" as operator:
            limits = {"min_value": value, "strict_min": operator == "mustBeGreaterThan"}
        case "mustBeLessThan" | "mustBeLessOrEqualTo" as operator:
            limits = {"max_value": value, "strict_max": operator == "mustBeLessThan"}
        case other:
            raise CausewayError(f"rule {rule.name}: {other!r} is no operator")
    return library.ExpectColumnValuesToBeBetween(**limits, **common)


def frame_for(contract: Contract, table: pa.Table, context: RuleContext = NOTHING) -> pd.DataFrame:
    """The records in pandas, and a column of verdicts for each row rule that GX has no expectation for."""
    frame = gx.frame_of(table.drop_columns(["_raw"]))
    for rule in row_rules(contract, context):
        if _trips_over_null(rule):
            masks = [failing(rule, batch) for batch in table.to_batches()]
            frame[rule.name] = [not fails for mask in masks for fails in mask.to_pylist()]
        elif getattr(row_expectation(rule), "column", None) == rule.name:
            names = rule.arguments["columns"] if rule.kind == "foreignKey" else [rule.column]
            values = zip(*(table.column(name).to_pylist() for name in names), strict=True)
            frame[rule.name] = [passes(rule, *row) for row in values]
    if contract.primary_key:
        key = list(contract.primary_key)
        known = frame[key].notna().all(axis=1)
        frame[DUPLICATE_KEY] = ~(frame.duplicated(key) & known)
    return frame
