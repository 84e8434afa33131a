"""The commit protocol as a graph of states: three writers that run the product's code, one store request at a time.

A writer is a pure function of the answers it has had: its next request is found by running the code again with them, up
to the first request that has none (`Program`). So a state of the whole is what lies in the stores, and for each writer
where it is; and all states are visited, each once, whatever the number of ways that lead there (`explore`).

A request whose answer nobody can change any more (the read of an object that is there, since none is ever replaced) is
answered at once: in whatever order it is taken, the same states follow. Time is no part of a state: each pass of the
loop finds every wait over, which is the fastest clock there is; slower ones add only passes that change nothing.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from obstore.store import MemoryStore

from data_contracts.canonical import canonical_json, sha256
from data_contracts.catalog.store import Store
from data_contracts.errors import ObjectExists, ObjectMissing
from data_contracts.signing import public_hex, sign
from tests.training.making import Run, contribute, key_of
from training.rounds import merge
from training.rounds.chain import Slot, advance
from training.rounds.closing import Closer
from training.rounds.commit import ChainState, genesis
from training.rounds.contribution import folder
from training.rounds.plan import Membership, Plan, PlanDataset, PlanSite
from training.rounds.run import newest_round, snapshot_key

WRITERS = ("a", "b", "c")
_PASS_S = 1000.0


class Request(NamedTuple):
    """One request of a store; `verb` is get, list, ensure, create or publish (payload and header of a contribution)."""

    verb: str
    key: str
    data: bytes = b""


Answer = Any  # bytes, a listing, or a word
Contents = dict[str, bytes]  # by "<store>:<key>"


class _Unanswered(BaseException):
    """The code has asked what has no answer yet; no handler for errors may catch it."""

    def __init__(self, request: Request) -> None:
        self.request = request


@dataclass(frozen=True)
class Stepped(Store):
    """The store's interface over `ask`. What `create` does when no answer comes is what `Store.create` promises."""

    ask: Callable[[Request], Answer] = field(kw_only=True, repr=False, compare=False)

    def _full(self, key: str) -> str:
        return f"{self.url}:{key}"

    def get(self, key: str, sha: str | None = None) -> bytes:
        found = self.ask(Request("get", self._full(key)))
        if not isinstance(found, bytes):
            raise ObjectMissing(f"{self.url}/{key}: not there")
        assert sha is None or sha256(found) == sha, "no object of this model is ever damaged"
        return found

    def size(self, key: str) -> int:
        return len(self.get(key))

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        yield from self.ask(Request("list", self._full(prefix)))

    def ensure(self, key: str, data: bytes) -> bool:
        # One step: the read back of an object that is there is answered at once. A lost answer is asked for again,
        # which is the state in which somebody else has put the same bytes: among those visited.
        if self.ask(Request("ensure", self._full(key), data)) == "other":
            raise ObjectExists(f"{self.url}/{key}: an object is already there")
        return True

    def create(self, key: str, data: bytes) -> None:
        unsure = False
        while (answer := self.ask(Request("create", self._full(key), data))) == "lost":
            unsure = True
        if answer == "exists" and not (unsure and self.get(key) == data):
            raise ObjectExists(f"{self.url}/{key}: an object is already there")


def stores_over(ask: Callable[[Request], Answer]) -> tuple[Store, dict[str, Store]]:
    """Return the home store and those of the writers."""
    home, *sites = (Stepped(name, MemoryStore(), ask=ask) for name in ("home", *WRITERS))
    return home, dict(zip(WRITERS, sites, strict=True))


