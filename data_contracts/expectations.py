"""The rules of a contract as a Great Expectations suite: a second opinion on validation, and Data Docs.

Every rule stands in one expectation of GX's own library (1.x), whose `meta` holds the rule's name. What GX has no
expectation for is computed by `verdicts` into a column of the rule's name that must be True; so are patterns, which
GX's own reads as RE2 or as Python's re, as the version of pandas will have it. GX sees values only in memory: results
and Data Docs hold counts and row numbers, because values may be restricted.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from data_contracts.contract import Contract
from data_contracts.errors import CausewayError, DataRefused
from data_contracts.rowchecks import bound_scalar, constants
from data_contracts.rules import BatchRule, RowRule, batch_rules, row_rules
from data_contracts.sources.records import source_schema
from data_contracts.validation import DUPLICATE_KEY, Report
from data_contracts.verdicts import observed_by, passes

if TYPE_CHECKING:
    import pandas as pd

_LOG = logging.getLogger(__name__)
_RESULT = {"result_format": "COMPLETE", "partial_unexpected_count": 0, "include_unexpected_rows": False}
_ROWS, _PARTITION = "rows", "partition"


def suite(contract: Contract) -> Any:
    """Return the ExpectationSuite of a contract: its row rules, its key, and its batch rules (`meta.scope` partition).

    Row rules expect a frame of `source_schema`; a batch rule expects a column of its name with what was observed.
    """
    gx = _gx()
    expectations = [
        *(entry for rule in row_rules(contract) for entry in _row_expectations(gx.expectations, rule)),
        *_key_expectations(gx.expectations, contract),
        *(_batch_expectation(gx.expectations, rule) for rule in batch_rules(contract)),
    ]
    return gx.ExpectationSuite(name=contract.slug, expectations=expectations)


def run_expectations(
    contract: Contract, records: pa.Table | Sequence[pa.Table], docs_dir: Path | None
) -> dict[str, int]:
    """Run the suite over all records of one partition or several, as a source gives them; Data Docs to `docs_dir`.

    Returns rule -> number of failing rows; for a batch rule the number of partitions that fail it. Keys repeat within
    a partition only. Memory holds all tables.

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
    whole = suite(contract)
    gx, context = _gx(), _context(docs_dir)
    verdicts = {rule.name: 0 for rule in row_rules(contract)} | ({DUPLICATE_KEY: 0} if contract.primary_key else {})
    refused = np.zeros(sum(table.num_rows for table in tables), dtype=np.bool_)
    if len(refused):
        frame = _pandas().concat([_frame(contract, t) for t in tables if t.num_rows], ignore_index=True)
        for name, result in _run(gx, context, contract, whole, _ROWS, frame):
            verdicts[name] += int(result["unexpected_count"])
            refused[list(result.get("unexpected_index_list") or [])] = True
    rules = batch_rules(contract)
    if rules and tables:
        ends = np.cumsum([table.num_rows for table in tables])[:-1]
        parts = list(zip(tables, np.split(refused, ends), strict=True))
        observed = {r.name: [observed_by(r, t.filter(pa.array(~part)), part) for t, part in parts] for r in rules}
        for name, result in _run(gx, context, contract, whole, _PARTITION, _pandas().DataFrame(observed)):
            verdicts[name] = int(result["unexpected_count"])
    if docs_dir is not None:
        context.build_data_docs()
    return verdicts


def agreement(report: Report, verdicts: Mapping[str, int]) -> list[str]:
    """Return every difference between a validation report and the verdicts of `run_expectations`, as sentences."""
    failed: dict[str, int] = {}
    for result in report.batch_results:
        failed[result.rule.name] = failed.get(result.rule.name, 0) + int(not result.passed)
    ours = {**dict(report.reasons), **failed}
    return [
        f"{name}: validation counts {ours.get(name, 0)}, expectations {verdicts.get(name, 0)}"
        for name in sorted({*ours, *verdicts})
        if ours.get(name, 0) != verdicts.get(name, 0)
    ]


def _gx() -> Any:
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    import great_expectations

    return great_expectations


def _pandas() -> Any:
    import pandas

    return pandas


