from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from data_contracts.canonical import canonical_json, document_sha
from data_contracts.catalog.store import Store
from data_contracts.catalog.terms_chain import TermsHead, put_terms, read_terms
from data_contracts.errors import ObjectExists, PolicyRefused, RoundError, StoreError
from data_contracts.signing import public_hex, sign
from data_contracts.terms import TrainingTerms, terms_from_document

OWNER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
STRANGER = Ed25519PrivateKey.from_private_bytes(bytes(32))


def terms(*storage: str) -> TrainingTerms:
    return terms_from_document(
        {
            "format": 1,
            "licence": {"expression": "MIT"},
            "purposes": {"permitted": ["pre-training"]},
            "residency": {"storage": list(storage), "processing": ["SE"]},
            "heldOut": {"share": 0.1, "key": "k"},
            "text": "content",
        }
    )


@pytest.fixture
def home(tmp_path: Path) -> Store:
    return Store.open(tmp_path)


def three(home: Store) -> TermsHead:
    put_terms(home, "a", terms("SE"), OWNER)
    put_terms(home, "b", terms("EU"), OWNER)
    return put_terms(home, "a", terms("NO", "SE"), OWNER)


def test_each_entry_holds_all_terms_and_names_the_one_before(home: Store) -> None:
    head = three(home)
    assert [k for k, _ in home.list("terms")] == [f"terms/{n:06d}.json" for n in (1, 2, 3)]
    documents = [home.get_json(f"terms/{n:06d}.json") for n in (1, 2, 3)]
    assert [d["previous"] for d in documents] == ["", document_sha(documents[0]), document_sha(documents[1])]
    assert (head.sequence, head.sha) == (3, document_sha(documents[2]))
    assert head == read_terms(home, public_hex(OWNER)) == read_terms(home)
    assert (head.of("a"), head.of("b")) == (terms("NO", "SE"), terms("EU"))


def test_terms_that_are_in_force_are_not_written_again(home: Store) -> None:
    head = three(home)
    assert put_terms(home, "a", terms("SE", "NO"), OWNER) == head


def test_a_data_set_without_terms_is_not_used(home: Store) -> None:
    with pytest.raises(PolicyRefused, match="c: no terms are in force"):
        three(home).of("c")


def test_an_entry_signed_by_anybody_else_is_refused_by_name(home: Store) -> None:
    three(home)
    document = home.get_json("terms/000003.json")
    home.put("terms/000003.json", canonical_json(sign(document, STRANGER)))
    with pytest.raises(RoundError, match=r"terms/000003\.json: the signature"):
        read_terms(home, public_hex(OWNER))


def test_a_changed_entry_breaks_the_chain_even_for_a_reader_without_the_key(home: Store) -> None:
    three(home)
    document = home.get_json("terms/000001.json")
    home.put("terms/000001.json", canonical_json(sign({**document, "note": 1}, OWNER)))
    with pytest.raises(StoreError, match=r"terms/000002\.json: the chain of terms is broken here"):
        read_terms(home)


def test_a_missing_entry_is_named(home: Store) -> None:
    three(home)
    home.delete("terms/000002.json")
    with pytest.raises(StoreError, match=r"terms/000003\.json: the chain of terms is broken here"):
        read_terms(home)


@pytest.mark.parametrize("data", [b"{", b"[]", b"3", b"{}", b'{"format":9,"previous":"","datasets":{}}'])
def test_an_entry_that_is_none_is_named(home: Store, data: bytes) -> None:
    home.put("terms/000001.json", data)
    with pytest.raises(StoreError, match=r"terms/000001\.json"):
        read_terms(home)


def test_writers_that_race_extend_one_chain(home: Store) -> None:
    def put(name: str) -> None:
        for _ in range(50):
            try:
                put_terms(home, name, terms("SE"), OWNER)
                return
            except ObjectExists:
                continue

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, [f"set-{n}" for n in range(8)]))
    head = read_terms(home, public_hex(OWNER))
    assert (head.sequence, sorted(head.terms)) == (8, [f"set-{n}" for n in range(8)])
