"""Closing a round: gather what the sites published, refuse what is not valid, copy the inputs home, commit.

Any site may do it. One is preferred (the first in name order), the others step in when nothing happens, so that
usually one copy of the work is done and never is a process needed that can die.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from data_contracts.canonical import canonical_json
from data_contracts.catalog.store import Store
from data_contracts.catalog.terms_chain import read_terms
from data_contracts.errors import ObjectExists, RoundError, StoreError
from training.rounds import contribution as contributions
from training.rounds.amendment import list_amendments
from training.rounds.chain import Slot
from training.rounds.commit import ChainState, build, check_against, seal
from training.rounds.contribution import Contribution
from training.rounds.fragments import exchanged
from training.rounds.membership import closed_by
from training.rounds.outliers import outlying
from training.rounds.plan import Plan
from training.rounds.run import snapshot_key

PATIENCE_S = 3.0


class Closer:
    """One site's part in closing rounds. It remembers contributions it has checked, and how long past rounds waited.

    `clock` counts seconds, and is never compared with another site's.
    """

    def __init__(
        self,
        plan: Plan,
        site: str,
        home: Store,
        stores: dict[str, Store],
        key: Ed25519PrivateKey,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.plan, self.site, self.home, self.stores, self.key, self.clock = plan, site, home, stores, key, clock
        self._stood: tuple[str, str] | None = None
        self._good: dict[str, Contribution] = {}
        self._bad: dict[str, dict[str, str]] = {}
        self._quorum_at: float | None = None
        self._ready_at: float | None = None
        self._past_waits: list[float] = []

    def try_commit(self, state: ChainState, slot: Slot, waited_s: float) -> bool:
        """Commit the next round if it may close and it is this site's turn; True when a commit was tried.

        A lost race is no error: the chain is read again by the caller, and the winner may be this site, answered twice.
        """
        terms_head = self._gather(state)
        good, bad = self._sorted_out(state)
        now = self.clock()
        if self._quorum_at is None and len(good) >= min(self.plan.membership.quorum, len(state.members)):
            self._quorum_at = now
        since = now - self._quorum_at if self._quorum_at is not None else 0.0
        applied = set(state.amendments)
        amendments = [a for a in list_amendments(self.home, self.plan) if a.sha not in applied]
        # A site that the owner removed is not waited for: this round's commit brings the removal into force.
        leaving = {a.site for a in amendments if a.kind == "remove-site"}
        why = closed_by(self.plan.membership, state.members, good.keys(), bad.keys() | leaving, since, self._past_waits)
        if why is None:
            return False
        if self._ready_at is None:
            self._ready_at = now
        # The turn goes down the list of those that contributed: a site that is gone would only be waited for.
        turn = sorted(good).index(self.site) if self.site in good else len(good)
        if now - self._ready_at < turn * PATIENCE_S:
            return False
        deadline: dict[str, Any] = {"closed_by": why}
        if why == "grace":
            deadline |= {"waited_s": round(since, 3), "members": list(state.members)}
        self._past_waits.append(since)
        made = build(
            self.plan,
            state,
            list(good.values()),
            terms_head=terms_head,
            refusals=[bad[name] for name in sorted(bad) if name not in good],
            amendments=amendments,
            deadline=deadline,
            committer=self.site,
            supersedes=slot.supersedes,
        )
        for one in good.values():
            contributions.copy_input(self.home, one)
        document, after = seal(made, self.key)
        if after.round % self.plan.snapshot_every == 0 or after.round == self.plan.rounds:
            self.home.ensure(snapshot_key(self.plan.run, after.round, after.state_sha), made.snapshot)
        with contextlib.suppress(ObjectExists):
            self.home.create(slot.key, canonical_json(document))
        return True

    def _sorted_out(self, state: ChainState) -> tuple[dict[str, Contribution], dict[str, dict[str, str]]]:
        """Return what counts and what is refused of that found by now, the outliers among it refused.

        Who is one is looked at anew each time: a contribution that stood alone may be one of many later.
        """
        out = outlying(self.plan, state, [one.header for one in self._good.values()])
        stem = contributions.folder(self.plan.run, state.round + 1)
        refused = {
            site: {"site": site, "contribution": f"{stem}/{site}-{self._good[site].sha}.json", "reason": why}
            for site, why in out.items()
        }
        return {m: one for m, one in self._good.items() if m not in out}, {**self._bad, **refused}

    def _gather(self, state: ChainState) -> str:
        """Look for what has been published since; return the head of the terms that it was checked against."""
        terms_head = read_terms(self.home, self.plan.owner).sha
        if (state.head, terms_head) != self._stood:
            # What was good under older terms is not any more: its site makes it again.
            self._stood = (state.head, terms_head)
            self._good, self._bad, self._quorum_at, self._ready_at = {}, {}, None, None
        shapes = {name: t.shape for name, t in exchanged(self.plan, state.tensors, state.round + 1).items()}
        for member in state.members:
            if member in self._good or member not in self.stores:
                continue
            try:
                keys = contributions.find(self.stores[member], self.plan.run, state.round + 1, member)
            except StoreError:
                continue  # out of reach: wait, the store or the grace decides
            for key in keys:
                try:
                    one = contributions.read(self.stores[member], key, shapes)
                    if (one.header.base, one.header.terms_head) != (state.head, terms_head):
                        # For an earlier state or under older terms: no answer to this round, its site makes another.
                        continue
                    check_against(self.plan, state, one.header, terms_head, key)
                    if one.header.site != member:
                        raise RoundError(f"{key}: names site {one.header.site!r}")
                    contributions.check(one, self.plan.site(member).public_key, shapes, key)
                except StoreError:
                    continue
                except RoundError as error:
                    self._bad[member] = {"site": member, "contribution": key, "reason": str(error)}
                else:
                    self._good[member] = one
                    self._bad.pop(member, None)
                    break
        return terms_head
