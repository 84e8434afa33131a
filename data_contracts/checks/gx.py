"""Great Expectations where a rule has no Arrow kernel: one suite over one frame in memory.

GX sees values only in memory: its results hold counts and row numbers, because values may be restricted.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.errors import CausewayError
from data_contracts.ruling.kinds import RowRule

_LOG = logging.getLogger(__name__)
RESULT = {"result_format": "COMPLETE", "partial_unexpected_count": 0, "include_unexpected_rows": False}


def library() -> Any:
    """Return Great Expectations; its import takes seconds."""
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    import great_expectations

    return great_expectations


def frame_of(table: pa.Table) -> Any:
    """Return a table as pandas with nullable integers: a float column would round 2^53 + 1."""
    import pandas

    kinds = {pa.int64(): pandas.Int64Dtype(), pa.bool_(): pandas.BooleanDtype()}
    return table.to_pandas(types_mapper=kinds.get)


def made(name: str, kwargs: Mapping[str, Any], **more: Any) -> Any:
    """Return an expectation by the name it has in GX (`expect_column_values_to_be_in_set`).

    Raises:
        CausewayError: GX has none of that name, or not with these arguments.
    """
    words = "".join(part.capitalize() for part in name.split("_"))
    kind = getattr(library().expectations, words, None)
    if kind is None:
        raise CausewayError(f"Great Expectations has no {name}; correct the rule")
    try:
        return kind(**kwargs, **more)
    except ValueError as error:
        raise CausewayError(f"{name}: Great Expectations refuses its arguments: {error}; correct the rule") from error


def results(frame: Any, expectations: Sequence[Any]) -> list[Any]:
    """Run expectations over a frame; results in their order.

    Raises:
        CausewayError: GX could not run one of them.
    """
    found = attempts(frame, expectations)
    for result in found:
        if _raised(result):
            name = result.expectation_config.type
            _LOG.error("Great Expectations could not run %s: %s", name, result.exception_info)
            raise CausewayError(
                f"Great Expectations could not run {name}: {error_type(result.exception_info)}; "
                "the process' own log has the message"
            )
    return found


def attempts(frame: Any, expectations: Sequence[Any]) -> list[Any]:
    """Run expectations over a frame; results in their order, also of those that GX could not run (`could_run`)."""
    if not expectations:
        return []
    gx = library()
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False, "metric_calculations": False}
    asset = context.data_sources.add_pandas("rows").add_dataframe_asset("rows")
    batch = asset.add_batch_definition_whole_dataframe("rows").get_batch(batch_parameters={"dataframe": frame})
    for position, entry in enumerate(expectations):
        entry.meta = {**(entry.meta or {}), "position": position}
        entry.id = None
    # A suite would take two equal expectations for one.
    suite = gx.ExpectationSuite(name="rules", expectations=list(expectations))
    outcome = batch.validate(suite, result_format=dict(RESULT))
    found = {result.expectation_config.meta["position"]: result for result in outcome.results}
    return [found[position] for position in range(len(expectations))]


def could_run(result: Any) -> bool:
    """Say whether GX came to a verdict."""
    return not _raised(result)


def expectation_fails(rule: RowRule, batch: pa.RecordBatch) -> pa.BooleanArray:
    """True for each row that an expectation about single values of one column finds unexpected.

    Equal values have one verdict, so GX is asked about each value once.
    """
    column = batch.column(rule.column).dictionary_encode()
    values = column.dictionary
    if not len(values):
        return pa.nulls(batch.num_rows, pa.bool_())
    entry = made(rule.arguments["expectation"], rule.arguments["kwargs"])
    (result,) = results(frame_of(pa.table({rule.column: values})), [entry])
    failed = np.zeros(len(values), dtype=np.bool_)
    failed[list(result.result.get("unexpected_index_list") or [])] = True
    return pc.take(pa.array(failed), column.indices)


def error_type(exception_info: Any) -> str:
    """Return the type's name out of GX's account of an exception, whose words may quote a row."""
    traceback = str(exception_info.get("exception_traceback") or "") if isinstance(exception_info, dict) else ""
    if not traceback and isinstance(exception_info, dict):
        nested = [inner for inner in exception_info.values() if isinstance(inner, dict)]
        return error_type(nested[0]) if nested else "an error"
    names = re.findall(r"^(?:[A-Za-z_]\w*\.)*([A-Za-z_]\w*(?:Error|Exception|Warning))\b", traceback, re.MULTILINE)
    return str(names[-1]) if names else "an error"


def _raised(result: Any) -> bool:
    info = result.exception_info
    if not isinstance(info, dict):
        return False
    infos = [info] if "raised_exception" in info else [inner for inner in info.values() if isinstance(inner, dict)]
    return any(inner.get("raised_exception") for inner in infos)
