"""Lineage: who made what from what, written when it is made, as OpenLineage events beside the data.

Every run of a job leaves START and then COMPLETE, FAIL or ABORT (OpenLineage 2-0-2), each a create-only object
`lineage/<job>/<time>-<run>-<state>.ndjson`. Nodes are named `<kind>/...`:

    source/<dataset>/<partition>@<sha12>   file/<dataset>/<name>@<sha12>   partition/<dataset>/<partition>@<ingest12>
    curation/<id12>   tokenizer/<sha12>   shard/<sha12>   version/<dataset>@<sha12>   contribution/<sha12>
    round/<run>/<n>   model/<run>@<n>   evaluation/<sha12>   export/<sha12>

The index of lineage_index.py is derived from these objects and can be deleted at any time.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from data_contracts.catalog.store import Store
from data_contracts.errors import CausewayError, ObjectExists, StoreError

_JOB = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_NODE = re.compile(r"[a-z][a-z-]*/[^\x00-\x1f]+")
_ONCE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:causeway:lineage:once")


@dataclass(frozen=True)
class Node:
    """One thing that lineage speaks of; `facets` are its facts (counts, shas, sites), never the text of a record.

    Raises:
        CausewayError: the name is not `<kind>/<rest>`.
    """

    name: str
    facets: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not _NODE.fullmatch(self.name):
            raise CausewayError(
                f"{self.name!r} cannot name a lineage node: write <kind>/<rest>, such as shard/0f3c9a1b2d4e"
            )

    @property
    def kind(self) -> str:
        """The first word of the name: source, partition, shard, round, model ..."""
        return self.name.partition("/")[0]


@dataclass
class JobRun:
    """A job while it runs: append what it read and made; written as COMPLETE when the `with` block ends."""

    job: str
    run_id: uuid.UUID
    inputs: list[Node]
    outputs: list[Node] = field(default_factory=list)
    facets: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Lineage:
    """The lineage events of one store.

    All methods raise StoreError when the store fails or a facet has no JSON form, and CausewayError for a job name
    outside `[a-z0-9-]`.
    """

    store: Store

    def start(self, job: str, run_id: uuid.UUID, inputs: Sequence[Node]) -> None:
        """Record that a run of a job has begun."""
        self._write(job, run_id, "START", inputs)

    def complete(
        self,
        job: str,
        run_id: uuid.UUID,
        inputs: Sequence[Node],
        outputs: Sequence[Node],
        facets: Mapping[str, Any] | None = None,
    ) -> None:
        """Record that a run made every output from all inputs; only this makes edges of the index."""
        self._write(job, run_id, "COMPLETE", inputs, outputs, facets or {})

    def fail(self, job: str, run_id: uuid.UUID, message: str) -> None:
        """Record that a run failed and why; the message must hold no restricted value."""
        self._write(job, run_id, "FAIL", message=message)

    def abort(self, job: str, run_id: uuid.UUID, message: str) -> None:
        """Record that a run was stopped from outside."""
        self._write(job, run_id, "ABORT", message=message)

    @contextmanager
    def job(self, name: str, inputs: Sequence[Node] = ()) -> Iterator[JobRun]:
        """Record START now and COMPLETE, FAIL or ABORT at the end of the block; exceptions pass through."""
        run = JobRun(name, uuid.uuid4(), list(inputs))
        self.start(name, run.run_id, run.inputs)
        try:
            yield run
        except Exception as error:
            self.fail(name, run.run_id, _message(error))
            raise
        except BaseException as error:
            self.abort(name, run.run_id, type(error).__name__)
            raise
        self.complete(name, run.run_id, run.inputs, run.outputs, run.facets)

    def emit_once(self, job: str, key: str, inputs: Sequence[Node], outputs: Sequence[Node]) -> bool:
        """Record a run that several sites, or one site twice, may report; return False when it was on record.

        START and COMPLETE are two lines of ONE create-only object, so that a crash cannot leave half of them. The
        run id is uuid5 of (job, key).

        Raises:
            StoreError: other nodes are on record under this key.
        """
        run_id = uuid.uuid5(_ONCE, json.dumps([job, key]))
        now = datetime.now(UTC)
        lines = _line("START", job, run_id, now, inputs) + _line("COMPLETE", job, run_id, now, inputs, outputs)
        object_key = f"lineage/{job}/once-{run_id}-complete.ndjson"
        try:
            self.store.create(object_key, lines)
            return True
        except ObjectExists:
            if _nodes(self.store.get(object_key)) != _nodes(lines):
                raise StoreError(
                    f"{self.store.url}/{object_key}: job {job}, key {key!r}: recorded with other inputs or outputs; "
                    "a key must name one result, so make it more precise"
                ) from None
            return False

    def _write(
        self,
        job: str,
        run_id: uuid.UUID,
        state: str,
        inputs: Sequence[Node] = (),
        outputs: Sequence[Node] = (),
        facets: Mapping[str, Any] | None = None,
        message: str | None = None,
    ) -> None:
        now = datetime.now(UTC)
        line = _line(state, job, run_id, now, inputs, outputs, facets or {}, message)
        self.store.create(f"lineage/{job}/{now:%Y%m%dT%H%M%S.%fZ}-{run_id}-{state.lower()}.ndjson", line)


def _line(
    state: str,
    job: str,
    run_id: uuid.UUID,
    now: datetime,
    inputs: Sequence[Node],
    outputs: Sequence[Node] = (),
    facets: Mapping[str, Any] | None = None,
    message: str | None = None,
) -> bytes:
    from data_contracts.catalog.lineage_events import event_line

    if not _JOB.fullmatch(job):
        raise CausewayError(f"{job!r} cannot name a job: use a-z, 0-9 and '-', 64 characters at most")
    time = f"{now:%Y-%m-%dT%H:%M:%S.%fZ}"
    return event_line(state, job, str(run_id), time, inputs, outputs, facets or {}, message)


def _message(error: Exception) -> str:
    # Our own messages are written to be read by others; those of a library may quote a row.
    if isinstance(error, CausewayError):
        return f"{type(error).__name__}: {error}"
    return f"{type(error).__name__}; the run's own log has the message"


def _nodes(lines: bytes) -> list[tuple[set[str], set[str]]]:
    events = [json.loads(line) for line in lines.splitlines()]
    return [({n["name"] for n in e["inputs"]}, {n["name"] for n in e["outputs"]}) for e in events]
