"""Work of a site that its round left out: carried to the next round, or forgotten, as the plan says.

Which of the two is a function of plan, chain, terms and what lies in the site's own store, so a site that is killed in
between does the same again.
"""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from data_contracts.catalog.store import Store
from data_contracts.errors import RoundError
from training.keeping import Kept
from training.rounds import contribution as contributions
from training.rounds.commit import ChainState, check_against
from training.rounds.contribution import Contribution
from training.rounds.plan import Plan


@dataclass(frozen=True)
class Late:
    """What one site does about its late work."""

    plan: Plan
    site: str
    store: Store
    key: Ed25519PrivateKey
    kept: Kept

    def carry(self, state: ChainState, terms_head: str) -> bool:
        """Publish the work that the last round left out for the next one, if that may apply it.

        Optimizer and error feedback stay as they are after that work.
        """
        if self.plan.membership.late != "carry":
            return False
        for one in self._newest(state):
            if one.header.terms_head != terms_head:
                continue  # made under other terms: to be made again
            again = contributions.carried(one, state.round + 1, state.head, state.state_sha, terms_head, self.key)
            try:
                check_against(self.plan, state, again.header, terms_head, f"work of round {again.header.made_for}")
            except RoundError:
                continue
            # Before it is seen, as with new work.
            self.kept.copy_inner(again.header.made_for, state.round + 1)
            contributions.publish(self.store, again)
            return True
        return False

    def forget(self, state: ChainState) -> None:
        """Put what the site kept before the work that was left out in the place of what it kept after it."""
        headers = [one.header for one in self._newest(state)] if self.plan.membership.late == "carry" else []
        before = state.round - 1
        if headers and all(header.made_for for header in headers):
            before = headers[0].made_for - 1
        elif headers:
            before = headers[0].round - 1
        self.kept.copy_inner(before, state.round)

    def _newest(self, state: ChainState) -> list[Contribution]:
        """Return this site's contributions to the newest round that has any, as far back as work is carried.

        None of a round before the last one that the chain has booked.
        """
        index = state.index[self.plan.site(self.site).region]
        for number in range(state.round, max(0, state.round - self.plan.membership.carry_rounds), -1):
            if keys := contributions.find(self.store, self.plan.run, number, self.site):
                found = [contributions.read(self.store, key) for key in keys]
                open_still = all(index[lane] == start for one in found for lane, start, _ in one.header.claims)
                return found if number == state.round or open_still else []
        return []
