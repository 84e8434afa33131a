"""Four sites of 0.4 cores each, and a fault every few rounds: what of their work gets into the model, and what is lost.

Home is Ceph's gateway, the sites' buckets are OpenStack Swift, behind relays that can be cut and slowed. The processes
are the product's own and are started again as soon as they end. How the lab is built, and what each fault is:
docs/measuring.md.

| figure | what it is |
|---|---|
| `faults`, `faults_per_minute` | how many, and how many a minute of the rounds that are counted |
| `throughput_fraction` | committed tokens over the sum over sites of live seconds times the site's rate alone |
| `throughput_fraction_up` | the same, with seconds as live from a started process's first step on only |
| `positions_lost`, `positions_repeated` | of the committed history, against what the loaders wrote down themselves |
| `chain_verified` | `causeway verify` finds nothing wrong |
| `replay_identical` | snapshot 0 and the chain give the state that every site ended with, to the byte |
| `recovery_s_median` | from a fault to the next commit that applies work of the site that was hit |
| `by_kind` | count and median recovery of each kind of fault |
"""

from __future__ import annotations

import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from benchmarks.lab import figures
from benchmarks.lab.faulting import Fault, Trial
from benchmarks.lab.processes import SiteProcesses
from benchmarks.lab.quotas import Quotas
from benchmarks.lab.setting import MODEL, SMALL, make_setting, sites_toml
from benchmarks.lab.ways import Ways, through
from tests.stores import Ceph, Swift
from training.rounds.plan import Membership
from training.rounds.run import newest_state
from training.verify import verify_run

SITES = ("a", "b", "c", "d")
CORES = 0.4
QUICK = ("kill", "duplicate", "answer_lost", "corrupt", "invalid_commit", "committer_killed")
LONG = (
    *("kill", "duplicate", "store_slow", "stop", "corrupt", "committer_killed", "answer_lost", "leave"),
    *("store_away", "invalid_commit", "join", "commit_answer_lost"),
)
MEMBERSHIP = Membership(lost_region="reweight", quorum=2, grace_floor_s=1.0, grace_mad=3.0)


def run(quick: bool) -> dict[str, Any]:
    """Return the figures of a run under faults."""
    count, gap, calm, tail = (6, 1, 2, 2) if quick else (62, 4, 5, 6)
    settings: dict[str, Any] = {
        "model": SMALL if quick else MODEL,
        "steps": 20 if quick else 60,
        "rounds": calm + count * gap + tail,
        "membership": MEMBERSHIP,
    }
    with ExitStack() as lab:
        folder = Path(lab.enter_context(tempfile.TemporaryDirectory(prefix="causeway-lab-")))
        quotas, ways = lab.enter_context(Quotas()), lab.enter_context(Ways())
        ceph, swift = lab.enter_context(Ceph(folder / "ceph")), lab.enter_context(Swift(folder / "swift", "region"))
        environment = {**ceph.access.environment(), **swift.access.environment()}
        lab.enter_context(exported(environment))
        home, buckets = ceph.access.bucket("home"), {name: swift.access.bucket(name) for name in SITES}
        setting = make_setting(folder / "run", sites_toml(home, buckets), 400_000 if quick else 2_000_000, 8)
        plan = setting.plan("faults", **settings)
        home_ways = {name: ways.open("127.0.0.1", ceph.port) for name in SITES}
        store_ways = {name: ways.open("127.0.0.1", swift.ports["proxy"]) for name in SITES}
        sites = lab.enter_context(
            SiteProcesses(
                setting.workspace,
                plan,
                quotas,
                home={name: through(home, ceph.access.endpoint, way) for name, way in home_ways.items()},
                urls={name: through(buckets[name], swift.access.endpoint, way) for name, way in store_ways.items()},
            )
        )
        trial = Trial(sites, ways, home_ways, store_ways, CORES)
        trial.start()
        drive(trial, QUICK if quick else LONG, count, gap, calm)
        return {**figures_of(trial, calm), "torchft": None}


