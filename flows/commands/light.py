"""What a command that only reads does to answer at once."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from types import ModuleType


class _NoPandas(MetaPathFinder):
    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("not wanted here", name=name)
        return None


def without_pandas() -> None:
    """Let pyarrow do without pandas in this process: it would import it for its first array, which takes 0.2 s.

    pyarrow tries once and remembers, so pandas itself can be imported afterwards; `Table.to_pandas` cannot be used.
    """
    if "pandas" in sys.modules:
        return
    finder = _NoPandas()
    sys.meta_path.insert(0, finder)
    try:
        import pyarrow as pa

        pa.array([0])
    finally:
        sys.meta_path.remove(finder)
