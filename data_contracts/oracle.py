"""Great Expectations as the oracle: the same rules over the same records, and every difference named."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from data_contracts.canonical import canonical_json, document_sha
from data_contracts.catalog.tables import Tables
from data_contracts.contract import Contract
from data_contracts.errors import StoreError
from data_contracts.expectations import agreement, run_expectations
from data_contracts.sources import Source
from data_contracts.sources.records import source_schema
from data_contracts.validation import validate


@dataclass(frozen=True)
class Agreement:
    """What the oracle said of a data set: `verdicts` counts failing rows by rule, `differences` should be empty."""

    dataset: str
    rows: int
    verdicts: Mapping[str, int]
    differences: tuple[str, ...]
    docs: str
    format: int = 1


def ask_oracle(contract: Contract, source: Source, tables: Tables, secret: bytes) -> tuple[Agreement, bool]:
    """Run the contract's rules through Great Expectations over all records of a source; write its Data Docs.

    The verdicts are compared with ours on the same records, and ours with what the published versions recorded. The
    Data Docs lie in the data set's own store, under `docs/<slug>/`. Asked again about the same versions, the answer
    on record is returned, with False.

    Raises:
        StoreError: the store is not a local directory, where Data Docs can be written.
        CausewayError: Great Expectations could not run a rule.
    """
    if tables.store.root is None:
        raise StoreError(f"{tables.store.url}: Data Docs need a local directory; run the oracle at a site that has one")
    current = tables.current()
    asked = document_sha([contract.sha, sorted(v.ingest_id for v in current.values())])
    key = f"docs/{contract.slug}/agreement-{asked[:16]}.json"
    if tables.store.exists(key):
        known = tables.store.get_json(key)
        return Agreement(**{**known, "differences": tuple(known["differences"])}), False
    schema = source_schema(contract)
    batches = [batch for p in source.partitions() if p.value in current for batch in source.read(p)]
    table = pa.Table.from_batches(batches, schema)
    ours = validate(contract, table.to_batches(), "*", secret, _ignore, _ignore)
    docs = tables.store.path(f"docs/{contract.slug}")
    verdicts = run_expectations(contract, table, docs)
    differences = agreement(ours, verdicts)
    published: dict[str, int] = {}
    for version in current.values():
        for rule, count in version.reasons.items():
            published[rule] = published.get(rule, 0) + count
    for rule in sorted({*published, *ours.reasons}):
        if published.get(rule, 0) != ours.reasons.get(rule, 0):
            differences.append(
                f"{rule}: the published versions count {published.get(rule, 0)}, this pass {ours.reasons.get(rule, 0)}"
            )
    made = Agreement(contract.id, table.num_rows, dict(sorted(verdicts.items())), tuple(differences), str(docs))
    document: dict[str, Any] = {**asdict(made), "differences": list(made.differences)}
    tables.store.put(key, canonical_json(document))
    return made, True


def _ignore(_table: pa.Table) -> None:
    """What was accepted or refused is already in the tables."""
