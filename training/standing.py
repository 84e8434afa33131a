"""Where a site stands between rounds: its model and optimizer, what it owes, and what all that comes from."""

from __future__ import annotations

from training.inner import Loop
from training.keeping import Kept, pack
from training.rounds import merge
from training.rounds.commit import ChainState
from training.rounds.feedback import Feedback
from training.rounds.fragments import names_in
from training.rounds.overlap import Early, taken
from training.rounds.plan import Plan


class Standing:
    """One site's loop with the state beside it.

    `inner` and `owed` say where the optimizer's state and the residual come from (`new`, `kept`, `clean`), as headers
    do. `round`: they are as after this round's span; None: as after none. `early` are steps of the next round that were
    taken, or are to be taken, before that round's commit.
    """

    def __init__(self, plan: Plan, site: str, loop: Loop, kept: Kept) -> None:
        self.plan, self.site, self.loop, self.kept = plan, site, loop, kept
        self.feedback = self._no_debt()
        self.inner, self.owed = "new", "new"
        self.round: int | None = 0
        self.early: Early | None = None

    def restore(self, state: ChainState) -> None:
        """Load the inner optimizer's state of the last round, and what is owed; without it, begin clean and say so."""
        self.loop.load_parameters(merge.parameters(state.tensors))
        self.loop.reset()
        self.feedback = self._no_debt()
        self.round, self.early = state.round, None
        if state.round == 0:
            self.inner, self.owed = "new", "new"
            return
        # Lost or damaged, not out of reach: that would end this process, and the next would find it again.
        self.inner = "kept" if self.kept.load_inner(state.round, self.loop) else "clean"
        if self.plan.overlap.goes_on and self.inner == "kept":
            self._restore_local(state)
        if self.feedback is not None:
            self.owed = "kept" if self.kept.load_feedback(state.round, self.feedback) else "clean"

    def take(self, state: ChainState, mixing: bool) -> None:
        """Take what the last commit changed from the outer state, mixed where steps were taken since."""
        outer = merge.parameters(state.tensors)
        alpha = self.plan.overlap.alpha if mixing else None
        names = names_in(self.plan, outer, state.round)
        self.loop.load_parameters(taken(self.loop.parameters(), outer, names, alpha))

    def stand(self, number: int, early: Early | None) -> bytes:
        """Stand after a round's span; return what is to be kept of it. `early` are the steps that come next."""
        self.inner, self.owed, self.round = "kept", "kept", number
        local = self.loop.parameters() if self.plan.overlap.goes_on else None
        return pack(number, self.loop, self.feedback, local, early)

    def _restore_local(self, state: ChainState) -> None:
        """Put the site's own parameters in place, but for what commits since have changed; without them, the outer."""
        local = self.kept.load_local(state.round)
        outer = merge.parameters(state.tensors)
        if local is None or local.parameters.keys() != outer.keys():
            return
        # Work that did not count was forgotten: what is kept may lie rounds back.
        names = {n for number in range(local.round, state.round) for n in names_in(self.plan, outer, number)}
        self.loop.load_parameters(taken(local.parameters, outer, tuple(sorted(names)), None))
        self.early = local.early if local.round == state.round else None

    def _no_debt(self) -> Feedback | None:
        """Return error feedback that owes nothing yet; None where the plan has none."""
        decay = self.plan.feedback_of(self.site)
        if decay == 0:
            return None
        return Feedback(decay, {n: t.shape for n, t in self.loop.parameters().items()})
