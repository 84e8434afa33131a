"""Policy where data is used: asked again, under the terms in force, each time a site trains or evaluates."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from data_contracts.catalog.terms_chain import TermsHead
from data_contracts.errors import PolicyRefused
from data_contracts.policy import Place, Purpose, decide, decide_derived
from training.rounds.plan import Plan
from training.shards.manifest import DatasetVersion
from training.shards.placement import may_hold
from training.sites import Site
from training.workspace import today

EXIT_REFUSED = 4  # a site process that policy stopped: to start it again would not help


def require_use(plan: Plan, head: TermsHead, site: str, datasets: Iterable[str], purpose: Purpose) -> None:
    """Check that a site may use these data sets now, and that what it derives may reach home and the plan's sites.

    Raises:
        PolicyRefused: one of them may not be used so; names the clauses.
    """
    places = [Place(s.name, tuple(s.jurisdictions)) for s in plan.sites]
    here = next(p for p in places if p.name == site)
    home = Place("home", tuple(plan.home_jurisdictions))
    for dataset in sorted(set(datasets)):
        terms = head.of(dataset)
        asked = [
            decide(terms, purpose, here, today(), action="store"),
            decide(terms, purpose, here, today(), action="process"),
            decide_derived(terms, home, places, today()),
        ]
        reasons = dict.fromkeys(r for d in asked if not d.allowed for r in d.reasons)
        if reasons:
            why = "\n".join(f"  {r}" for r in reasons)
            raise PolicyRefused(
                f"{dataset}: the terms in force do not permit {purpose} at {site}; leave it out of run.toml:\n{why}"
            )


def require_version(
    head: TermsHead, version: DatasetVersion, purpose: Purpose, home: Place, sites: Sequence[Site]
) -> None:
    """Check that a run over these sites may train on a data set version, as it is planned or the version is added.

    Raises:
        PolicyRefused: its terms have changed since it was sharded, its updates may not leave, or a site whose region
            holds some of it may not train on it; names the clauses.
    """
    in_force = head.of(version.dataset)
    if in_force.sha != version.terms_sha:
        raise PolicyRefused(f"{version.dataset}: its terms have changed since it was sharded; run: causeway shard")
    derived = decide_derived(in_force, home, [s.place for s in sites], today())
    refusals = [] if derived.allowed else list(derived.reasons)
    for site in sites:
        if version.of(site.region, "train"):
            decision = may_hold(in_force, purpose, site, today())
            refusals += [] if decision.allowed else list(decision.reasons)
    if refusals:
        why = "\n".join(f"  {r}" for r in dict.fromkeys(refusals))
        raise PolicyRefused(f"{version.dataset}: may not be trained on for {purpose} in this run:\n{why}")
