"""`python -m benchmarks NAME [--quick]`: progress on stderr, ONE JSON object as the last line of standard output."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
from pathlib import Path
from typing import Any

from benchmarks.lab import Skipped

NAMES = ("validation", "orchestration", "loading", "codec", "placement", "sharding")


def main() -> int:
    """Run one benchmark, or all of them, one JSON line each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=main.__doc__)
    parser.add_argument("name", choices=(*NAMES, "all"))
    parser.add_argument("--quick", action="store_true", help="a smaller workload, same keys, under 50 s on 2 cores")
    parser.add_argument("--page", type=Path, help="write the figures as a page, such as docs/benchmarks.md")
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
        doc = importlib.import_module(f"benchmarks.{r['benchmark']}").__doc__ or ""
        lines += ["", f"## {r['benchmark']}", "", doc.strip(), "", "| figure | value |", "|---|---|"]
        lines += [f"| `{k}` | {json.dumps(v)} |" for k, v in r.items() if k not in ("benchmark", "on")]
        on = r["on"]
        lines += ["", f"On {on['cores']} cores, {on['machine']}, Python {on['python']}."]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
