"""Amendments: changes to a plan, signed by the owner, in force from the commit that names them.

    runs/<run>/amendments/000001.json    create-only; committers take those the chain has not applied yet

This version applies `remove-site` and `add-site` (a site of the plan that was removed may return). The format leaves
room for other kinds; one that this version does not know is refused, never ignored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from data_contracts.canonical import canonical_json, document_sha
from data_contracts.catalog.store import Store
from data_contracts.errors import ObjectMissing, RoundError
from data_contracts.signing import check_signature, sign
from training.rounds.plan import Plan

FORMAT = 1
KINDS = ("remove-site", "add-site")


@dataclass(frozen=True)
class Amendment:
    """One signed change; `site` is its subject, `reason` goes on record."""

    kind: str
    site: str
    reason: str
    sequence: int
    document: dict[str, Any]

    @property
    def sha(self) -> str:
        """SHA-256 of the signed document: how a commit names it."""
        return document_sha(self.document)


def folder(run: str) -> str:
    """The folder of a run's amendments in the home store."""
    return f"runs/{run}/amendments"


def write_amendment(home: Store, plan: Plan, kind: str, site: str, reason: str, owner: Ed25519PrivateKey) -> Amendment:
    """Sign an amendment and put it where committers find it.

    Raises:
        RoundError: the kind is unknown or the site is not in the plan.
    """
    plan.site(site)
    if kind not in KINDS:
        raise RoundError(f"unknown amendment {kind!r}; this Causeway applies {', '.join(KINDS)}")
    sequence = 1 + max((a.sequence for a in list_amendments(home, plan)), default=0)
    body = {"format": FORMAT, "run": plan.run, "sequence": sequence, "kind": kind, "site": site, "reason": reason}
    amendment = _parse(sign(body, owner), plan.run)
    check_signature(amendment.document, plan.owner, f"amendment {sequence} of {plan.run}")
    home.create(f"{folder(plan.run)}/{sequence:06d}.json", canonical_json(amendment.document))
    return amendment


def list_amendments(home: Store, plan: Plan) -> list[Amendment]:
    """Return the run's amendments in order, each with a good signature.

    Raises:
        RoundError: one is wrongly signed or of an unknown kind.
    """
    found = []
    for key, _ in home.list(folder(plan.run)):
        amendment = _parse(home.get_json(key), key)
        check_signature(amendment.document, plan.owner, f"{home.url}/{key}")
        found.append(amendment)
    return found


def read_amendment(home: Store, run: str, sha: str) -> Amendment:
    """Return one amendment by its hash.

    Raises:
        ObjectMissing: it is not in the home store.
    """
    for key, _ in home.list(folder(run)):
        amendment = _parse(home.get_json(key), key)
        if amendment.sha == sha:
            return amendment
    raise ObjectMissing(f"{home.url}/{folder(run)}: no amendment {sha}")


def apply_members(members: tuple[str, ...], amendments: Sequence[Amendment], plan: Plan) -> tuple[str, ...]:
    """Return the live sites after the amendments, in the order of their names.

    Raises:
        RoundError: one is wrongly signed, or none would be left.
    """
    live = set(members)
    for amendment in amendments:
        check_signature(amendment.document, plan.owner, f"amendment {amendment.sequence} of {plan.run}")
        if amendment.document.get("run") != plan.run:
            raise RoundError(
                f"amendment {amendment.sequence}: of run {amendment.document.get('run')!r}, not {plan.run}"
            )
        plan.site(amendment.site)
        if amendment.kind == "remove-site":
            live.discard(amendment.site)
        else:
            live.add(amendment.site)
    if not live:
        raise RoundError(f"run {plan.run}: the amendments would leave no site")
    return tuple(sorted(live))


def _parse(document: Any, what: str) -> Amendment:
    try:
        if document["format"] != FORMAT or document["kind"] not in KINDS:
            raise RoundError(
                f"{what}: amendment {document['kind']!r} of format {document['format']!r} is not known here"
            )
        return Amendment(
            str(document["kind"]), str(document["site"]), str(document["reason"]), int(document["sequence"]), document
        )
    except (TypeError, KeyError, ValueError) as error:
        raise RoundError(f"{what}: not an amendment ({error})") from error
