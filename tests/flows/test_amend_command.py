from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from data_contracts.errors import CausewayError
from flows.commands.amend import amend


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"kind": "change-weights", "subject": "east"}, "nothing after it; --set takes data sets"),
        ({"kind": "remove-site"}, "remove-site: name the site after it"),
        ({"kind": "add-version"}, "add-version: name the data set after it"),
        ({"kind": "change-weights", "set_": ["a/b"]}, "--set a/b: write DATASET=WEIGHT"),
        ({"kind": "change-weights", "set_": ["a/b=much"]}, "--set a/b=much: write DATASET=WEIGHT"),
        ({"kind": "change-weights", "set_": ["a/b=-1"]}, "a weight of 0 or more"),
        ({"kind": "change-weights", "set_": ["a/b=nan"]}, "a weight of 0 or more"),
        ({"kind": "change-weights", "set_": ["=1"]}, "--set =1: write DATASET=WEIGHT"),
    ],
)
def test_a_command_that_cannot_be_meant_is_refused_before_a_run_is_read(
    tmp_path: Path, given: dict[str, Any], why: str
) -> None:
    with pytest.raises(CausewayError, match=why):
        amend("some-run", reason="", home=tmp_path, **given)
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CausewayError, match="no run 'some-run'"):
        amend("some-run", "change-weights", set_=["a/b=1", "c/d=0"], reason="", home=tmp_path)
