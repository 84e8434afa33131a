"""The site process: read the chain, train a span, publish, commit or follow, repeat.

    python -m training.worker --home-store URL --site east --store URL --peer north=URL ... --keys DIR --run RUN

A site opens only its own region's shards; of its peers' stores it reads nothing but contributions. It keeps no state
that matters anywhere but in its store: killed at any point and started again, it goes on from the chain. Given fixed
steps, what it contributes does not depend on whether it was killed, or its run paused.
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from data_contracts.catalog.store import Store
from data_contracts.catalog.terms_chain import TermsHead, read_terms
from data_contracts.errors import RoundError, StoreError
from data_contracts.policy import Purpose
from data_contracts.signing import public_hex
from training import model as models
from training.admission import require_use
from training.following import Answer, Behind, Follower, Paused
from training.inner import MakeLoop, alone
from training.inside import device_words
from training.keeping import Kept, Spans
from training.late import Late
from training.process import Stopped
from training.recipe import InnerRecipe
from training.rounds import contribution as contributions
from training.rounds import merge
from training.rounds.closing import Closer
from training.rounds.commit import ChainState
from training.rounds.contribution import Contribution
from training.rounds.control import read_control
from training.rounds.fragments import exchanged
from training.rounds.lengths import planned, steps_of
from training.rounds.overlap import Clock, Early, claims_of, clock_of, early_steps
from training.rounds.plan import Plan
from training.rounds.run import newest_round, read_run_data
from training.shards.cache import ShardCache
from training.shards.loader import Loader
from training.shards.schedule import in_batches, ranges
from training.span import Place, Tally, train_steps
from training.standing import Standing
from training.telemetry import Gauge

__all__ = ["Left", "Paused", "SiteWorker", "Stopped"]

PEER_PATIENCE_S = 2.0  # a peer's store that does not answer is looked at again; the grace decides how often


@dataclass(frozen=True)
class Made:
    """A site's work of a round: its contribution, what it keeps, under which terms, and which steps it takes next."""

    contribution: Contribution
    kept: bytes
    early: Early | None
    terms: TermsHead
    grad_norm: float


@dataclass(frozen=True)
class Ahead:
    """Early steps that were taken, under which terms, and what came of them."""

    early: Early
    terms: TermsHead
    tally: Tally


class Left(RoundError):
    """The site is no member now: the owner has taken it out, or not yet added it."""


