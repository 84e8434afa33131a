"""What a run is doing now, read from the chain and the sites' own objects; nothing is written, no other clock is asked.

The chain is followed by its documents alone: signatures and hashes are checked, updates are neither fetched nor merged
(that is `causeway verify`). How old a heartbeat is counts from when this process saw it change, by its own monotonic
clock; a site's clock is never compared with it.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from data_contracts.canonical import document_sha
from data_contracts.catalog.store import Store
from data_contracts.errors import CausewayError, ObjectMissing, RoundError, StoreError
from training.rounds.amendment import list_amendments, read_amendment
from training.rounds.chain import commit_key
from training.rounds.commit import ChainState, booked, check_author, lanes_of
from training.rounds.contribution import Header, parse
from training.rounds.control import read_control
from training.rounds.plan import Plan, read_plan
from training.shards.schedule import LANES

PATIENCE_S = 2.0  # a site's store that does not answer is left out of this picture
RECENT = 5  # rounds whose median length the time left is reckoned with


@dataclass(frozen=True)
class SiteNow:
    """One site. `heartbeat_s` is how long its lease has not changed since it was seen first; None: no lease was read.

    `round`, `step` of `steps`, `tokens` and `loss` are of the round under way, as the lease says; `last` is what the
    chain says of the site's newest round: number, tokens, loss, device.
    """

    site: str
    member: bool
    lanes: int
    heartbeat_s: float | None = None
    moved: bool = False
    done: bool = False
    round: int | None = None
    step: int = 0
    steps: int = 0
    tokens: int = 0
    loss: float | None = None
    utilisation: float | None = None
    last_round: int | None = None
    last_loss: float | None = None
    trained: int = 0
    device: str = ""


@dataclass(frozen=True)
class Picture:
    """A run as it is at one look. `events` are what changed or went wrong, oldest first: (round, words).

    `round_s` is the median length of the last rounds, `eta_s` what the rest takes at that; None: not known yet.
    """

    run: str
    state: str
    round: int
    rounds: int
    committer: str
    tokens: int
    loss: float | None
    sites: tuple[SiteNow, ...]
    events: tuple[tuple[int, str], ...]
    round_s: float | None
    eta_s: float | None


@dataclass
class _Beat:
    mark: object = None
    at: float = 0.0
    moved: bool = False
    lease: Mapping[str, Any] = field(default_factory=dict)


class Watch:
    """Follows one run. `stores` are those of sites that can be read here, by name: none are needed."""

    def __init__(
        self, home: Store, run: str, stores: Mapping[str, Store], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.home, self.clock = home, clock
        self.plan: Plan = read_plan(home, run)
        self.stores = {s: Store.open(store.url, retry_s=PATIENCE_S) for s, store in stores.items()}
        self.state = _before_round_1(self.plan)
        self.newest: dict[str, Header] = {}
        self.trained: dict[str, int] = {}
        self.committer = ""
        self.loss: float | None = None
        self.events: list[tuple[int, str]] = [(1, f"{site} joins later") for site in self.plan.later]
        self._beats = {s.name: _Beat() for s in self.plan.sites}
        self._seen: list[tuple[int, float]] = []  # rounds that were committed while this process looked, and when
        self._looked = False

    def look(self) -> Picture:
        """Read what is new and return the picture.

        Raises:
            StoreError: the home store cannot be reached.
            RoundError: a commit of the chain is not signed by a member, or names another past.
        """
        while self._follow():
            pass
        self._looked = True
        for site in self._beats:
            self._feel(site)
        control = read_control(self.home, self.plan.run)
        whole = self.state.round >= self.plan.rounds
        round_s = self._round_s()
        left = self.plan.rounds - self.state.round
        going = not whole and control.state == "running"
        return Picture(
            run=self.plan.run,
            state="whole" if whole else control.words,
            round=self.state.round,
            rounds=self.plan.rounds,
            committer=self.committer,
            tokens=sum(self.trained.values()),
            loss=self.loss,
            sites=tuple(self._site(s.name) for s in self.plan.sites),
            events=(*self.events, *self._waiting()),
            round_s=round_s,
            eta_s=max(0.0, round_s * (left - self._share())) if going and round_s is not None else None,
        )

    def _follow(self) -> bool:
        """Take in the next commit; False when there is none."""
        number, run = self.state.round + 1, self.plan.run
        document, attempt = None, 0
        while True:
            try:
                # One that supersedes another has the last word.
                document = self.home.get_json(commit_key(run, number, attempt))
            except ObjectMissing:
                break
            attempt += 1
        if document is None:
            return False
        what = f"{self.home.url}/{commit_key(run, number, attempt - 1)}"
        self.committer = check_author(self.plan, self.state, document, what)
        if document.get("previous") != self.state.head:
            raise RoundError(f"{what}: its past is not the chain before it; run: causeway verify {run}")
        if attempt > 1:
            self.events.append((number, f"an invalid commit was superseded: {document['supersedes']['rule']}"))
        headers = [self._header(entry["contribution"]) for entry in document["inputs"]]
        amendments = [read_amendment(self.home, run, sha) for sha in document["amendments"]]
        before = self.state
        after = booked(self.plan, before, headers, amendments)
        self.state = replace(after, head=document_sha(document), state_sha=document["result"])
        self._note(document, headers)
        self.events += [(number + 1, f"{a.words} ({a.reason})") for a in amendments]
        self.events += [(number + 1, f"{s} joins") for s in sorted({*after.members} - {*before.members})]
        self.events += [(number + 1, f"{s} leaves") for s in sorted({*before.members} - {*after.members})]
        if self._looked:
            self._seen.append((number, self.clock()))
        return True

    def _header(self, sha: str) -> Header:
        key = f"runs/{self.plan.run}/inputs/{sha}.json"
        return parse(self.home.get_json(key), f"{self.home.url}/{key}")

    def _note(self, document: Mapping[str, Any], headers: list[Header]) -> None:
        number = int(document["round"])
        for h in headers:
            self.newest[h.site] = h
            self.trained[h.site] = self.trained.get(h.site, 0) + h.tokens
        tokens = sum(h.tokens for h in headers)
        self.loss = sum(h.loss * h.tokens for h in headers) / tokens if tokens else None
        refused = {r["site"]: r["reason"] for r in document["refusals"]}
        for site in document["absent"]:
            self.events.append((number, f"{site} refused: {refused[site]}" if site in refused else f"{site} was late"))

    def _feel(self, site: str) -> None:
        """Note whether the site's lease has changed since the last look."""
        if site not in self.stores:
            return
        beat = self._beats[site]
        try:
            lease = self.stores[site].get_json(f"runs/{self.plan.run}/leases/{site}.json")
            mark = (lease.get("attempt"), lease.get("beat"))
        except (CausewayError, AttributeError):
            return
        if mark != beat.mark:
            beat.moved = beat.mark is not None
            beat.mark, beat.at = mark, self.clock()
        beat.lease = lease

    def _site(self, site: str) -> SiteNow:
        beat, newest = self._beats[site], self.newest.get(site)
        member = site in self.state.members
        lanes = len(lanes_of(self.plan, self.state.members, self.plan.site(site).region)[site]) if member else 0
        now = SiteNow(site, member, lanes, trained=self.trained.get(site, 0))
        if newest is not None:
            now = replace(now, last_round=newest.round, last_loss=newest.loss, device=newest.device)
            now = replace(now, utilisation=self._utilisation(site, newest.round))
        if beat.mark is None:
            return now
        lease = beat.lease
        return replace(
            now,
            heartbeat_s=round(self.clock() - beat.at, 3),
            moved=beat.moved,
            done=bool(lease.get("done")),
            round=lease.get("round"),
            step=int(lease.get("step", 0)),
            steps=int(lease.get("steps", 0)),
            tokens=int(lease.get("tokens", 0)),
            loss=lease.get("loss"),
        )

    def _telemetry(self, site: str, number: int) -> Mapping[str, Any]:
        if site not in self.stores:
            return {}
        try:
            found: dict[str, Any] = self.stores[site].get_json(
                f"runs/{self.plan.run}/telemetry/{number:06d}/{site}.json"
            )
        except (StoreError, ObjectMissing):
            return {}
        return found

    def _utilisation(self, site: str, number: int) -> float | None:
        share = self._telemetry(site, number).get("figures", {}).get("utilisation")
        return None if share is None else float(share)

    def _round_s(self) -> float | None:
        """Return the median length of the last rounds: as seen here, else as one site's own clock measured them."""
        ends = self._seen[-RECENT - 1 :]
        seen = [b - a for (_, a), (_, b) in itertools.pairwise(ends)]
        if seen:
            return statistics.median(seen)
        first = max(1, self.state.round - RECENT + 1)
        for site in sorted(self.newest):
            spans = [self._telemetry(site, n).get("spans", []) for n in range(first, self.state.round + 1)]
            lengths = [max(s[2] for s in one) - min(s[1] for s in one) for one in spans if one]
            if lengths:
                return float(statistics.median(lengths))
        return None

    def _share(self) -> float:
        """Return how much of the round under way its members have trained, 0 to 1, as far as their leases say."""
        leases = [self._beats[s].lease for s in self.state.members]
        done = [x["step"] / x["steps"] for x in leases if x.get("round") == self.state.round + 1 and x.get("steps")]
        return sum(done) / len(self.state.members) if done else 0.0

    def _waiting(self) -> list[tuple[int, str]]:
        """Return the amendments that are signed and wait for the next commit."""
        known = set(self.state.amendments)
        if self.state.round >= self.plan.rounds:
            return []
        pending = [a for a in list_amendments(self.home, self.plan) if a.sha not in known]
        return [(self.state.round + 2, f"{a.words} ({a.reason}), with the next commit") for a in pending]


def _before_round_1(plan: Plan) -> ChainState:
    # As genesis, without the model: what is watched is not merged.
    regions = sorted({s.region for s in plan.sites})
    members = tuple(sorted(s.name for s in plan.sites if s.name not in plan.later))
    return ChainState(0, plan.sha, {}, plan.snapshot0, dict.fromkeys(regions, (0,) * LANES), members)
