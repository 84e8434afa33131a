"""Figures of one site's round: where its seconds went, how well its device was used, what energy it took.

Derived figures only: nothing of the data, the model or a key. What is not known is None, with the reason in words:
a CPU has no peak that a utilisation could be measured against.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from data_contracts.canonical import canonical_json
from training.model import ModelSpec, count_parameters
from training.rounds.contribution import Contribution

Span = tuple[str, float, float]
KINDS = ("compute", "wait", "encode", "transfer")
RAPL = Path("/sys/class/powercap")
CPU_WATTS = 10.0  # of one core at work, for an estimate where nothing measures


@dataclass(frozen=True)
class Accelerator:
    """Dense peak in FLOP/s by dtype and board power in W, as the makers' data sheets state them."""

    name: str
    bfloat16: float
    float32: float
    watts: float


# The first whose name stands in the device's name counts.
ACCELERATORS = (
    Accelerator("GB200", 2.50e15, 80e12, 1200),
    Accelerator("B200", 2.25e15, 80e12, 1000),
    Accelerator("H200", 989e12, 67e12, 700),
    Accelerator("H100 PCIe", 756e12, 51e12, 350),
    Accelerator("H100", 989e12, 67e12, 700),
    Accelerator("A100", 312e12, 19.5e12, 400),
    Accelerator("L40S", 362e12, 91.6e12, 350),
    Accelerator("L4", 121e12, 30.3e12, 72),
    Accelerator("MI325X", 1307e12, 163e12, 1000),
    Accelerator("MI300X", 1307e12, 163e12, 750),
    Accelerator("MI250X", 383e12, 47.9e12, 560),
)


@dataclass(frozen=True)
class Figures:
    """A round at a site. Seconds are sums over spans; `energy_j` are joules, `energy` says how they are known.

    `utilisation` is compute / (compute + wait + encode + transfer), transfer only where it held up training.
    `mfu` is model FLOPs utilisation: 6 FLOP a
    parameter and 12 x layers x width x window for attention, a token (2204.02311, appendix B), over the device's peak.
    `grad_norm` is the mean over the steps, before clipping. What a process that only followed cannot know is None.
    """

    tokens: int | None
    loss: float | None
    grad_norm: float | None
    compute_s: float
    wait_s: float
    encode_s: float
    transfer_s: float
    bytes_out: int
    utilisation: float | None
    mfu: float | None
    mfu_note: str
    energy_j: float | None
    energy: str
    device: str


class Gauge:
    """What a site's process measures with, round by round. `ranks` processes of `threads` threads train."""

    def __init__(self, spec: ModelSpec, dtype: str, device: torch.device, ranks: int, said: str) -> None:
        self.ranks, self.dtype, self.said = ranks, dtype, said
        self.name = device_name(device)
        self.known = next((a for a in ACCELERATORS if device.type != "cpu" and a.name in self.name), None)
        self.cores = ranks * torch.get_num_threads() if device.type == "cpu" else 0
        self.flops_per_token = flops_per_token(spec)
        self._meter = energy_meter(device, ranks)
        self._last = self._meter.read() if self._meter else None

    def figures(
        self, spans: Sequence[Span], made: Contribution | None, grad_norm: float | None, beside: bool = False
    ) -> Figures:
        """Return the figures of a round; `made` is what this process contributed to it, if it did.

        `beside`: transfer went on while the site trained or waited, and held nothing up.
        """
        seconds = {kind: sum(end - start for k, start, end in spans if k == kind) for kind in KINDS}
        whole = sum(seconds.values()) - (seconds["transfer"] if beside else 0)
        header = made.header if made else None
        mfu, note = self._mfu(header.tokens if header else 0, seconds["compute"])
        joules, how = self._energy(seconds["compute"])
        return Figures(
            tokens=header.tokens if header else None,
            loss=header.loss if header else None,
            grad_norm=None if grad_norm is None else round(grad_norm, 6),
            **{f"{kind}_s": round(s, 3) for kind, s in seconds.items()},
            bytes_out=len(canonical_json(made.document)) + len(made.payload) if made else 0,
            utilisation=round(seconds["compute"] / whole, 4) if whole > 0 else None,
            mfu=mfu,
            mfu_note=note,
            energy_j=joules,
            energy=how,
            device=f"{self.said} ({self.name})",
        )

    def _mfu(self, tokens: int, compute_s: float) -> tuple[float | None, str]:
        if self.known is None:
            return None, f"the peak of {self.name} is not known here"
        peak = self.known.bfloat16 if self.dtype == "bfloat16" else self.known.float32
        note = f"of {peak / 1e12:g} TFLOP/s, {self.known.name}, {self.dtype}"
        if tokens == 0 or compute_s <= 0:
            return None, "nothing trained by this process"
        return round(tokens * self.flops_per_token / compute_s / (peak * self.ranks), 4), note

    def _energy(self, compute_s: float) -> tuple[float | None, str]:
        if self._meter is not None:
            now, before = self._meter.read(), self._last
            self._last = now
            if now is not None and before is not None:
                return round(self._meter.between(before, now), 1), f"measured: {self._meter.what}"
        watts = self.known.watts * self.ranks if self.known else self.cores * CPU_WATTS
        if not watts:
            return None, f"not known: no meter, and the power of {self.name} is not in the table"
        return round(watts * compute_s, 1), f"estimated: {watts:g} W x seconds of compute"


