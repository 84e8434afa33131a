from __future__ import annotations

import datetime
import hashlib
import hmac
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_contracts.arrowtext import hex_texts
from data_contracts.canonical import canonical_json, json_value
from data_contracts.contract import Contract
from data_contracts.identity import KeyedHash, RecordIds, normalise_text
from data_contracts.identity import splits as split_sides
from tests.data_contracts.making import KEYED, SECRET, batch, column, make_contract

UNKEYED = (column("day", partitioned=True), column("content"))


def record_ids(secret: bytes, contract: Contract, partition: str, *batches: pa.RecordBatch) -> list[str | None]:
    ids = RecordIds(secret, contract, partition)
    return [name for rows in batches for name in hex_texts(*ids.of(rows)).to_pylist()]


def splits(contract: Contract, batch: pa.RecordBatch) -> list[str]:
    sides: list[str] = split_sides(contract, batch).to_pylist()
    return sides


def ids_one_by_one(secret: bytes, contract: Contract, partition: str, *batches: pa.RecordBatch) -> list[str | None]:
    """The definition, row by row."""
    key, found, seen = contract.primary_key, [], {}
    for row in (row for rows in batches for row in rows.to_pylist()):
        values = {prop.name: json_value(row[prop.name]) for prop in contract.properties}
        keyed = [values[name] for name in key]
        if None in keyed or (not key and row["_fault"] is not None):
            found.append(None)
            continue
        content = hashlib.sha256(canonical_json(values)).hexdigest()
        seen[content] = seen.get(content, -1) + 1
        identity = [contract.id, partition, *([keyed] if key else [content, seen[content]])]
        found.append(hmac.new(secret, canonical_json(identity), "sha256").hexdigest()[:32])
    return found


def sides_one_by_one(contract: Contract, batch: pa.RecordBatch) -> list[str]:
    """The definition, row by row."""
    terms, found = contract.terms, []
    for row in batch.to_pylist():
        values = [json_value(row[name]) for name in terms.split_group or contract.primary_key or (terms.text,)]
        if (text := row[terms.text]) is not None and terms.text in terms.split_group:
            values[terms.split_group.index(terms.text)] = normalise_text(text)
        mac = hmac.new(terms.held_out_key.encode(), canonical_json(values), "sha256").digest()
        found.append("held-out" if int.from_bytes(mac[:8]) / 2**64 < terms.held_out_share else "train")
    return found


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Contract:
    return make_contract(tmp_path_factory.mktemp("keyed"))


def test_a_record_id_is_the_hmac_of_data_set_partition_and_key(keyed: Contract) -> None:
    (found,) = record_ids(SECRET, keyed, "p", batch(keyed, [{"key": "a", "content": "x"}]))
    message = b'["test/notes","p",["a"]]'
    assert found == hmac.new(SECRET, message, hashlib.sha256).hexdigest()[:32]


def test_a_record_keeps_its_id_when_its_content_is_restated(keyed: Contract) -> None:
    before = record_ids(SECRET, keyed, "p", batch(keyed, [{"key": "a", "content": "x"}]))
    assert before == record_ids(SECRET, keyed, "p", batch(keyed, [{"key": "a", "content": "y"}]))


def test_another_secret_partition_or_data_set_gives_another_id(keyed: Contract, tmp_path: Path) -> None:
    rows = batch(keyed, [{"key": "a"}])
    other = make_contract(tmp_path, id="test/others")
    found = [
        record_ids(SECRET, keyed, "p", rows),
        record_ids(b"other", keyed, "p", rows),
        record_ids(SECRET, keyed, "q", rows),
        record_ids(SECRET, other, "p", rows),
    ]
    assert len({ids[0] for ids in found}) == 4


def test_a_record_without_its_key_has_no_id(keyed: Contract) -> None:
    assert record_ids(SECRET, keyed, "p", batch(keyed, [{"content": "x"}])) == [None]


def test_without_a_key_equal_rows_are_told_apart_by_occurrence_across_batches(tmp_path: Path) -> None:
    contract = make_contract(tmp_path, UNKEYED)
    rows = batch(contract, [{"content": "x"}, {"content": "x"}, {"content": "y"}])
    found = record_ids(SECRET, contract, "p", rows, rows)
    assert len(set(found)) == 6
    assert record_ids(SECRET, contract, "p", rows) == found[:3]


def test_without_a_key_an_undecodable_record_has_no_id(tmp_path: Path) -> None:
    contract = make_contract(tmp_path, UNKEYED)
    assert record_ids(SECRET, contract, "p", batch(contract, [{}], fault="broken", raw=b"?")) == [None]


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
    one, two = record_ids(SECRET, contract, "p", batch(contract, rows))
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
    ids = record_ids(SECRET, keyed, "p", batch(keyed, [{"key": key} for key in keys]))
    assert len(set(ids)) == len(keys)


@given(key=st.binary(max_size=100), beginning=st.binary(max_size=80), messages=st.lists(st.binary(max_size=80)))
def test_keyed_hashes_are_hmac_sha256(key: bytes, beginning: bytes, messages: list[bytes]) -> None:
    found = [row.tobytes() for row in KeyedHash(key, beginning).digests(messages)]
    assert found == [hmac.new(key, beginning + message, "sha256").digest() for message in messages]


TEXT = st.text(max_size=8).map(lambda text: text.encode("utf-8", "ignore").decode())
CELLS = {
    "text": st.none() | TEXT | st.sampled_from(["a b", " a  b", 'say "a"', "tab\t", "\\", "\x7f", "\u2028"]),
    "integer": st.none() | st.integers(-(2**63), 2**63 - 1),
    "number": st.none() | st.floats(),
    "boolean": st.none() | st.booleans(),
    "date": st.none() | st.dates(),
    "timestamp": st.none() | st.datetimes() | st.datetimes().map(lambda moment: moment.replace(microsecond=0)),
}


@pytest.fixture(scope="module", params=["keyed", "unkeyed", "grouped"])
def wide(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Contract:
    keyed = {"primaryKey": True}
    columns = [
        column(name, "string" if name == "text" else name, **({**keyed, "primaryKeyPosition": n + 1} if keys else {}))
        for n, name in enumerate(CELLS)
        for keys in [request.param == "keyed"]
    ]
    terms = {"text": "text", "heldOut": {"share": 0.5, "key": "k"}}
    if request.param == "grouped":
        terms["splitGroup"] = ["text", "boolean"]
    folder = tmp_path_factory.mktemp(request.param)
    return make_contract(folder, [column("day", partitioned=True), *columns], terms=terms)


@settings(max_examples=60, deadline=None)
@given(rows=st.lists(st.fixed_dictionaries(CELLS), max_size=12), cut=st.integers(0, 12))
def test_ids_and_sides_of_columns_are_those_of_the_definition(
    wide: Contract, rows: list[dict[str, object]], cut: int
) -> None:
    whole = batch(wide, [*rows, *rows[:3]])
    pieces = (whole.slice(0, cut), whole.slice(cut)) if cut < whole.num_rows else (whole,)
    assert record_ids(SECRET, wide, "p", *pieces) == ids_one_by_one(SECRET, wide, "p", *pieces)
    assert splits(wide, whole) == sides_one_by_one(wide, whole)
