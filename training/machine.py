"""What this machine trains with: accelerators, cores, memory, and the versions of what decides the numbers."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

LIBRARIES = ("causeway", "torch", "numpy", "pyarrow", "deltalake", "obstore", "tokenizers", "safetensors", "prefect")


def describe_machine() -> dict[str, Any]:
    """Return accelerators, cores, memory in bytes (None where it is not known) and versions of this machine."""
    import torch

    accelerators: list[str] = []
    if torch.accelerator.is_available():
        kind = torch.accelerator.current_accelerator()
        count = torch.accelerator.device_count()
        named = torch.cuda.get_device_name if kind is not None and kind.type == "cuda" else None
        accelerators = [named(n) if named else str(kind) for n in range(count)]
    return {
        "host": platform.node(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "cores": os.cpu_count() or 1,
        "memory_bytes": _memory(),
        "accelerators": accelerators,
        "libraries": {name: found for name in LIBRARIES if (found := _version(name))},
    }


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""
