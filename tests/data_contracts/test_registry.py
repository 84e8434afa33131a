"""What is registered for a data set: by arrival the last, by publication each, the latest in force."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from data_contracts.catalog.registry import kept_contract, read_registered, register
from data_contracts.catalog.store import Store
from data_contracts.errors import DataRefused
from tests.data_contracts.making import make_contract

MARCH, JULY = dt.datetime(2020, 3, 25, tzinfo=dt.UTC), dt.datetime(2020, 7, 1, tzinfo=dt.UTC)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "store")


def test_by_arrival_the_last_contract_and_source_are_in_force(store: Store, tmp_path: Path) -> None:
    register(store, make_contract(tmp_path / "a"), "/first")
    found = register(store, make_contract(tmp_path / "b", version="2.0.0"), None)
    assert [(e.version, e.source, e.published) for e in found.entries] == [("2.0.0", "/first", "")]
    assert read_registered(store, "test--notes") == found


@pytest.mark.parametrize("order", [(0, 1), (1, 0)], ids=["first first", "late first"])
def test_by_publication_the_latest_is_in_force_whatever_came_first(
    store: Store, tmp_path: Path, order: tuple[int, int]
) -> None:
    given = [
        (make_contract(tmp_path / "a", sequence="publication"), "/first", MARCH),
        (make_contract(tmp_path / "b", sequence="publication", version="2.0.0"), "/final", JULY),
    ]
    for number in order:
        register(store, *given[number])
    found = read_registered(store, "test--notes")
    assert found is not None
    assert [(e.version, e.source, e.moment) for e in found.entries] == [
        ("1.0.0", "/first", MARCH),
        ("2.0.0", "/final", JULY),
    ]
    assert found.current.version == "2.0.0"
    assert kept_contract(store, "test--notes", found.entries[0].sha).version == "1.0.0"


def test_a_publication_without_its_date_is_refused_with_the_fix(store: Store, tmp_path: Path) -> None:
    with pytest.raises(DataRefused, match="--published DATE"):
        register(store, make_contract(tmp_path, sequence="publication"), "/first")


def test_a_known_publication_need_not_be_dated_again(store: Store, tmp_path: Path) -> None:
    contract = make_contract(tmp_path, sequence="publication")
    first = register(store, contract, "/first", MARCH)
    assert register(store, contract, "/first") == first


def test_what_format_1_wrote_is_read(store: Store, tmp_path: Path) -> None:
    contract = make_contract(tmp_path)
    store.ensure(f"contracts/{contract.slug}/{contract.sha}.yaml", contract.path.read_bytes())
    store.put(
        f"contracts/{contract.slug}/current.json", b'{"format":1,"sha":"%s","source":null}' % contract.sha.encode()
    )
    found = read_registered(store, contract.slug)
    assert found is not None
    assert (found.current.sha, found.current.source) == (contract.sha, "")


def test_a_contract_that_is_not_kept_is_named(store: Store) -> None:
    with pytest.raises(DataRefused, match="contracts/test--notes/ab.*yaml"):
        kept_contract(store, "test--notes", "ab" * 32)
