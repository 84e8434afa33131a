"""Small runs for the tests of this folder: real keys, real stores under a folder, tensors of a few numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from data_contracts.canonical import canonical_json
from data_contracts.catalog.store import Store
from data_contracts.signing import public_hex
from training.rounds import contribution as contributions
from training.rounds import merge
from training.rounds.amendment import Amendment
from training.rounds.chain import Slot, advance
from training.rounds.codec import Tensors
from training.rounds.commit import ChainState, build, genesis, lanes_of, seal
from training.rounds.contribution import Contribution
from training.rounds.lengths import steps_of
from training.rounds.plan import Plan, PlanDataset, PlanSite
from training.rounds.run import snapshot_key
from training.shards.manifest import DatasetVersion, Manifest, ShardRef, Split
from training.shards.schedule import next_claims
from training.shards.tokenizing import Tokenizer
from training.shards.writer import UnitFacts, write_unit
from training.tokenizer import load_tokenizer, train_tokenizer

SHAPES = {"a": (3, 2), "b": (5,)}
TOKENIZER = load_tokenizer(train_tokenizer(iter(["one two three four", "five six seven"]), 300))


def key_of(name: str) -> Ed25519PrivateKey:
    """The same key for the same name in every test."""
    return Ed25519PrivateKey.from_private_bytes(name.encode().ljust(32, b"."))


def tensors(seed: int, scale: float = 1.0, shapes: Mapping[str, tuple[int, ...]] = SHAPES) -> Tensors:
    generator = np.random.default_rng(seed)
    return {name: (scale * generator.standard_normal(shape)).astype(np.float32) for name, shape in shapes.items()}


@dataclass(frozen=True)
class Run:
    """A plan, where its objects lie, and the state before round 1."""

    plan: Plan
    home: Store
    stores: dict[str, Store]
    start: ChainState

    def key(self, site: str) -> Ed25519PrivateKey:
        return key_of(site)


def make_run(
    folder: Path, sites: Mapping[str, str] | None = None, codecs: Mapping[str, str] | None = None, **changes: Any
) -> Run:
    """A run of three sites in three regions; `sites` maps other sites to regions, `codecs` sites to their own codec.

    `changes` are fields of the plan.
    """
    sites = sites or {"east": "asia", "north": "europe", "west": "america"}
    state = merge.initial_state(tensors(0), "nesterov")
    snapshot, sha = merge.pack_state(state)
    plan = Plan(
        **{
            "name": "small",
            "purpose": "research pre-training",
            "owner": public_hex(key_of("owner")),
            "home_jurisdictions": ["SE"],
            "sites": [
                PlanSite(
                    name=n,
                    region=r,
                    jurisdictions=["SE"],
                    public_key=public_hex(key_of(n)),
                    codec=(codecs or {}).get(n, ""),
                )
                for n, r in sites.items()
            ],
            "datasets": [PlanDataset(dataset="test/notes", version="0" * 64, terms_sha="1" * 64)],
            "tokenizer": "2" * 64,
            "model": {},
            "inner": {},
            "window": 8,
            "batch_windows": 2,
            "steps": 3,
            "rounds": 4,
            "seed": 5,
            "snapshot0": sha,
            "terms_head": "",
            **changes,
        }
    )
    home = Store.open(folder / "home")
    home.ensure(snapshot_key(plan.run, 0, sha), snapshot)
    stores = {name: Store.open(folder / "sites" / name) for name in sites}
    return Run(plan, home, stores, genesis(plan, state))


def contribute(run: Run, state: ChainState, site: str, update: Tensors | None = None, **changes: Any) -> Contribution:
    """A good contribution of a site to the next round; `changes` are fields of its header."""
    plan = run.plan
    region = plan.site(site).region
    lanes = lanes_of(plan, state.members, region).get(site, [0])
    tokens = changes.get("tokens", 10 + len(site))
    steps = steps_of(plan, state, site)
    header = {
        "run": plan.run,
        "plan": plan.sha,
        "round": state.round + 1,
        "site": site,
        "base": state.head,
        "base_state": state.state_sha,
        "terms_head": "",
        "claims": tuple(next_claims(state.index[region], lanes, steps * plan.batch_windows)),
        "tokens": tokens,
        "tokens_by_dataset": {"test/notes": tokens},
        "steps": steps,
        "loss": 2.5,
        "inner": "new",
        "device": "cpu",
        "feedback": "new" if plan.feedback_of(site) else "",
        "seconds": 0.0 if plan.pace == "fixed" else 1.0,
        **changes,
    }
    made = tensors(sum(site.encode()) + 1000 * state.round, 0.01) if update is None else update
    return contributions.make(header, made, plan.codec_of(site), run.key(site))


def write_commit(
    run: Run, state: ChainState, given: Sequence[Contribution], committer: str | None = None, **changes: Any
) -> tuple[dict[str, Any], ChainState]:
    """Copy the inputs home, build, seal and put the commit of the next round; return its document and the state."""
    committer = committer or state.members[0]
    slot = advance(run.home, run.plan, state)
    assert isinstance(slot, Slot)
    amendments: list[Amendment] = changes.pop("amendments", [])
    made = build(
        run.plan,
        state,
        list(given),
        **{
            "terms_head": "",
            "refusals": [],
            "amendments": amendments,
            "deadline": {"closed_by": "all"},
            "committer": committer,
            "supersedes": slot.supersedes,
            **changes,
        },
    )
    for one in given:
        contributions.copy_input(run.home, one)
    document, after = seal(made, run.key(committer))
    run.home.create(slot.key, canonical_json(document))
    return document, after


def write_shard_of(
    store: Store,
    texts: Sequence[str],
    *,
    tokenizer: Tokenizer = TOKENIZER,
    region: str = "europe",
    split: Split = "train",
    partition: str = "p",
    dataset: str = "test/notes",
) -> Manifest:
    """A shard of records `<partition>-000`, `<partition>-001`, ... with these texts."""
    ids = [f"{partition}-{i:03d}" for i in range(len(texts))]
    (manifest,) = write_unit(store, [batch_of(ids, texts)], tokenizer, facts_of(dataset, partition, split, region))
    return manifest


def batch_of(ids: Sequence[str], texts: Sequence[str | None]) -> pa.RecordBatch:
    return pa.record_batch({"record_id": pa.array(ids, pa.string()), "text": pa.array(texts, pa.string())})


def facts_of(
    dataset: str = "test/notes", partition: str = "p", split: Split = "train", region: str = "europe"
) -> UnitFacts:
    return UnitFacts(
        dataset=dataset,
        partition=partition,
        ingest_id=partition * 8,
        curation_id="c" * 64,
        split=split,
        region=region,
        terms_sha="1" * 64,
        purpose="research pre-training",
        decision=("ok",),
    )


def version_of(manifests: Sequence[Manifest]) -> DatasetVersion:
    """A data set version that lists these shards."""
    return DatasetVersion(
        dataset=manifests[0].dataset,
        contract_sha="3" * 64,
        contract_version="1.0.0",
        terms={},
        terms_sha="1" * 64,
        curation_id="c" * 64,
        tokenizer=manifests[0].tokenizer,
        partitions=tuple({"partition": m.partition, "ingest_id": m.ingest_id} for m in manifests),
        shards=tuple(ShardRef.of(m) for m in manifests),
    )
