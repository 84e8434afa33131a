from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.catalog.store import Store
from data_contracts.catalog.tables import Tables
from data_contracts.contract import Contract
from data_contracts.curation import CurationResult, curate, curation_rows, training_rows
from data_contracts.errors import DataRefused
from tests.data_contracts.making import SECRET, make_contract
from tests.data_contracts.test_ingest import A, ingest

Row = tuple[str, str, str, str | None]  # record_id, partition, split, text


@pytest.fixture(scope="module")
def contract(tmp_path_factory: pytest.TempPathFactory) -> Contract:
    return make_contract(tmp_path_factory.mktemp("c"), terms={"pii": {"email": "redact"}})


def table(*rows: Row) -> pa.Table:
    names = ("record_id", "partition", "split", "text")
    made = [{**dict(zip(names, row, strict=True)), "ingest_id": f"i-{row[1]}"} for row in rows]
    return pa.Table.from_pylist(made, pa.schema([(n, pa.string()) for n in (*names, "ingest_id")]))


def removals(result: CurationResult) -> dict[str, tuple[str, str]]:
    return {
        e["record_id"]: (e["reason"], e["kept_record_id"]) for e in result.log.to_pylist() if e["action"] == "remove"
    }


def test_of_equal_texts_the_least_partition_and_record_is_kept(contract: Contract) -> None:
    result = curate(
        contract,
        table(("r1", "q", "train", "same"), ("r9", "p", "train", "same"), ("r0", "q", "train", "same")),
        SECRET,
    )
    assert removals(result) == {"r0": ("duplicate", "r9"), "r1": ("duplicate", "r9")}
    assert (result.kept, result.removed, result.redacted) == (1, 2, 0)


def test_texts_are_equal_up_to_white_space_and_unicode_form(contract: Contract) -> None:
    result = curate(
        contract, table(("a", "p", "train", "caf\u00e9  au\nlait "), ("b", "p", "train", "cafe\u0301 au lait")), SECRET
    )
    assert set(removals(result)) == {"b"}


def test_texts_that_differ_in_an_address_alone_are_equal_once_it_is_redacted(contract: Contract) -> None:
    result = curate(contract, table(("a", "p", "train", "ask x@a.org"), ("b", "p", "train", "ask y@b.org")), SECRET)
    assert set(removals(result)) == {"b"}
    assert result.redacted == 1


def test_a_cluster_that_reaches_the_held_out_side_leaves_training(contract: Contract) -> None:
    rows = (
        ("a", "p", "train", "t"),
        ("b", "p", "held-out", "t"),
        ("c", "q", "held-out", "t"),
        ("d", "q", "train", "t"),
    )
    result = curate(contract, table(*rows), SECRET)
    assert removals(result) == {
        "a": ("duplicate.held-out", "b"),
        "c": ("duplicate", "b"),
        "d": ("duplicate.held-out", "b"),
    }


def test_rows_without_text_are_no_duplicates(contract: Contract) -> None:
    assert curate(contract, table(("a", "p", "train", None), ("b", "p", "train", None)), SECRET).removed == 0


def test_the_training_rows_are_the_kept_ones_with_addresses_redacted(contract: Contract) -> None:
    rows = table(
        ("a", "p", "train", "to x@a.org, y@b.org"),
        ("b", "p", "held-out", "plain"),
        ("c", "p", "train", "to q@a.org, r@b.org"),
    )
    result = curate(contract, rows, SECRET)
    found = training_rows(rows, result.log)
    assert found.select(["record_id", "split", "text"]).to_pylist() == [
        {"record_id": "a", "split": "train", "text": "to <email>, <email>"},
        {"record_id": "b", "split": "held-out", "text": "plain"},
    ]
    (entry,) = [e for e in result.log.to_pylist() if e["action"] == "redact"]
    assert (entry["record_id"], entry["reason"], entry["count"]) == ("a", "pii.email", 2)


