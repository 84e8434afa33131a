"""Random tables under random rules: Great Expectations and we say the same of every row and every rule."""

from __future__ import annotations

from typing import Any

import pyarrow.compute as pc
import pytest

from data_contracts import drawing
from data_contracts.oracle import draw_cases, main

pytestmark = pytest.mark.filterwarnings("ignore")


def test_five_hundred_drawn_cases_agree_with_great_expectations() -> None:
    compared, differences = draw_cases(500, seed=20)
    assert compared >= 500
    assert [str(difference) for difference in differences] == []


def test_a_kernel_that_is_wrong_is_found_and_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = drawing.failing

    def wrong(rule: Any, batch: Any) -> Any:
        return pc.invert(real(rule, batch)) if rule.name == "record.decodes" else real(rule, batch)

    monkeypatch.setattr(drawing, "failing", wrong)
    assert main(["--cases", "1", "--seed", "3"]) == 1
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("seed 3: record.decodes {}: ours [True")
    assert said[-1].split(": ")[1].startswith("1 differences")
