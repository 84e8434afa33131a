"""Which rounds trained on a record? Arithmetic on the chain and the order: exact, without an index."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from data_contracts.errors import DataRefused
from training.rounds import ledger
from training.rounds.ledger import Trained
from training.rounds.plan import read_plan
from training.rounds.run import read_run_data, replay, start_state
from training.shards.writer import open_shard
from training.workspace import Workspace


@dataclass(frozen=True)
class Trace:
    """What became of a record in one run. `where` says in words where it lies."""

    run: str
    record_id: str
    where: str
    trained: tuple[Trained, ...]

    @property
    def rounds(self) -> tuple[int, ...]:
        """The rounds that trained on it, in order."""
        return tuple(sorted({t.round for t in self.trained}))

    def document(self) -> dict[str, Any]:
        """Return the trace as a JSON value."""
        return {
            "run": self.run,
            "record_id": self.record_id,
            "where": self.where,
            "rounds": list(self.rounds),
            "trained": [asdict(t) for t in self.trained],
        }


def trace_record(workspace: Workspace, run: str, record_id: str) -> Trace:
    """Return every training of a record in a run.

    Raises:
        DataRefused: no shard of the run has it and no table knows it.
    """
    plan = read_plan(workspace.home, run)
    state, committed = start_state(workspace.home, plan), []
    for after, _, inputs in replay(workspace.home, plan, state):
        state = after
        committed.append((after.round, inputs))
    entries = ledger.entries(plan, committed)
    data = read_run_data(workspace.home, plan, state)
    places, trained = [], []
    for version in data.versions:
        for ref in version.shards:
            if record_id in open_shard(workspace.shards(ref.region).path(ref)).record_ids:
                places.append(f"{version.dataset}, partition {ref.partition}, {ref.split} split, held in {ref.region}")
    for region, order in data.orders.items():
        shards = workspace.shards(region)
        trained += ledger.rounds_of_record(record_id, order, shards, plan.window, entries, state)
    where = "; ".join(dict.fromkeys(places)) or _outside(workspace, record_id, [v.dataset for v in data.versions])
    return Trace(run, record_id, where, tuple(sorted(trained, key=lambda t: (t.round, t.lane, t.index))))


def _outside(workspace: Workspace, record_id: str, datasets: list[str]) -> str:
    """Say where a record is that no shard has: removed by curation, or in quarantine."""
    for name in datasets:
        tables = workspace.tables(workspace.contract(name))
        for version in tables.current().values():
            if record_id in tables.read_accepted(version, ["record_id"]).column(0).to_pylist():
                return f"{name}, partition {version.partition}: accepted, and left out by curation"
            if record_id in tables.read_quarantine(version).column("record_id").to_pylist():
                return f"{name}, partition {version.partition}: in quarantine"
    raise DataRefused(
        f"no record {record_id!r} in {', '.join(datasets)}; a record id is 32 hex digits, as the tables show it"
    )
