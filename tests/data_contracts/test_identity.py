from __future__ import annotations

import datetime
import hashlib
import hmac
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.contract import Contract
from data_contracts.identity import normalise_text, record_ids, splits
from tests.data_contracts.making import KEYED, SECRET, batch, column, make_contract

UNKEYED = (column("day", partitioned=True), column("content"))


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Contract:
    return make_contract(tmp_path_factory.mktemp("keyed"))


def test_a_record_id_is_the_hmac_of_data_set_partition_and_key(keyed: Contract) -> None:
    (found,) = record_ids(SECRET, keyed, "p", batch(keyed, [{"key": "a", "content": "x"}]), {})
    message = b'["test/notes","p",["a"]]'
    assert found == hmac.new(SECRET, message, hashlib.sha256).hexdigest()[:32]


def test_a_record_keeps_its_id_when_its_content_is_restated(keyed: Contract) -> None:
    before = record_ids(SECRET, keyed, "p", batch(keyed, [{"key": "a", "content": "x"}]), {})
    assert before == record_ids(SECRET, keyed, "p", batch(keyed, [{"key": "a", "content": "y"}]), {})


def test_another_secret_partition_or_data_set_gives_another_id(keyed: Contract, tmp_path: Path) -> None:
    rows = batch(keyed, [{"key": "a"}])
    other = make_contract(tmp_path, id="test/others")
    found = [
        record_ids(SECRET, keyed, "p", rows, {}),
        record_ids(b"other", keyed, "p", rows, {}),
        record_ids(SECRET, keyed, "q", rows, {}),
        record_ids(SECRET, other, "p", rows, {}),
    ]
    assert len({ids[0] for ids in found}) == 4


def test_a_record_without_its_key_has_no_id(keyed: Contract) -> None:
    assert record_ids(SECRET, keyed, "p", batch(keyed, [{"content": "x"}]), {}) == [None]


def test_without_a_key_equal_rows_are_told_apart_by_occurrence_across_batches(tmp_path: Path) -> None:
    contract = make_contract(tmp_path, UNKEYED)
    rows, seen = batch(contract, [{"content": "x"}, {"content": "x"}, {"content": "y"}]), {}
    first, second = (record_ids(SECRET, contract, "p", rows, seen) for _ in range(2))
    assert len({*first, *second}) == 6
    assert record_ids(SECRET, contract, "p", rows, {}) == first


def test_without_a_key_an_undecodable_record_has_no_id(tmp_path: Path) -> None:
    contract = make_contract(tmp_path, UNKEYED)
    assert record_ids(SECRET, contract, "p", batch(contract, [{}], fault="broken", raw=b"?"), {}) == [None]


def test_keys_of_every_type_have_one_form(tmp_path: Path) -> None:
    columns = [
        column(k, k, primaryKey=True, primaryKeyPosition=i + 1) for i, k in enumerate(("date", "timestamp", "number"))
    ]
    contract = make_contract(tmp_path, (*columns, *UNKEYED))
    moment = datetime.datetime(2024, 1, 2, tzinfo=datetime.timezone(datetime.timedelta(hours=1)))
    rows = [
        {"date": "2024-01-02", "timestamp": moment, "number": "1.50"},
        {"date": datetime.date(2024, 1, 2), "timestamp": "2024-01-01T23:00:00Z", "number": 1.5},
    ]
    one, two = record_ids(SECRET, contract, "p", batch(contract, rows), {})
    assert one == two


def test_the_split_follows_the_group_alone(tmp_path: Path) -> None:
    one = make_contract(tmp_path / "1", terms={"splitGroup": ["day"]})
    two = make_contract(tmp_path / "2", terms={"splitGroup": ["day"]}, id="test/others")
    rows = [{"key": str(n), "day": str(n % 40), "content": str(n)} for n in range(200)]
    found = splits(one, batch(one, rows))
    assert found == splits(two, batch(two, rows))
    assert len({(row["day"], side) for row, side in zip(rows, found, strict=True)}) == 40


def test_about_the_stated_share_is_held_out_and_another_salt_holds_out_others(tmp_path: Path) -> None:
    one = make_contract(tmp_path / "1")
    two = make_contract(tmp_path / "2", terms={"heldOut": {"share": 0.25, "key": "test/2"}})
    rows = [{"key": str(n)} for n in range(4000)]
    found = splits(one, batch(one, rows))
    assert 880 < found.count("held-out") < 1120  # four standard deviations of a binomial(4000, 0.25)
    assert found != splits(two, batch(two, rows))


def test_a_share_of_zero_holds_out_nothing(tmp_path: Path) -> None:
    contract = make_contract(tmp_path, terms={"heldOut": {"share": 0, "key": "k"}})
    assert set(splits(contract, batch(contract, [{"key": str(n)} for n in range(100)]))) == {"train"}


def test_without_a_key_texts_that_differ_in_white_space_share_a_side(tmp_path: Path) -> None:
    contract = make_contract(tmp_path, UNKEYED, terms={"heldOut": {"share": 0.5, "key": "k"}})
    pairs = [{"content": text} for n in range(60) for text in (f"caf\u00e9 {n}", f" cafe\u0301\n {n} ")]
    found = splits(contract, batch(contract, pairs))
    assert found[0::2] == found[1::2]
    assert set(found) == {"train", "held-out"}


@given(st.text())
def test_normalising_twice_is_normalising_once(text: str) -> None:
    assert normalise_text(normalise_text(text)) == normalise_text(text)


@given(keys=st.lists(st.text(min_size=1).filter(lambda t: t.isprintable()), unique=True, max_size=20))
def test_different_keys_have_different_ids(keyed: Contract, keys: list[str]) -> None:
    assert {entry["name"] for entry in KEYED} == {prop.name for prop in keyed.properties}
    ids = record_ids(SECRET, keyed, "p", batch(keyed, [{"key": key} for key in keys]), {})
    assert len(set(ids)) == len(keys)
