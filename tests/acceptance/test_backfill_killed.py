"""A backfill on workers whose run, worker and server are killed: it ends as if nobody had touched it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.acceptance.conftest import SHARED
from tests.acceptance.databases import require_databases
from tests.acceptance.killing import compare, databases, disturb, disturbed, undisturbed

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(1800)]


@pytest.mark.skipif(not SHARED.exists() and not os.environ.get("CI"), reason="the shared data sets are not here")
def test_killed_anywhere_it_ends_as_if_undisturbed(tmp_path: Path) -> None:
    """The run, a worker and the server are killed with SIGKILL in the middle; every version equals a calm run's."""
    bounds = ["--from", "2020-03-21", "--to", "2020-03-26"]
    undisturbed(tmp_path / "calm", bounds)
    with disturbed(tmp_path / "home", tmp_path / "calm", bounds) as made:
        disturb(made, seed=20200322)
        assert compare(made.home, tmp_path / "calm") == 10
    assert len(made.killed) == 3


@pytest.mark.long
@pytest.mark.skipif(not SHARED.exists() and not os.environ.get("CI"), reason="the shared data sets are not here")
def test_killed_anywhere_on_postgresql_and_redis_it_ends_as_if_undisturbed(tmp_path: Path) -> None:
    require_databases()
    bounds = ["--from", "2020-03-23", "--to", "2020-03-25"]
    undisturbed(tmp_path / "calm", bounds)
    with databases(), disturbed(tmp_path / "home", tmp_path / "calm", bounds) as made:
        disturb(made, seed=20200323)
        assert compare(made.home, tmp_path / "calm") == 5
