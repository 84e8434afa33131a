"""A backfill as it is stored, beside the data set's tables: plan, attempts, outcomes, and what people told it.

    backfills/<slug>/<id>/plan.json                     create-only; what was agreed to
    backfills/<slug>/<id>/attempts/000012-01.json       create-only; attempt 1 of item 12 was started
    backfills/<slug>/<id>/outcomes/000012-01.json       create-only; how it ended
    backfills/<slug>/<id>/stages/curate.json            create-only; a stage after the items is done
    backfills/<slug>/<id>/orders/000003.json            create-only; pause, resume, cancel, retry, or the breaker

Everything else is derived from these: what is left to do is a set difference, so whoever resumes a backfill, after
whatever death, does exactly the rest.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from data_contracts.backfill.plan import FORMAT, BackfillPlan, Item
from data_contracts.canonical import canonical_json
from data_contracts.catalog.store import Store
from data_contracts.errors import DataRefused, ObjectExists, ObjectMissing, StoreError

Verb = Literal["pause", "resume", "cancel", "retry", "break"]
Ended = Literal["published", "restated", "unchanged", "empty", "refused", "failed", "lost"]
KINDS = ("attempts", "outcomes", "orders", "stages")
# Ends that leave the partition as the plan wants it, or as its rules must have it: a refusal is final.
DONE = frozenset({"published", "restated", "unchanged", "empty", "refused"})


@dataclass(frozen=True)
class Outcome:
    """How one attempt of an item ended.

    `cause` is what went wrong without what is particular to the partition, so that equal failures can be counted;
    `final` says that trying again would not help. `seconds` is the attempt's wall time.
    """

    item: int
    attempt: int
    ended: Ended
    at: str
    seconds: float = 0.0
    rows_in: int = 0
    accepted: int = 0
    quarantined: int = 0
    message: str = ""
    cause: str = ""
    final: bool = False
    flow_run: str = ""
    format: int = FORMAT

    @property
    def done(self) -> bool:
        """Whether the item needs no further attempt."""
        return self.ended in DONE


@dataclass(frozen=True)
class Attempt:
    """An attempt that was started; `executor` names the incarnation that started it, `flow_run` Prefect's run."""

    item: int
    attempt: int
    at: str
    executor: str
    flow_run: str = ""
    format: int = FORMAT


@dataclass(frozen=True)
class Command:
    """What a person, or the circuit breaker, told the backfill.

    `again` is of `retry`: the number of each item to try again, and how many attempts it had by then.
    """

    verb: Verb
    by: str
    at: str
    reason: str = ""
    again: Mapping[str, int] = field(default_factory=dict)
    format: int = FORMAT


@dataclass
class Progress:
    """Every attempt, outcome and command so far: `started` and `outcomes` by item and attempt."""

    started: dict[int, dict[int, Attempt]] = field(default_factory=dict)
    outcomes: dict[int, dict[int, Outcome]] = field(default_factory=dict)
    commands: list[Command] = field(default_factory=list)
    stages: frozenset[str] = frozenset()


