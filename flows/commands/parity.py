"""Command of the parity gate: is the arithmetic of this machine's accelerator close enough to carry weight?"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Literal

from flows.commands import Json, print_json, print_table

if TYPE_CHECKING:
    from training.parity import Parity, Row


def parity(
    *,
    device: str | None = None,
    dtype: Literal["float32", "bfloat16"] = "float32",
    threads: int = 1,
    json: Json = False,
) -> int:
    """Compare this machine's accelerator with the CPU in float64: operators, gradients by layer, the loss of 20 steps.

    Run it at each site before it trains, in the dtype that it will train in, and again after a change of driver or
    torch. Exit code 1: a comparison is outside its tolerance; the table names it. docs/parity.md says what each means.

    Examples:
        causeway sites parity
        causeway sites parity --device cpu --dtype bfloat16
        causeway sites parity --device cuda --json

    Parameters
    ----------
    device:
        As torch names it: cpu, cuda, cuda:1, xpu, mps ...; default: the accelerator that torch finds, or the CPU.
    dtype:
        float32, or bfloat16: autocast, as a recipe of that dtype trains.
    threads:
        CPU threads of torch.
    """
    import torch

    from training.inner import pick_device
    from training.parity import check_parity, device_named

    chosen = pick_device() if device is None else device_named(device)
    torch.set_num_threads(threads)
    found = check_parity(chosen, dtype, progress=lambda said: print(said, file=sys.stderr, flush=True))
    if json:
        print_json(found.document())
        return 0 if found.ok else 1
    _print(found)
    return 0 if found.ok else 1


def _print(found: Parity) -> None:
    failed = set(found.failed)

    def line(row: Row) -> list[str]:
        allowed = found.allowed(row)
        limit = allowed.loss if row.part == "loss" else allowed.error
        bias = "" if row.part == "loss" else f"{row.bias:+.1e}"
        worst = f"{row.worst:.1e}" if row.part == "operator" else ""
        return [row.name, row.what, f"{row.error:.1e}", f"{limit:g}", bias, worst, "NO" if row in failed else "yes"]

    columns = ["name", "what", "error", "allowed", "bias", "worst value", "within"]
    for part, title in (("operator", "operators"), ("layer", "layers"), ("loss", "loss of each step")):
        rows = [row for row in found.rows if row.part == part]
        if part == "loss":
            # Twenty lines of one kind: the first, those that failed, the last.
            rows = [row for row in rows if row in failed or row in (rows[0], rows[-1])]
        print_table(title, columns, [line(row) for row in rows])
    answer = "may carry weight" if found.ok else f"may NOT carry weight: {len(failed)} of {len(found.rows)} comparisons"
    versions = ", ".join(f"{name} {number}" for name, number in found.libraries.items())
    print(f"{found.device_name}, {found.dtype}, {versions}: {answer}")
