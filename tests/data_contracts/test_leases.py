"""Leases: one works, the others are told; a holder that died is found out by silence or by its process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from data_contracts.canonical import canonical_json
from data_contracts.catalog import leases
from data_contracts.catalog.leases import Busy, Holder, hold, holder_of
from data_contracts.catalog.store import Store

NAME = "ingest/test--notes/0f3c"
HOLD = """
import sys, time
from data_contracts.catalog.leases import hold
from data_contracts.catalog.store import Store
with hold(Store.open(sys.argv[1]), sys.argv[2], "another"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path)


def other_process(store: Store) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, store.url, NAME], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_lease_is_gone_when_its_block_ends(store: Store) -> None:
    with hold(store, NAME, "me"):
        held = holder_of(store, NAME)
        assert held is not None
        assert (held.holder, held.pid) == ("me", os.getpid())
    assert holder_of(store, NAME) is None
    assert list(store.list("leases")) == []


def test_a_second_process_is_told_who_works(store: Store) -> None:
    process = other_process(store)
    try:
        began = time.monotonic()
        with pytest.raises(Busy, match=f"another works on it .process {process.pid} on "), hold(store, NAME, "me"):
            pytest.fail("two hold it")
        assert time.monotonic() - began < leases.STALE_S / 2
    finally:
        process.kill()
        process.wait()


def test_the_lease_of_a_killed_process_is_free_at_once(store: Store) -> None:
    process = other_process(store)
    process.send_signal(signal.SIGKILL)
    process.wait()
    began = time.monotonic()
    with hold(store, NAME, "me") as mine:
        assert time.monotonic() - began < 2
        assert mine.key.endswith("/000002.json")
        held = holder_of(store, NAME)
        assert held is not None
        assert held.holder == "me"


def test_a_holder_of_another_machine_that_falls_silent_loses_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "STALE_S", 1.5)
    far = replace(Holder.me("far away"), boot="another boot", host="elsewhere")
    store.create(f"leases/{NAME}/000001.json", canonical_json(asdict(far)))
    began = time.monotonic()
    with hold(store, NAME, "me") as mine:
        assert 1.4 < time.monotonic() - began < 10
        assert not mine.lost


def test_a_holder_that_was_silent_too_long_learns_that_it_lost(store: Store) -> None:
    with hold(store, NAME, "slow") as slow:
        store.create(f"leases/{NAME}/000002.json", canonical_json(asdict(Holder.me("quick"))))
        slow.beat()
        assert slow.lost
    held = holder_of(store, NAME)
    assert held is not None
    assert held.holder == "quick"


def test_of_many_that_ask_at_once_one_works_at_a_time(store: Store) -> None:
    inside, most, told = 0, 0, 0
    guard = threading.Lock()

    def ask(number: int) -> None:
        nonlocal inside, most, told
        try:
            with hold(store, NAME, f"thread {number}"):
                with guard:
                    inside += 1
                    most = max(most, inside)
                time.sleep(0.05)
                with guard:
                    inside -= 1
        except Busy:
            with guard:
                told += 1

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 1
    assert inside == 0
    assert told < 12


def test_a_damaged_lease_is_named(store: Store) -> None:
    store.create(f"leases/{NAME}/000001.json", json.dumps({"holder": "x"}).encode())
    with pytest.raises(leases.StoreError, match="000001.json: damaged"), hold(store, NAME, "me"):
        pytest.fail("held")
