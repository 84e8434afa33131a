"""The admission gate: is this accelerator's arithmetic close enough to the CPU's in float64 to carry weight?

Compared are operators, the forward and the gradient of each layer, and the loss of 20 steps. Gradients decide: two
makes of accelerators have shown losses within 1 % of each other from first-layer gradients 50 to 100 % apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import version
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.overrides import TorchFunctionMode

from data_contracts.errors import RoundError
from training.inner import InnerLoop
from training.model import ModelSpec, build, parameter_shapes
from training.operators import OPERATORS, run_operator
from training.recipe import InnerRecipe

FORMAT = 1
STEPS = 20
Dtype = Literal["float32", "bfloat16"]
SPEC = ModelSpec(vocab_size=512, hidden_size=64, layers=3, heads=4, intermediate_size=176, window=64)
_SEED, _BATCH = 1, 8
_RECIPE = InnerRecipe(lr=1e-3, warmup_steps=0, total_steps=STEPS, grad_clip=1e9, batch_windows=_BATCH)
_ATOL = 1e-4  # by term of the longest sum; with `rtol` the tolerances of FlagGems


@dataclass(frozen=True)
class Tolerance:
    """How far a dtype may be off.

    `rtol`: of a value of an operator, beside 1e-4 by term of its longest sum. `error`: the L2 norm of a difference over
    that of the reference. `bias`: how much too long or short it is along the reference; rounding cancels there, so a
    gradient that is 1 % off shows in bfloat16 too. `loss`: of the loss of a step.
    """

    rtol: float
    error: float
    bias: float
    loss: float


TOLERANCES: Mapping[str, Tolerance] = {
    "float32": Tolerance(rtol=1.3e-6, error=1e-4, bias=1e-4, loss=1e-4),
    "bfloat16": Tolerance(rtol=0.016, error=0.05, bias=0.006, loss=0.016),
}


@dataclass(frozen=True)
class Row:
    """One comparison: `part` is operator, layer or loss; NaN where a value is not finite.

    `worst` is the largest difference of a value over what it may be, and measured for operators only (else 0).
    """

    part: str
    name: str
    what: str
    error: float
    bias: float = 0.0
    worst: float = 0.0

    def ok(self, allowed: Tolerance) -> bool:
        """Whether it is within the tolerance; NaN is not."""
        if self.part == "loss":
            return self.error <= allowed.loss
        return self.error <= allowed.error and abs(self.bias) <= allowed.bias and self.worst <= 1


@dataclass(frozen=True)
class Parity:
    """What the gate found out about one device in one dtype."""

    device: str
    device_name: str
    dtype: str
    libraries: Mapping[str, str]
    rows: tuple[Row, ...]

    @property
    def failed(self) -> tuple[Row, ...]:
        """The comparisons outside the tolerance."""
        return tuple(row for row in self.rows if not row.ok(self.allowed(row)))

    def allowed(self, row: Row) -> Tolerance:
        """Return how far a comparison may be off: that of float32 for what is computed in it in any dtype."""
        full = any(row.part == "operator" and row.name == operator.name and operator.full for operator in OPERATORS)
        return TOLERANCES["float32" if full else self.dtype]

    @property
    def ok(self) -> bool:
        """Whether the device may carry weight: nothing is missing and nothing failed."""
        return not self.failed and _wanted() <= {(row.part, row.name) for row in self.rows}

    def document(self) -> dict[str, Any]:
        """Return it as a JSON value for the chain; six digits a number, null for one that is not finite."""
        rows = [{k: _plain(v) for k, v in asdict(row).items()} for row in self.rows]
        return {
            "format": FORMAT,
            "device": self.device,
            "device_name": self.device_name,
            "dtype": self.dtype,
            "libraries": dict(sorted(self.libraries.items())),
            "model": SPEC.model_dump(mode="json"),
            "steps": STEPS,
            "rows": rows,
            "passed": self.ok,
        }


def read_parity(document: Mapping[str, Any]) -> Parity:
    """Return the gate's answer from its document; whether it passed is worked out again from the rows.

    Raises:
        RoundError: it is no such document, or says that it passed where its rows do not.
    """
    try:
        if document["format"] != FORMAT or document["model"] != SPEC.model_dump(mode="json"):
            raise ValueError(f"format {document['format']!r}, or another model than this Causeway's")
        rows = tuple(_read_row(row) for row in document["rows"])
        texts = {name: document[name] for name in ("device", "device_name", "dtype")}
        found = Parity(**texts, libraries=dict(document["libraries"]), rows=rows)
        passed = found.ok
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RoundError(f"not a parity document of format {FORMAT}: {error}; run: causeway sites parity") from error
    if document.get("passed") is not passed:
        raise RoundError(
            f"parity document of {found.device_name}: says passed {document.get('passed')}, its rows do not"
        )
    return found


def _read_row(row: Mapping[str, Any]) -> Row:
    numbers = [math.nan if row[name] is None else float(row[name]) for name in ("error", "bias", "worst")]
    return Row(str(row["part"]), str(row["name"]), str(row["what"]), *numbers)


def device_named(name: str) -> torch.device:
    """Return a device by torch's name for it.

    Raises:
        RoundError: torch knows no such device, or this machine has none.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        accelerator = torch.accelerator.current_accelerator(check_available=True)
        has = "cpu" if accelerator is None else f"cpu, {accelerator.type}"
        reason = str(error).partition("\n")[0]
        raise RoundError(f"device {name!r}: not usable here ({reason}); torch sees: {has}") from error
    return device


class _Progress(Protocol):
    def __call__(self, said: str, /) -> None: ...


