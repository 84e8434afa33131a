"""What the terms of a data set say to one use at each of several places, in sentences that name their clauses."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass

from data_contracts.policy import Decision, Place, Purpose, decide, decide_derived
from data_contracts.terms import TrainingTerms


@dataclass(frozen=True)
class Explanation:
    """One use at one place: may the rows rest there, be used there, and may what is derived take part in a run?

    `updates` is about a run of home and this place alone.
    """

    place: Place
    store: Decision
    process: Decision
    updates: Decision

    @property
    def allowed(self) -> bool:
        """Whether the rows may rest and be used there; updates are a question of the whole run."""
        return self.store.allowed and self.process.allowed

    @property
    def word(self) -> str:
        """The answer in a word, for a table: yes, or no with the clauses that refuse."""
        if self.allowed:
            return "yes" if self.updates.allowed else "yes; updates stay"
        refusing = [*self.store.reasons * (not self.store.allowed), *self.process.reasons * (not self.process.allowed)]
        return "no: " + ", ".join(dict.fromkeys(reason.split(":", 1)[0] for reason in refusing))


def explain(
    terms: TrainingTerms, purpose: Purpose, home: Place, places: Sequence[Place], on_date: datetime.date
) -> list[Explanation]:
    """Ask the policy about one purpose at each place, for resting and for use, and about the updates."""
    return [
        Explanation(
            place,
            decide(terms, purpose, place, on_date, action="store"),
            decide(terms, purpose, place, on_date, action="process"),
            decide_derived(terms, home, [place], on_date),
        )
        for place in places
    ]
