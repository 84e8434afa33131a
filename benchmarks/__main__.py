"""`python -m benchmarks NAME [--quick]`: progress on stderr, ONE JSON object as the last line of standard output."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks.lab import Skipped

NAMES = (
    "validation",
    "orchestration",
    "loading",
    "codec",
    "placement",
    "sharding",
    "parity",
    "heterogeneity",
    "faults",
)
RESULTS = Path(__file__).parent / "results"  # of the long forms, committed: NAME.json


def main() -> int:
    """Run one benchmark, or all of them, one JSON line each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=main.__doc__)
    parser.add_argument("name", choices=(*NAMES, "all"))
    parser.add_argument("--quick", action="store_true", help="a smaller workload, same keys, under 50 s on 2 cores")
    parser.add_argument("--page", type=Path, help="write the figures as a page, such as docs/benchmarks.md")
    parser.add_argument("--keep", action="store_true", help="keep the figures in benchmarks/results/NAME.json")
    options = parser.parse_args()
    results = []
    for name in NAMES if options.name == "all" else (options.name,):
        try:
            figures = importlib.import_module(f"benchmarks.{name}").run(options.quick)
        except Skipped as reason:
            figures = {"skipped": str(reason)}
        machine = {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
        form = "quick" if options.quick else "long"
        results.append({"benchmark": name, "form": form, **figures, "on": machine})
        if options.keep:
            kept = {**results[-1], "date": time.strftime("%Y-%m-%d", time.gmtime())}
            RESULTS.mkdir(exist_ok=True)
            (RESULTS / f"{name}.json").write_text(json.dumps(kept, indent=1) + "\n")
    if options.page:
        options.page.write_text(page(results))
    for result in results:
        sys.stdout.write(json.dumps(result) + "\n")
    return 0


def page(results: list[dict[str, Any]]) -> str:
    """Return the results as a markdown page that names the machine and the command of each figure."""
    lines = [
        "# Benchmarks",
        "",
        "Written by `python -m benchmarks all --quick --page docs/benchmarks.md`. Figures are medians;",
    ]
    lines += ["ratios compare with a peer in the same run, since the machines are noisy."]
    for r in results:
        module = importlib.import_module(f"benchmarks.{r['benchmark']}")
        lines += ["", f"## {r['benchmark']}", "", (module.__doc__ or "").strip(), "", *_table(r, module)]
        path = RESULTS / f"{r['benchmark']}.json"
        if path.exists():
            kept = json.loads(path.read_text())
            lines += ["", f"From `benchmarks/results/{path.name}`, {kept.pop('date')}:", "", *_table(kept, module)]
            lines += module.tables(kept) if hasattr(module, "tables") else []
    return "\n".join(lines) + "\n"


def _table(result: dict[str, Any], module: ModuleType) -> list[str]:
    shown = {k: json.dumps(v) for k, v in result.items() if k not in ("benchmark", "on")}
    # A benchmark that has `tables` of its own shows there what is too long for a cell.
    longest = 160 if hasattr(module, "tables") else None
    rows = [f"| `{k}` | {v} |" for k, v in shown.items() if longest is None or len(v) <= longest]
    on = result["on"]
    machine = f"On {on['cores']} cores, {on['machine']}, Python {on['python']}."
    return ["| figure | value |", "|---|---|", *rows, "", machine]


if __name__ == "__main__":
    sys.exit(main())
