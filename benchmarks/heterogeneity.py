"""Two sites of which one is four times as fast: what of their speed is used when each takes the steps that it can.

Each site is a process with its own CPU quota (0.8 and 0.2 of a core). Three runs of one model over the same text: each
site by itself, both with equal steps, both with `pace = "speed"`; the last two train on equal tokens. How the lab is
built: docs/measuring.md.

| figure | what it is |
|---|---|
| `throughput_fraction` | tokens/s of both together with steps by speed, over the sum of each alone at its quota |
| `equal_steps_fraction` | the same with equal steps: the fast site waits for the slow one |
| `loss_gap_percent` | held-out bits per byte of uneven steps over that of equal steps at equal tokens, less one |
| `alone_tokens_s` | by site, in a run of its own at its quota, over its seconds of compute: nothing is sent in them |
| `steps` | by site, in the last round with steps by speed |
"""

from __future__ import annotations

import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks.lab import figures
from benchmarks.lab.processes import SiteProcesses
from benchmarks.lab.quotas import Quotas
from benchmarks.lab.setting import MODEL, SMALL, Setting, make_setting, sites_toml
from training.rounds.plan import Plan

CORES = {"fast": 0.8, "slow": 0.2}
STEP_RATIO = 1.6  # equal steps H, and 1.6 H of the fast site with 0.4 H of the slow one, are as many tokens


def run(quick: bool) -> dict[str, Any]:
    """Return the figures of two sites of unequal speed."""
    steps, rounds, text = (40, 3, 400_000) if quick else (100, 20, 4_000_000)
    with tempfile.TemporaryDirectory(prefix="causeway-lab-") as folder, Quotas() as quotas:
        speeds = {name: 1000 * cores for name, cores in CORES.items()}
        stores = {name: f"sites/{name}" for name in CORES}
        setting = make_setting(Path(folder), sites_toml("home", stores, speeds), text, 8)
        common: dict[str, Any] = {"model": SMALL if quick else MODEL, "rounds": rounds}
        alone = _alone(
            setting,
            quotas,
            {
                name: setting.plan(f"alone-{name}", **common | {"sites": [name], "steps": max(8, round(steps * cores))})
                for name, cores in CORES.items()
            },
        )
        equal = _together(setting, quotas, setting.plan("equal", steps=steps, **common))
        uneven = _together(
            setting, quotas, setting.plan("uneven", steps=round(steps * STEP_RATIO), pace="speed", **common)
        )
    total = sum(alone.values())
    return {
        "throughput_fraction": round(uneven["tokens_s"] / total, 3),
        "equal_steps_fraction": round(equal["tokens_s"] / total, 3),
        "loss_gap_percent": round(100 * (uneven["bits_per_byte"] / equal["bits_per_byte"] - 1), 2),
        "alone_tokens_s": {name: round(found) for name, found in alone.items()},
        "steps": uneven["steps"],
        "uneven": uneven,
        "equal": equal,
        "cores": CORES,
    }


def _alone(setting: Setting, quotas: Quotas, plans: dict[str, Plan]) -> dict[str, float]:
    """Return each site's tokens a second in a run of its own; at the same time, so that the machine is as busy."""
    _watched(setting, quotas, list(plans.values()))
    found = {
        site: figures.compute_rate(setting.workspace, plan, site, figures.history(setting.workspace, plan))
        for site, plan in plans.items()
    }
    sys.stderr.write(f"alone, tokens/s: {found}\n")
    return found


def _together(setting: Setting, quotas: Quotas, plan: Plan) -> dict[str, Any]:
    (seen,) = _watched(setting, quotas, [plan])
    rounds = figures.history(setting.workspace, plan)
    tokens = figures.tokens_by_round(rounds)
    found = {
        "tokens_s": round(figures.rate(tokens, seen)),
        "tokens": sum(sum(by_site.values()) for by_site in tokens.values()),
        "bits_per_byte": round(figures.held_out(setting.workspace, plan), 4),
        "steps": {c.header.site: c.header.steps for c in rounds[-1][1]},
    }
    sys.stderr.write(f"{plan.name}: {found}\n")
    return found


def _watched(setting: Setting, quotas: Quotas, plans: list[Plan]) -> list[dict[int, float]]:
    """Run plans to their ends at the same time; return when each commit was seen. Processes start without a bound."""
    with ExitStack() as stack:
        runs = [stack.enter_context(SiteProcesses(setting.workspace, plan, quotas)) for plan in plans]
        for sites in runs:
            for site in sites.plan.sites:
                quotas.set(site.name, None)
                sites.start(site.name)
        for sites in runs:
            sites.await_begun(120)
        for sites in runs:
            for site in sites.plan.sites:
                quotas.set(site.name, CORES[site.name])
        for sites in runs:
            sites.await_round(sites.plan.rounds, 3600)
        return [dict(sites.seen) for sites in runs]
