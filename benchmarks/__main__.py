"""`python -m benchmarks NAME [--quick]`: progress on stderr, ONE JSON object as the last line of standard output."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys

NAMES = ("validation",)


def main() -> int:
    """Run one benchmark, or all of them, one JSON line each."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=main.__doc__)
    parser.add_argument("name", choices=(*NAMES, "all"))
    parser.add_argument("--quick", action="store_true", help="a smaller workload, same keys, under 50 s on 2 cores")
    options = parser.parse_args()
    for name in NAMES if options.name == "all" else (options.name,):
        figures = importlib.import_module(f"benchmarks.{name}").run(options.quick)
        machine = {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
        form = "quick" if options.quick else "long"
        sys.stdout.write(json.dumps({"benchmark": name, "form": form, **figures, "on": machine}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
