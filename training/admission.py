"""Policy where data is used: asked again, under the terms in force, each time a site trains or evaluates."""

from __future__ import annotations

from collections.abc import Iterable

from data_contracts.catalog.terms_chain import TermsHead
from data_contracts.errors import PolicyRefused
from data_contracts.policy import Place, Purpose, decide, decide_derived
from training.rounds.plan import Plan
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