def test_a_contract_that_keeps_addresses_keeps_them(tmp_path: Path) -> None:
    contract = make_contract(tmp_path, terms={"pii": {"email": "keep"}})
    rows = table(("a", "p", "train", "ask x@a.org"))
    result = curate(contract, rows, SECRET)
    assert result.log.num_rows == 0
    assert training_rows(rows, result.log)["text"].to_pylist() == ["ask x@a.org"]


def test_a_log_of_other_rows_is_refused(contract: Contract) -> None:
    log = curate(contract, table(("a", "p", "train", "ask x@a.org")), SECRET).log
    with pytest.raises(DataRefused, match="curate them again"):
        training_rows(table(("a", "p", "train", "no address")), log)
    with pytest.raises(DataRefused, match="lack text"):
        curate(contract, table().drop_columns(["text"]), SECRET)


def test_the_curation_id_follows_contract_and_ingests_not_order(contract: Contract, tmp_path: Path) -> None:
    one, two = ("a", "p", "train", "x"), ("b", "q", "train", "y")
    found = curate(contract, table(one, two), SECRET).curation_id
    assert found == curate(contract, table(two, one), SECRET).curation_id
    assert found != curate(contract, table(one), SECRET).curation_id
    assert found != curate(make_contract(tmp_path, version="2.0.0"), table(one, two), SECRET).curation_id


def test_the_cluster_name_needs_the_secret(contract: Contract) -> None:
    rows = table(("a", "p", "train", "same"), ("b", "p", "train", "same"))
    names = {curate(contract, rows, secret).log["cluster"][0].as_py() for secret in (SECRET, b"other")}
    assert len(names) == 2


def test_the_log_survives_the_tables(contract: Contract, tmp_path: Path) -> None:
    result = curate(
        contract,
        table(("a", "p", "train", "same"), ("b", "p", "train", "same"), ("c", "p", "train", "a@b.org")),
        SECRET,
    )
    tables = Tables(Store.open(tmp_path), contract.slug)
    tables.append_curation(result.log)
    assert tables.read_curation(result.curation_id).to_pylist() == result.log.to_pylist()


def test_the_rows_to_curate_are_those_of_all_current_partitions(tmp_path: Path) -> None:
    ingest(tmp_path, A, "monday")
    version = ingest(tmp_path, [{"key": "z", "content": "zebra"}], "tuesday").version
    rows = curation_rows(make_contract(tmp_path), Tables(Store.open(tmp_path / "store"), "test--notes"))
    assert sorted(zip(rows["partition"].to_pylist(), rows["text"].to_pylist(), strict=True)) == [
        ("monday", "apple"),
        ("tuesday", "zebra"),
    ]
    assert version.ingest_id in rows["ingest_id"].to_pylist()


ROWS = st.lists(
    st.tuples(
        st.sampled_from("pq"), st.sampled_from(["train", "held-out"]), st.sampled_from(["x", "y ", " y", "z@a.org"])
    )
)


@given(drawn=ROWS, seed=st.integers(0, 9))
def test_the_result_does_not_depend_on_arrival_and_keeps_one_row_of_each_text(
    contract: Contract, drawn: list[tuple[str, str, str]], seed: int
) -> None:
    rows = [(f"r{n}", p, split, text) for n, (p, split, text) in enumerate(drawn)]
    mixed = random.Random(seed).sample(rows, len(rows))
    result = curate(contract, table(*rows), SECRET)
    assert curate(contract, table(*mixed), SECRET).log.equals(result.log)
    kept = training_rows(table(*rows), result.log)["text"].to_pylist()
    assert len({text.strip() for text in kept}) == len(kept) == result.kept == len(rows) - result.removed
    held_out = {text.strip() for _, _, split, text in rows if split == "held-out"}
    training = [r for r in training_rows(table(*rows), result.log).to_pylist() if r["split"] == "train"]
    assert not {row["text"].strip().replace("<email>", "z@a.org") for row in training} & held_out
