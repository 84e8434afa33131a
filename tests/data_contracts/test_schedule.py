"""When partitions should be there: the contract's frequency and latency, read and compared with what came."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.contract import Contract, ServiceLevel, load_contract
from data_contracts.errors import ContractError
from data_contracts.periods import Period
from data_contracts.schedule import Freshness, expected, frequency, freshness_of
from tests.data_contracts.making import make_contract

DAY_S = 86_400


@pytest.fixture(scope="module")
def contract(tmp_path_factory: pytest.TempPathFactory) -> Contract:
    return make_contract(tmp_path_factory.mktemp("contract"))


def promising(contract: Contract, value: Any, unit: str | None = None, latency: Any = None) -> Contract:
    sla = {"frequency": ServiceLevel(value, unit)}
    if latency is not None:
        sla["latency"] = ServiceLevel(latency)
    return replace(contract, sla=sla)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def told(contract: Contract, values: list[str], now: str, *, refused: tuple[str, ...] = ()) -> Freshness:
    return freshness_of(contract, {*values, *refused}, dict.fromkeys(values, "2024-01-01T00:00:00+00:00"), at(now))


@pytest.mark.parametrize(
    ("value", "unit", "cron", "every_s", "words"),
    [
        ("daily", None, "0 0 * * *", None, "daily"),
        ("Hourly", None, "0 * * * *", None, "hourly"),
        ("weekly", None, "0 0 * * 1", None, "weekly"),
        ("monthly", None, "0 0 1 * *", None, "monthly"),
        ("yearly", None, "0 0 1 1 *", None, "yearly"),
        (1, "d", "0 0 * * *", None, "daily"),
        ("1", "days", "0 0 * * *", None, "daily"),
        (24, "h", "0 0 * * *", None, "daily"),
        (7, "d", "0 0 * * 1", None, "weekly"),
        (1, "y", "0 0 1 1 *", None, "yearly"),
        (12, "mo", "0 0 1 1 *", None, "yearly"),
        (3, "months", "0 0 1 */3 *", None, "every 3 months"),
        (2, "d", None, 2.0 * DAY_S, "every 2 days"),
        (36, "h", None, 1.5 * DAY_S, "every 36 hours"),
        (0.5, "d", None, 0.5 * DAY_S, "every 12 hours"),
        (20, "s", None, 20.0, "every 20 seconds"),
        ("PT1H", None, "0 * * * *", None, "hourly"),
        ("PT90M", None, None, 5400.0, "every 90 minutes"),
        ("P1D", None, "0 0 * * *", None, "daily"),
        ("P1W", None, "0 0 * * 1", None, "weekly"),
        ("P1M", None, "0 0 1 * *", None, "monthly"),
        ("P1DT12H", None, None, 1.5 * DAY_S, "every 36 hours"),
        ("30 6 * * 1-5", None, "30 6 * * 1-5", None, "by cron 30 6 * * 1-5"),
    ],
)
def test_a_frequency_is_read_in_every_form(
    contract: Contract, value: Any, unit: str | None, cron: str | None, every_s: float | None, words: str
) -> None:
    often = frequency(promising(contract, value, unit))
    assert often is not None
    assert (often.cron, often.every_s, often.words) == (cron, every_s, words)


def test_a_contract_without_a_frequency_promises_none(contract: Contract) -> None:
    assert frequency(contract) is None
    assert expected(contract, ["2024-01-01"], date(2024, 2, 1)) == []
    assert told(contract, ["2024-01-01"], "2030-01-01") == Freshness(
        contract.id, "2024-01-01", None, 0.0, (), "no frequency promised"
    )


@pytest.mark.parametrize(
    ("value", "unit", "values", "until", "should"),
    [
        ("daily", None, ["2024-02-29", "2024-02-28"], "2024-03-01", ["2024-02-28", "2024-02-29", "2024-03-01"]),
        ("daily", None, ["20240228"], "2024-02-29", ["20240228", "20240229"]),
        ("hourly", None, ["2024-02-28"], "2024-02-29", ["2024-02-28", "2024-02-29"]),
        (2, "d", ["2024-01-01"], "2024-01-06", ["2024-01-01", "2024-01-03", "2024-01-05"]),
        ("weekly", None, ["2024-01-03"], "2024-01-17", ["2024-01-03", "2024-01-10", "2024-01-17"]),
        ("monthly", None, ["2024-01-31"], "2024-04-29", ["2024-01-31", "2024-02-29", "2024-03-31"]),
        (
            "yearly",
            None,
            ["2024-02-29"],
            "2028-12-31",
            ["2024-02-29", *(f"{y}-02-28" for y in (2025, 2026, 2027)), "2028-02-29"],
        ),
        ("30 6 * * 1-5", None, ["2024-01-05"], "2024-01-09", ["2024-01-05", "2024-01-08", "2024-01-09"]),
        ("0 0,12 * * *", None, ["2024-01-01"], "2024-01-02", ["2024-01-01", "2024-01-02"]),
        (36, "h", ["2024-01-01"], "2024-02-01", []),
        ("daily", None, ["alpha", "2024-01-01"], "2024-02-01", []),
        ("daily", None, ["20240101", "2024-01-02"], "2024-02-01", []),
        ("daily", None, ["2024-W01-1"], "2024-02-01", []),
        ("daily", None, ["2024-13-01"], "2024-02-01", []),
        ("daily", None, ["9999-12-31"], "9999-12-30", []),
        ("daily", None, [], "2024-02-01", []),
    ],
)
def test_the_values_that_should_exist_follow_the_frequency_from_the_first(
    contract: Contract, value: Any, unit: str | None, values: list[str], until: str, should: list[str]
) -> None:
    assert expected(promising(contract, value, unit), values, date.fromisoformat(until)) == should


@settings(deadline=None)
@given(st.dates(date(1, 1, 1), date(9000, 1, 1)), st.integers(0, 400))
def test_daily_expects_every_day_once_and_in_order(contract: Contract, first: date, days: int) -> None:
    found = expected(promising(contract, "daily"), [first.isoformat()], first + timedelta(days=days))
    assert found == [(first + timedelta(days=n)).isoformat() for n in range(days + 1)]


@pytest.mark.parametrize(
    ("value", "latency", "due"),
    [
        ("daily", None, "2024-01-04T00:00:00+00:00"),
        ("daily", "PT6H", "2024-01-03T06:00:00+00:00"),
        ("daily", "P2D", "2024-01-05T00:00:00+00:00"),
        ("weekly", None, "2024-01-22T00:00:00+00:00"),
        ("weekly", "P1D", "2024-01-16T00:00:00+00:00"),
        ("monthly", None, "2024-04-01T00:00:00+00:00"),
        ("monthly", "P1M", "2024-04-01T00:00:00+00:00"),
        ("0 6 * * 1-5", "PT0S", "2024-01-03T00:00:00+00:00"),
    ],
)
def test_a_partition_is_due_a_latency_after_its_period_ends(
    contract: Contract, value: str, latency: str | None, due: str
) -> None:
    """The newest is of 1 January (a Monday); the next one is due."""
    promise = promising(contract, value, latency=latency)
    before = told(promise, ["2024-01-01"], due[:19])
    assert (before.due, before.late) == (due, False)
    after = told(promise, ["2024-01-01"], (datetime.fromisoformat(due) + timedelta(hours=1)).isoformat()[:19])
    assert after.late_s == 3600.0
    assert len(after.missing) == 1
    assert after.words.startswith("late by 1 hour, 1 missing")


def test_a_partition_that_was_refused_is_not_there(contract: Contract) -> None:
    daily = promising(contract, "daily")
    found = told(daily, ["2024-01-01"], "2024-01-05T12:00:00", refused=("2024-01-02",))
    assert found.newest == "2024-01-01"
    assert found.missing == ("2024-01-02", "2024-01-03")
    assert found.late_s == 1.5 * DAY_S


def test_a_data_set_of_which_all_was_refused_is_late_from_its_first_day(contract: Contract) -> None:
    found = told(promising(contract, "daily"), [], "2024-01-03T01:00:00", refused=("2024-01-01",))
    assert (found.newest, found.late_s) == (None, 3600.0)


def test_a_gap_of_long_ago_is_missing_and_does_not_make_the_data_set_late(contract: Contract) -> None:
    found = told(promising(contract, "daily"), ["2024-01-01", "2024-01-03"], "2024-01-04T12:00:00")
    assert (found.late, found.missing, found.words) == (False, ("2024-01-02",), "fresh, 1 missing (daily)")


def test_a_partition_of_the_future_is_not_late_and_hides_no_gap(contract: Contract) -> None:
    found = told(promising(contract, "daily"), ["2024-01-01", "9999-12-31"], "2024-01-04T12:00:00")
    assert (found.newest, found.due, found.late) == ("9999-12-31", None, False)
    assert found.missing == ("2024-01-02",)


def test_partitions_that_are_no_dates_go_by_when_the_newest_was_published(contract: Contract) -> None:
    daily = promising(contract, "daily", latency="PT6H")
    assert told(daily, ["a", "b"], "2024-01-02T06:00:00").words == "fresh (daily)"
    late = told(daily, ["a", "b"], "2024-01-04T07:00:00")
    assert (late.due, late.late_s, late.words) == (
        "2024-01-02T06:00:00+00:00",
        2 * DAY_S + 3600.0,
        "late by 2 days (daily)",
    )


def test_months_keep_the_day_where_they_have_it() -> None:
    month = Period(months=1)
    assert [month.after(at("2023-01-31"), n).date().isoformat() for n in (1, 2, 13)] == [
        "2023-02-28",
        "2023-03-31",
        "2024-02-29",
    ]


def test_the_newest_of_values_that_are_no_dates_is_the_last_published(contract: Contract) -> None:
    published = {"a": "2024-01-03T00:00:00+00:00", "z": "2024-01-01T00:00:00+00:00"}
    found = freshness_of(promising(contract, "daily"), set(published), published, at("2024-01-04T12:00:00"))
    assert (found.newest, found.due) == ("a", "2024-01-05T00:00:00+00:00")


def test_nothing_is_expected_or_late_after_the_end_of_life(contract: Contract) -> None:
    ended = replace(contract, sla={"frequency": ServiceLevel("daily"), "endOfLife": ServiceLevel("2020-04-05")})
    values = ["2020-04-03", "2020-04-05"]
    assert expected(ended, values, date(2026, 1, 1)) == ["2020-04-03", "2020-04-04", "2020-04-05"]
    found = told(ended, values, "2026-01-01")
    assert (found.late, found.due, found.missing) == (False, None, ("2020-04-04",))
    assert found.words == "ended on 2020-04-05, 1 missing"
    assert told(ended, values[:1], "2026-01-01").late


def test_an_end_of_life_that_is_no_day_is_a_fault(tmp_path: Path) -> None:
    path = make_contract(tmp_path).path
    document = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "slaProperties": [{"property": "endOfLife", "value": "soon"}]}))
    with pytest.raises(ContractError, match="'soon' is no day; write it as 2020-04-05"):
        load_contract(path)