def _context(docs_dir: Path | None) -> Any:
    context = _gx().get_context(mode="ephemeral")
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
    gx: Any, context: Any, contract: Contract, whole: Any, scope: str, frame: pd.DataFrame
) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield (rule, GX result) of each expectation of one scope."""
    name = f"{contract.slug}-{scope}"
    chosen = [entry for entry in whole.expectations if entry.meta["scope"] == scope]
    for entry in chosen:
        entry.id = None
    part = context.suites.add(gx.ExpectationSuite(name=name, expectations=chosen))
    asset = context.data_sources.add_pandas(name).add_dataframe_asset(name)
    batch = asset.add_batch_definition_whole_dataframe(name)
    definition = context.validation_definitions.add(gx.ValidationDefinition(name=name, data=batch, suite=part))
    outcome = definition.run(batch_parameters={"dataframe": frame}, result_format=_RESULT)
    for result in outcome.results:
        rule = result.expectation_config.meta["rule"]
        if "unexpected_count" not in result.result:
            _LOG.error("%s: Great Expectations could not run %s: %s", contract.id, rule, result.exception_info)
            raise CausewayError(
                f"{contract.id}: Great Expectations could not run {rule}: {_error_type(result.exception_info)}; "
                "the process' own log has the message"
            )
        yield rule, result.result


def _error_type(exception_info: Any) -> str:
    """Return the type's name out of GX's account of an exception, whose words may quote a row."""
    traceback = str(exception_info.get("exception_traceback") or "") if isinstance(exception_info, dict) else ""
    if not traceback and isinstance(exception_info, dict):
        nested = [inner for inner in exception_info.values() if isinstance(inner, dict)]
        return _error_type(nested[0]) if nested else "an error"
    names = re.findall(r"^(?:[A-Za-z_]\w*\.)*([A-Za-z_]\w*(?:Error|Exception|Warning))\b", traceback, re.MULTILINE)
    return str(names[-1]) if names else "an error"


def _row_expectations(library: Any, rule: RowRule) -> Iterator[Any]:
    given, column = rule.arguments, rule.column
    common = {"meta": {"rule": rule.name, "scope": _ROWS}, "description": rule.description}
    match rule.kind:
        case "decodes":
            yield library.ExpectColumnValuesToBeNull(column=column, **common)
        case "required":
            yield library.ExpectColumnValuesToNotBeNull(column=column, **common)
        case "minLength":
            yield library.ExpectColumnValueLengthsToBeBetween(column=column, min_value=given["value"], **common)
        case "maxLength":
            yield library.ExpectColumnValueLengthsToBeBetween(column=column, max_value=given["value"], **common)
        case "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" if given["logicalType"] in _NUMBERS:
            bound = bound_scalar(rule.kind, given["value"], given["logicalType"]).as_py()
            side = "min" if rule.kind.lower().endswith("minimum") else "max"
            limits = {f"{side}_value": bound, f"strict_{side}": rule.kind.startswith("exclusive")}
            yield library.ExpectColumnValuesToBeBetween(column=column, **limits, **common)
        case "enum" | "validValues" if given["logicalType"] in ("string", "integer"):
            values = constants(given["values"], given["logicalType"]).to_pylist()
            yield library.ExpectColumnValuesToBeInSet(column=column, value_set=values, **common)
        case _:
            yield library.ExpectColumnValuesToBeInSet(column=rule.name, value_set=[True], **common)


_NUMBERS = ("integer", "number")


def _key_expectations(library: Any, contract: Contract) -> Iterator[Any]:
    if contract.primary_key:
        meta = {"rule": DUPLICATE_KEY, "scope": _ROWS}
        words = f"no earlier record has the same {', '.join(contract.primary_key)}"
        yield library.ExpectColumnValuesToBeInSet(column=DUPLICATE_KEY, value_set=[True], meta=meta, description=words)


def _batch_expectation(library: Any, rule: BatchRule) -> Any:
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


def _frame(contract: Contract, table: pa.Table) -> pd.DataFrame:
    """The records in pandas (nullable integers: a float column would round 2^53 + 1), and the computed verdicts."""
    pandas = _pandas()
    kinds = {pa.int64(): pandas.Int64Dtype(), pa.bool_(): pandas.BooleanDtype()}
    frame = table.drop_columns(["_raw"]).to_pandas(types_mapper=kinds.get)
    for rule in row_rules(contract):
        entries = list(_row_expectations(_gx().expectations, rule))
        if any(entry.column == rule.name for entry in entries):
            frame[rule.name] = [passes(rule, value) for value in table.column(rule.column).to_pylist()]
    if contract.primary_key:
        key = list(contract.primary_key)
        known = frame[key].notna().all(axis=1)
        frame[DUPLICATE_KEY] = ~(frame.duplicated(key) & known)
    return frame
