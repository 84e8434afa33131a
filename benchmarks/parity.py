"""Held-out loss at equal tokens: rounds between sites beside every-step data parallel and DiLoCo as published.

Sites are stepped in one process through the parts that the engine has (inner loop, codecs with error feedback, merge,
outer optimizer); only the stores are left out. Model, tokens and batch per step are the same for all methods, the
tokens are bytes of real text, and each site has its own data sets. Every method has its inner
rate swept, until the best is no end of the sweep; recipes go through successive halving first; the last are run with
three seeds that fix first parameters and order for all methods alike. docs/recipes.md has the tables.

A gap is: held-out nats a token above those of the best data parallel, in per cent of these, mean over the seeds.

| figure | what it is |
|---|---|
| `loss_gap_percent`, `loss_gap_upper95` | the gap of our best recipe; the upper end of its 95 % interval (Student) |
| `published_diloco_gap_percent` | of DiLoCo: AdamW, fp32 updates, outer Nesterov 0.7/0.9, rounds as long as ours |
| `bytes_ratio` | bytes of the fp32 gradients that a site sends in data parallel, over the payloads of ours |
| `h1_gap_percent` | of averaging after every step, with the inner optimizer of ours and fp32 |
| `adamw_gap_percent` | of data parallel with AdamW |
| `same_inner_gap_percent` | ours above data parallel with the same inner optimizer; `diloco_...`: the same of DiLoCo |
| `optimum_interior` | of each method: its best inner rate is no end of the sweep |
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.parity_search import Record, Sweep, bytes_ratio, describe, gaps, halve, open_record, row, sweep
from benchmarks.parity_text import VOCABULARY, load_text
from benchmarks.parity_train import Recipe, Setting
from training.model import ModelSpec, count_parameters
from training.rounds.plan import Outer

_FOLDER = Path(".bench") / "parity"
# Two losses nearer than this share are one: of recipes that are as good, the plainest is taken. Three seeds of one
# recipe spread by 0.1 to 0.9 %.
_TIED = 0.002


@dataclass(frozen=True)
class Form:
    """A size of the benchmark: the shape of the model, steps, seeds, and the rungs of the halving."""

    hidden: int
    layers: int
    window: int
    batch_windows: int
    steps: int
    seeds: int
    rungs: tuple[tuple[int, int], ...]


FORMS = {
    "quick": Form(hidden=16, layers=1, window=32, batch_windows=8, steps=60, seeds=2, rungs=((30, 2), (60, 2))),
    "long": Form(64, 2, 128, 16, 1000, 3, ((250, 8), (500, 3), (1000, 3))),
    # About 15 minutes a run on one core: hours in all.
    "0.4M": Form(96, 4, 128, 32, 2000, 3, ((500, 8), (1000, 3), (2000, 3))),
}


def nesterov(lr: float, momentum: float) -> Outer:
    """Return an outer Nesterov optimizer."""
    return Outer(method="nesterov", lr=lr, momentum=momentum)


def candidates(adamw: Recipe, muon: Recipe) -> list[Recipe]:
    """Return the recipes that the halving begins with, the plainest first, each with about 100 times fewer bytes."""
    int4 = {"codec": "int4-128", "feedback": 1.0}
    tried: list[dict[str, Any]] = [
        {"lengths": "15", "outer": nesterov(0.7, 0.6), "codec": "int4-128", "feedback": 0.0},
        {"lengths": "15", "outer": nesterov(0.7, 0.6), **int4},
        {"lengths": "15", "outer": nesterov(0.9, 0.5), **int4},
        {"lengths": "15", "outer": nesterov(0.8, 0.6), **int4},
        {"lengths": "15", "outer": nesterov(0.7, 0.7), **int4},
        {"lengths": "15", "outer": nesterov(0.5, 0.7), **int4},
        {"lengths": "15", "outer": nesterov(0.5, 0.8), **int4},
        {"lengths": "15", "outer": nesterov(1.0, 0.3), **int4},
        {"lengths": "15", "outer": Outer(method="average"), **int4},
        {"lengths": "15", "outer": nesterov(0.9, 0.5), "codec": "e3m0-128", "feedback": 1.0},
        {"lengths": "15", "outer": nesterov(0.9, 0.5), "codec": "int4-128", "feedback": 0.0},
        {"lengths": "30", "outer": nesterov(0.9, 0.5), **int4},
        {"lengths": "30", "outer": nesterov(0.9, 0.5), "codec": "int8-256", "feedback": 0.0},
        {"lengths": "8-24", "outer": nesterov(0.9, 0.5), **int4},
        {"lengths": "24-8", "outer": nesterov(0.9, 0.5), **int4},
        {"lengths": "24-8", "outer": nesterov(0.7, 0.6), **int4},
        {"lengths": "30-6", "outer": nesterov(0.7, 0.6), **int4},
        {"lengths": "2", "outer": Outer(method="sgd", lr=1.0, momentum=0.0), "codec": "topk-4096-64-2"},
        {"lengths": "5", "outer": Outer(method="sgd", lr=1.0, momentum=0.0), "codec": "topk-4096-256-2"},
    ]
    sparse = {"feedback": 0.95}
    made = [muon.model_copy(update=c | (sparse if c["codec"].startswith("topk") else {})) for c in tried]
    return made + [adamw.model_copy(update=tried[k]) for k in (0, 1)]


def variants(best: Recipe, adamw: Recipe) -> list[Recipe]:
    """Return the best recipe with one thing changed, each: what it is that makes it the best."""
    changes: list[dict[str, Any]] = [
        {"codec": "fp32", "feedback": 0.0},
        {"feedback": 1.0},
        {"codec": "e3m0-128"},
        {"outer": Outer(method="average")},
        {"outer": nesterov(0.7, 0.9)},
        {"lengths": "5"},
        {"lengths": "30"},
        {"lengths": "60"},
        {"optimizer": "adamw", "lr": adamw.lr},
    ]
    return [changed for change in changes if (changed := best.model_copy(update=change)) != best]


def run(quick: bool) -> dict[str, Any]:
    """Return the figures; runs that are on record under `.bench/parity` are not run again."""
    form = "quick" if quick else os.environ.get("CAUSEWAY_PARITY", "long")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return measure(FORMS[form], open_record(_FOLDER, setting_of(FORMS[form], generated=quick)))
    finally:
        torch.set_num_threads(threads)


def setting_of(form: Form, sites: int = 2, mixed: bool = False, generated: bool = False) -> Setting:
    """Return what all methods share in a form of the benchmark."""
    model = ModelSpec(
        vocab_size=VOCABULARY,
        hidden_size=form.hidden,
        layers=form.layers,
        heads=form.hidden // 32 or 1,
        intermediate_size=2 * form.hidden,
        window=form.window,
    )
    return Setting(model, load_text(sites, form.window, mixed, generated), form.steps, form.batch_windows)


def measure(form: Form, record: Record) -> dict[str, Any]:
    """Sweep, halve, sweep again, and run the last with every seed; return the figures."""
    steps = form.steps
    parallel = {
        "adamw": sweep(record, Recipe(), steps),
        "muon": sweep(record, Recipe(optimizer="muon"), steps),
    }
    tried = candidates(parallel["adamw"].best, parallel["muon"].best)
    left, table = halve(record, tried, form.rungs)
    least = min(record.loss(recipe, 1, steps) for recipe in left) * (1 + _TIED)
    chosen = min((r for r in left if record.loss(r, 1, steps) <= least), key=tried.index)
    ours = sweep(record, chosen, steps, (0.25, 0.5, 1, 2))
    diloco = sweep(record, Recipe(lengths=chosen.lengths, outer=nesterov(0.7, 0.9)), steps)
    each_step = sweep(record, Recipe(optimizer=ours.best.optimizer, lengths="1"), steps)
    sweeps = {f"data_parallel_{name}": found for name, found in parallel.items()}
    sweeps |= {"ours": ours, "diloco": diloco, "h1": each_step}

    seeds = range(1, form.seeds + 1)
    losses = {name: [record.loss(found.best, seed, steps) for seed in seeds] for name, found in sweeps.items()}
    best = min(("data_parallel_adamw", "data_parallel_muon"), key=lambda name: sum(losses[name]))
    gap = gaps(losses["ours"], losses[best])
    return {
        "loss_gap_percent": gap["percent"],
        "loss_gap_upper95": gap["upper95"],
        "bytes_ratio": round(bytes_ratio(record, ours.best, 1, steps), 1),
        "published_diloco_gap_percent": gaps(losses["diloco"], losses[best])["percent"],
        "published_diloco_bytes_ratio": round(bytes_ratio(record, diloco.best, 1, steps), 1),
        "same_inner_gap_percent": gaps(losses["ours"], losses[f"data_parallel_{ours.best.optimizer}"])["percent"],
        "diloco_same_inner_gap_percent": gaps(losses["diloco"], losses["data_parallel_adamw"])["percent"],
        "adamw_gap_percent": gaps(losses["data_parallel_adamw"], losses[best])["percent"],
        "h1_gap_percent": gaps(losses["h1"], losses[best])["percent"],
        "recipe": ours.best.model_dump(mode="json"),
        "optimum_interior": {name: found.interior for name, found in sweeps.items()},
        "losses": {name: [round(loss, 4) for loss in each] for name, each in losses.items()},
        "sweeps": {name: _points(found) for name, found in sweeps.items()},
        "halving": table,
        "variants": [row(record, recipe, 1, steps) for recipe in (ours.best, *variants(ours.best, diloco.best))],
        "parameters": count_parameters(record.setting.model),
        "tokens": record.setting.tokens,
        "steps": steps,
        "sites": record.setting.sites,
        "text": record.setting.text.name.replace(" | ", "; "),
        "runs_made": record.made,
    }


def tables(figures: dict[str, Any]) -> list[str]:
    """Return the sweeps, the halving and the losses by seed as markdown."""
    lines = ["", "Sweeps of the inner rate (of Muon's where there is one; AdamW's is a fifth of it), seed 1:", ""]
    lines += ["| method | best | inside | rate: nats a token |", "|---|---|---|---|"]
    for name, found in figures["sweeps"].items():
        points = ", ".join(f"{rate}: {_shown(loss)}" for rate, loss in found["loss_by_rate"].items())
        inside = "yes" if figures["optimum_interior"][name] else "no"
        lines.append(f"| `{name}` | {found['best']} | {inside} | {points} |")
    for key, title in (("halving", "Successive halving"), ("variants", "The best recipe with one thing changed")):
        lines += ["", f"{title}, seed 1:", "", "| steps | recipe | bytes_ratio | nats a token |", "|---|---|---|---|"]
        lines += [
            f"| {found['steps']} | {found['recipe']} | {found['bytes_ratio']} | {_shown(found['loss'])} |"
            for found in figures[key]
        ]
    seeds = range(1, len(figures["losses"]["ours"]) + 1)
    lines += ["", "Nats a token by seed, each method at its best rate:", ""]
    lines += ["| method |" + "".join(f" {seed} |" for seed in seeds), "|---|" + "---|" * len(seeds)]
    lines += [f"| `{name}` |" + "".join(f" {v:.4f} |" for v in each) for name, each in figures["losses"].items()]
    return lines


def _shown(loss: float | None) -> str:
    return "diverged" if loss is None else f"{loss:.4f}"


def _points(found: Sweep) -> dict[str, Any]:
    return {"best": describe(found.best), "loss_by_rate": {f"{rate:g}": loss for rate, loss in found.points}}
