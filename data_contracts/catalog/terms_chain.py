"""The chain of the terms in force: `terms/000007.json` in the home store, each signed by the owner.

Every entry holds the terms of all data sets, and the hash of the entry before it. Commits carry the head, so it is on
record under which terms each round was made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from data_contracts.canonical import canonical_json, document_sha
from data_contracts.catalog.store import Store
from data_contracts.errors import PolicyRefused, StoreError
from data_contracts.signing import check_signature, public_hex, sign
from data_contracts.terms import TrainingTerms, terms_from_document

FORMAT = 1


@dataclass(frozen=True)
class TermsHead:
    """The newest entry: its number (0 when there is none), its hash, the terms by data set, and all hashes in order."""

    sequence: int
    sha: str
    terms: dict[str, TrainingTerms]
    chain: tuple[str, ...] = ()

    def of(self, dataset: str) -> TrainingTerms:
        """Return the terms of a data set.

        Raises:
            PolicyRefused: none are in force; a data set without terms is not used.
        """
        try:
            return self.terms[dataset]
        except KeyError:
            raise PolicyRefused(
                f"{dataset}: no terms are in force for it; ingest it under a contract with trainingTerms first"
            ) from None


def read_terms(home: Store, owner_public: str | None = None) -> TermsHead:
    """Read the chain and return its head, with every link checked, and signatures when the owner's key is given.

    Raises:
        StoreError: a link is missing, changed or of another format; names it.
        RoundError: an entry is not signed by the owner.
    """
    keys = [key for key, _ in home.list("terms")]
    previous, terms = "", {}
    chain: list[str] = []
    for number, key in enumerate(keys, start=1):
        document = home.get_json(key)
        whole = isinstance(document, dict) and isinstance(document.get("datasets"), dict)
        if not whole or key != _key(number) or document.get("format") != FORMAT or document.get("previous") != previous:
            raise StoreError(f"{home.url}/{key}: the chain of terms is broken here; restore the object")
        if owner_public is not None:
            check_signature(document, owner_public, f"{home.url}/{key}")
        previous = document_sha(document)
        chain.append(previous)
        terms = document["datasets"]
    parsed = {name: terms_from_document(value) for name, value in sorted(terms.items())}
    return TermsHead(len(keys), previous, parsed, tuple(chain))


def put_terms(home: Store, dataset: str, terms: TrainingTerms, owner: Ed25519PrivateKey) -> TermsHead:
    """Bring a data set's terms into force; when they are already, nothing is written.

    Raises:
        ObjectExists: another writer extended the chain at the same moment; call again.
    """
    head = read_terms(home, public_hex(owner))
    if dataset in head.terms and head.terms[dataset].sha == terms.sha:
        return head
    documents: dict[str, Any] = {name: t.to_document() for name, t in head.terms.items()}
    documents[dataset] = terms.to_document()
    body = {"format": FORMAT, "sequence": head.sequence + 1, "previous": head.sha, "datasets": documents}
    home.create(_key(head.sequence + 1), canonical_json(sign(body, owner)))
    return read_terms(home, public_hex(owner))


def _key(number: int) -> str:
    return f"terms/{number:06d}.json"
