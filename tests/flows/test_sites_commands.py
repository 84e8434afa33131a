"""`causeway sites list | check | add`, called as the command line calls them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from data_contracts.errors import CausewayError
from flows.commands.secrets import check_place
from flows.commands.sites import add, check, list_

SOUTH = {"region": "eu-south", "jurisdiction": ["IT"], "store": "sites/south"}


def said(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    found: dict[str, object] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return found


def test_a_site_that_was_added_is_listed_and_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert add("south", home=tmp_path, capacity_gb=2.0, tokens_per_s=3.0, **SOUTH) == 0  # type: ignore[arg-type]
    assert "next: causeway sites check south" in capsys.readouterr().out
    assert list_(home=tmp_path) == 0
    shown = capsys.readouterr().out
    assert all(word in shown for word in ("south", "eu-south", "IT", "sites/south", "2 GB"))
    assert list_(home=tmp_path, json=True) == 0
    places = said(capsys)["places"]
    assert isinstance(places, list)
    assert [p["name"] for p in places] == ["home", "east", "north", "south", "west"]
    assert check("south", quick=True, home=tmp_path, json=True) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out)
    assert [(s["places"], s["ok"], s["may_hold"]) for s in found["stores"]] == [(["south"], True, "anything")]
    assert "torch" in found["machine"]["libraries"]
    assert "8 writers race for 10 keys" in printed.err


def test_a_store_that_does_not_answer_is_exit_1_and_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.sitecheck._RETRY_S", 0.0)
    monkeypatch.setenv("CAUSEWAY_GONE_AWS_ACCESS_KEY_ID", "hunter1")
    monkeypatch.setenv("CAUSEWAY_GONE_AWS_SECRET_ACCESS_KEY", "hunter2")
    gone = SOUTH | {"store": "s3://gone?endpoint=http://127.0.0.1:1&credentials=gone"}
    add("south", home=tmp_path, **gone)  # type: ignore[arg-type]
    assert check("home", "south", quick=True, home=tmp_path) == 1
    printed = capsys.readouterr()
    assert (
        "south: s3://gone/sites-check: cannot be listed: the store at http://127.0.0.1:1 does not work" in printed.out
    )
    assert "hunter" not in printed.out + printed.err


def test_a_site_that_is_refused_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(CausewayError, match="site 'north' stands twice"):
        add("north", home=tmp_path, **SOUTH)  # type: ignore[arg-type]
    assert not (tmp_path / "sites.toml").exists()


def test_a_secret_may_be_of_any_name_that_a_store_gives(tmp_path: Path) -> None:
    named = {"store": "s3://b?credentials=bucket-key", "tables": "s3://t?credentials=table-key"}
    add("south", home=tmp_path, **SOUTH | named)  # type: ignore[arg-type]
    for place in ("home", "south", "bucket-key", "table-key"):
        check_place(tmp_path, place)
    with pytest.raises(CausewayError, match="no place 'other' in sites.toml; it has: home, .*, bucket-key, table-key"):
        check_place(tmp_path, "other")
