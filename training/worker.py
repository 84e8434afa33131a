"""The site process: read the chain, train a span, publish, commit or follow, repeat.

    python -m training.worker --home-store URL --site east --store URL --peer north=URL ... --keys DIR --run RUN

A site opens only its own region's shards; of its peers' stores it reads nothing but contributions. It keeps no state
that matters anywhere but in its store: killed at any point and started again, it goes on from the chain. Given fixed
steps, what it contributes does not depend on whether it was killed, or its run paused.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from data_contracts.catalog.store import Store
from data_contracts.catalog.terms_chain import read_terms
from data_contracts.errors import CausewayError, PolicyRefused, RoundError, StoreError
from data_contracts.policy import Purpose
from data_contracts.signing import KeyRing, public_hex
from training import model as models
from training.admission import EXIT_REFUSED, require_use
from training.inner import MakeLoop, alone
from training.keeping import Kept, Spans
from training.process import Stopped, end_with, only_worker
from training.recipe import InnerRecipe
from training.rounds import contribution as contributions
from training.rounds import merge
from training.rounds.chain import Slot, advance
from training.rounds.closing import Closer
from training.rounds.commit import ChainState, check_against, lanes_of
from training.rounds.control import EXIT_PAUSED, read_control
from training.rounds.feedback import Feedback
from training.rounds.lengths import planned, schedule_step, steps_of
from training.rounds.plan import Plan, read_plan
from training.rounds.run import newest_round, read_run_data
from training.shards.cache import ShardCache
from training.shards.loader import Loader, inputs_targets
from training.shards.schedule import next_claims, ranges, unroll

POLL_S = 0.05
LOOK_S = 1.0  # between looks at terms and control while a site waits
PEER_PATIENCE_S = 2.0  # a peer's store that does not answer is looked at again; the grace decides how often
PAUSE_PATIENCE_S = 30.0  # a paused site waits so long for the round's other sites: one of them may be dead


class Paused(Exception):
    """The run is paused or cancelled; what is whole has been published."""


@dataclass
class SiteWorker:
    """One site of one run. `attempt` names this incarnation of the process in logs, never in the chain.

    `cache` is the folder for shards of a store that is no local directory, `cache_bytes` its bound.
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
        self.recipe = InnerRecipe.model_validate(self.plan.inner)
        self.loop = self.make_loop(models.ModelSpec.model_validate(self.plan.model), self.plan.seed, self.recipe)
        self.closer = Closer(self.plan, self.site, self.home, {**self.peers, self.site: self.store}, self.key)
        self.feedback, self.owed = self._fresh_feedback(), "new"
        self.inner, self.trained = "new", 0
        self.steps = planned(self.plan, 1)
        self.kept = Kept(self.store, self.plan.run, self.site, self.attempt)

    def run(self) -> ChainState:
        """Work until the plan's last round is committed; return the final state.

        Raises:
            Stopped: asked to end. Paused: the run is paused or cancelled.
            RoundError, StoreError: this site cannot go on; says why.
        """
        state, inputs = newest_round(self.home, self.plan)
        if state.round > 0 and self.site not in inputs:
            # The last round left this site's work out: what it learned then is forgotten, as if it had been there.
            self.kept.forget_inner(state.round)
        self._restore(state)
        begun = False
        while state.round < self.plan.rounds:
            control = read_control(self.home, self.plan.run)
            if control.stops(state.round + 1, begun):
                raise Paused(f"the run is {control.words}")
            begun = True
            if self.site not in state.members:
                raise RoundError(f"site {self.site}: no member of run {self.plan.run} now; the owner may add it again")
            spans = Spans()
            self.steps = steps_of(self.plan, state, self.site)
            answer = None
            while answer is None:
                if not self._has_published(state):
                    if self.trained != state.round:
                        # Behind: an earlier process published the last round, and kept the optimizer's state there.
                        self._restore(state)
                    self._train(state, spans)
                with spans.span("wait"):
                    answer = self._await_commit(state)
            after, commit = answer
            counted = any(i["site"] == self.site for i in commit["inputs"])
            if not counted:
                # The work was late or refused: its ranges are issued again, so the optimizer forgets it too.
                self._restore(state)
                self.kept.keep_inner(state.round + 1, self.loop, self.feedback)
            self.kept.telemetry(state.round + 1, spans)
            state = after
        self._lease(state.round, 0, 0, float("nan"), done=True)
        return state

    def _loader(self, state: ChainState | None) -> Loader:
        """Return the loader of the segments up to this state."""
        order = read_run_data(self.home, self.plan, state).orders[self.region]
        self._segments = len(state.openings) if state else 0
        return Loader(self._shards, order, self.plan.window, self._log, self.plan.unreadable)

    def _train(self, state: ChainState, spans: Spans) -> None:
        number, plan = state.round + 1, self.plan
        if len(state.openings) != self._segments:
            self.loader = self._loader(state)
        held = self.loader.order.datasets
        if not held:
            raise RoundError(
                f"region {self.region}: nothing to train on in round {number}: every data set there is withdrawn or has"
                f" weight 0; give one a weight, add a version, or take {self.site} out (causeway amend {plan.run})"
            )
        terms = read_terms(self.home, plan.owner)
        require_use(plan, terms, self.site, held, Purpose.parse(plan.purpose))
        base = merge.parameters(state.tensors)
        self.loop.load_parameters(base)
        lanes = lanes_of(plan, state.members, self.region)[self.site]
        claims = next_claims(state.index[self.region], lanes, self.steps * plan.batch_windows)
        places = unroll(claims)
        tokens: dict[str, int] = {}
        nats = 0.0
        skipped: list[tuple[int, int]] = []
        batches = [places[k : k + plan.batch_windows] for k in range(0, len(places), plan.batch_windows)]
        pairs = [tuple(np.array(batch, dtype=np.int64).T) for batch in batches]
        seconds = 0.0
        with spans.span("compute"), self.loader.ahead(pairs) as assembled:
            begun = time.monotonic()
            for step, batch in enumerate(assembled):
                seconds += time.monotonic() - begun
                self._check_stop()
                begun = time.monotonic()
                note = {"attempt": self.attempt, "site": self.site, "round": number, "step": step}
                self.loader.record(batch, {**note, "places": batches[step]})
                skipped += batch.skipped
                inputs, targets = inputs_targets(batch)
                at = schedule_step(plan, number, step, self.steps)
                result = self.loop.step(inputs, targets, at, self._tokens_at(state, step))
                nats += result.loss * result.tokens
                for owner, count in zip(self.loader.owners(batch), (targets >= 0).sum(axis=1).tolist(), strict=True):
                    if count:
                        tokens[owner] = tokens.get(owner, 0) + count
                self._lease(number, step + 1, sum(tokens.values()), nats / max(1, sum(tokens.values())))
            seconds += time.monotonic() - begun
        if not tokens:
            raise StoreError(
                f"site {self.site}: no shard of round {number} can be read; restore them in {self.store.url}"
            )
        with spans.span("encode"):
            update = merge.subtract(base, self.loop.parameters())
            header: dict[str, Any] = {
                "run": plan.run,
                "plan": plan.sha,
                "round": number,
                "site": self.site,
                "base": state.head,
                "base_state": state.state_sha,
                "terms_head": terms.sha,
                "claims": tuple(claims),
                "tokens": sum(tokens.values()),
                "tokens_by_dataset": dict(sorted(tokens.items())),
                "steps": self.steps,
                "loss": nats / max(1, sum(tokens.values())),
                "inner": self.inner,
                "device": self.loop.device.type,
                "skipped": tuple(ranges(skipped)),
                "feedback": self.owed if self.feedback else "",
                "seconds": 0.0 if plan.pace == "fixed" else max(1e-3, round(seconds, 3)),
            }
            made = contributions.make(header, update, plan.codec_of(self.site), self.key, self.feedback)
        with spans.span("transfer"):
            # The optimizer's state is safe before the contribution is seen: killed in between, the site trains the
            # same round again from the state before, to the same bytes.
            self.kept.keep_inner(number, self.loop, self.feedback)
            contributions.publish(self.store, made)
        self.inner, self.owed, self.trained = "kept", "kept", number

    def _tokens_at(self, state: ChainState, step: int) -> int:
        """Return what all sites have trained on once this step of the next round is done, windows counted as full."""
        committed = sum(map(sum, state.index.values()))
        of_round = sum(steps_of(self.plan, state, member) for member in state.members) * self.plan.batch_windows
        return (committed + (step + 1) * of_round // self.steps) * self.plan.window

    def _has_published(self, state: ChainState) -> bool:
        """Say whether a contribution of this site that fits the next round is in its store."""
        head = read_terms(self.home, self.plan.owner).sha
        for key in contributions.find(self.store, self.plan.run, state.round + 1, self.site):
            try:
                check_against(self.plan, state, contributions.read(self.store, key).header, head, key)
                return True
            except RoundError:
                continue
        return False

    def _await_commit(self, state: ChainState) -> tuple[ChainState, dict[str, Any]] | None:
        """Return the next commit and the state after it; None when the terms changed: the round must be made again."""
        started = looked = time.monotonic()
        paused: float | None = None
        while True:
            self._check_stop()
            if time.monotonic() - looked > LOOK_S:
                looked = time.monotonic()
                if not self._has_published(state):
                    return None
                control = read_control(self.home, self.plan.run)
                paused = (paused or looked) if control.state == "paused" else None
                if control.stops(state.round + 1, True) or (paused and looked - paused > PAUSE_PATIENCE_S):
                    # Others have ended, or will not answer. What this site contributed lies in its store.
                    raise Paused(f"the run is {control.words}")
            step = advance(self.home, self.plan, state)
            if not isinstance(step, Slot):
                return step
            if not self.closer.try_commit(state, step, time.monotonic() - started):
                self._lease(state.round + 1, self.steps, 0, float("nan"))
                time.sleep(POLL_S)

    def _restore(self, state: ChainState) -> None:
        """Load the inner optimizer's state of the last round, and what is owed; without it, begin clean and say so."""
        self.loop.load_parameters(merge.parameters(state.tensors))
        self.loop.reset()
        self.feedback = self._fresh_feedback()
        self.trained = state.round
        if state.round == 0:
            self.inner, self.owed = "new", "new"
            return
        # Lost or damaged, not out of reach: that would end this process, and the next would find it again.
        self.inner = "kept" if self.kept.load_inner(state.round, self.loop) else "clean"
        if self.feedback is not None:
            self.owed = "kept" if self.kept.load_feedback(state.round, self.feedback) else "clean"

    def _fresh_feedback(self) -> Feedback | None:
        """Return error feedback that owes nothing yet; None where the plan has none."""
        decay = self.plan.feedback_of(self.site)
        if decay == 0:
            return None
        return Feedback(decay, {n: t.shape for n, t in self.loop.parameters().items()})

    def _lease(self, number: int, step: int, tokens: int, loss: float, done: bool = False) -> None:
        facts = {"round": number, "step": step, "steps": self.steps, "tokens": tokens, "done": done}
        self.kept.beat({**facts, "loss": loss if np.isfinite(loss) else None}, now=done)

    def _check_stop(self) -> None:
        if self.stop():
            raise Stopped


def _loops(ranks: int, form: str, threads: int) -> AbstractContextManager[MakeLoop]:
    """Return what makes this site's loop: in this process, or over its ranks (docs/inside-a-site.md)."""
    if ranks == 1 and "WORLD_SIZE" not in os.environ:
        return nullcontext(alone)
    from training.parallel import together

    return together(ranks, form, threads)


def main(arguments: list[str] | None = None) -> int:
    """Run one site from the command line.

    Exit 0: the run is whole, 3: told to stop, 4: policy refuses, 5: the run is paused or cancelled, 1: an error.
    """
    import argparse

    parser = argparse.ArgumentParser(prog="python -m training.worker", description=main.__doc__)
    parser.add_argument("--home-store", required=True)
    parser.add_argument("--site", required=True)
    parser.add_argument("--store", required=True)
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=STORE")
    parser.add_argument("--keys", required=True, type=Path)
    parser.add_argument("--run", required=True)
    parser.add_argument("--cache", type=Path, metavar="DIR", help="folder for shards of a store that is no directory")
    parser.add_argument("--cache-gb", type=float, metavar="N", help="bound of that folder, in 10^9 bytes")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch; part of what makes bytes repeat")
    parser.add_argument("--ranks", type=int, default=int(os.environ.get("CAUSEWAY_RANKS", "1")), help="processes")
    parser.add_argument("--form", default=os.environ.get("CAUSEWAY_FORM", "ddp"), choices=("ddp", "fsdp"))
    parser.add_argument("--loader-log", type=Path, help="folder for an independent log of what the loader handed out")
    parser.add_argument("--parent", type=int, metavar="PID", help="die with this process, the one that started it")
    options = parser.parse_args(arguments)
    if options.parent is not None and not end_with(options.parent):
        return 3
    stopping: list[int] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda received, _frame: stopping.append(received))
    torch.set_num_threads(options.threads)
    torch.use_deterministic_algorithms(True, warn_only=True)
    if int(os.environ.get("RANK", "0")) > 0:
        # torchrun has started it beside rank 0, which does the work of the chain.
        from training.parallel import follower

        return follower()
    try:
        home, store = Store.open(options.home_store), Store.open(options.store)
        plan = read_plan(home, options.run)
        lock = only_worker(store, plan.run, options.site, lambda: bool(stopping), options.cache)
        with lock, _loops(options.ranks, options.form, options.threads) as make_loop:
            worker = SiteWorker(
                plan=plan,
                site=options.site,
                home=home,
                store=store,
                peers={
                    name: Store.open(url, retry_s=PEER_PATIENCE_S)
                    for name, url in (p.split("=", 1) for p in options.peer)
                },
                key=KeyRing(options.keys).signer(f"site-{options.site}"),
                log_dir=options.loader_log,
                stop=lambda: bool(stopping),
                cache=options.cache,
                cache_bytes=None if options.cache_gb is None else round(options.cache_gb * 1e9),
                make_loop=make_loop,
            )
            state = worker.run()
    except Stopped:
        print(f"site {options.site}: stopped on request; start it again to go on", file=sys.stderr)
        return 3
    except Paused as paused:
        print(f"site {options.site}: {paused}; what it published is whole", file=sys.stderr)
        return EXIT_PAUSED
    except PolicyRefused as error:
        print(f"site {options.site}: {error}", file=sys.stderr)
        return EXIT_REFUSED
    except CausewayError as error:
        print(f"site {options.site}: {error}", file=sys.stderr)
        return 1
    print(json.dumps({"site": options.site, "round": state.round, "state": state.state_sha, "pid": os.getpid()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
