"""Rows in the order of their record ids, in bounded memory: sorted runs on disk, merged prefix by prefix."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

RUN_BYTES = 32 << 20
# Record ids are HMACs, so their first three hex digits cut any number of rows into 4,096 parts of about one size.
_PREFIX = 3
_BATCH_ROWS = 8192
_MERGED_BYTES = 1 << 20


def by_record_id(batches: Iterable[pa.RecordBatch], run_bytes: int = RUN_BYTES) -> Iterator[pa.RecordBatch]:
    """Yield the rows of batches (one schema, a string column `record_id`) ascending by record_id.

    At most `run_bytes` of rows are held, or the rows that share the first three characters of their ids, if they are
    more. What exceeds it goes to a temporary folder, which is gone at the end.
    """
    held: list[pa.RecordBatch] = []
    size = 0
    with tempfile.TemporaryDirectory(prefix="causeway-sort-") as folder:
        runs: list[_Run] = []
        for batch in (b for b in batches if b.num_rows):
            held.append(batch)
            size += batch.nbytes
            if size > run_bytes:
                runs.append(_Run(Path(folder) / f"{len(runs)}.arrow", held))
                held, size = [], 0
        if held and runs:
            runs.append(_Run(Path(folder) / f"{len(runs)}.arrow", held))
        elif held:
            yield from _sorted(held)
        held, size = [], 0
        # A prefix alone may be a few rows, and each batch costs its reader a millisecond.
        for prefix in sorted({prefix for run in runs for prefix in run.places}):
            found = [run.file.get_batch(run.places[prefix]) for run in runs if prefix in run.places]
            held += found
            size += sum(batch.nbytes for batch in found)
            if size > min(run_bytes, _MERGED_BYTES):
                yield from _sorted(held)
                held, size = [], 0
        if held:
            yield from _sorted(held)


def _sorted(batches: list[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    yield from pa.Table.from_batches(batches).sort_by("record_id").combine_chunks().to_batches(_BATCH_ROWS)


class _Run:
    """Rows on disk, one record batch a prefix; `places` says which."""

    def __init__(self, path: Path, rows: list[pa.RecordBatch]) -> None:
        table = pa.Table.from_batches(rows).sort_by("record_id").combine_chunks()
        prefixes = pc.utf8_slice_codeunits(table.column("record_id"), 0, _PREFIX).combine_chunks().dictionary_encode()
        starts = np.flatnonzero(np.diff(prefixes.indices.to_numpy(), prepend=-1))
        ends = [*starts[1:].tolist(), table.num_rows]
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            for start, end in zip(starts.tolist(), ends, strict=True):
                writer.write_table(table.slice(start, end - start))
        self.places = {str(prefix): place for place, prefix in enumerate(prefixes.dictionary.to_pylist())}
        # Read, not mapped: pages of a mapped file would count as this process's memory.
        self.file = pa.ipc.open_file(pa.OSFile(str(path)))
