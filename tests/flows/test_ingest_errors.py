from __future__ import annotations

import asyncio
import logging
import traceback

import pytest

from data_contracts.checks.gx import error_type as _error_type
from data_contracts.errors import CausewayError, DataRefused
from flows.ingest import _apart, _named

SECRET = "the row of Ann"


def fails(error: Exception, cause: Exception | None = None) -> None:
    raise error from cause


def everything(error: BaseException) -> str:
    return "".join(traceback.format_exception(error))


def test_another_librarys_words_stay_in_this_process(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR), pytest.raises(CausewayError) as caught:
        asyncio.run(_apart(fails, ValueError(SECRET)))
    assert str(caught.value) == "ValueError; the process' own log has the message"
    assert SECRET not in everything(caught.value)
    assert caught.value.__context__ is None
    assert SECRET in caplog.text
    assert {record.name for record in caplog.records} == {"flows.ingest"}


def test_our_own_words_pass_without_what_they_came_from() -> None:
    with pytest.raises(DataRefused, match=r"day1: a good reason") as caught:
        asyncio.run(_apart(fails, DataRefused("day1: a good reason"), ValueError(SECRET)))
    assert SECRET not in everything(caught.value)


def test_a_failed_partition_is_listed_by_the_type_of_its_error() -> None:
    assert _named(DataRefused("why")) == "why"
    assert _named(KeyError(SECRET)) == "KeyError; the process' own log has the message"


def test_what_great_expectations_says_of_an_error_is_cut_down_to_its_type() -> None:
    told = {
        "exception_traceback": f"Traceback ...\n  File x\npandas.errors.ParserError: {SECRET}\n",
        "exception_message": SECRET,
    }
    assert _error_type({"('metric',)": told}) == _error_type(told) == "ParserError"
    assert _error_type({"exception_traceback": None}) == _error_type(SECRET) == "an error"
