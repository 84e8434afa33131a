"""What a site does about a round that it has trained: publish, close the round when it is its turn, read the commit.

With overlap this is the work of a thread, while the site trains on (docs/overlap.md).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from data_contracts.catalog.store import Store
from data_contracts.catalog.terms_chain import TermsHead, read_terms
from data_contracts.errors import RoundError
from training.rounds import contribution as contributions
from training.rounds.chain import Slot, advance, commit_key
from training.rounds.closing import Closer
from training.rounds.commit import ChainState, check_against
from training.rounds.control import Control, read_control
from training.rounds.plan import Plan

POLL_S = 0.05
LOOK_S = 1.0  # between looks at terms and control while a site waits
PAUSE_PATIENCE_S = 30.0  # a paused site waits so long for the round's other sites: one of them may be dead


class Paused(Exception):
    """The run is paused or cancelled; what is whole has been published."""


class Abandoned(Exception):
    """Nobody waits for the answer any more."""


@dataclass(frozen=True)
class Answer:
    """A round's commit and the state after it, and what a site must know before it trains the next round."""

    state: ChainState
    commit: dict[str, Any]
    control: Control
    terms: TermsHead
    published: bool

    def counts(self, site: str) -> bool:
        """Say whether the commit applied this site's work."""
        return any(i["site"] == site for i in self.commit["inputs"])

    def refused(self, site: str) -> bool:
        """Say whether the commit refused it."""
        return any(r["site"] == site for r in self.commit["refusals"])


class Follower:
    """One site's way from its contribution to the commit."""

    def __init__(self, plan: Plan, site: str, home: Store, store: Store, closer: Closer) -> None:
        self.plan, self.site, self.home, self.store, self.closer = plan, site, home, store, closer

    def has_published(self, state: ChainState) -> bool:
        """Say whether a contribution of this site that fits the next round is in its store."""
        head = read_terms(self.home, self.plan.owner).sha
        for key in contributions.find(self.store, self.plan.run, state.round + 1, self.site):
            try:
                check_against(self.plan, state, contributions.read(self.store, key).header, head, key)
                return True
            except RoundError:
                continue
        return False

    def refused(self, number: int) -> bool:
        """Say whether the commit of a round, which is there, refused this site's work."""
        name = commit_key(self.plan.run, number).removesuffix(".json")
        keys = [key for key, _ in self.home.list(f"runs/{self.plan.run}/commits") if key.startswith(f"{name}.")]
        # The last attempt is the valid one: nobody supersedes that.
        key = max(keys, key=lambda key: int(key.removeprefix(f"{name}.").removesuffix("json").rstrip(".") or 0))
        return any(refusal["site"] == self.site for refusal in self.home.get_json(key)["refusals"])

    def await_commit(self, state: ChainState, look: Callable[[], None]) -> Answer | None:
        """Return the answer to a round; None when the terms changed: the round must be made again.

        `look` is called before each look at the chain, and may raise.

        Raises:
            Paused: the run is paused or cancelled, and the round will not be closed.
        """
        started = looked = time.monotonic()
        paused: float | None = None
        while True:
            look()
            if time.monotonic() - looked > LOOK_S:
                looked = time.monotonic()
                if not self.has_published(state):
                    return None
                control = read_control(self.home, self.plan.run)
                paused = (paused or looked) if control.state == "paused" else None
                if control.stops(state.round + 1, True) or (paused and looked - paused > PAUSE_PATIENCE_S):
                    # Others have ended, or will not answer. What this site contributed lies in its store.
                    raise Paused(f"the run is {control.words}")
            step = advance(self.home, self.plan, state)
            if not isinstance(step, Slot):
                return self._answer(*step)
            if not self.closer.try_commit(state, step, time.monotonic() - started):
                time.sleep(POLL_S)

    def _answer(self, state: ChainState, commit: dict[str, Any]) -> Answer:
        published = state.round < self.plan.rounds and self.has_published(state)
        terms = read_terms(self.home, self.plan.owner)
        return Answer(state, commit, read_control(self.home, self.plan.run), terms, published)


class Behind:
    """Work done by a thread while its caller trains: `work` is given a function that it calls often and that may raise.

    What the work raises is raised to whoever asks for its result.
    """

    def __init__(self, work: Callable[[Callable[[], None]], Answer | None], name: str) -> None:
        self._work = work
        self._answer: Answer | None = None
        self._fault: BaseException | None = None
        self._leave, self._ended = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise what the work raised, if it has ended by that."""
        if self._ended.is_set() and self._fault is not None:
            raise self._fault

    def result(self, look: Callable[[], None]) -> Answer | None:
        """Wait for the work's end; `look` is called meanwhile and may raise."""
        while not self._ended.wait(POLL_S):
            look()
        self.check()
        return self._answer

    def leave(self) -> None:
        """Wait until the work has published what it has, and end it there; leaving again is harmless."""
        self._leave.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            self._answer = self._work(self._look)
        except BaseException as error:
            self._fault = error
        finally:
            self._ended.set()

    def _look(self) -> None:
        if self._leave.is_set():
            raise Abandoned