def check_parity(
    device: torch.device,
    dtype: Dtype,
    prepare: Callable[[torch.nn.Module], torch.nn.Module] = lambda model: model,
    progress: _Progress = lambda said: None,
) -> Parity:
    """Compare a device in a dtype with the CPU in float64; `prepare` changes the model that the device gets.

    Some seconds on a CPU. Weights and batches are drawn by numpy: the same on every machine.
    """
    progress("operators")
    rows = [*_operators(device, dtype)]
    progress(f"layers, and {STEPS} steps")
    rows += _model(device, dtype, prepare)
    index = device.index or 0
    named = device.type == "cuda" and torch.cuda.is_available()
    name = torch.cuda.get_device_name(index) if named else device.type
    libraries = {library: version(library) for library in ("torch", "transformers")}
    return Parity(device.type, name, dtype, libraries, tuple(rows))


def _operators(device: torch.device, dtype: Dtype) -> Iterator[Row]:
    for operator in OPERATORS:
        allowed = TOLERANCES["float32" if operator.full else dtype]
        for what, (found, reference) in run_operator(operator, device, getattr(torch, dtype)).items():
            room = _ATOL * operator.reduced + allowed.rtol * reference.abs()
            worst = float(((found - reference).abs() / room).max())
            yield _row("operator", operator.name, what, found, reference, worst)


def _model(device: torch.device, dtype: Dtype, prepare: Callable[[torch.nn.Module], torch.nn.Module]) -> list[Row]:
    wanted = _reference()
    low = _RECIPE.model_copy(update={"dtype": dtype})
    found = _steps(InnerLoop(prepare(build(SPEC, _SEED)), low, device))
    rows = [_row("layer", name, what, value, wanted[0][name, what]) for (name, what), value in found[0].items()]
    for k, (a, b) in enumerate(zip(found[1], wanted[1], strict=True), start=1):
        rows.append(Row("loss", f"step {k}", "loss", _finite(abs(a - b) / abs(b))))
    return rows


# Forward and gradient by (layer, what) before the first step, and the losses of all steps.
Outcome = tuple[dict[tuple[str, str], torch.Tensor], list[float]]


@cache
def _reference() -> Outcome:
    """Return what the CPU computes in float64; the same each time, and the half of the gate's work."""
    with _Float64():
        return _steps(InnerLoop(build(SPEC, _SEED).double(), _RECIPE, torch.device("cpu")))


def _steps(loop: InnerLoop) -> Outcome:
    found: dict[tuple[str, str], torch.Tensor] = {}
    inputs, targets = _batch(0)
    low = loop.recipe.dtype != "float32"
    with torch.no_grad(), torch.autocast(loop.device.type, torch.bfloat16, enabled=low):
        given = torch.from_numpy(inputs).to(loop.device)
        out = loop.model(input_ids=given, use_cache=False, output_hidden_states=True)
    found["logits", "forward"] = out.logits
    for k, hidden in enumerate(out.hidden_states):
        found[f"hidden {k}", "forward"] = hidden
    losses = []
    for step in range(STEPS):
        try:
            losses.append(loop.step(*_batch(step), step).loss)
        except RoundError:
            losses += [math.nan] * (STEPS - step)
        if step == 0:
            for name, tensor in loop.model.named_parameters():
                found[name, "gradient"] = (
                    torch.full_like(tensor, math.nan) if tensor.grad is None else tensor.grad.clone()
                )
        if not math.isfinite(losses[-1]):
            break
    return {key: value.detach().cpu().double() for key, value in found.items()}, losses


def _batch(number: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return windows that have something to be learned: each token follows from the one before, mostly."""
    generator = np.random.Generator(np.random.PCG64(number))
    ids = np.zeros((_BATCH, SPEC.window + 1), dtype=np.int64)
    ids[:, 0] = generator.integers(1, SPEC.vocab_size, _BATCH)
    for k in range(SPEC.window):
        follows = (ids[:, k] * 5 + 3) % SPEC.vocab_size
        ids[:, k + 1] = np.where(
            generator.random(_BATCH) < 0.8, follows, generator.integers(1, SPEC.vocab_size, _BATCH)
        )
    return ids[:, :-1].copy(), ids[:, 1:].copy()


def _row(
    part: str, name: str, what: str, found: torch.Tensor, reference: torch.Tensor, worst: float = 0.0
) -> Row:  # fmt: skip
    a, b = found.ravel(), reference.ravel()
    length = float(b @ b)
    if length == 0:
        size = float(a.abs().max())
        return Row(part, name, what, _finite(size), _finite(size), _finite(worst))
    error = math.sqrt(float((a - b) @ (a - b)) / length)
    return Row(part, name, what, _finite(error), _finite(float(a @ b) / length - 1), _finite(worst))


def _finite(value: float) -> float:
    return value if math.isfinite(value) else math.nan


def _plain(value: str | float) -> str | float | None:
    if isinstance(value, str):
        return value
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _wanted() -> set[tuple[str, str]]:
    """Return what a whole answer names."""
    wanted = {("operator", operator.name) for operator in OPERATORS}
    wanted |= {("layer", name) for name in parameter_shapes(SPEC)}
    return wanted | {("loss", f"step {k}") for k in range(1, STEPS + 1)}


class _Float64(TorchFunctionMode):
    """Whatever code asks for float32, it gets float64: transformers norms and rotary positions in float32, always."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        def raised(value: Any) -> Any:
            return torch.float64 if value is torch.float32 else value

        if func is torch.Tensor.float:
            return args[0].double()
        return func(*map(raised, args), **{k: raised(v) for k, v in (kwargs or {}).items()})
