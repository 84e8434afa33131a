"""The site process: read the chain, train a span, publish, commit or follow, repeat.

    python -m training.worker --home-store DIR --site east --store DIR --peer north=DIR ... --keys DIR --run RUN

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
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from safetensors import SafetensorError
from safetensors.numpy import load, save

from data_contracts.canonical import canonical_json
from data_contracts.catalog.store import Store
from data_contracts.catalog.terms_chain import read_terms
from data_contracts.errors import CausewayError, ObjectMissing, PolicyRefused, RoundError
from data_contracts.policy import Purpose
from data_contracts.signing import KeyRing, public_hex
from training import model as models
from training.admission import EXIT_REFUSED, require_use
from training.inner import InnerLoop, pick_device
from training.process import Stopped, end_with, only_worker
from training.recipe import InnerRecipe
from training.rounds import contribution as contributions
from training.rounds import merge
from training.rounds.chain import Slot, advance
from training.rounds.closing import Closer
from training.rounds.commit import ChainState, check_against, lanes_of
from training.rounds.control import EXIT_PAUSED, read_control
from training.rounds.plan import Plan, read_plan
from training.rounds.run import newest_round, read_run_data
from training.shards.loader import Loader
from training.shards.schedule import next_claims, unroll

POLL_S = 0.05
HEARTBEAT_S = 0.5
LOOK_S = 1.0  # between looks at terms and control while a site waits
PAUSE_PATIENCE_S = 30.0  # a paused site waits so long for the round's other sites: one of them may be dead


class Paused(Exception):
    """The run is paused or cancelled; what is whole has been published."""


@dataclass
class Spans:
    """Where a round's wall time went: (kind, start, end) in seconds of this machine's clock, for the report."""

    spans: list[tuple[str, float, float]] = field(default_factory=list)

    @contextmanager
    def span(self, kind: str) -> Iterator[None]:
        start = time.time()
        try:
            yield
        finally:
            self.spans.append((kind, start, time.time()))


@dataclass
class SiteWorker:
    """One site of one run. `attempt` names this incarnation of the process in logs, never in the chain."""

    plan: Plan
    site: str
    home: Store
    store: Store
    peers: dict[str, Store]
    key: Ed25519PrivateKey
    log_dir: Path | None
    stop: Callable[[], bool]
    attempt: str = field(default_factory=lambda: uuid.uuid4().hex[:12])

    def __post_init__(self) -> None:
        listed = self.plan.site(self.site)
        if public_hex(self.key) != listed.public_key:
            raise RoundError(f"site {self.site}: its key is not the one that plan {self.plan.run} lists; restore keys/")
        self.region = listed.region
        log = None
        if self.log_dir is not None:
            self.log_dir.mkdir(parents=True, exist_ok=True)
            log = self.log_dir / f"{self.plan.run}-{self.site}-{self.attempt}.ndjson"
        order = read_run_data(self.home, self.plan).orders[self.region]
        self.loader = Loader(self.store, order, self.plan.window, log)
        self.recipe = InnerRecipe.model_validate(self.plan.inner)
        self.net = models.build(models.ModelSpec.model_validate(self.plan.model), self.plan.seed)
        self.loop = InnerLoop(self.net, self.recipe, pick_device())
        self.closer = Closer(self.plan, self.site, self.home, {**self.peers, self.site: self.store}, self.key)
        self.inner, self.trained = "new", 0
        self._beat = 0.0
        self._counter = 0

    def run(self) -> ChainState:
        """Work until the plan's last round is committed; return the final state.

        Raises:
            Stopped: asked to end. Paused: the run is paused or cancelled.
            RoundError, StoreError: this site cannot go on; says why.
        """
        state, inputs = newest_round(self.home, self.plan)
        if state.round > 0 and self.site not in inputs:
            # The last round left this site's work out: what it learned then is forgotten, as if it had been there.
            self._forget(state.round)
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
                self._keep_inner(state.round + 1)
            self._telemetry(state.round + 1, spans)
            state = after
        self._lease(state.round, 0, 0, float("nan"), done=True)
        return state

    def _train(self, state: ChainState, spans: Spans) -> None:
        number, plan = state.round + 1, self.plan
        terms = read_terms(self.home, plan.owner)
        held = [stream.dataset for stream in self.loader.order.streams]
        require_use(plan, terms, self.site, held, Purpose.parse(plan.purpose))
        base = merge.parameters(state.tensors)
        models.load_parameters(self.net, base)
        lanes = lanes_of(plan, state.members, self.region)[self.site]
        claims = next_claims(state.index[self.region], lanes, plan.steps * plan.batch_windows)
        places = unroll(claims)
        tokens: dict[str, int] = {}
        nats = 0.0
        with spans.span("compute"):
            for step in range(plan.steps):
                self._check_stop()
                batch = places[step * plan.batch_windows : (step + 1) * plan.batch_windows]
                note = {"attempt": self.attempt, "site": self.site, "round": number, "step": step, "places": batch}
                inputs, targets, owners = self.loader.batch(batch, note)
                result = self.loop.step(inputs, targets, (number - 1) * plan.steps + step)
                nats += result.loss * result.tokens
                for owner, row in zip(owners, targets, strict=True):
                    tokens[owner] = tokens.get(owner, 0) + int((row >= 0).sum())
                self._lease(number, step + 1, sum(tokens.values()), nats / max(1, sum(tokens.values())))
        with spans.span("encode"):
            update = merge.subtract(base, models.parameters_of(self.net))
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
                "steps": plan.steps,
                "loss": nats / max(1, sum(tokens.values())),
                "inner": self.inner,
                "device": self.loop.device.type,
            }
            made = contributions.make(header, update, plan.codec, self.key)
        with spans.span("transfer"):
            # The optimizer's state is safe before the contribution is seen: killed in between, the site trains the
            # same round again from the state before, to the same bytes.
            self._keep_inner(number)
            contributions.publish(self.store, made)
        self.inner, self.trained = "kept", number

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
                self._lease(state.round + 1, self.plan.steps, 0, float("nan"))
                time.sleep(POLL_S)

    def _inner_key(self, number: int) -> str:
        return f"runs/{self.plan.run}/inner/{self.site}-{number:06d}.safetensors"

    def _keep_inner(self, number: int) -> None:
        data = save({k: np.asarray(v, order="C") for k, v in self.loop.state().items()}, metadata={"format": "1"})
        self.store.put(self._inner_key(number), data)
        if number > 2:
            self.store.delete(self._inner_key(number - 2))

    def _forget(self, number: int) -> None:
        """Put the optimizer's state before a round that did not count in the place of the one after it."""
        if number > 1 and self.store.exists(self._inner_key(number - 1)):
            self.store.put(self._inner_key(number), self.store.get(self._inner_key(number - 1)))
        else:
            self.store.delete(self._inner_key(number))

    def _restore(self, state: ChainState) -> None:
        """Load the inner optimizer's state of the last round; without one, begin clean and say so."""
        models.load_parameters(self.net, merge.parameters(state.tensors))
        self.loop = InnerLoop(self.net, self.recipe, pick_device())
        self.trained = state.round
        if state.round == 0:
            self.inner = "new"
            return
        try:
            self.loop.load_state(load(self.store.get(self._inner_key(state.round))))
            self.inner = "kept"
        except (ObjectMissing, RoundError, SafetensorError):
            # Lost or damaged, not out of reach: that would end this process, and the next would find it again.
            self.inner = "clean"

    def _lease(self, number: int, step: int, tokens: int, loss: float, done: bool = False) -> None:
        now = time.monotonic()
        if now - self._beat < HEARTBEAT_S and not done:
            return
        self._beat, self._counter = now, self._counter + 1
        lease = {
            "format": 1,
            "site": self.site,
            "attempt": self.attempt,
            "beat": self._counter,
            "round": number,
            "step": step,
            "steps": self.plan.steps,
            "tokens": tokens,
            "loss": loss if np.isfinite(loss) else None,
            "done": done,
        }
        self.store.put(f"runs/{self.plan.run}/leases/{self.site}.json", canonical_json(lease))

    def _telemetry(self, number: int, spans: Spans) -> None:
        facts = {"format": 1, "site": self.site, "round": number, "attempt": self.attempt, "spans": spans.spans}
        self.store.put(f"runs/{self.plan.run}/telemetry/{number:06d}/{self.site}.json", canonical_json(facts))

    def _check_stop(self) -> None:
        if self.stop():
            raise Stopped


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
    parser.add_argument("--threads", type=int, default=1, help="CPU threads of torch; part of what makes bytes repeat")
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
    try:
        home, store = Store.open(options.home_store), Store.open(options.store)
        plan = read_plan(home, options.run)
        with only_worker(store, plan.run, options.site, lambda: bool(stopping)):
            worker = SiteWorker(
                plan=plan,
                site=options.site,
                home=home,
                store=store,
                peers={name: Store.open(url) for name, url in (p.split("=", 1) for p in options.peer)},
                key=KeyRing(options.keys).signer(f"site-{options.site}"),
                log_dir=options.loader_log,
                stop=lambda: bool(stopping),
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
