"""Pause, resume and cancel a run: one replaceable object beside its plan, which every site looks at between rounds.

runs/<run>/control.json    absent: the run goes on

A pause ends the sites after the round that is under way, the same round for all of them, so that the chain of a run
that was paused is that of one that never was. A cancelled run stays where it is for good.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import asdict, dataclass, replace
from typing import Literal, get_args

from data_contracts.canonical import canonical_json
from data_contracts.catalog.store import Store
from data_contracts.errors import ObjectMissing, RoundError
from training.rounds.plan import Plan
from training.rounds.run import newest_state

FORMAT = 1
EXIT_PAUSED = 5  # a site process that ended because its run is paused or cancelled
EXIT_LEFT = 6  # one that ended because its site is no member of the run now

RunState = Literal["running", "paused", "cancelled"]


@dataclass(frozen=True)
class Control:
    """What the owner wants of a run. `round` is the last one that a paused run still makes; `at` is UTC, ISO 8601."""

    state: RunState = "running"
    round: int = 0
    by: str = ""
    at: str = ""
    reason: str = ""

    @property
    def words(self) -> str:
        """The state as part of a sentence: who, when and why."""
        by, reason = f" by {self.by} at {self.at[:19]}" if self.at else "", f": {self.reason}" if self.reason else ""
        return f"{self.state}{by}{reason}"

    def stops(self, number: int, begun: bool) -> bool:
        """Say whether a site may not make a round; `begun`: this process has made rounds before."""
        if self.state == "paused":
            return not begun or number > self.round
        return self.state == "cancelled"


def control_key(run: str) -> str:
    """Key of a run's control in the home store."""
    return f"runs/{run}/control.json"


def read_control(home: Store, run: str) -> Control:
    """Return what is wanted of a run; a run that nobody ever paused is running.

    Raises:
        RoundError: the object is not a control of format 1.
        StoreError: it is damaged or cannot be reached.
    """
    key = control_key(run)
    try:
        found = home.get_json(key)
    except ObjectMissing:
        return Control()
    try:
        if found.pop("format") != FORMAT or found["state"] not in get_args(RunState):
            raise ValueError("unknown format or state")
        return Control(**found)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise RoundError(
            f"{home.url}/{key}: not a control of format {FORMAT} ({error}); delete it and pause or resume again"
        ) from error


def pause(home: Store, plan: Plan, by: str, reason: str = "") -> Control:
    """Let a run end after the round under way; a paused run stays as it is.

    Raises:
        RoundError: the run is finished or was cancelled.
    """
    known = _open(home, plan)
    if known.state == "paused":
        return known
    # Between this look and the put a round may close: a site that then has begun the next one is not waited for.
    return _write(home, plan, Control("paused", _newest(home, plan) + 1, by, _now(), reason))


def resume(home: Store, plan: Plan, by: str, reason: str = "") -> Control:
    """Let a paused run go on; a running one stays as it is.

    Raises:
        RoundError: the run is finished or was cancelled.
    """
    known = _open(home, plan)
    return known if known.state == "running" else _write(home, plan, Control("running", 0, by, _now(), reason))


def cancel(home: Store, plan: Plan, by: str, reason: str = "") -> Control:
    """End a run for good at the rounds it has; a cancelled one stays as it is.

    Raises:
        RoundError: the run is finished.
    """
    known = read_control(home, plan.run)
    if known.state == "cancelled":
        return known
    _open(home, plan)
    return _write(home, plan, Control("cancelled", 0, by, _now(), reason))


def require_not_cancelled(plan: Plan, control: Control) -> None:
    """Check that a run may be trained.

    Raises:
        RoundError: it was cancelled.
    """
    if control.state == "cancelled":
        raise RoundError(
            f"run {plan.run} was {control.words}; a cancelled run does not go on. For a new run from the same data "
            f"give run.toml another name or seed"
        )


def _open(home: Store, plan: Plan) -> Control:
    known = read_control(home, plan.run)
    require_not_cancelled(plan, known)
    # The chain is made again only when its last commit seems to be there: a pause must not wait for that.
    if _newest(home, plan) >= plan.rounds and newest_state(home, plan).round >= plan.rounds:
        raise RoundError(f"run {plan.run} is finished: all its {plan.rounds} rounds are committed")
    return known


def _newest(home: Store, plan: Plan) -> int:
    keys = home.list(f"runs/{plan.run}/commits")
    return max((int(key.rsplit("/", 1)[1][:6]) for key, _ in keys), default=0)


def _write(home: Store, plan: Plan, control: Control) -> Control:
    control = replace(control, reason=" ".join(control.reason.split()))
    home.put(control_key(plan.run), canonical_json({"format": FORMAT, **asdict(control)}))
    return control


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
