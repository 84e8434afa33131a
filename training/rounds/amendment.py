"""Amendments: changes to a plan, signed by the owner, in force from the commit that names them.

    runs/<run>/amendments/000001.json    create-only; committers take those the chain has not applied yet

`remove-site`, `add-site` (a site of the plan that was removed may return), `change-weights`, `add-version`,
`withdraw-version`. A kind that this version does not know is refused, never ignored. One that changes nothing by the
time it is applied (a version withdrawn twice) is applied and changes nothing: no amendment can make a chain stop.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from data_contracts.canonical import canonical_json, document_sha
from data_contracts.catalog.store import Store
from data_contracts.errors import ObjectMissing, RoundError
from data_contracts.signing import check_signature, sign
from training.rounds.plan import Plan

FORMAT = 1
# 2: the kinds that change what is trained on; they name no site.
DATA_FORMAT = 2
SITE_KINDS = ("remove-site", "add-site")
DATA_KINDS = ("change-weights", "add-version", "withdraw-version")
KINDS = SITE_KINDS + DATA_KINDS


@dataclass(frozen=True)
class Amendment:
    """One signed change; `reason` goes on record.

    Its subject is `site`, or a data set `version`; `weights`, by data set, take the place of those in force.
    """

    kind: str
    reason: str
    sequence: int
    document: dict[str, Any] = field(repr=False)
    site: str = ""
    dataset: str = ""
    version: str = ""
    weights: Mapping[str, float] = field(default_factory=dict)

    @property
    def sha(self) -> str:
        """SHA-256 of the signed document: how a commit names it."""
        return document_sha(self.document)

    @property
    def words(self) -> str:
        """The change in a few words."""
        said = [self.site] if self.site else [f"{self.dataset}@{self.version[:12]}"] if self.version else []
        return " ".join([self.kind, *said, *(f"{d}={w:g}" for d, w in sorted(self.weights.items()))])


def folder(run: str) -> str:
    """The folder of a run's amendments in the home store."""
    return f"runs/{run}/amendments"


def write_amendment(home: Store, plan: Plan, kind: str, site: str, reason: str, owner: Ed25519PrivateKey) -> Amendment:
    """Sign an amendment that removes or adds a site, and put it where committers find it.

    Raises:
        RoundError: the kind is unknown or the site is not in the plan.
    """
    plan.site(site)
    if kind not in SITE_KINDS:
        raise RoundError(f"unknown amendment {kind!r} of a site; this Causeway applies {', '.join(SITE_KINDS)}")
    return _write(home, plan, {"format": FORMAT, "kind": kind, "site": site, "reason": reason}, owner)


def write_data_amendment(
    home: Store, plan: Plan, kind: str, facts: Mapping[str, Any], reason: str, owner: Ed25519PrivateKey
) -> Amendment:
    """Sign an amendment of what is trained on, and put it where committers find it.

    `facts`: `weights` by data set of `change-weights`; `dataset` and `version` of the two others, with `weights` where
    the added one needs some. Whether it may be made is for training/amending.py to ask: this writes it.

    Raises:
        RoundError: the kind is unknown, or its facts are not whole.
    """
    return _write(home, plan, {"format": DATA_FORMAT, "kind": kind, **facts, "reason": reason}, owner)


def _write(home: Store, plan: Plan, facts: dict[str, Any], owner: Ed25519PrivateKey) -> Amendment:
    sequence = 1 + max((a.sequence for a in list_amendments(home, plan)), default=0)
    amendment = _parse(sign({**facts, "run": plan.run, "sequence": sequence}, owner), plan.run)
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
        if amendment.kind in SITE_KINDS:
            plan.site(amendment.site)
        if amendment.kind == "remove-site":
            live.discard(amendment.site)
        elif amendment.kind == "add-site":
            live.add(amendment.site)
    if not live:
        raise RoundError(f"run {plan.run}: the amendments would leave no site")
    return tuple(sorted(live))


def _parse(document: Any, what: str) -> Amendment:
    try:
        kind = str(document["kind"])
        known = {FORMAT: SITE_KINDS, DATA_FORMAT: DATA_KINDS}.get(document["format"], ())
        if kind not in known:
            raise RoundError(f"{what}: amendment {kind!r} of format {document['format']!r} is not known here")
        facts: dict[str, Any] = {}
        if kind in SITE_KINDS:
            facts["site"] = str(document["site"])
        if kind in ("add-version", "withdraw-version"):
            facts |= {"dataset": str(document["dataset"]), "version": str(document["version"])}
        if kind in ("change-weights", "add-version"):
            facts["weights"] = _weights(document["weights"])
            if kind == "change-weights" and not facts["weights"]:
                raise ValueError("it names no weights")
        return Amendment(kind, str(document["reason"]), int(document["sequence"]), document, **facts)
    except (TypeError, KeyError, ValueError, AttributeError, OverflowError) as error:
        raise RoundError(f"{what}: not an amendment ({error})") from error


def _weights(given: Any) -> dict[str, float]:
    weights = {str(dataset): float(weight) for dataset, weight in given.items()}
    wrong = [f"{d}={w}" for d, w in weights.items() if not (math.isfinite(w) and w >= 0)]
    if wrong:
        raise ValueError(f"a weight is 0 or more, not {', '.join(wrong)}")
    return weights
