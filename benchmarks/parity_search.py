"""How the parity benchmark looks for rates and recipes: runs kept on record, rate sweeps, successive halving."""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.parity_text import VOCABULARY
from benchmarks.parity_train import Outcome, Recipe, Setting, train
from data_contracts.canonical import document_sha
from data_contracts.errors import RoundError
from training.model import count_parameters

# Raise it when what a run computes changes: records of before are left alone then.
_VERSION = 1
_WIDER = 4  # how often a sweep whose best rate lies at an end goes on
_T975 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)  # Student's t, 1 to 9 degrees of freedom


@dataclass
class Record:
    """The finished runs of one setting, a JSON line each: a run that is on record is not run again."""

    path: Path
    setting: Setting
    made: int = 0
    _runs: dict[str, Outcome] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Read what is there; a last line that was cut off does not count."""
        if not self.path.exists():
            return
        for line in self.path.read_text().splitlines():
            try:
                entry = json.loads(line)
                self._runs[entry["key"]] = Outcome(**entry["outcome"])
            except (ValueError, KeyError, TypeError):
                sys.stderr.write(f"{self.path}: a line that is no run is passed over\n")

    def loss(self, recipe: Recipe, seed: int, steps: int) -> float:
        """Return the held-out loss of a run, infinite where it diverged; train if it is not on record."""
        return self.outcome(recipe, seed, steps).loss

    def outcome(self, recipe: Recipe, seed: int, steps: int) -> Outcome:
        """Return a run's outcome; train if it is not on record."""
        stated = {"recipe": recipe.model_dump(mode="json"), "seed": seed, "steps": steps}
        key = document_sha(stated)
        if key not in self._runs:
            try:
                found = train(self.setting, recipe, seed, steps)
            except RoundError:
                found = Outcome(math.inf, [], 0, 0, 0.0)
            self._runs[key] = found
            self.made += 1
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # A line that a killed process left unfinished is closed first.
            torn = self.path.exists() and not self.path.read_bytes().endswith(b"\n")
            with self.path.open("a") as file:
                file.write("\n" * torn + json.dumps({"key": key, **stated, "outcome": asdict(found)}) + "\n")
            sys.stderr.write(f"{found.loss:.4f} in {found.seconds:.0f} s: {describe(recipe)}, seed {seed}, {steps}\n")
        return self._runs[key]


def open_record(folder: Path, setting: Setting) -> Record:
    """Return the record of a setting in a folder; its name is the hash of all that the runs depend on."""
    stated = {
        "version": _VERSION,
        "model": setting.model.model_dump(mode="json"),
        "text": setting.text.sha,
        "name": setting.text.name,
        "vocabulary": VOCABULARY,
        "batch_windows": setting.batch_windows,
    }
    return Record(folder / f"{document_sha(stated)[:16]}.jsonl", setting)


@dataclass(frozen=True)
class Sweep:
    """A sweep over the inner rate: rate and loss of each point, which is best, and whether it lies inside."""

    best: Recipe
    points: list[tuple[float, float]]
    interior: bool


def sweep(record: Record, start: Recipe, steps: int, times: Sequence[float] = (0.5, 1, 2, 4), seed: int = 1) -> Sweep:
    """Return the best inner rate: of these multiples of the start's, then farther out while the best is at an end."""
    factors = sorted(times)
    step = factors[-1] / factors[-2]
    for _ in range(_WIDER + 1):
        losses = [record.loss(start.faster(factor), seed, steps) for factor in factors]
        at = losses.index(min(losses))
        if 0 < at < len(factors) - 1:
            break
        if at == 0:
            factors.insert(0, factors[0] / step)
        else:
            factors.append(factors[-1] * step)
    losses = [record.loss(start.faster(factor), seed, steps) for factor in factors]
    at = losses.index(min(losses))
    recipes = [start.faster(factor) for factor in factors]
    return Sweep(
        recipes[at],
        [(rate(recipe), rounded(loss)) for recipe, loss in zip(recipes, losses, strict=True)],
        0 < at < len(factors) - 1,
    )


def halve(
    record: Record, candidates: Sequence[Recipe], rungs: Sequence[tuple[int, int]], seed: int = 1
) -> tuple[list[Recipe], list[dict[str, Any]]]:
    """Return the candidates that are left, best first, and every rung's losses (successive halving, 1502.07943).

    A rung is (steps, how many go on); learning rates fall to their lowest within its steps.
    """
    left, table = list(candidates), list[dict[str, Any]]()
    for steps, kept in rungs:
        found = sorted(((record.loss(recipe, seed, steps), at) for at, recipe in enumerate(left)))
        table += [row(record, left[at], seed, steps) for _, at in found]
        left = [left[at] for _, at in found[:kept]]
    return left, table


def gaps(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, Any]:
    """Return the gap in per cent of their loss, paired by seed: mean, and the upper end of its 95 % interval.

    The interval is Student's, two-sided.
    """
    each = [(a - b) / b * 100 for a, b in zip(ours, theirs, strict=True)]
    mean = statistics.fmean(each)
    upper = mean + _T975[len(each) - 2] * statistics.stdev(each) / math.sqrt(len(each)) if len(each) > 1 else None
    return {"percent": round(mean, 3), "upper95": None if upper is None else round(upper, 3)}


def bytes_ratio(record: Record, recipe: Recipe, seed: int, steps: int) -> float:
    """Return the bytes of a site in fp32 data parallel over those it sends by this recipe; 0 where the run diverged."""
    sent = record.outcome(recipe, seed, steps).bytes_out
    return steps * 4 * count_parameters(record.setting.model) / sent if sent else 0.0


def row(record: Record, recipe: Recipe, seed: int, steps: int) -> dict[str, Any]:
    """Return a run as a row of a table."""
    return {
        "steps": steps,
        "recipe": describe(recipe),
        "bytes_ratio": round(bytes_ratio(record, recipe, seed, steps), 1),
        "loss": rounded(record.loss(recipe, seed, steps)),
    }


def rate(recipe: Recipe) -> float:
    """Return the inner rate that names a recipe: Muon's where it has one."""
    return recipe.muon_lr if recipe.optimizer == "muon" else recipe.lr


def describe(recipe: Recipe) -> str:
    """Return a recipe in one line."""
    if recipe.lengths == "all":
        return f"data parallel, {recipe.optimizer} {rate(recipe):g}"
    outer = recipe.outer
    how = outer.method if outer.method == "average" else f"{outer.method} {outer.lr:g}"
    if outer.method == "nesterov":
        how += f"/{outer.momentum:g}"
    kept = f" feedback {recipe.feedback:g}" if recipe.feedback else ""
    return f"{recipe.optimizer} {rate(recipe):g}, H {recipe.lengths}, {how}, {recipe.codec}{kept}"


def rounded(loss: float) -> float | None:
    """Return a loss for a table; None where the run diverged."""
    return round(loss, 4) if math.isfinite(loss) else None