@dataclass
class SiteWorker:
    """One site of one run. `attempt` names this incarnation of the process in logs, never in the chain.

    `cache` is the folder for shards of a store that is no local directory, `cache_bytes` its bound; `dtype` takes the
    place of the recipe's, and `form` and `ranks` say what `make_loop` makes.
    """

    plan: Plan
    site: str
    home: Store
    store: Store
    peers: dict[str, Store]
    key: Ed25519PrivateKey
    log_dir: Path | None
    stop: Callable[[], bool]
    cache: Path | None = None
    cache_bytes: int | None = None
    attempt: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    make_loop: MakeLoop = alone
    dtype: str | None = None
    form: str = "ddp"
    ranks: int = 1

    def __post_init__(self) -> None:
        listed = self.plan.site(self.site)
        if public_hex(self.key) != listed.public_key:
            raise RoundError(f"site {self.site}: its key is not the one that plan {self.plan.run} lists; restore keys/")
        self.region = listed.region
        self._log = None
        if self.log_dir is not None:
            self.log_dir.mkdir(parents=True, exist_ok=True)
            self._log = self.log_dir / f"{self.plan.run}-{self.site}-{self.attempt}.ndjson"
        self._shards = ShardCache(self.store, self.cache, self.cache_bytes)
        self.loader = self._loader(None)
        planned_recipe = InnerRecipe.model_validate(self.plan.inner)
        own = self.dtype or planned_recipe.dtype
        self.recipe = InnerRecipe.model_validate({**self.plan.inner, "dtype": own})
        self.loop = self.make_loop(models.ModelSpec.model_validate(self.plan.model), self.plan.seed, self.recipe)
        self.device = device_words(self.loop.device.type, own, planned_recipe.dtype, self.form, self.ranks)
        self.gauge = Gauge(
            models.ModelSpec.model_validate(self.plan.model), own, self.loop.device, self.ranks, self.device
        )
        self.closer = Closer(self.plan, self.site, self.home, {**self.peers, self.site: self.store}, self.key)
        self.steps = planned(self.plan, 1)
        self._begun: dict[int, int] = {}
        self.kept = Kept(self.store, self.plan.run, self.site, self.attempt)
        self.standing = Standing(self.plan, self.site, self.loop, self.kept)
        self._telemetry: list[tuple[int, Spans, dict[str, Any]]] = []
        self.late, self.carried = Late(self.plan, self.site, self.store, self.key, self.kept), False
        self.follower = Follower(self.plan, self.site, self.home, self.store, self.closer)

    def run(self) -> ChainState:
        """Work until the plan's last round is committed; return the final state.

        Raises:
            Stopped: asked to end. Paused: the run is paused or cancelled. Left: the site is no member of it now.
            RoundError, StoreError: this site cannot go on; says why.
        """
        state, inputs = newest_round(self.home, self.plan)
        if state.round > 0 and self.site not in inputs:
            # The last round left this site's work out, as this process may have seen before.
            self._left_out(state, refused=self.follower.refused(state.round))
        self.standing.restore(state)
        known: Answer | None = None
        ahead: Ahead | None = None
        spans = Spans()
        while state.round < self.plan.rounds:
            control = known.control if known else read_control(self.home, self.plan.run)
            if control.stops(state.round + 1, known is not None):
                raise Paused(f"the run is {control.words}")
            if self.site not in state.members:
                raise Left(f"site {self.site}: no member of run {self.plan.run} now; the owner may add it again")
            self.steps = steps_of(self.plan, state, self.site)
            answer: Answer | None = None
            while answer is None:
                made: Made | None = None
                if not (known.published if known else self.follower.has_published(state)):
                    if self.carried:
                        # The terms changed before a round took it.
                        self._left_out(state, refused=False)
                    if ahead is None and self.standing.round != state.round:
                        # Behind: an earlier process published the last round, and kept the optimizer's state there.
                        self.standing.restore(state)
                    terms = known.terms if known else read_terms(self.home, self.plan.owner)
                    made = self._train(state, terms, ahead, spans)
                known = None  # after the first try things are looked at again
                answer, ahead, spans = self._follow(state, made, spans)
            state, known = answer.state, answer
            self.carried = False
            if not answer.counts(self.site):
                self._left_out(state, answer.refused(self.site))
                known, ahead = replace(answer, published=self.carried), None
        self._send_telemetry()
        self._lease(state.round, 0, 0, float("nan"), done=True)
        return state

    def _loader(self, state: ChainState | None) -> Loader:
        """Return the loader of the segments up to this state."""
        order = read_run_data(self.home, self.plan, state).orders[self.region]
        self._segments = len(state.openings) if state else 0
        return Loader(self._shards, order, self.plan.window, self._log, self.plan.unreadable)

    def _train(self, state: ChainState, terms: TermsHead, ahead: Ahead | None, spans: Spans) -> Made:
        """Train the span of the next round and make its contribution; `ahead` are steps of it that were taken early."""
        number, plan = state.round + 1, self.plan
        if len(state.openings) != self._segments:
            self.loader = self._loader(state)
        held = self.loader.order.datasets
        if not held:
            raise RoundError(
                f"region {self.region}: nothing to train on in round {number}: every data set there is withdrawn or has"
                f" weight 0; give one a weight, add a version, or take {self.site} out (causeway amend {plan.run})"
            )
        require_use(plan, terms, self.site, held, Purpose.parse(plan.purpose))
        claims = claims_of(plan, state, self.site)
        batches = in_batches(claims, plan.batch_windows)
        with spans.span("compute"):
            tally = self._begin(state, terms, batches, ahead)
            self._steps(batches[tally.done :], tally, clock_of(plan, state, self.site), self._check_stop)
        if not tally.tokens:
            raise StoreError(
                f"site {self.site}: no shard of round {number} can be read; restore them in {self.store.url}"
            )
        with spans.span("encode"):
            update = merge.subtract(exchanged(plan, state.tensors, number), self.loop.parameters())
            feedback = self.standing.feedback
            header: dict[str, Any] = {
                "run": plan.run,
                "plan": plan.sha,
                "round": number,
                "site": self.site,
                "base": state.head,
                "base_state": state.state_sha,
                "terms_head": terms.sha,
                "claims": tuple(claims),
                "tokens": tally.count,
                "tokens_by_dataset": dict(sorted(tally.tokens.items())),
                "steps": self.steps,
                "loss": tally.loss,
                "inner": self.standing.inner,
                "device": self.device,
                "skipped": tuple(ranges(tally.skipped)),
                "feedback": self.standing.owed if feedback else "",
                "seconds": 0.0 if plan.pace == "fixed" else max(1e-3, round(tally.seconds, 3)),
            }
            contribution = contributions.make(header, update, plan.codec_of(self.site), self.key, feedback)
            early = early_steps(plan, state, self.site)
            norm = tally.norms / max(1, tally.done)
            return Made(contribution, self.standing.stand(number, early), early, terms, norm)

    def _begin(self, state: ChainState, terms: TermsHead, batches: list[list[Place]], ahead: Ahead | None) -> Tally:
        """Put the parameters in place that a span begins or goes on with; return what was trained of it already."""
        if not self.plan.overlap.goes_on or state.round == 0:
            self.loop.load_parameters(merge.parameters(state.tensors))
            return Tally()
        early = ahead.early if ahead else self.standing.early
        if early is not None and not early.holds(state, batches):
            early = None
        if ahead is not None and (early is None or ahead.terms.sha != terms.sha):
            self.standing.restore(state)  # taken for nothing: as if they had not been
            ahead = None
        tally = ahead.tally if ahead else Tally()
        if early is not None and ahead is None:
            self._steps(list(early.batches), tally, early.clock, self._check_stop)
        self.standing.take(state, mixing=early is not None)
        return tally

    def _steps(self, batches: Sequence[Sequence[Place]], tally: Tally, clock: Clock, look: Callable[[], None]) -> None:
        """Train batches of the round that the clock is for."""
        if tally.done == 0:
            self._begun[clock.round] = self._begun.get(clock.round, 0) + 1
        again = self._begun[clock.round]
        # A span that begins again is another attempt in the log: what was handed out for nothing shows.
        attempt = self.attempt if again == 1 else f"{self.attempt}.{again}"
        note = {"attempt": attempt, "site": self.site, "round": clock.round}

        def looking() -> None:
            look()
            self._lease(clock.round, tally.done, tally.count, tally.loss)

        at = partial(clock.at, self.plan)
        train_steps(self.loader, self.loop, batches, tally, at, note, looking)

    def _follow(self, state: ChainState, made: Made | None, spans: Spans) -> tuple[Answer | None, Ahead | None, Spans]:
        """Publish and wait for the commit, with overlap while the next round begins; return the next round's spans."""
        number, after = state.round + 1, Spans()
        if self.plan.overlap.delay_steps == 0:
            if made is not None:
                with spans.span("transfer"):
                    self._publish(number, made)
            with spans.span("wait"):
                answer = self.follower.await_commit(state, partial(self._look, number))
            if answer is not None:
                self.kept.telemetry(number, spans, self._figures(spans, made))
            return answer, None, after if answer else spans

        def behind(look: Callable[[], None]) -> Answer | None:
            if made is not None:
                with spans.span("transfer"):
                    self._publish(number, made)
            self._send_telemetry()
            return self.follower.await_commit(state, look)

        work = Behind(behind, f"{self.site}-{number}")
        try:
            ahead = self._go_ahead(made, work, after) if made and made.early else None
            with spans.span("wait"):
                answer = work.result(partial(self._look, number))
        finally:
            work.leave()
        if answer is None:
            return None, None, spans
        self._telemetry.append((number, spans, self._figures(spans, made)))
        return answer, ahead, after

    def _figures(self, spans: Spans, made: Made | None) -> dict[str, Any]:
        contribution, norm = (made.contribution, made.grad_norm) if made else (None, None)
        return asdict(self.gauge.figures(spans.spans, contribution, norm, self.plan.overlap.delay_steps > 0))

    def _send_telemetry(self) -> None:
        """Keep where the time of past rounds went."""
        while self._telemetry:
            self.kept.telemetry(*self._telemetry.pop(0))

    def _publish(self, number: int, made: Made) -> None:
        # The optimizer's state is safe before the contribution is seen: killed in between, the site trains the
        # same round again from the state before, to the same bytes.
        rule = self.plan.membership
        self.kept.put_inner(number, made.kept, rule.carry_rounds if rule.late == "carry" else 0)
        contributions.publish(self.store, made.contribution)

    def _go_ahead(self, made: Made, work: Behind, spans: Spans) -> Ahead:
        """Take the early steps of the round after the one just published."""
        assert made.early is not None
        self.standing.round = None

        def look() -> None:
            self._check_stop()
            work.check()

        tally = Tally()
        with spans.span("compute"):
            self._steps(made.early.batches, tally, made.early.clock, look)
        return Ahead(made.early, made.terms, tally)

    def _look(self, number: int) -> None:
        """What a site does while it waits for a round's commit."""
        self._check_stop()
        self._lease(number, self.steps, 0, float("nan"))

    def _left_out(self, state: ChainState, refused: bool) -> None:
        """Carry the work that the last round left out, or forget it: its ranges are issued again."""
        terms = read_terms(self.home, self.plan.owner)
        self.carried = state.round < self.plan.rounds and not refused and self.late.carry(state, terms.sha)
        if not self.carried:
            self.late.forget(state)
            self.standing.restore(state)

    def _lease(self, number: int, step: int, tokens: int, loss: float, done: bool = False) -> None:
        facts = {"round": number, "step": step, "steps": self.steps, "tokens": tokens, "done": done}
        self.kept.beat({**facts, "loss": loss if np.isfinite(loss) else None}, now=done)

    def _check_stop(self) -> None:
        if self.stop():
            raise Stopped


if __name__ == "__main__":
    from training.worker_main import main

    sys.exit(main())
