"""Lineage as OpenLineage 2-0-2 run events: nodes to bytes and back.

Imported by lineage.py only when an event is written: the OpenLineage client costs about 0.4 s to import.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attr
from openlineage.client.event_v2 import InputDataset, Job, OutputDataset, Run, RunEvent, RunState
from openlineage.client.facet_v2 import DatasetFacet, RunFacet, error_message_run
from openlineage.client.serde import Serde

from data_contracts.canonical import canonical_json
from data_contracts.errors import StoreError

if TYPE_CHECKING:
    from data_contracts.catalog.lineage import Node

NAMESPACE = "causeway"
PRODUCER = "urn:causeway:lineage:1"
_SCHEMA = "urn:causeway:schema:lineage-facets-1#/$defs/"


@attr.define
class CausewayNodeFacet(DatasetFacet):
    """What is known of a node: counts, shas, sites. Schema: data_contracts/schemas/lineage-facets-1.json."""

    facts: dict[str, Any] = attr.field(factory=dict, kw_only=True)

    @staticmethod
    def _get_schema() -> str:
        return _SCHEMA + "CausewayNodeFacet"


@attr.define
class CausewayRunFacet(RunFacet):
    """What is known of one run of a job. Schema: data_contracts/schemas/lineage-facets-1.json."""

    facts: dict[str, Any] = attr.field(factory=dict, kw_only=True)

    @staticmethod
    def _get_schema() -> str:
        return _SCHEMA + "CausewayRunFacet"


def event_line(
    state: str,
    job: str,
    run_id: str,
    time: str,
    inputs: Sequence[Node],
    outputs: Sequence[Node],
    facets: Mapping[str, Any],
    message: str | None = None,
) -> bytes:
    """Return one event as a line of NDJSON in canonical JSON, its newline included.

    Raises:
        StoreError: a facet has no JSON form (NaN, a set, an object); names the job and the reason.
    """
    run_facets: dict[str, RunFacet] = {}
    if facets:
        run_facets["causeway_run"] = CausewayRunFacet(facts=dict(facets), producer=PRODUCER)
    if message is not None:
        run_facets["errorMessage"] = error_message_run.ErrorMessageRunFacet(
            message=message, programmingLanguage="python", producer=PRODUCER
        )
    event = RunEvent(
        eventTime=time,
        eventType=RunState[state],
        run=Run(runId=run_id, facets=run_facets),
        job=Job(namespace=NAMESPACE, name=job),
        inputs=[InputDataset(NAMESPACE, node.name, facets=_dataset_facets(node)) for node in inputs],
        outputs=[OutputDataset(NAMESPACE, node.name, facets=_dataset_facets(node)) for node in outputs],
        producer=PRODUCER,
    )
    try:
        return canonical_json(Serde.to_dict(event)) + b"\n"
    except (TypeError, ValueError) as error:
        raise StoreError(
            f"lineage of job {job}: a facet has no JSON form: {error}; pass numbers, text, lists, maps"
        ) from error


def _dataset_facets(node: Node) -> dict[str, DatasetFacet]:
    if not node.facets:
        return {}
    return {"causeway_node": CausewayNodeFacet(facts=dict(node.facets), producer=PRODUCER)}