def tiny_run(rounds: int, lost_region: Literal["wait", "reweight"] = "reweight") -> tuple[Run, Contents]:
    """A run of three sites and a tensor of two numbers, and what home holds; with `reweight` one may close alone."""
    state = merge.initial_state({"w": np.array([1.0, -1.0], dtype=np.float32)}, "sgd")
    snapshot, sha = merge.pack_state(state)
    plan = Plan(
        name="tiny",
        purpose="research pre-training",
        owner=public_hex(key_of("owner")),
        home_jurisdictions=["SE"],
        sites=[
            PlanSite(name=n, region=f"region-{n}", jurisdictions=["SE"], public_key=public_hex(key_of(n)))
            for n in WRITERS
        ],
        datasets=[PlanDataset(dataset="test/notes", version="0" * 64, terms_sha="1" * 64)],
        tokenizer="2" * 64,
        model={},
        inner={},
        outer={"method": "sgd", "lr": 1.0},  # type: ignore[arg-type]
        membership=Membership(lost_region=lost_region, quorum=1, grace_floor_s=1, grace_mad=0),
        window=8,
        batch_windows=2,
        steps=1,
        rounds=rounds,
        snapshot_every=1,
        seed=1,
        snapshot0=sha,
        terms_head="",
    )
    contents = {f"home:{snapshot_key(plan.run, 0, sha)}": snapshot}
    home, stores = stores_over(lambda request: respond(request, contents))
    return Run(plan, home, stores, genesis(plan, state)), contents


def respond(request: Request, contents: Contents) -> Answer:
    """Return what a store with these contents answers; nothing is written."""
    if request.verb == "list":
        where, prefix = request.key.split(":", 1)
        inside = f"{request.key}/"
        return tuple(sorted((k.removeprefix(f"{where}:"), len(v)) for k, v in contents.items() if k.startswith(inside)))
    found = contents.get(request.key)
    if request.verb == "get":
        return "missing" if found is None else found
    if request.verb == "create":
        return "created" if found is None else "exists"
    return "held" if found in (None, request.data) else "other"


@dataclass(frozen=True)
class Place:
    """Where a writer stands between two passes: nothing known (just started), or a state and what its closer keeps."""

    writer: str
    state: ChainState | None = field(default=None, compare=False)
    closer: dict[str, Any] = field(default_factory=dict, compare=False)
    key: str = ""

    @property
    def round(self) -> int:
        return self.state.round if self.state else -1


class Node:
    """A point in a pass of a writer: what it asks there, or the place that the pass ended at."""

    __slots__ = ("after", "ended", "number", "path", "place", "request")

    def __init__(self, place: Place, path: tuple[Answer, ...], number: int) -> None:
        self.place, self.path, self.number = place, path, number
        self.request: Request | None = None
        self.ended: Place | None = None
        self.after: dict[Answer, Node] = {}


