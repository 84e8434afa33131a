"""The automations of a home: what the server does by itself when something happens, or does not.

Deployments stand by name (`{"deployment": "notice/notice"}` in an action); apply.py puts their ids in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flows.deploying.thing import PREFIX, TAG, Thing

HEARTBEAT_S = 30  # as in deployments/prefect.yaml
# Three heartbeats, as Prefect's page on zombie runs asks: one that comes late is no death.
ZOMBIE_S = 3 * HEARTBEAT_S
_RUN = "prefect.flow-run"
_ENDS = ("Completed", "Failed", "Crashed", "Cancelled", "TimedOut")
_OURS = {"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{TAG}"}


def automations(home: str, train: Mapping[str, Any] | None) -> list[Thing]:
    """Return the automations; with `train`, run.toml as JSON, new text starts the pipeline on it."""
    notice = "notice/notice"
    made = [
        _automation(
            "zombies",
            f"A run that has sent no heartbeat for {ZOMBIE_S} s has died with its worker: it becomes Crashed.",
            _trigger(
                {f"{_RUN}.*"},
                # A run that waits for a person (Paused) sends heartbeats; one that was suspended has no process.
                expect=[f"{_RUN}.heartbeat", *(f"{_RUN}.{state}" for state in (*_ENDS, "Suspended"))],
                # Running too: a run may die before its first heartbeat.
                after=[f"{_RUN}.heartbeat", f"{_RUN}.Running"],
                related=[_OURS],
                posture="Proactive",
                within=ZOMBIE_S,
            ),
            {
                "type": "change-flow-run-state",
                "state": "CRASHED",
                "name": None,
                "message": f"No heartbeat for {ZOMBIE_S} s: its process or its machine is gone",
                "force": False,
            },
        ),
        _automation(
            "a run failed",
            "A run that was started by a deployment failed or crashed: it goes on the list of what needs a person.",
            _trigger(
                {f"{_RUN}.*"},
                expect=[f"{_RUN}.{state}" for state in ("Failed", "Crashed", "TimedOut")],
                # A backfill tells of its partitions itself; a notice that fails must not raise another.
                related=[
                    _OURS,
                    {"prefect.resource.role": "deployment"},
                    _flow("!ingest-partition"),
                    _flow("!notice"),
                ],
            ),
            _run(
                notice,
                home,
                kind="run-failed",
                subject="{{ flow_run.name }}",
                message="{{ flow_run.state.name }}: {{ flow_run.state.message }}",
            ),
        ),
        _automation(
            "a partition is late",
            "A data set does not keep the frequency that its contract promises.",
            _trigger({"causeway.dataset.*"}, expect=["causeway.partition.late"]),
            _run(
                notice,
                home,
                kind="partition-late",
                subject="{{ event.payload.subject }}",
                message="{{ event.payload.message }}",
            ),
        ),
        _automation(
            "text waits for a run",
            "More text was accepted since the last run of training than tend's tokens_ready_bytes.",
            _trigger({"causeway.home"}, expect=["causeway.tokens.ready"]),
            _run(
                notice,
                home,
                kind="tokens-ready",
                subject="{{ event.payload.subject }}",
                message="{{ event.payload.message }}",
            ),
        ),
        _automation(
            "a train run crashed",
            "Looks at once what died, instead of within a minute.",
            _trigger({f"{_RUN}.*"}, expect=[f"{_RUN}.Crashed"], related=[_OURS, _flow("train")]),
            _run("tend/tend", home),
        ),
    ]
    if train is not None:
        # By name: under the contracts and from the sources that are in force when it runs.
        inputs = [{"contract": name, "source": "", "oracle": False} for name in train["datasets"]]
        made.append(
            _automation(
                f"train {train['name']}",
                "Text that waits for a run is trained on, as the run.toml given to causeway deploy --train says.",
                _trigger({"causeway.home"}, expect=["causeway.tokens.ready"]),
                _run("pipeline/pipeline", home, inputs=inputs, config=dict(train)),
            )
        )
    return made


def _automation(name: str, description: str, trigger: dict[str, Any], action: dict[str, Any]) -> Thing:
    fields = {"description": description, "tags": [TAG], "trigger": trigger, "actions": [action]}
    return Thing("automation", PREFIX + name, fields)


def _trigger(
    resources: set[str],
    expect: list[str],
    after: list[str] | None = None,
    related: list[dict[str, str]] | None = None,
    posture: str = "Reactive",
    within: int = 0,
) -> dict[str, Any]:
    return {
        "type": "event",
        "posture": posture,
        "match": {"prefect.resource.id": sorted(resources)},
        "match_related": related or [],
        "after": sorted(after or []),
        "expect": sorted(expect),
        "for_each": ["prefect.resource.id"],
        "threshold": 1,
        "within": within,
    }


def _flow(name: str) -> dict[str, str]:
    return {"prefect.resource.role": "flow", "prefect.resource.name": name}


def _run(deployment: str, home: str, **parameters: Any) -> dict[str, Any]:
    return {"type": "run-deployment", "deployment": deployment, "parameters": {"home": home, **parameters}}
