from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.training.making import contribute, make_run
from training.model import ModelSpec, count_parameters
from training.telemetry import ACCELERATORS, Gauge, Rapl, flops_per_token

SPEC = ModelSpec(window=64)
SPANS = [("compute", 10.0, 14.0), ("encode", 14.0, 14.5), ("transfer", 14.5, 15.0), ("wait", 15.0, 18.0)]


def test_seconds_add_up_by_kind_and_utilisation_is_the_share_of_compute(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    made = contribute(run, run.start, "east")
    found = Gauge(SPEC, "float32", torch.device("cpu"), 1, "cpu").figures([*SPANS, ("wait", 0.0, 2.0)], made, 1.25)
    assert (found.compute_s, found.encode_s, found.transfer_s, found.wait_s) == (4.0, 0.5, 0.5, 5.0)
    assert found.utilisation == 0.4
    assert (found.tokens, found.loss, found.grad_norm) == (made.header.tokens, made.header.loss, 1.25)
    assert found.bytes_out > len(made.payload)


def test_a_cpu_has_no_peak_and_its_energy_is_said_to_be_measured_or_estimated() -> None:
    found = Gauge(SPEC, "float32", torch.device("cpu"), 2, "cpu ddp-2").figures(SPANS, None, None)
    assert found.mfu is None
    assert "is not known here" in found.mfu_note
    assert found.energy.startswith(("measured: RAPL", "estimated: "))
    assert found.energy_j is not None
    assert (found.tokens, found.loss, found.bytes_out) == (None, None, 0)


def test_mfu_is_the_models_flop_over_the_peak_of_all_ranks(tmp_path: Path) -> None:
    assert flops_per_token(SPEC) == 6 * count_parameters(SPEC) + 12 * SPEC.layers * SPEC.hidden_size * 64
    run = make_run(tmp_path)
    made = contribute(run, run.start, "east")
    gauge = Gauge(SPEC, "bfloat16", torch.device("cpu"), 2, "cuda")
    gauge.known = next(a for a in ACCELERATORS if a.name == "H100")
    found = gauge.figures([("compute", 0.0, 1e-9)], made, None)
    # A nanosecond of compute, so that the figure has digits: tokens x FLOP / 1e-9 s / (2 x 989 TFLOP/s).
    assert found.mfu == pytest.approx(made.header.tokens * flops_per_token(SPEC) / 1e-9 / (2 * 989e12), rel=1e-3)
    assert found.mfu_note == "of 989 TFLOP/s, H100, bfloat16"


def counter(folder: Path, name: str, energy_uj: int) -> None:
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / name / "energy_uj").write_text(f"{energy_uj}\n")
    (folder / name / "max_energy_range_uj").write_text("100000000\n")


def test_the_energy_counters_of_packages_are_added_and_may_begin_again(tmp_path: Path) -> None:
    for name, energy in (("intel-rapl:0", 10_000_000), ("intel-rapl:1", 99_000_000), ("intel-rapl:0:0", 1)):
        counter(tmp_path, name, energy)
    meter = Rapl(tmp_path)
    before = meter.read()
    assert before == (10.0, 99.0)
    counter(tmp_path, "intel-rapl:0", 12_500_000)
    counter(tmp_path, "intel-rapl:1", 500_000)
    now = meter.read()
    assert now is not None
    assert meter.between(before, now) == pytest.approx(2.5 + 1.5)
    assert Rapl(tmp_path / "nothing").read() is None


def test_transfer_beside_training_holds_nothing_up() -> None:
    gauge = Gauge(SPEC, "float32", torch.device("cpu"), 1, "cpu")
    spans = [("compute", 0.0, 6.0), ("transfer", 6.0, 10.0), ("wait", 8.0, 10.0)]
    assert gauge.figures(spans, None, None).utilisation == 0.5
    beside = gauge.figures(spans, None, None, beside=True)
    assert (beside.utilisation, beside.transfer_s) == (0.75, 4.0)