def flops_per_token(spec: ModelSpec) -> float:
    """Return FLOP of forward and backward for one token: 6 a parameter, and attention over a whole window."""
    config = spec.config or {}
    layers = config.get("num_hidden_layers", config.get("n_layer", spec.layers))
    width = config.get("hidden_size", config.get("n_embd", spec.hidden_size))
    return 6.0 * count_parameters(spec) + 12.0 * float(layers * width * spec.window)


def device_name(device: torch.device) -> str:
    """Return what the device calls itself; for a CPU the model of the processor, where the system says it."""
    if device.type == "cpu":
        with suppress(OSError, StopIteration):
            lines = Path("/proc/cpuinfo").read_text().splitlines()
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
        return "cpu"
    named = getattr(getattr(torch, device.type, None), "get_device_name", None)
    return str(named(device)) if named else device.type


class Rapl:
    """Intel's and AMD's energy counters of the processor packages, in joules; they count the whole machine."""

    what = "RAPL, all processors of the machine"

    def __init__(self, folder: Path = RAPL) -> None:
        # Packages only: their parts (cores, memory) are named intel-rapl:0:1 and counted within.
        self._zones = sorted(z for z in folder.glob("*rapl:*") if z.name.count(":") == 1)

    def read(self) -> tuple[float, ...] | None:
        """Return the counters, or None where they cannot be read (root only, on many systems)."""
        try:
            return tuple(int((z / "energy_uj").read_text()) / 1e6 for z in self._zones) or None
        except (OSError, ValueError):
            return None

    def between(self, before: tuple[float, ...], now: tuple[float, ...]) -> float:
        """Return the joules between two readings; a counter that began again has passed its range once."""
        total = 0.0
        for zone, a, b in zip(self._zones, before, now, strict=True):
            total += b - a if b >= a else b - a + int((zone / "max_energy_range_uj").read_text()) / 1e6
        return total


class Nvml:
    """NVIDIA's energy counters of the first `ranks` visible devices."""

    what = "NVML"

    def __init__(self, ranks: int) -> None:
        self._nvml: Any = import_module("pynvml")
        self._nvml.nvmlInit()
        visible = [int(w) for w in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if w.strip().isdigit()]
        self._handles = [self._nvml.nvmlDeviceGetHandleByIndex(k) for k in (visible or range(ranks))[:ranks]]

    def read(self) -> tuple[float, ...] | None:
        """Return the counters in joules, or None where a device has none."""
        try:
            return tuple(self._nvml.nvmlDeviceGetTotalEnergyConsumption(h) / 1e3 for h in self._handles)
        except self._nvml.NVMLError:
            return None

    def between(self, before: tuple[float, ...], now: tuple[float, ...]) -> float:
        """Return the joules between two readings."""
        return sum(now) - sum(before)


def energy_meter(device: torch.device, ranks: int) -> Rapl | Nvml | None:
    """Return what measures this device's energy here, or None."""
    if device.type == "cuda":
        try:
            meter: Rapl | Nvml = Nvml(ranks)
        except Exception:  # no library, no driver, another maker's device: pynvml has an exception for each
            return None
    elif device.type == "cpu":
        meter = Rapl()
    else:
        return None
    return meter if meter.read() is not None else None
