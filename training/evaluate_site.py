"""Evaluate a model at one site on the held-out shards that lie there; only figures leave.

    python -m training.evaluate_site --home-store URL --site east --store URL --run RUN [--cache DIR] [--max-bytes N]

Per-document results stay in the site's store (`evaluations/<run>/<round>-<max bytes>/<model>/<slug>.parquet`), the
summary goes to `runs/<run>/evaluations/<round>-<max bytes>/<slug>.<site>.json` in the home store.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from data_contracts.canonical import canonical_json
from data_contracts.catalog.store import Store
from data_contracts.catalog.terms_chain import read_terms
from data_contracts.errors import CausewayError, PolicyRefused
from data_contracts.policy import Purpose
from training import model as models
from training.admission import EXIT_REFUSED, require_use
from training.evaluation import (
    Document,
    DocumentScore,
    compare,
    fit_unigram,
    score_documents,
    score_unigram,
    summarise,
    to_parquet,
)
from training.model import ModelSpec
from training.rounds.codec import Tensors
from training.rounds.plan import Plan, read_plan
from training.rounds.run import final_parameters, read_run_data
from training.shards.cache import ShardCache
from training.shards.manifest import ShardRef
from training.shards.writer import open_shard

FORMAT = 1


def summary_folder(run: str, round_number: int, max_bytes: int) -> str:
    """The folder of a round's figures over at most `max_bytes` of text, in the home store."""
    return f"runs/{run}/evaluations/{round_number:06d}-{max_bytes}"


def summaries_of(home: Store, run: str, round_number: int) -> list[dict[str, Any]]:
    """Return a round's figures, of the evaluation that read most text; empty when there is none."""
    sizes = {
        int(name.split("-")[1])
        for key, _ in home.list(f"runs/{run}/evaluations")
        if (name := key.split("/")[3]).startswith(f"{round_number:06d}-")
    }
    if not sizes:
        return []
    return [home.get_json(key) for key, _ in home.list(summary_folder(run, round_number, max(sizes)))]


def evaluate_site(home: Store, shards: ShardCache, site: str, run: str, max_bytes: int) -> list[dict[str, Any]]:
    """Evaluate every data set with held-out shards at this site; return the summaries, those on record included.

    At most `max_bytes` of text a data set is scored: documents in the order of their record ids, whole ones only,
    and the summary says how many of how many.
    """
    plan = read_plan(home, run)
    before, after, state = final_parameters(home, plan)
    store = shards.store
    summaries = []
    data = read_run_data(home, plan, state)
    for dataset in data.in_force.datasets:
        held = [s for s in data.shards(dataset, plan.site(site).region, "held-out") if s.records]
        if not held:
            continue
        slug = dataset.replace("/", "--")
        key = f"{summary_folder(run, state.round, max_bytes)}/{slug}.{site}.json"
        if home.exists(key) and (known := home.get_json(key))["state"] == state.state_sha:
            summaries.append(known)
            continue
        evaluation = Purpose("evaluation", Purpose.parse(plan.purpose).use)
        require_use(plan, read_terms(home, plan.owner), site, [dataset], evaluation)
        documents, total = _documents(shards, held, max_bytes)
        counts = _counts(shards, data.shards(dataset, plan.site(site).region, "train"), plan)
        scores = {
            "before": _score(plan, before, documents),
            "after": _score(plan, after, documents),
            "unigram": score_unigram(fit_unigram(counts), documents),
        }
        for name, found in scores.items():
            store.put(f"evaluations/{run}/{state.round:06d}-{max_bytes}/{name}/{slug}.parquet", to_parquet(found))
        summary = {
            "format": FORMAT,
            "run": run,
            "round": state.round,
            "state": state.state_sha,
            "dataset": dataset,
            "site": site,
            "max_bytes": max_bytes,
            "documents_held_out": total,
            "figures": {name: asdict(summarise(found)) for name, found in scores.items()},
            "after_against_unigram": asdict(compare(scores["after"], scores["unigram"])),
        }
        home.put(key, canonical_json(summary))
        summaries.append(summary)
    return summaries


def _documents(shards: ShardCache, held: list[ShardRef], max_bytes: int) -> tuple[list[Document], int]:
    found: list[Document] = []
    for ref in held:
        shard = open_shard(shards.path(ref))
        for row, record_id in enumerate(shard.record_ids):
            # The last token of a record is the end of text: it is not text and is left out of the figure.
            tokens = np.array(shard.tokens[shard.offsets[row] : shard.offsets[row + 1] - 1])
            found.append(Document(record_id, tokens, int(shard.text_bytes[row])))
    found.sort(key=lambda d: d.record_id)
    chosen: list[Document] = []
    size = 0
    for document in found:
        if chosen and size + document.text_bytes > max_bytes:
            continue
        chosen.append(document)
        size += document.text_bytes
    return chosen, len(found)


def _counts(shards: ShardCache, held: Sequence[ShardRef], plan: Plan) -> np.ndarray[Any, Any]:
    """Count the training tokens of the data set at this site (elsewhere they may not be read)."""
    counts = np.zeros(ModelSpec.model_validate(plan.model).vocab_size, dtype=np.int64)
    for ref in held:
        counts += np.bincount(open_shard(shards.path(ref)).tokens, minlength=len(counts))
    return counts


def _score(plan: Plan, parameters: Tensors, documents: list[Document]) -> list[DocumentScore]:
    spec = ModelSpec.model_validate(plan.model)
    model = models.build(spec, plan.seed)
    models.load_parameters(model, parameters)
    return score_documents(model, documents, plan.window, 0)


def main(arguments: list[str] | None = None) -> int:
    """Evaluate one site from the command line; prints the summaries as JSON; exit 1 on an error."""
    import torch

    parser = argparse.ArgumentParser(prog="python -m training.evaluate_site", description=main.__doc__)
    for name in ("--home-store", "--site", "--store", "--run"):
        parser.add_argument(name, required=True)
    parser.add_argument("--cache", type=Path, metavar="DIR", help="folder for shards of a store that is no directory")
    parser.add_argument("--cache-gb", type=float, metavar="N", help="bound of that folder, in 10^9 bytes")
    parser.add_argument("--max-bytes", type=int, default=400_000)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    try:
        home, store = Store.open(options.home_store), Store.open(options.store)
        shards = ShardCache(store, options.cache, None if options.cache_gb is None else round(options.cache_gb * 1e9))
        summaries = evaluate_site(home, shards, options.site, options.run, options.max_bytes)
    except PolicyRefused as error:
        print(f"site {options.site}: {error}", file=sys.stderr)
        return EXIT_REFUSED
    except CausewayError as error:
        print(f"site {options.site}: {error}", file=sys.stderr)
        return 1
    print(json.dumps(summaries))
    return 0


if __name__ == "__main__":
    sys.exit(main())
