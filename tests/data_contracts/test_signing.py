from __future__ import annotations

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from data_contracts.errors import CausewayError, RoundError
from data_contracts.signing import KeyRing, check_signature, public_hex, sign

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
OTHER = Ed25519PrivateKey.from_private_bytes(bytes(32))
DOCUMENTS = st.dictionaries(st.text(min_size=1), st.integers() | st.text() | st.booleans() | st.none(), max_size=4)


@given(DOCUMENTS)
def test_a_signed_document_is_good_for_its_key_and_no_other(document: dict[str, Any]) -> None:
    signed = sign(document, KEY)
    check_signature(signed, public_hex(KEY), "it")
    assert sign(signed, KEY) == signed
    with pytest.raises(RoundError, match="it: the signature is not one of key"):
        check_signature(signed, public_hex(OTHER), "it")


@given(DOCUMENTS, st.text(min_size=1).filter(lambda t: t != "signature"))
def test_any_change_breaks_it(document: dict[str, Any], name: str) -> None:
    signed = sign(document, KEY)
    for changed in ({**signed, name: "another value"}, {k: v for k, v in signed.items() if k != name}):
        if changed != signed:
            with pytest.raises(RoundError, match="it: the signature"):
                check_signature(changed, public_hex(KEY), "it")


def test_the_signature_is_ed25519_as_in_rfc_8032() -> None:
    # RFC 8032, 7.1, test 1 has this key; its public half is given there.
    key = Ed25519PrivateKey.from_private_bytes(
        bytes.fromhex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60")
    )
    assert public_hex(key) == "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"


@pytest.mark.parametrize("signature", [None, 5, ["00"]])
def test_no_signature_is_said_so(signature: object) -> None:
    with pytest.raises(RoundError, match="plan.json: unsigned"):
        check_signature(
            {"a": 1, **({} if signature is None else {"signature": signature})}, public_hex(KEY), "plan.json"
        )


@pytest.mark.parametrize("spell", [str.upper, lambda s: s + " ", lambda s: s[:-2], lambda s: "zz" + s[2:]])
def test_a_signature_has_one_spelling(spell: Any) -> None:
    signed = sign({"a": "value"}, KEY)
    with pytest.raises(RoundError, match="it: the signature"):
        check_signature({**signed, "signature": spell(signed["signature"])}, public_hex(KEY), "it")


@pytest.mark.parametrize("public", ["", "00", "not hex", "ff" * 32])
def test_a_public_key_that_is_none_proves_nothing(public: str) -> None:
    with pytest.raises(RoundError, match="it: the signature"):
        check_signature(sign({"a": 1}, KEY), public, "it")


def test_keys_are_made_once_and_only_their_owner_reads_them(tmp_path: Path) -> None:
    ring = KeyRing(tmp_path / "keys")
    key, secret = ring.signer("site-east"), ring.secret("dataset-a/b")
    again = KeyRing(tmp_path / "keys")
    assert again.signer("site-east").private_bytes_raw() == key.private_bytes_raw()
    assert again.secret("dataset-a/b") == secret
    assert len(secret) == 32
    files = sorted(path.name for path in (tmp_path / "keys").iterdir())
    assert files == ["dataset-a--b.secret", "site-east.ed25519"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in (tmp_path / "keys").iterdir()} == {0o600}
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700


def test_each_name_has_its_own_key(tmp_path: Path) -> None:
    ring = KeyRing(tmp_path)
    assert len({ring.secret("a"), ring.secret("b"), ring.signer("a").private_bytes_raw()}) == 3


def test_makers_that_race_agree_on_one_key(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: KeyRing(tmp_path).secret("shared"), range(32)))
    assert len(set(made)) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["shared.secret"]


@pytest.mark.parametrize("text", ["", "\n", "zz" * 32, "00" * 31, "00" * 33])
def test_a_damaged_key_is_named_and_never_replaced(tmp_path: Path, text: str) -> None:
    for name in ("a.ed25519", "a.secret"):
        (tmp_path / name).write_text(text)
    for read in (KeyRing(tmp_path).signer, KeyRing(tmp_path).secret):
        with pytest.raises(CausewayError, match=r"a\.(ed25519|secret): not 32 bytes in hex; restore"):
            read("a")
    assert (tmp_path / "a.secret").read_text() == text


@pytest.mark.parametrize("name", ["", "..", "../up", "/abs", "A", "a b", "a\n", ".hidden", "a\0"])
def test_a_name_never_becomes_a_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(CausewayError, match="cannot name a key"):
        KeyRing(tmp_path / "keys").secret(name)
    assert not (tmp_path / "keys").exists()
