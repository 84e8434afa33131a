"""The peer of `orchestration`: a flow that a Prefect user would write around the same plain function, and no more."""

# No postponed annotations here: a Prefect worker that loads a flow could not resolve the names in them.

from pathlib import Path

from prefect import flow

from data_contracts.sources import open_source
from training.steps import ingest_one
from training.workspace import Workspace


@flow(name="bare-ingest")
def bare_ingest(home: str, dataset: str, partition: str) -> str:
    """Take in one partition of a registered data set."""
    workspace = Workspace.open(Path(home))
    contract = workspace.contract(dataset)
    source = open_source(contract, workspace.source(dataset)[1])
    chosen = next(p for p in source.partitions() if p.value == partition)
    return ingest_one(workspace, contract, source, chosen).outcome