class Program:
    """The loop of a site, one pass at a time, as `training.worker` runs it; what is trained is given."""

    def __init__(self, run: Run, decides: bool) -> None:
        self.run, self.decides, self.runs = run, decides, 0
        self._roots: dict[tuple[str, str], Node] = {}
        self._made: dict[tuple[str, str], bytes] = {}
        self._payloads: dict[bytes, tuple[str, bytes]] = {}
        self._count = 0

    def root(self, place: Place) -> Node:
        """Return where a pass from this place begins."""
        key = (place.writer, place.key)
        if key not in self._roots:
            self._roots[key] = self._node(place, ())
        return self._roots[key]

    def to_next(self, node: Node, contents: Contents) -> Node:
        """Return where the writer stands once everything that nobody can change any more is answered."""
        while node.place.round < self.run.plan.rounds:
            if node.request is None and node.ended is None:
                self._run(node, contents)
            if node.ended is not None:
                node = self.root(node.ended)
                continue
            assert node.request is not None
            if not self._settled(node.request, contents):
                return node
            node = self.step(node, self.respond(node.request, contents))
        return node

    def step(self, node: Node, answer: Answer) -> Node:
        """Return where the writer stands after an answer."""
        if answer not in node.after:
            node.after[answer] = self._node(node.place, (*node.path, answer))
        return node.after[answer]

    def _node(self, place: Place, path: tuple[Answer, ...]) -> Node:
        self._count += 1
        return Node(place, path, self._count)

    def _run(self, node: Node, contents: Contents) -> None:
        """Run the code with the answers up to this point, and find what it asks here."""
        self.runs += 1
        path = iter(node.path)
        at = node

        def ask(request: Request) -> Answer:
            nonlocal at
            for answer in path:
                return answer
            at.request = request
            if not self._settled(request, contents):
                raise _Unanswered(request)
            answer = self.respond(request, contents)
            at = self.step(at, answer)
            return answer

        try:
            ended = self._pass(node.place, *stores_over(ask), ask)
        except _Unanswered:
            return
        at.ended = ended

    def _pass(self, at: Place, home: Store, stores: dict[str, Store], ask: Callable[[Request], Answer]) -> Place:
        plan, writer = self.run.plan, at.writer
        closer = Closer(plan, writer, home, stores, key_of(writer), lambda: _PASS_S)
        if at.state is None:
            state, _ = newest_round(home, plan)
        else:
            state = at.state
            vars(closer).update({k: dict(v) if isinstance(v, dict) else v for k, v in at.closer.items()})
            self._publish(state, writer, ask)
            step = advance(home, plan, state)
            if isinstance(step, Slot):
                closer.try_commit(state, step, 0)
            else:
                state = step[0]
        return self._kept(writer, state, closer)

    def _publish(self, state: ChainState, writer: str, ask: Callable[[Request], Answer]) -> None:
        """Put the contribution there. That its payload goes first changes nothing for who finds it by its header."""
        run = self.run
        made = self.contribution(state, writer)
        ask(Request("publish", f"{writer}:{folder(run.plan.run, state.round + 1)}/{writer}-{sha256(made)}.json", made))

    def contribution(self, state: ChainState, writer: str) -> bytes:
        """Return the signed header of a writer's contribution to the round after a state."""
        key = (state.head, writer)
        if key not in self._made:
            update = {"w": np.array([0.1 * (1 + WRITERS.index(writer)), 0.01 * (1 + state.round)], dtype=np.float32)}
            one = contribute(self.run, state, writer, update)
            self._made[key] = canonical_json(one.document)
            stem = f"{folder(self.run.plan.run, state.round + 1)}/{writer}"
            self._payloads[self._made[key]] = (f"{writer}:{stem}-{one.header.payload}.safetensors", one.payload)
        return self._made[key]

    def written(self, request: Request) -> Contents:
        """Return what a request writes where nothing lies."""
        if request.verb in ("get", "list"):
            return {}
        found = {request.key: request.data}
        if request.verb == "publish":
            found |= [self._payloads[request.data]]
        return found

    def _kept(self, writer: str, state: ChainState, closer: Closer) -> Place:
        """Return what lasts of a pass; of times only whether they have begun."""
        kept = {name: value for name, value in vars(closer).items() if name.startswith("_")}
        kept["_past_waits"] = []
        for name in ("_quorum_at", "_ready_at"):
            kept[name] = None if kept[name] is None else 0.0
        said = {name: _said(value) for name, value in kept.items()}
        return Place(writer, state, kept, repr((state.round, state.head, sorted(said.items()))))

    def _settled(self, request: Request, contents: Contents) -> bool:
        """Say whether no writer can change this answer any more, nor the answer anything for a writer."""
        if request.verb == "list":
            where, key = request.key.split(":", 1)
            if "/contributions/" in key:
                # A site contributes once to a round: it would be another answer only under another head.
                return any(k.startswith(f"{request.key}/") and k.endswith(".json") for k in contents)
            return not key.endswith("/commits")
        return request.key in contents and (self.decides or request.verb != "create")

    def respond(self, request: Request, contents: Contents) -> Answer:
        """Return the answer; a store that does not decide tells everyone that the object was created."""
        return "created" if request.verb == "create" and not self.decides else respond(request, contents)


def _said(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _said(one) for key, one in sorted(value.items())}
    return value.sha if hasattr(value, "sha") else value


@dataclass(frozen=True)
class Faults:
    """How many of each may befall a history: a writer dies and starts again, an answer to the create of a commit is
    lost and the create is made again, an invalid commit (of each of `kinds`) is put where the next one goes.

    That a writer dies for good needs no budget: it is one whose turn never comes again.
    """

    crashes: int = 0
    lost: int = 0
    invalid: int = 0
    kinds: tuple[str, ...] = ("garbage", "signed")


@dataclass(frozen=True)
class Explored:
    """What was visited; `histories` counts the different chains of commits that a run can end with."""

    states: int
    transitions: int
    stores: int
    histories: int
    runs_of_the_code: int

    def __str__(self) -> str:
        return (
            f"{self.states:,} states, {self.transitions:,} transitions, {self.stores:,} contents of the stores, "
            f"{self.histories:,} histories; the code was run {self.runs_of_the_code:,} times"
        )


