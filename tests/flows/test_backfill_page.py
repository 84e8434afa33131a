"""What people see of a backfill: the plan before it starts, the page while it runs."""

from __future__ import annotations

from pathlib import Path

from data_contracts.backfill.plan import Skipped
from data_contracts.backfill.state import state_of
from data_contracts.catalog.store import Store
from flows.backfilling.page import line, plan_page, progress_page, words
from tests.data_contracts.test_backfill_record import end, plan
from tests.flows.test_backfill_executor import stored


def test_the_plan_says_what_is_done_and_why_and_what_is_left_alone_and_why() -> None:
    page = plan_page(plan(2, skipped=(Skipped("2020-03-09", "", "it is there"),)))
    assert "| 1 | 2020-03-01 | 100 | 1.0.0 | missing |" in page
    assert "| 2020-03-09  | it is there |" in page
    assert "2 partitions (missing), 200 bytes, oldest first, 2 at once, through ingest, about 2 s by past runs" in page


def test_a_plan_of_thousands_stays_readable() -> None:
    page = plan_page(plan(1000))
    assert "800 more: `causeway backfill status bf-" in page
    assert page.count("\n") < 250


def test_the_page_has_a_square_a_partition_counts_causes_and_the_time_left(tmp_path: Path) -> None:
    record = stored(tmp_path, plan(6))
    end(record, 1)
    end(record, 2, "refused", message="refused: rowCount | 0", cause="refused: rowCount")
    end(record, 3, "failed", final=True, message="/data/3: gone", cause="DataRefused: ...: gone")
    record.begin(record.plan.item(4), 1, "test")
    page = progress_page(state_of(record.plan, record.progress()))
    assert "🟩🟧🟥🟦⬜⬜ `2020-03-01` to `2020-03-06`" in page
    assert "⬜ 2 waiting 🟦 1 running 🟩 1 done 🟧 1 refused 🟥 1 failed of 6" in page
    assert "| 1 | DataRefused: ...: gone | /data/3: gone | 2020-03-03 |" in page
    assert "running, about " in page
    assert "Running: 2020-03-04" in page


def test_one_line_says_where_it_stands(tmp_path: Path) -> None:
    record = stored(tmp_path, plan(2))
    for number in (1, 2):
        end(record, number)
    assert line(state_of(record.plan, record.progress())) == "done: 2 of 2, 0 running"
    assert isinstance(record.store, Store)


def test_spans_are_said_as_people_say_them() -> None:
    assert [words(s) for s in (12, 600, 8000)] == ["12 s", "10 min", "2.2 h"]
