from __future__ import annotations

import itertools
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from torchdata.stateful_dataloader import StatefulDataLoader

from data_contracts.catalog.store import Store
from data_contracts.errors import StoreError
from tests.training.making import version_of
from tests.training.numbered import everything, numbered, order_over
from training.shards.loader import Loader, inputs_targets
from training.shards.region import RegionOrder
from training.shards.torch_view import Windows, merged, to_inputs_targets

WINDOW = 16
Row = tuple[int, ...]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "north"


@pytest.fixture
def order(folder: Path) -> RegionOrder:
    return order_over([numbered(Store.open(folder), [5000, 90], c) for c in "ab"], WINDOW)


def taken(batches: list[dict[str, torch.Tensor]]) -> list[Row]:
    return [tuple(row) for batch in batches for row in batch["targets"].tolist()]


@pytest.mark.parametrize("vocab_size", [65536, 1 << 20])
@pytest.mark.parametrize("spans", [None, [[3, 40]]])
def test_tensors_are_the_shifted_and_masked_windows(
    folder: Path, vocab_size: int, spans: list[list[int]] | None
) -> None:
    store = Store.open(folder)
    made = order_over([numbered(store, [100], "a", vocab_size, spans)], WINDOW)
    batch = Loader(store, made, WINDOW).gather(*everything(made))
    assert batch.tokens.max() > 32_767  # the sign bit of a word is in use
    inputs, targets = to_inputs_targets(batch)
    wanted = inputs_targets(batch)
    assert (inputs.dtype, targets.dtype) == (torch.int64, torch.int64)
    assert np.array_equal(inputs.numpy(), wanted[0])
    assert np.array_equal(targets.numpy(), wanted[1])


@pytest.mark.parametrize("world_size", [2, 4, 64])
def test_all_ranks_together_take_the_same_windows_whatever_their_number(
    folder: Path, order: RegionOrder, world_size: int
) -> None:
    def first(size: int, rank: int, count: int) -> list[Row]:
        loader = DataLoader(Windows(folder, order, WINDOW, 64 // size, rank=rank, world_size=size), batch_size=None)
        return taken(list(itertools.islice(loader, count)))

    alone = first(1, 0, 3)
    shared = [row for rank in range(world_size) for row in first(world_size, rank, 3)]
    assert len(alone) == 3 * 64
    assert sorted(shared) == sorted(alone)


def test_a_run_that_is_resumed_goes_on_with_the_next_batch(folder: Path, order: RegionOrder) -> None:
    whole = taken(list(itertools.islice(Windows(folder, order, WINDOW, 24), 9)))
    for stop in (1, 4):
        dataset = Windows(folder, order, WINDOW, 24)
        begun = list(itertools.islice(dataset, stop))
        state = dataset.state_dict()
        assert state == merged([begun[-1]["state"]])
        resumed = Windows(folder, order, WINDOW, 24)
        resumed.load_state_dict(state)
        assert taken(begun) + taken(list(itertools.islice(resumed, 9 - stop))) == whole


def test_the_states_of_ranks_are_joined_for_another_number_of_ranks(folder: Path, order: RegionOrder) -> None:
    alone = taken(list(itertools.islice(Windows(folder, order, WINDOW, 64), 6)))
    states, rows = [], []
    for rank in range(4):
        batches = list(itertools.islice(Windows(folder, order, WINDOW, 16, rank=rank, world_size=4), 2))
        rows += taken(batches)
        states.append(batches[-1]["state"])
    for rank in range(2):
        dataset = Windows(folder, order, WINDOW, 32, rank=rank, world_size=2)
        dataset.load_state_dict(merged(states))
        rows += taken(list(itertools.islice(dataset, 4)))
    assert sorted(rows) == sorted(alone)


def test_workers_share_the_lanes_and_one_process_may_go_on_for_them(folder: Path, order: RegionOrder) -> None:
    alone = taken(list(itertools.islice(Windows(folder, order, WINDOW, 64), 4)))
    loader = DataLoader(
        Windows(folder, order, WINDOW, 32), batch_size=None, num_workers=2, multiprocessing_context="spawn"
    )
    begun = list(itertools.islice(loader, 4))  # two of each worker, in turn
    dataset = Windows(folder, order, WINDOW, 64)
    dataset.load_state_dict(merged([begun[2]["state"], begun[3]["state"]]))
    rest = list(itertools.islice(dataset, 2))
    assert sorted(taken(begun) + taken(rest)) == sorted(alone)


@pytest.mark.filterwarnings("ignore:'set_vital' is deprecated")
def test_torchdatas_stateful_loader_resumes_it(folder: Path, order: RegionOrder) -> None:
    whole = taken(list(itertools.islice(Windows(folder, order, WINDOW, 64), 6)))
    first = StatefulDataLoader(Windows(folder, order, WINDOW, 64), batch_size=None)
    begun = taken(list(itertools.islice(first, 2)))
    second = StatefulDataLoader(Windows(folder, order, WINDOW, 64), batch_size=None)
    second.load_state_dict(first.state_dict())
    assert begun + taken(list(itertools.islice(second, 4))) == whole


def test_a_forked_process_is_told_what_to_do(folder: Path, order: RegionOrder) -> None:
    answer, told = os.pipe()
    child = os.fork()
    if not child:
        try:
            next(iter(Windows(folder, order, WINDOW, 8)))
        except StoreError as error:
            os.write(told, str(error).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(told)
    with open(answer) as said:
        assert 'give DataLoader multiprocessing_context="spawn"' in said.read()


def test_more_ranks_than_lanes_and_states_of_others_are_refused(folder: Path, order: RegionOrder) -> None:
    with pytest.raises(ValueError, match="may be 64 at most"):
        next(iter(Windows(folder, order, WINDOW, 8, rank=0, world_size=65)))
    with pytest.raises(ValueError, match="ranks count from 0"):
        next(iter(Windows(folder, order, WINDOW, 8, rank=2, world_size=2)))
    with pytest.raises(ValueError, match="not a state of format 1"):
        Windows(folder, order, WINDOW, 8).load_state_dict({"format": 1, "index": [0] * 63})


def test_the_page_on_loading_shows_what_works(tmp_path: Path) -> None:
    store = Store.open(tmp_path / "north")
    version = version_of([numbered(store, [5000])])
    version.write(store)
    page = (Path(__file__).parents[2] / "docs" / "loading.md").read_text(encoding="utf-8")
    shown = page.partition("```python\n")[2].partition("```")[0]
    names: dict[str, Any] = {"home": store.url, "region_store": store.url, "version_sha": version.sha}
    exec(compile(shown, "docs/loading.md", "exec"), names)  # noqa: S102  our own page
    assert names["inputs"].shape == (8, 16)
    assert sum(names["state"]["index"]) == 80
