"""A sample of what `make soak` runs for minutes: fixed seeds, every reader and the loading of contracts."""

from __future__ import annotations

import pytest

from tests.data_contracts import fuzzing

SLOW = {"huggingface": 2, "contract": 12}
# Few damaged sources leave a library of others anything to read: the second case from here does.
FIRST = {"huggingface": 8}


@pytest.mark.parametrize("name", fuzzing.NAMES)
def test_damage_raises_only_our_errors_and_loses_no_record(name: str) -> None:
    cases, records = fuzzing.run(name, seconds=60, first=FIRST.get(name, 1), most=SLOW.get(name, 40))
    assert cases == SLOW.get(name, 40)
    assert records > 0


def test_a_record_that_is_lost_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    read = fuzzing.open_source

    def losing(*given: object) -> object:
        source = read(*given)  # type: ignore[arg-type]
        whole = source.read
        source.read = lambda part: (batch.slice(1) for batch in whole(part))  # type: ignore[method-assign]
        return source

    monkeypatch.setattr(fuzzing, "open_source", losing)
    with pytest.raises(AssertionError, match="jsonl, seed"):
        fuzzing.run("jsonl", seconds=60, first=1, most=40)
