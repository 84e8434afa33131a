"""Great Expectations as the oracle: the same rules over the same records, and every difference named.

`python -m data_contracts.oracle --cases 10000 --seed 1` does so over random tables under random rules.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa

from data_contracts.canonical import canonical_json, document_sha
from data_contracts.catalog.store import Store
from data_contracts.catalog.tables import Tables, ingest_id
from data_contracts.contract import Contract
from data_contracts.drawing import Difference, cases
from data_contracts.expectations import agreement, run_expectations
from data_contracts.referencing import context_of
from data_contracts.sources import Source
from data_contracts.sources.records import source_schema
from data_contracts.validation import Report, validate


@dataclass(frozen=True)
class Agreement:
    """What the oracle said of a data set: `verdicts` counts failing rows by rule, `differences` should be empty."""

    dataset: str
    rows: int
    verdicts: Mapping[str, int]
    differences: tuple[str, ...]
    docs: str
    format: int = 1


def ask_oracle(
    contract: Contract,
    source: Source,
    tables: Tables,
    secret: bytes,
    others: Callable[[str], Tables] | None = None,
) -> tuple[Agreement, bool]:
    """Run the contract's rules through Great Expectations over the records that are published; write its Data Docs.

    Asked about are the partitions whose bytes in the source, under this contract, are the version in force: there the
    verdicts are compared with ours on the same records, and ours with what those versions recorded. The Data Docs lie
    in the data set's own store, under `docs/<slug>/`. Asked again about the same versions, the answer on record is
    returned, with False; an answer with differences is never kept. `others` gives the tables of other data sets.

    Raises:
        StoreError: the store failed.
        CausewayError: Great Expectations could not run a rule.
    """
    current = tables.current()
    chosen = [
        (partition, current[partition.value])
        for partition in source.partitions()
        if partition.value in current
        and current[partition.value].ingest_id == ingest_id(contract.sha, partition.value, partition.source_sha)
    ]
    asked = document_sha([contract.sha, sorted(version.ingest_id for _, version in chosen)])
    key = f"docs/{contract.slug}/agreement-{asked[:16]}.json"
    if tables.store.exists(key):
        known = tables.store.get_json(key)
        if not known["differences"]:
            return Agreement(**{**known, "differences": ()}), False
    schema = source_schema(contract)
    records = [pa.Table.from_batches(source.read(partition), schema) for partition, _ in chosen]
    contexts = [context_of(contract, tables, partition.value, others) for partition, _ in chosen]
    ours = _sum(
        [
            validate(contract, table.to_batches(), partition.value, secret, _ignore, _ignore, context=context)
            for table, (partition, _), context in zip(records, chosen, contexts, strict=True)
        ]
    )
    folder = f"docs/{contract.slug}"
    with _docs_folder(tables.store, folder) as docs:
        verdicts = run_expectations(contract, records, docs, contexts)
    differences = agreement(ours, verdicts)
    published = sum((Counter(version.reasons) for _, version in chosen), Counter[str]())
    for rule in sorted({*published, *ours.reasons}):
        if published[rule] != ours.reasons.get(rule, 0):
            differences.append(
                f"{rule}: the published versions count {published[rule]}, this pass {ours.reasons.get(rule, 0)}"
            )
    made = Agreement(
        contract.id, ours.rows_in, dict(sorted(verdicts.items())), tuple(differences), tables.store.uri(folder)
    )
    if not made.differences:
        tables.store.put(key, canonical_json({**asdict(made), "differences": []}))
    return made, True


@contextmanager
def _docs_folder(store: Store, folder: str) -> Iterator[Path]:
    """Yield the folder in which Great Expectations writes its pages; for a remote store they are put there after it."""
    if store.root is not None:
        yield store.path(folder)
        return
    with tempfile.TemporaryDirectory(prefix="causeway-docs-") as made:
        yield Path(made)
        for file in sorted(p for p in Path(made).rglob("*") if p.is_file()):
            store.put_file(f"{folder}/{file.relative_to(made).as_posix()}", file)


def _sum(reports: Sequence[Report]) -> Report:
    """Add up what was found in each partition; the batch rules' results stand one after the other."""
    reasons = sum((Counter(report.reasons) for report in reports), Counter[str]())
    return Report(
        rows_in=sum(r.rows_in for r in reports),
        rows_accepted=sum(r.rows_accepted for r in reports),
        rows_quarantined=sum(r.rows_quarantined for r in reports),
        reasons=dict(sorted(reasons.items())),
        batch_results=tuple(result for report in reports for result in report.batch_results),
        verdict="accepted" if any(r.rows_in for r in reports) else "empty",
        bytes_in=sum(r.bytes_in for r in reports),
    )


def _ignore(_table: pa.Table) -> None:
    """What was accepted or refused is already in the tables."""


def draw_cases(least: int, seed: int) -> tuple[int, list[Difference]]:
    """Compare at least so many (table, rule) cases, drawn from seed on; return how many, and differences."""
    compared, differences = 0, []
    while compared < least:
        count, found = cases(seed)
        compared, seed = compared + count, seed + 1
        differences += found
    return compared, differences


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `draw_cases` and print what was found; 1 when the two differ."""
    parser = argparse.ArgumentParser(description="Compare every rule with Great Expectations over random tables.")
    parser.add_argument("--cases", type=int, default=500, help="at least so many (table, rule) cases")
    parser.add_argument("--seed", type=int, default=1, help="where the drawing begins")
    given = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    began = time.monotonic()
    compared, differences = draw_cases(given.cases, given.seed)
    for difference in differences:
        sys.stdout.write(f"{difference}\n")
    took = time.monotonic() - began
    sys.stdout.write(f"{compared} cases from seed {given.seed}: {len(differences)} differences, {took:.0f} s\n")
    return 1 if differences else 0


if __name__ == "__main__":
    sys.exit(main())
