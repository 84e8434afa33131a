"""Columns of many batches kept for one question at the end: in memory while they are small, then in a file."""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

if TYPE_CHECKING:
    import pyarrow.dataset as ds

# Below this a hash table of Arrow's is quicker than to start DuckDB; above it the columns lie in a Parquet file.
_MEMORY_BYTES = 32 << 20
_DUCKDB_MEMORY = "512MB"


class Spool:
    """The named columns of all rows that were added; `close` (or leaving it as a context) removes its file."""

    def __init__(self, columns: Sequence[str], memory_bytes: int = _MEMORY_BYTES) -> None:
        self.columns = list(columns)
        self.rows = 0
        self._memory_bytes = memory_bytes
        self._held: list[pa.Table] = []
        self._bytes = 0
        self._writer: pq.ParquetWriter | None = None
        self._folder: Path | None = None
        self._finalizer: Any = None

    def add(self, rows: pa.Table) -> None:
        """Keep the columns of one batch."""
        if not rows.num_rows:
            return
        table = rows.select(self.columns)
        self.rows += table.num_rows
        self._held.append(table)
        self._bytes += table.nbytes
        if self._bytes > self._memory_bytes:
            self._spill()

    def dataset(self) -> ds.Dataset | pa.Table | None:
        """Return all rows as something that can be scanned, or None when there was none."""
        if self._writer is None:
            return pa.concat_tables(self._held) if self._held else None
        self._spill()
        self._writer.close()
        import pyarrow.dataset as ds  # brings pandas: 0.2 s that only large partitions pay

        return ds.dataset(self._path(), format="parquet")

    def distinct(self) -> int:
        """Return how many rows differ in at least one column; NULL equals NULL."""
        return self._groups()[0]

    def repeated(self) -> int:
        """Return how many rows have the values of at least one other row; NULL equals NULL."""
        return self._groups()[1]

    def _groups(self) -> tuple[int, int]:
        found = self.dataset()
        if found is None:
            return 0, 0
        if isinstance(found, pa.Table):
            counts = found.group_by(self.columns).aggregate([([], "count_all")]).column("count_all")
            return len(counts), pc.sum(counts.filter(pc.greater(counts, 1))).as_py() or 0
        with tempfile.TemporaryDirectory(prefix="causeway-") as folder, connection(Path(folder)) as duck:
            duck.register("spool", found)
            names = ", ".join(f'"{name}"' for name in self.columns)  # letters, digits and '_'
            groups = f"SELECT count(*) AS n FROM spool GROUP BY {names}"
            query = f"SELECT count(*), coalesce(sum(n) FILTER (n > 1), 0) FROM ({groups})"
            distinct, repeated = duck.execute(query).fetchall()[0]
            return int(distinct), int(repeated)

    def close(self) -> None:
        """Let go of the rows and remove the file."""
        self._held = []
        if self._writer is not None:
            self._writer.close()
        if self._finalizer is not None:
            self._finalizer()

    def __enter__(self) -> Spool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _spill(self) -> None:
        if not self._held:
            return
        table = pa.concat_tables(self._held)
        if self._writer is None:
            self._folder = Path(tempfile.mkdtemp(prefix="causeway-"))
            self._finalizer = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
            self._writer = pq.ParquetWriter(self._path(), table.schema, compression="lz4")
        self._writer.write_table(table)
        self._held, self._bytes = [], 0

    def _path(self) -> Path:
        assert self._folder is not None
        return self._folder / "rows.parquet"


def connection(temporary: Path | None = None, memory: str = _DUCKDB_MEMORY) -> Any:
    """Return DuckDB in memory: no file, no network, no extension, no variable of the caller's, a limit on its memory.

    It may spill to `temporary`, and whatever lies there it may read all the same: give a folder of its own, or None.
    Register what it may see, then `SET lock_configuration = true`.
    """
    import duckdb

    return duckdb.connect(
        ":memory:",
        config={
            "enable_external_access": "false",
            "autoinstall_known_extensions": "false",
            "autoload_known_extensions": "false",
            "allow_community_extensions": "false",
            "python_enable_replacements": "false",
            "memory_limit": memory,
            "temp_directory": "" if temporary is None else str(temporary),
            "threads": "2",
        },
    )
