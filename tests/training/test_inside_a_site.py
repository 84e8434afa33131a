"""Runs whose sites are of unlike kinds inside: a model from a config, Muon, ranks that step together."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest
import torch

from data_contracts.sources import open_source
from tests.data_contracts.making import make_contract, write_lines
from tests.training.test_worker import READER, SITES, opened
from training import steps
from training.inner import Loop, MakeLoop, alone
from training.model import ModelSpec
from training.parallel import Together, started
from training.planning import ModelConfig, RunConfig
from training.process import Stopped
from training.recipe import InnerRecipe
from training.rounds.contribution import Header, find, read
from training.rounds.plan import Plan
from training.rounds.run import newest_round
from training.verify import verify_run
from training.worker import SiteWorker
from training.workspace import Workspace

torch.set_num_threads(1)
MODEL = {
    "model_type": "qwen3",
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "intermediate_size": 24,
    "max_position_embeddings": 16,
    "tie_word_embeddings": True,
}
CONFIG = RunConfig(
    name="inside",
    purpose="research pre-training",
    tokenizer=300,
    datasets=["test/notes"],
    model=ModelConfig(config=MODEL),
    inner=InnerRecipe(batch_windows=2, optimizer="muon", warmup_tokens=500, total_tokens=3000),
    window=16,
    steps=6,
    rounds=2,
)


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planned")
    contract = make_contract(folder / "in", reader=READER)
    for day in range(6):
        rows = [{"key": f"{day}-{n}", "content": f"day {day}: note {n} of {n * day} words, kept"} for n in range(8)]
        write_lines(folder / "in" / "data" / f"day{day}.jsonl", rows)
    workspace = Workspace.open(folder / "home")
    source = open_source(contract, str(folder / "in" / "data"))
    steps.admit(workspace, contract, str(folder / "in" / "data"))
    for partition in steps.outstanding(workspace, contract, source).todo:
        steps.ingest_one(workspace, contract, source, partition)
    steps.curate_set(workspace, contract)
    sets = steps.read_sets(workspace, CONFIG.datasets)
    record = steps.make_tokenizer(workspace, CONFIG, sets)
    made = steps.make_shards(workspace, CONFIG, sets, record)
    steps.plan_run(workspace, CONFIG, made, record.tokenizer.vocab_size)
    return folder / "home"


def run(workspace: Workspace, plan: Plan, west: MakeLoop) -> str:
    """Run all sites as threads, west with this loop; return the state that the chain ends in."""
    workers = []
    for site in SITES:
        peers = {other: workspace.store(other) for other in SITES if other != site}
        stores = (workspace.home, workspace.store(site), peers)
        key, make = workspace.site_key(site), west if site == "west" else alone
        workers.append(SiteWorker(plan, site, *stores, key, None, lambda: False, make_loop=make))
    threads = [threading.Thread(target=worker.run) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
        assert not thread.is_alive()
    state, _ = newest_round(workspace.home, plan)
    assert state.round == plan.rounds
    return state.state_sha


def in_two_pieces(spec: ModelSpec, seed: int, recipe: InnerRecipe) -> Loop:
    return alone(spec, seed, recipe.model_copy(update={"accumulate": 2}))


def test_a_site_of_two_ddp_ranks_makes_the_chain_of_one_that_steps_in_two_pieces(planned: Path, tmp_path: Path) -> None:
    one, plan = opened(planned, tmp_path / "one")
    two, _ = opened(planned, tmp_path / "two")
    assert plan.model["config"]["model_type"] == "qwen3"
    assert plan.inner["optimizer"] == "muon"
    whole = run(one, plan, in_two_pieces)
    with started(2):
        assert run(two, plan, partial(Together, form="ddp")) == whole
    assert verify_run(two, plan.run).ok


def first_header(planned: Path, folder: Path, dtype: str | None) -> Header:
    """What west publishes in round 1 when this is its own dtype."""
    workspace, plan = opened(planned, folder)
    store, key = workspace.store("west"), workspace.site_key("west")
    peers = {site: workspace.store(site) for site in SITES if site != "west"}

    def published() -> bool:
        return bool(find(store, plan.run, 1, "west"))

    with pytest.raises(Stopped):
        SiteWorker(plan, "west", workspace.home, store, peers, key, None, published, dtype=dtype).run()
    (found,) = find(store, plan.run, 1, "west")
    return read(store, found).header


def test_a_site_may_have_a_dtype_of_its_own_and_its_header_says_so(planned: Path, tmp_path: Path) -> None:
    plain = first_header(planned, tmp_path / "plain", None)
    assert plain.device == "cpu"
    assert first_header(planned, tmp_path / "same", "float32") == plain
    low = first_header(planned, tmp_path / "low", "bfloat16")
    assert low.device == "cpu bfloat16"
    assert low.payload != plain.payload
    assert low.loss == pytest.approx(plain.loss, rel=0.02)


@pytest.mark.long
@pytest.mark.parametrize("how", ["--ranks", "torchrun"])
def test_the_sites_of_a_run_are_processes_of_several_ranks(planned: Path, tmp_path: Path, how: str) -> None:
    workspace, plan = opened(planned, tmp_path / "home")
    processes = []
    for number, site in enumerate(SITES):
        torchrun = ["torch.distributed.run", "--nproc-per-node", "2", "--rdzv-backend", "c10d"]
        # Without "--" torchrun takes the worker's --run for an abbreviation of an option of its own.
        torchrun += ["--rdzv-endpoint", "127.0.0.1:0", "--rdzv-id", str(number), "-m", "--"]
        command = [sys.executable, "-m", *(torchrun if how == "torchrun" else []), "training.worker"]
        command += ["--run", plan.run, "--site", site, "--home-store", workspace.home.url]
        command += ["--store", workspace.store(site).url, "--keys", str(workspace.keys.directory)]
        command += ["--form", "fsdp" if site == "west" else "ddp"]
        if how == "--ranks":
            command += ["--ranks", "2"]
        for peer in SITES:
            command += ["--peer", f"{peer}={workspace.store(peer).url}"] if peer != site else []
        processes.append(subprocess.Popen(command, env={**os.environ, "GLOO_SOCKET_IFNAME": "lo"}))
    assert [process.wait(timeout=400) for process in processes] == [0, 0, 0]
    assert verify_run(workspace, plan.run).ok
