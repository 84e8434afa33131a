"""The derived index of lineage: one SQLite file made from the events of any number of stores, and walks in it.

Delete it whenever you like; `rebuild_index` makes it again. Tables:

    nodes(name, kind, facets)                facets: JSON, what the events said of the node
    edges(src, dst, job, run, time)          src was an input and dst an output of one completed run
    runs(run, job, state, time, message)     state: START (never ended), COMPLETE, FAIL or ABORT
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from data_contracts.catalog.store import Store
from data_contracts.errors import StoreError

_SCHEMA = """
CREATE TABLE nodes (name TEXT PRIMARY KEY, kind TEXT NOT NULL, facets TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE edges (src TEXT NOT NULL, dst TEXT NOT NULL, job TEXT NOT NULL, run TEXT NOT NULL, time TEXT NOT NULL,
                    PRIMARY KEY (dst, src, run)) WITHOUT ROWID;
CREATE TABLE runs (run TEXT PRIMARY KEY, job TEXT NOT NULL, state TEXT NOT NULL, time TEXT NOT NULL, message TEXT)
WITHOUT ROWID;
"""
_NODE = """
INSERT INTO nodes VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET facets = json_patch(facets, excluded.facets)
"""
# The end of a run replaces its start, whatever the order in which objects and stores are read.
_RUN = """
INSERT INTO runs VALUES (?, ?, ?, ?, ?) ON CONFLICT (run) DO UPDATE
SET state = excluded.state, time = excluded.time, message = excluded.message WHERE excluded.state <> 'START'
"""


class Ancestor(NamedTuple):
    """A node on the way back, `depth` steps from where the walk began, with what the events said of it."""

    depth: int
    node: str
    kind: str
    facets: dict[str, Any]


class StepCount(NamedTuple):
    """How often a job ran to an end in one state, and how many different nodes it made."""

    job: str
    state: str
    runs: int
    outputs: int


def rebuild_index(stores: Sequence[Store], path: Path) -> None:
    """Read every lineage event of the stores into a fresh SQLite file that replaces `path` when it is whole.

    The same event in several stores counts once.

    Raises:
        StoreError: a store fails, or an object holds a line that is not an event; names object and line.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(draft)) as index:
            index.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;" + _SCHEMA)
            for store in stores:
                for key, _ in store.list("lineage"):
                    if key.endswith(".ndjson"):
                        _read(index, store, key)
            index.commit()
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def _read(index: sqlite3.Connection, store: Store, key: str) -> None:
    for number, line in enumerate(store.get(key).splitlines(), start=1):
        try:
            event = json.loads(line)
            state, time, run, job = event["eventType"], event["eventTime"], event["run"], event["job"]["name"]
            inputs = {node["name"]: _facts(node) for node in event["inputs"]}
            outputs = {node["name"]: _facts(node) for node in event["outputs"]}
            message = run.get("facets", {}).get("errorMessage", {}).get("message")
            run_id = run["runId"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise StoreError(
                f"{store.url}/{key}: line {number} is not a lineage event ({type(error).__name__}: {error}); "
                "restore the object from a copy, or move it away and rebuild"
            ) from error
        index.execute(_RUN, (run_id, job, state, time, message))
        if state == "COMPLETE":
            rows = [(name, name.partition("/")[0], facts) for name, facts in {**inputs, **outputs}.items()]
            index.executemany(_NODE, rows)
            edges = ((src, dst, job, run_id, time) for dst in outputs for src in inputs)
            index.executemany("INSERT OR IGNORE INTO edges VALUES (?, ?, ?, ?, ?)", edges)


def _facts(node: dict[str, Any]) -> str:
    return json.dumps(node.get("facets", {}).get("causeway_node", {}).get("facts", {}))


def walk_back(index: Path, node: str) -> list[Ancestor]:
    """Return a node (depth 0) and all it was made from, nearest first, then by name; each once, at its least depth.

    Raises:
        StoreError: the index is missing or damaged, or has no such node.
    """
    found: list[Ancestor] = []
    with closing(_open(index)) as db:
        seen, frontier, depth = {node}, [node], 0
        while frontier:
            for name in frontier:
                row = db.execute("SELECT kind, facets FROM nodes WHERE name = ?", (name,)).fetchone()
                if row is None:
                    raise StoreError(
                        f"{index}: no node {node!r}; rebuild the index, or list names with `SELECT name FROM nodes`"
                    )
                found.append(Ancestor(depth, name, row[0], json.loads(row[1])))
            parents: set[str] = set()
            for name in frontier:
                parents.update(row[0] for row in db.execute("SELECT src FROM edges WHERE dst = ?", (name,)))
            frontier = sorted(parents - seen)
            seen |= parents
            depth += 1
    return found


def step_counts(index: Path) -> list[StepCount]:
    """Return, by job and state, the number of runs and of different nodes they made.

    Raises:
        StoreError: the index is missing or damaged.
    """
    query = """
    SELECT runs.job, runs.state, COUNT(DISTINCT runs.run), COUNT(DISTINCT edges.dst)
    FROM runs LEFT JOIN edges ON edges.run = runs.run GROUP BY 1, 2 ORDER BY 1, 2
    """
    with closing(_open(index)) as db:
        return [StepCount(*row) for row in db.execute(query)]


def _open(index: Path) -> sqlite3.Connection:
    try:
        db = sqlite3.connect(f"{index.absolute().as_uri()}?mode=ro", uri=True)
        db.execute("SELECT 1 FROM nodes LIMIT 1")
        return db
    except sqlite3.Error as error:
        raise StoreError(f"{index}: not a lineage index ({error}); rebuild it") from error
