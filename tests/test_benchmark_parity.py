"""The benchmark of recipes: equal tokens, exact bytes, runs kept on record, rates swept until the best is inside."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import parity
from benchmarks.parity_search import Record, bytes_ratio, gaps, halve, open_record, sweep
from benchmarks.parity_text import load_text
from benchmarks.parity_train import Recipe, Setting, round_lengths, train
from data_contracts.errors import CausewayError
from training.model import count_parameters, parameter_shapes
from training.rounds.codec import wire_bytes

_STEPS = 12


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """As the benchmark: several threads cost such small models a hundred times their work on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def setting() -> Setting:
    return parity.setting_of(parity.FORMS["quick"], generated=True)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 300))
def test_rounds_of_any_lengths_take_exactly_the_steps_of_the_run(begin: int, end: int, steps: int) -> None:
    made = round_lengths(f"{begin}-{end}", steps)
    assert sum(made) == steps
    assert made[0] == min(begin, steps)
    assert all(min(begin, end) <= length <= max(begin, end) for length in made[:-1])


def test_no_site_trains_on_a_held_out_window() -> None:
    text = load_text(2, 32, generated=True)
    trained = {window.tobytes() for windows in text.train for window in windows}
    held_out = [window.tobytes() for windows in text.held_out for window in windows]
    assert held_out
    assert not trained & set(held_out)
    assert min(int(windows.min()) for windows in text.train) >= 1
    assert max(int(windows.max()) for windows in text.train) <= 256


def test_mixed_text_is_the_same_windows_dealt_to_all_sites() -> None:
    apart, mixed = load_text(2, 32, generated=True), load_text(2, 32, mixed=True, generated=True)
    first = {window.tobytes() for window in apart.train[0]}
    shares = [np.mean([window.tobytes() in first for window in windows]) for windows in mixed.train]
    assert shares == pytest.approx([0.5, 0.5], abs=0.05)
    assert all(np.array_equal(a, b) for a, b in zip(apart.held_out, mixed.held_out, strict=True))


def test_a_number_of_sites_that_there_is_no_text_for_is_refused() -> None:
    with pytest.raises(CausewayError, match="5 sites"):
        load_text(5, 32)


def test_a_run_repeats_to_the_bit_and_sends_what_its_codec_foretells(setting: Setting) -> None:
    recipe = Recipe(optimizer="muon", lengths="5", outer=parity.nesterov(0.7, 0.6), codec="int4-128", feedback=1.0)
    first, again = train(setting, recipe, 1, _STEPS), train(setting, recipe, 1, _STEPS)
    assert (first.loss, first.losses) == (again.loss, again.losses)
    assert first.rounds == 3
    assert first.bytes_out == 3 * wire_bytes("int4-128", parameter_shapes(setting.model))
    assert train(setting, recipe, 2, _STEPS).loss != first.loss


def test_data_parallel_sends_four_bytes_a_parameter_and_step(setting: Setting, tmp_path: Path) -> None:
    record = open_record(tmp_path, setting)
    assert train(setting, Recipe(), 1, _STEPS).bytes_out == _STEPS * 4 * count_parameters(setting.model)
    assert bytes_ratio(record, Recipe(), 1, _STEPS) == 1


def test_sites_that_average_after_one_round_have_the_mean_of_their_parameters(setting: Setting) -> None:
    # With a step of SGD's kind nothing differs from data parallel; AdamW's first step is the sign of the gradient.
    one = train(setting, Recipe(lengths=str(_STEPS)), 1, _STEPS)
    each = train(setting, Recipe(lengths="1"), 1, _STEPS)
    parallel = train(setting, Recipe(), 1, _STEPS)
    assert one.rounds == 1
    assert abs(each.loss - parallel.loss) < abs(one.loss - parallel.loss)


def test_a_run_on_record_is_not_run_again_and_a_torn_line_is_passed_over(setting: Setting, tmp_path: Path) -> None:
    record = open_record(tmp_path, setting)
    loss = record.loss(Recipe(), 1, _STEPS)
    with record.path.open("a") as file:
        file.write('{"key": "ab", "outc')
    resumed = open_record(tmp_path, setting)
    assert resumed.loss(Recipe(), 1, _STEPS) == loss
    assert resumed.made == 0
    resumed.loss(Recipe(), 2, _STEPS)
    assert open_record(tmp_path, setting).loss(Recipe(), 2, _STEPS) == resumed.loss(Recipe(), 2, _STEPS)


def test_another_batch_has_another_record(setting: Setting, tmp_path: Path) -> None:
    other = Setting(setting.model, setting.text, setting.steps, setting.batch_windows * 2)
    assert open_record(tmp_path, setting).path != open_record(tmp_path, other).path


def test_a_sweep_goes_on_until_its_best_is_inside(setting: Setting, tmp_path: Path) -> None:
    record = open_record(tmp_path, setting)
    found = sweep(record, Recipe(lr=0.004), _STEPS, (0.5, 1, 2, 4))
    rates, losses = zip(*found.points, strict=True)
    assert found.interior
    assert len(rates) > 4
    assert list(rates) == sorted(rates)
    assert rates[0] < found.best.lr < rates[-1]
    assert min(losses) == pytest.approx(record.loss(found.best, 1, _STEPS), abs=1e-4)


def test_a_run_that_diverges_counts_as_the_worst(setting: Setting, tmp_path: Path) -> None:
    record = open_record(tmp_path, setting)
    wild = Recipe(lr=1e6, lengths="3", outer=parity.nesterov(1e30, 0.9))
    left, table = halve(record, [wild, Recipe(lr=0.02)], [(_STEPS, 1)])
    assert left == [Recipe(lr=0.02)]
    assert [row["loss"] is None for row in table] == [False, True]


def test_gaps_are_paired_by_seed() -> None:
    # Gaps of 1, 2 and 3 per cent: their mean 2, deviation 1, and t(0.975, 2) = 4.303.
    assert gaps([101.0, 204.0, 309.0], [100.0, 200.0, 300.0]) == {"percent": 2.0, "upper95": 4.484}
    assert gaps([101.0], [100.0]) == {"percent": 1.0, "upper95": None}


def test_the_figures_of_a_small_form_are_whole_and_shown(setting: Setting, tmp_path: Path) -> None:
    form = parity.Form(16, 1, 32, 8, _STEPS, 2, ((6, 2), (_STEPS, 2)))
    record = Record(tmp_path / "runs.jsonl", setting)
    figures = parity.measure(form, record)
    assert figures["losses"]["ours"][0] == round(record.loss(Recipe(**figures["recipe"]), 1, _STEPS), 4)
    page = "\n".join(parity.tables(figures))
    assert all(f"`{name}`" in page for name in figures["sweeps"])
    assert len(figures["halving"]) == len(parity.candidates(Recipe(), Recipe())) + 2
    assert parity.measure(form, Record(tmp_path / "runs.jsonl", setting)) == figures | {"runs_made": 0}
