"""The gate passes arithmetic that is right and, which matters more, catches arithmetic that is a little wrong."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch

from data_contracts.canonical import canonical_json
from data_contracts.errors import RoundError
from training.operators import OPERATORS
from training.parity import TOLERANCES, Dtype, Parity, Row, check_parity, device_named, read_parity

torch.set_num_threads(1)
CPU = torch.device("cpu")


@cache
def found(dtype: Dtype) -> Parity:
    return check_parity(CPU, dtype)


def scaled(parameter: str, factor: float) -> Callable[[torch.nn.Module], torch.nn.Module]:
    def prepare(model: torch.nn.Module) -> torch.nn.Module:
        model.get_parameter(parameter).register_hook(lambda gradient: gradient * factor)
        return model

    return prepare


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_this_machines_cpu_may_carry_weight_and_its_rounding_shows(dtype: Dtype) -> None:
    assert not found(dtype).failed
    assert found(dtype).ok
    layers = [row for row in found(dtype).rows if row.part == "layer" and row.what == "gradient"]
    assert min(row.error for row in layers) > {"float32": 1e-8, "bfloat16": 1e-3}[dtype]
    # The reference is float64 throughout: were its norms float32, as transformers has them, half of this would be its.
    assert max(row.error for row in layers) < TOLERANCES[dtype].error / {"float32": 10, "bfloat16": 1.5}[dtype]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_gradient_that_is_1_percent_off_in_one_matrix_is_caught_though_no_loss_shows_it(dtype: Dtype) -> None:
    name = "model.layers.1.mlp.up_proj.weight"
    wrong = check_parity(CPU, dtype, scaled(name, 1.01))
    assert not wrong.ok
    assert {(row.part, row.name) for row in wrong.failed} == {("layer", name)}
    assert found(dtype).ok


def test_a_gradient_that_is_not_finite_is_caught_and_has_a_document() -> None:
    wrong = check_parity(CPU, "float32", scaled("model.norm.weight", math.nan))
    assert not wrong.ok
    document = wrong.document()
    canonical_json(document)
    assert {row["error"] for row in document["rows"] if row["part"] == "loss"} == {None}
    assert document["passed"] is False


# The faults of a kernel: right in float64, so that the reference is right, and off by 1 % in float32.
PLANTED = """
import sys, warnings
import torch

def silu_backward(gradient, x):
    s = torch.sigmoid(x)
    right = gradient * s * (1 + x * (1 - s))
    return right * 1.01 if x.dtype == torch.float32 else right

library = torch.library.Library("aten", "IMPL")
with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    library.impl("silu_backward", silu_backward, "CPU")
sys.argv = ["causeway", "sites", "parity", "--device", "cpu", "--json"]
from flows.cli import main
main()
"""


def test_a_wrong_kernel_is_named_by_the_command_which_exits_1() -> None:
    done = subprocess.run([sys.executable, "-c", PLANTED], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    wrong = read_parity(json.loads(done.stdout.splitlines()[-1]))
    assert {row.name for row in wrong.failed if row.part == "operator"} == {"silu x gate"}
    assert {row.name for row in wrong.failed if row.part == "layer"} > {"model.layers.0.mlp.gate_proj.weight"}


@pytest.mark.parametrize("operator", OPERATORS, ids=lambda operator: operator.name)
def test_each_operator_is_compared_with_its_gradients(operator: Any) -> None:
    what = {row.what for row in found("float32").rows if row.name == operator.name}
    floating = sum(x.is_floating_point() for x in operator.inputs(torch.zeros))
    assert what == ({"forward", *(f"gradient {k}" for k in range(floating))} if operator.differentiated else {"step"})


def test_the_document_reads_back_and_the_answer_is_worked_out_again() -> None:
    document = found("float32").document()
    assert json.loads(canonical_json(document)) == document
    again = read_parity(document)
    assert again.ok
    assert again.document() == document


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: d["rows"][0].update(error=0.5),
        lambda d: d["rows"][0].update(error=None),
        lambda d: d["rows"].pop(0) and d["rows"].pop(0) and d["rows"].pop(0),
        lambda d: d.update(format=2),
        lambda d: d.update(dtype="float8"),
        lambda d: d["rows"][0].pop("name"),
        lambda d: d.update(rows=None),
    ],
)
def test_a_document_that_says_passed_without_the_rows_for_it_is_refused(damage: Callable[[Any], Any]) -> None:
    document = json.loads(canonical_json(found("float32").document()))
    damage(document)
    with pytest.raises(RoundError, match="parity document"):
        read_parity(document)


def test_what_a_bfloat16_run_computes_in_float32_is_held_to_float32() -> None:
    parity = Parity("cpu", "cpu", "bfloat16", {}, (Row("operator", "cross entropy", "forward", 0.01),))
    assert parity.failed
    assert not Parity("cpu", "cpu", "bfloat16", {}, (Row("operator", "matmul", "forward", 0.01),)).failed


def test_a_device_that_is_not_there_is_refused_by_name() -> None:
    for name in ("abacus", "cuda:99"):
        with pytest.raises(RoundError, match=f"device '{name}': not usable here"):
            device_named(name)
