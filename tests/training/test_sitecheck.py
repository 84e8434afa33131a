"""`causeway sites check`, on stores whose makers say what they do: Ceph decides creates, Swift does not."""

from __future__ import annotations

import datetime as dt
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from data_contracts.catalog.store import Store
from data_contracts.errors import CausewayError
from tests.data_contracts.faulty import Proxy
from tests.stores import Access
from training.machine import describe_machine
from training.sitecheck import FOLDER, WRITERS, StoreCheck, _skew, check_stores, race
from training.sites import Sites, load_sites

PLACE = 'jurisdictions = ["SE"]\nstore = "{}"\n'


def sites_of(folder: Path, home: str, more: str = "", **stores: str) -> Sites:
    named = "".join(f'[[site]]\nname = "{n}"\nregion = "{n}"\n' + PLACE.format(s) for n, s in stores.items())
    (folder / "sites.toml").write_text("format = 2\n[home]\n" + PLACE.format(home) + named + more)
    return load_sites(folder / "sites.toml", folder)


def below(url: str) -> str:
    bucket, _, query = url.partition("?")
    return f"{bucket}/{secrets.token_hex(4)}?{query}"


def checked(sites: Sites, *names: str) -> dict[str, StoreCheck]:
    return {found.places[0]: found for found in check_stores(sites, names, quick=True)}


def test_ceph_decides_a_race_and_swift_does_not(rgw: Access, north: Access) -> None:
    ceph, swift = below(rgw.bucket("race")), below(north.bucket("race"))
    assert race(lambda: Store.open(ceph), "race", 50) == 0
    assert race(lambda: Store.open(swift), "race", 20) > 0
    assert len(list(Store.open(ceph).list("race"))) == 50


def test_what_is_found_is_measured_and_nothing_is_left(rgw: Access, north: Access, tmp_path: Path) -> None:
    ceph, swift = below(rgw.bucket("check")), below(north.bucket("check"))
    sites = sites_of(tmp_path, ceph, north=swift, local="sites/local")
    found = checked(sites)
    assert {name: (one.ok, one.decides) for name, one in found.items()} == {
        "home": (True, True),
        "north": (True, False),
        "local": (True, True),
    }
    assert found["home"].must_decide == "the chain"
    assert found["north"].may_hold == "no chain, no tables"
    assert any("decides_creates = false" in note for note in found["north"].notes)
    for one in found.values():
        assert one.skew_s == 0
        assert min(one.rtt_ms or 0, one.range_ms or 0, one.put_mb_s or 0, one.get_mb_s or 0) > 0
    assert found["home"].free_bytes is None
    assert (found["local"].free_bytes or 0) > 0
    for url in (ceph, swift, tmp_path / "sites" / "local"):
        assert list(Store.open(url).list()) == []
    assert list((tmp_path / "sites" / "local").iterdir()) == []


def test_a_store_that_does_not_decide_may_not_hold_tables(north: Access, tmp_path: Path) -> None:
    swift, apart = below(north.bucket("check")), below(north.bucket("check"))
    Store.open(swift).put("tables/test--notes/versions/x", b"")
    sites = sites_of(tmp_path, "home", f'tables = "{apart}"\n', north=swift, other="sites/other")
    found = checked(sites)
    assert not found["north"].ok
    assert any("must not hold tables: move them" in note for note in found["north"].notes)
    assert [one.ok for name, one in found.items() if name == "other (tables)"] == [False]
    assert found["other"].ok


def test_a_store_that_is_not_there_is_said_and_the_others_are_checked(
    north: Access, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.sitecheck._RETRY_S", 0.5)
    bucket = north.bucket("check")
    with Proxy(north.endpoint) as proxy:
        gone = proxy.url(bucket)
    sites = sites_of(tmp_path, "home", gone=gone, none=bucket.replace("s3://check", "s3://nocheck"))
    begun = time.monotonic()
    found = checked(sites)
    assert time.monotonic() - begun < 10
    assert "does not work" in found["gone"].error
    assert "no such bucket" in found["none"].error
    assert [one.ok for one in found.values()] == [True, False, False]


def test_only_what_is_named_is_checked_and_a_shared_store_once(tmp_path: Path) -> None:
    sites = sites_of(tmp_path, "home", '[[site]]\nname = "c"\nregion = "a"\n' + PLACE.format("sites/a"), a="sites/a")
    assert [one.places for one in check_stores(sites, quick=True)] == [["home"], ["a", "c"]]
    assert [one.places for one in check_stores(sites, ["c"], quick=True)] == [["c"]]
    with pytest.raises(CausewayError, match="no site 'b'"):
        checked(sites, "b")


def test_ctrl_c_leaves_nothing_behind(north: Access, tmp_path: Path) -> None:
    bucket = below(north.bucket("check"))
    sites_of(tmp_path, "home", north=bucket)
    command = [sys.executable, "-m", "flows.cli", "sites", "check", "north", "--home", str(tmp_path)]
    store = Store.open(bucket)
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as checking:
        assert checking.stderr is not None
        for line in checking.stderr:
            if f"{WRITERS} writers race" in line:
                break
        deadline = time.monotonic() + 20
        while not any("/race/" in key for key, _ in store.list(FOLDER)) and time.monotonic() < deadline:
            time.sleep(0.02)
        checking.send_signal(signal.SIGINT)
        said = checking.communicate(timeout=60)[1]
    assert checking.returncode == 130, said
    assert list(store.list()) == []


def test_what_a_killed_check_has_left_goes_with_the_next_one_after_an_hour(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "home")
    old, young = (f"{FOLDER}/{int(time.time()) - age}-dead/race/1" for age in (4000, 40))
    store.put(old, b"x")
    store.put(young, b"x")
    checked(sites_of(tmp_path, "home", a="sites/a"), "home")
    assert [key for key, _ in store.list()] == [young]


def at(seconds: float) -> dt.datetime:
    return dt.datetime(2026, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("modified", "skew"),
    [(10, 0), (11, 0), (9, -0.2), (12, 0.7), (100, 88.7), (-100, -109.2)],
)
def test_clocks_agree_to_the_second_that_http_tells(modified: float, skew: float) -> None:
    assert _skew(at(modified), at(10.2), at(10.3)) == pytest.approx(skew)


def test_the_machine_is_described() -> None:
    found = describe_machine()
    assert found["cores"] == os.cpu_count()
    assert {"torch", "numpy", "obstore", "deltalake"} <= found["libraries"].keys()
    assert json.loads(json.dumps(found)) == found