class Record:
    """One stored backfill."""

    def __init__(self, store: Store, plan: BackfillPlan) -> None:
        self.store = store
        self.plan = plan
        self.folder = folder_of(plan.slug, plan.id)
        self._seen: set[str] = set()
        self._progress = Progress()

    @property
    def lease(self) -> str:
        """The name of the lease of whoever executes it."""
        return f"backfill/{self.plan.slug}/{self.plan.id}"

    def progress(self, kinds: Collection[str] = KINDS) -> Progress:
        """Return what has become of it; only objects of these kinds that are new since the last call are read.

        Raises:
            StoreError: an object is damaged; names it.
        """
        for kind in kinds:
            for key, _ in self.store.list(f"{self.folder}/{kind}"):
                if key not in self._seen:
                    self._read(key, kind)
                    self._seen.add(key)
        return self._progress

    def settled(self) -> int:
        """Count the items that have an outcome, by their names alone: cheap where there are many thousands."""
        start = len(self.folder) + len("/outcomes/")
        return len({key[start : start + 6] for key, _ in self.store.list(f"{self.folder}/outcomes")})

    def _read(self, key: str, kind: str) -> None:
        found = self._progress
        document: Any = self.store.get_json(key)
        try:
            if kind == "attempts":
                attempt = Attempt(**document)
                found.started.setdefault(attempt.item, {})[attempt.attempt] = attempt
            elif kind == "outcomes":
                outcome = Outcome(**document)
                found.outcomes.setdefault(outcome.item, {})[outcome.attempt] = outcome
            elif kind == "orders":
                found.commands.append(Command(**document))
            else:
                found.stages |= {str(document["stage"])}
        except (TypeError, KeyError) as error:
            raise StoreError(f"{self.store.url}/{key}: damaged: {error}; restore it") from error

    def begin(self, item: Item, attempt: int, executor: str, flow_run: str = "") -> Attempt:
        """Record that an attempt is started; repeating it is harmless, and returns who was first."""
        made = Attempt(item.number, attempt, _now(), executor, flow_run)
        key = f"{self.folder}/attempts/{item.number:06d}-{attempt:02d}.json"
        try:
            self.store.create(key, canonical_json(asdict(made)))
        except ObjectExists:
            made = Attempt(**self.store.get_json(key))
        self._progress.started.setdefault(made.item, {})[made.attempt] = made
        self._seen.add(key)
        return made

    def ended(self, item: int, attempt: int) -> Outcome | None:
        """Return how an attempt ended, or None."""
        try:
            return Outcome(**self.store.get_json(f"{self.folder}/outcomes/{item:06d}-{attempt:02d}.json"))
        except ObjectMissing:
            return None

    def end(self, outcome: Outcome) -> Outcome:
        """Record how an attempt ended; the first to say so is believed, and returned."""
        key = f"{self.folder}/outcomes/{outcome.item:06d}-{outcome.attempt:02d}.json"
        try:
            self.store.create(key, canonical_json(asdict(outcome)))
        except ObjectExists:
            outcome = Outcome(**self.store.get_json(key))
        self._progress.outcomes.setdefault(outcome.item, {})[outcome.attempt] = outcome
        self._seen.add(key)
        return outcome

    def note(self, outcome: Outcome) -> None:
        """Take in an outcome that another process recorded."""
        self._progress.outcomes.setdefault(outcome.item, {})[outcome.attempt] = outcome

    def lose(self, item: Item, attempt: int, why: str) -> Outcome:
        """Record that an attempt's process ended without an outcome; the item will be tried again."""
        message = f"{item.name}: attempt {attempt}: {why}"
        return self.end(Outcome(item.number, attempt, "lost", _now(), message=message, cause=f"lost: {why}"))

    def finish_stage(self, stage: str, facts: Any = None) -> None:
        """Record that a stage after the items is done."""
        try:
            document = {"format": FORMAT, "stage": stage, "at": _now(), "facts": facts}
            self.store.create(f"{self.folder}/stages/{stage}.json", canonical_json(document))
        except ObjectExists:
            pass

    def order(self, verb: Verb, by: str, reason: str = "", again: Mapping[str, int] | None = None) -> Command:
        """Tell the backfill something; of several at one moment each gets a number of its own."""
        command = Command(verb, by, _now(), reason, again or {})
        while True:
            number = 1 + sum(1 for _ in self.store.list(f"{self.folder}/orders"))
            try:
                self.store.create(f"{self.folder}/orders/{number:06d}.json", canonical_json(asdict(command)))
            except ObjectExists:
                continue
            return command


def create(store: Store, plan: BackfillPlan) -> tuple[Record, bool]:
    """Store a plan; when the same work is already being done, return that backfill and False.

    A backfill of the same work that has ended does not count: the new one gets the next number.

    Raises:
        DataRefused: there is nothing to do.
    """
    if not plan.items:
        raise DataRefused(f"{plan.dataset}: nothing to backfill; every partition is left alone, with its reason")
    from data_contracts.backfill.state import state_of

    generation = 1
    while True:
        name = plan.id if generation == 1 else f"{plan.id}-{generation}"
        named = BackfillPlan.of({**plan.document(), "id": name})
        try:
            store.create(f"{folder_of(plan.slug, name)}/plan.json", canonical_json(named.document()))
        except ObjectExists:
            known = read(store, plan.slug, name)
            if not state_of(known.plan, known.progress()).ended:
                return known, False
            generation += 1
            continue
        return Record(store, named), True


def read(store: Store, slug: str, name: str) -> Record:
    """Open a stored backfill.

    Raises:
        ObjectMissing: there is none of this name.
        StoreError: its plan is damaged.
    """
    key = f"{folder_of(slug, name)}/plan.json"
    document = store.get_json(key)
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise StoreError(f"{store.url}/{key}: of format {document.get('format')!r}, this version reads {FORMAT}")
    try:
        return Record(store, BackfillPlan.of(document))
    except (TypeError, KeyError) as error:
        raise StoreError(f"{store.url}/{key}: damaged: {error}; restore it") from error


def names(store: Store) -> list[tuple[str, str]]:
    """Return (slug, id) of every backfill in a store."""
    keys = [key.split("/") for key, _ in store.list("backfills") if key.endswith("/plan.json")]
    return sorted((parts[1], parts[2]) for parts in keys if len(parts) == 4)


def stored(stores: Iterable[Store], dataset: str | None = None) -> list[Record]:
    """Return every stored backfill, of one data set or of all, the newest first."""
    found = [
        read(store, slug, name)
        for store in stores
        for slug, name in names(store)
        if dataset is None or slug == dataset.replace("/", "--")
    ]
    return sorted(found, key=lambda r: (r.plan.asked_at, r.plan.id), reverse=True)


def folder_of(slug: str, name: str) -> str:
    """Return the folder of a backfill; a name that is not ours becomes no path.

    Raises:
        ObjectMissing: such a name cannot be a backfill's.
    """
    if not name.startswith("bf-") or not name.replace("-", "").isalnum():
        raise ObjectMissing(f"{name!r} is not the id of a backfill; causeway backfill list shows them")
    return f"backfills/{slug}/{name}"


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="milliseconds")