@contextmanager
def exported(environment: Mapping[str, str]) -> Iterator[None]:
    """Have these variables in this process and what it starts, for a while."""
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def drive(trial: Trial, kinds: tuple[str, ...], count: int, gap: int, calm: int) -> None:
    """Hit one site after the other, `gap` rounds apart, somewhere in a round; then see the run to its end.

    Raises:
        RuntimeError: a round takes more than three minutes.
    """
    draw = random.Random(1)
    done = 0
    newest, at = 0, time.monotonic()
    due = 0.0
    while newest < trial.plan.rounds:
        trial.tend()
        if trial.sites.seen and max(trial.sites.seen) > newest:
            newest, at = max(trial.sites.seen), time.monotonic()
            due = at + draw.random() * _round_s(trial.sites.seen)
        if time.monotonic() - at > 180:
            raise RuntimeError(f"run {trial.plan.run}: no commit in 180 s after round {newest}{trial.sites.said()}")
        fit = trial.fit()
        if done < count and newest >= calm + done * gap and time.monotonic() >= due and len(fit) > 1:
            kind, site = kinds[done % len(kinds)], fit[done % len(fit)]
            sys.stderr.write(f"round {newest}: {kind} {site}\n")
            trial.hit(kind, site)
            done += 1
        time.sleep(0.02)
    trial.end()
    until = time.monotonic() + 60
    while any(p.poll() is None for p in trial.sites.running.values()) and time.monotonic() < until:
        time.sleep(0.1)
        trial.tend()


def _round_s(seen: Mapping[int, float]) -> float:
    times = [seen[n] - seen[n - 1] for n in sorted(seen)[-5:] if n - 1 in seen]
    return statistics.median(times) if times else 0.0


def figures_of(trial: Trial, calm: int) -> dict[str, Any]:
    """Return what a trial came to; its first `calm` rounds tell the sites' rates alone."""
    workspace, plan, seen = trial.workspace, trial.plan, trial.sites.seen
    rounds = figures.history(workspace, plan)
    rates = {name: figures.compute_rate(workspace, plan, name, rounds[:calm]) for name in trial.names}
    start, stop = seen[calm], seen[plan.rounds]
    booked = figures.tokens_by_round(rounds)
    tokens = sum(sum(by_site.values()) for number, by_site in booked.items() if number > calm)
    possible = {
        starting: sum(trial.life[n].seconds(start, stop, starting) * rates[n] for n in trial.names)
        for starting in (True, False)
    }
    lost, repeated = figures.positions(plan, rounds, figures.loader_lines(trial.sites.loader_log))
    verified = verify_run(workspace, plan.run)
    for problem in verified.problems:
        sys.stderr.write(f"{problem}\n")
    faults = trial.recovered()
    ends = {_said_at_end(trial.sites.folder / f"{name}.log") for name in trial.names}
    return {
        "faults": len(faults),
        "faults_per_minute": round(60 * len(faults) / (stop - start), 2),
        "throughput_fraction": round(tokens / possible[True], 3),
        "throughput_fraction_up": round(tokens / possible[False], 3),
        "positions_lost": lost,
        "positions_repeated": repeated,
        "chain_verified": verified.ok,
        "replay_identical": ends - {None} == {newest_state(workspace.home, plan).state_sha},
        "recovery_s_median": _median([f.recovered - f.at for f in faults if f.recovered is not None]),
        "by_kind": _by_kind(faults),
        "rounds": plan.rounds,
        "seconds": round(stop - start, 1),
        "tokens": tokens,
        "alone_tokens_s": {name: round(found) for name, found in rates.items()},
        "live_s": {name: round(trial.life[name].seconds(start, stop, True), 1) for name in trial.names},
        "up_s": {name: round(trial.life[name].seconds(start, stop, False), 1) for name in trial.names},
        "ended_by_themselves": trial.unplanned,
    }


def _by_kind(faults: list[Fault]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for kind in sorted({f.kind for f in faults}):
        mine = [f for f in faults if f.kind == kind]
        times = [f.recovered - f.at for f in mine if f.recovered is not None]
        found[kind] = {"count": len(mine), "recovery_s": _median(times)}
    return found


def _median(values: list[float]) -> float | None:
    return round(statistics.median(values), 2) if values else None


def _said_at_end(log: Path) -> str | None:
    """Return the state that a site's process reports when the run is whole."""
    for line in reversed(log.read_text(errors="replace").splitlines()):
        if line.startswith('{"site"'):
            return str(json.loads(line)["state"])
    return None
