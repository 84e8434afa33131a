"""Ed25519 identities (RFC 8032), signed documents, and the secrets of data sets.

A signed document is a JSON object with a `signature` field: the hex signature of the canonical JSON of the same
object without that field. Private keys live in `keys/`, mode 0600, outside every store.
"""

from __future__ import annotations

import os
import re
import secrets
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from data_contracts.canonical import canonical_json
from data_contracts.errors import CausewayError, RoundError

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")


class KeyRing:
    """The private keys of one home or one site: `keys/<name>.ed25519` and `keys/<name>.secret`, each mode 0600."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def signer(self, name: str) -> Ed25519PrivateKey:
        """Return the named key, made on first use."""
        raw = self._bytes(f"{_safe(name)}.ed25519", lambda: Ed25519PrivateKey.generate().private_bytes_raw())
        return Ed25519PrivateKey.from_private_bytes(raw)

    def secret(self, name: str) -> bytes:
        """Return the 32 secret bytes of a data set, made on first use (they key its record ids)."""
        return self._bytes(f"{_safe(name)}.secret", lambda: secrets.token_bytes(32))

    def _bytes(self, file_name: str, make: Any) -> bytes:
        path = self.directory / file_name
        try:
            return _key_bytes(path)
        except FileNotFoundError:
            pass
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        # A hard link publishes the whole file or nothing, and two processes that race agree on one key.
        draft = path.with_name(f".{file_name}.{os.getpid()}.{secrets.token_hex(4)}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(make().hex() + "\n")
        try:
            os.link(draft, path)
        except FileExistsError:
            pass
        finally:
            draft.unlink()
        return _key_bytes(path)


def _key_bytes(path: Path) -> bytes:
    text = path.read_text(errors="replace").strip()
    # An empty file would be an empty HMAC key, and nobody would notice.
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise CausewayError(f"{path}: not 32 bytes in hex; restore it from a copy, or move it away to make a new one")
    return bytes.fromhex(text)


def _safe(name: str) -> str:
    flat = name.replace("/", "--")
    if not _NAME.fullmatch(flat):
        raise CausewayError(f"{name!r} cannot name a key: use a-z, 0-9, '.', '_', '-' and '/'")
    return flat


def public_hex(key: Ed25519PrivateKey) -> str:
    """Return the 32-byte public key as hex, the form in which plans list it."""
    return key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw).hex()


def sign(document: dict[str, Any], key: Ed25519PrivateKey) -> dict[str, Any]:
    """Return the document with its `signature`; one that was there before is replaced."""
    body = {name: value for name, value in document.items() if name != "signature"}
    return {**body, "signature": key.sign(canonical_json(body)).hex()}


def check_signature(document: dict[str, Any], public: str, what: str) -> None:
    """Check a signed document against a public key in hex.

    Raises:
        RoundError: there is no signature, or it is not this key's signature of this document; names `what`.
    """
    signature = document.get("signature")
    if not isinstance(signature, str):
        raise RoundError(f"{what}: unsigned; refuse it")
    body = {name: value for name, value in document.items() if name != "signature"}
    try:
        # One spelling only: a document is named by a hash over its signature too.
        if bytes.fromhex(signature).hex() != signature:
            raise ValueError("not lower-case hex")
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(public))
        key.verify(bytes.fromhex(signature), canonical_json(body))
    except (InvalidSignature, ValueError) as error:
        raise RoundError(f"{what}: the signature is not one of key {public[:16]}… over these bytes") from error