# What no reader may take for a commit: bytes that are none, and one that a member signed and that is wrong.
_WRONG = {"format": 1, "committer": "c", "inputs": [], "amendments": [], "refusals": [], "deadline": {}}
_INVALID = {"garbage": b"{}", "signed": canonical_json(sign(_WRONG, key_of("c")))}

# What lies in the stores, where each writer is, and what faults are left: crashes, lost answers, invalid commits.
State = tuple[int, tuple[int, ...], tuple[int, int, int]]


class Explorer:
    """Visits every state that three writers can reach under a budget of faults, and checks each."""

    def __init__(self, run: Run, contents: Contents, faults: Faults, decides: bool = True) -> None:
        self.run, self.faults = run, faults
        self.program = Program(run, decides)
        self._items: dict[tuple[str, bytes], int] = {}
        self._stores: dict[frozenset[int], int] = {}
        self._contents: list[Contents] = []
        self._nodes: dict[int, Node] = {}
        self._answered: dict[tuple[int, int], tuple[int, Node]] = {}
        self._settled: dict[tuple[int, int], int] = {}
        self._chains: dict[frozenset[tuple[str, bytes]], tuple[tuple[str, ...], str]] = {}
        self._chain_at: list[tuple[str, ...]] = []
        self._slot_at: list[str] = []
        self.first = self._store(contents)

    def explore(self) -> Explored:
        """Visit everything; any property that fails raises an AssertionError."""
        begin = self._settle(self.first, [self.program.root(Place(w)) for w in WRITERS])
        start: State = (self.first, begin, (self.faults.crashes, self.faults.lost, self.faults.invalid))
        ids: dict[State, int] = {start: 0}
        alone: list[list[int]] = []  # by state and writer: the state after its next step, undisturbed
        waiting, transitions = [start], 0
        finished: set[tuple[str, ...]] = set()
        order = [start]
        while waiting:
            state = waiting.pop()
            undisturbed, others = self._next(state)
            self._check(state)
            for after in (*undisturbed, *others):
                if after == state:
                    continue
                transitions += 1
                self._check_step(state, after)
                if after not in ids:
                    ids[after] = len(ids)
                    order.append(after)
                    waiting.append(after)
            while len(alone) < len(order):
                alone.append([])
            alone[ids[state]] = [ids[after] for after in undisturbed]
            if all(self._done(n) for n in state[1]):
                finished.add(self._chain_at[state[0]])
        self._nobody_is_stuck(order, alone)
        return Explored(len(ids), transitions, len(self._contents), len(finished), self.program.runs)

    def _next(self, state: State) -> tuple[list[State], list[State]]:
        """Return what each writer's next step leads to, and what every fault does."""
        store, nodes, (crashes, lost, invalid) = state
        contents = self._contents[store]
        undisturbed, others = [], []
        for k, number in enumerate(nodes):
            node = self._nodes[number]
            if self._done(number):
                undisturbed.append(state)
                continue
            request = node.request
            assert request is not None
            if (store, number) not in self._answered:
                new = self.program.written(request)
                if self.program.decides or request.verb != "create":
                    new = {key: data for key, data in new.items() if key not in contents}
                after = self._store({**contents, **new}) if new else store
                self._answered[store, number] = after, self.program.step(node, self.program.respond(request, contents))
            after, answered = self._answered[store, number]
            undisturbed.append(self._moved(state, after, k, answered))
            if request.verb == "create" and lost:
                silent = self.program.step(node, "lost")
                others.append(self._moved(state, after, k, silent, (0, 1, 0)))
            if crashes:
                again = self.program.root(Place(WRITERS[k]))
                others.append(self._moved(state, store, k, again, (1, 0, 0)))
        slot = self._slot_at[store]
        if invalid and slot:
            for data in (_INVALID[kind] for kind in self.faults.kinds):
                after = self._store({**contents, slot: data})
                settled = self._settle(after, [self._nodes[n] for n in nodes])
                others.append((after, settled, (crashes, lost, invalid - 1)))
        return undisturbed, others

    def _moved(
        self, state: State, store: int, writer: int, node: Node, spent: tuple[int, int, int] = (0, 0, 0)
    ) -> State:
        places = self._settle(store, [node if k == writer else self._nodes[n] for k, n in enumerate(state[1])])
        left = state[2]
        return store, places, (left[0] - spent[0], left[1] - spent[1], left[2] - spent[2])

    def _settle(self, store: int, nodes: list[Node]) -> tuple[int, ...]:
        return tuple([self._settled.get((store, node.number)) or self._found(store, node) for node in nodes])

    def _found(self, store: int, node: Node) -> int:
        found = self.program.to_next(node, self._contents[store])
        self._nodes[found.number] = found
        self._settled[store, node.number] = found.number
        return found.number

    def _done(self, number: int) -> bool:
        return self._nodes[number].place.round == self.run.plan.rounds

    def _store(self, contents: Contents) -> int:
        key = frozenset(self._items.setdefault(item, len(self._items)) for item in contents.items())
        if key not in self._stores:
            self._stores[key] = len(self._contents)
            self._contents.append(contents)
            chain, slot = self._chain(contents)
            self._chain_at.append(chain)
            self._slot_at.append(slot)
        return self._stores[key]

    def _chain(self, contents: Contents) -> tuple[tuple[str, ...], str]:
        """Return the heads that a reader who comes now finds, and the key where the next commit goes."""
        commits = frozenset(item for item in contents.items() if "/commits/" in item[0])
        if commits not in self._chains:
            home, _ = stores_over(lambda request: respond(request, contents))
            state, heads = self.run.start, [self.run.start.head]
            while not isinstance(step := advance(home, self.run.plan, state), Slot):
                state = step[0]
                heads.append(state.head)
            slot = f"home:{step.key}" if state.round < self.run.plan.rounds else ""
            self._superseded_once(contents, state.round)
            self._chains[commits] = tuple(heads), slot
        return self._chains[commits]

    def _superseded_once(self, contents: Contents, reached: int) -> None:
        """Check that each invalid commit of a round that is decided was superseded by one other, naming its hash."""
        commits = {key: data for key, data in contents.items() if "/commits/" in key}
        named = [(json.loads(data).get("supersedes") or {}).get("sha") for data in commits.values()]
        for key, data in commits.items():
            number = int(key.rsplit("/", 1)[1][:6])
            if data in _INVALID.values() and number <= reached:
                same = sum(other == data for k, other in commits.items() if int(k.rsplit("/", 1)[1][:6]) <= reached)
                assert named.count(sha256(data)) == same, f"{key} is superseded {named.count(sha256(data))} times"

    def _check(self, state: State) -> None:
        """Check that every writer stands where a reader who comes now does, or before."""
        chain = self._chain_at[state[0]]
        for number in state[1]:
            at = self._nodes[number].place
            assert at.state is None or chain[at.round] == at.state.head, f"{at.writer}: another history"

    def _check_step(self, before: State, after: State) -> None:
        """Check that nothing that was decided is decided otherwise."""
        was = self._chain_at[before[0]]
        assert self._chain_at[after[0]][: len(was)] == was, "a decided history was decided again"

    def _nobody_is_stuck(self, order: list[State], alone: list[list[int]]) -> None:
        """Check that from every state each writer comes to the end of the run by itself, the others being dead."""
        for k, writer in enumerate(WRITERS):
            ends = [self._done(state[1][k]) for state in order]
            for first in range(len(order)):
                path, at = [], first
                seen: set[int] = set()
                while not ends[at]:
                    assert at not in seen, f"{writer} goes in a circle from {order[first]}"
                    seen.add(at)
                    path.append(at)
                    at = alone[at][k]
                for one in path:
                    ends[one] = True


def explore(
    rounds: int, faults: Faults, lost_region: Literal["wait", "reweight"] = "reweight", decides: bool = True
) -> Explored:
    """Visit every state of a run of so many rounds, and check each; `decides`: of racing creates one wins."""
    return Explorer(*tiny_run(rounds, lost_region), faults, decides).explore()
