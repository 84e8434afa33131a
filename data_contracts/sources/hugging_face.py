"""Data sets of the Hugging Face `datasets` library as a source: names of the hub, folders, and saved data sets.

Sources: `datasets.load_dataset(..., streaming=True)` and `datasets.load_from_disk`. Code of a data set is never run:
the library has taken no loading scripts since version 4.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from data_contracts.contract import Contract
from data_contracts.errors import CausewayError, DataRefused, StoreError
from data_contracts.sources.arrow_files import plain
from data_contracts.sources.drift import columns_in
from data_contracts.sources.records import SourcePartition, typed_batches
from data_contracts.sources.spooled import Spooled

_ROWS = 8_192


class HuggingFace(Spooled):
    """`hf:` and a name of the hub, or the path of a folder or file; `reader.split` is `train` by default.

    `reader.builder` names a builder of the library (csv, json, parquet, text, arrow ...) for a path; without it the
    library chooses. `reader.config` and `reader.revision` are the library's `name` and `revision`. A token comes from
    the environment (HF_TOKEN).
    """

    def __init__(self, contract: Contract, location: str) -> None:
        self.place = location.removeprefix("hf:")
        if not self.place:
            raise DataRefused(f"{location}: names nothing; give hf: and a name of the hub or a path")
        self.split = str(contract.reader.get("split", "train"))
        super().__init__(contract, self._batches, self.split, self._changed)

    def partitions(self) -> list[SourcePartition]:
        """Return the partitions, sorted by value; the whole split is read when they are first asked for."""
        return super().partitions()

    def _changed(self) -> object:
        root = Path(self.place)
        if not root.exists():
            # The hub: as it was when this source was first read.
            return self.place
        files = [root] if root.is_file() else sorted(path for path in root.rglob("*") if path.is_file())
        return [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files]

    def _batches(self) -> Iterator[pa.RecordBatch]:
        constants = self._constants()
        number = 0
        for table in self._tables():
            present = columns_in(self.contract, table.schema.names, f"{self.place}, split {self.split}")
            for batch in table.combine_chunks().to_batches():
                columns = {n: pa.repeat(pa.scalar(v, pa.string()), len(batch)) for n, v in constants.items()}
                columns |= {name: plain(batch.column(physical)) for name, physical in present.items()}
                numbers = pa.array(np.arange(number + 1, number + len(batch) + 1))
                number += len(batch)
                yield from typed_batches(self.contract, columns, self.split, numbers)

    def _tables(self) -> Iterator[pa.Table]:
        try:
            for table in self._opened().with_format("arrow").iter(_ROWS):
                yield table if isinstance(table, pa.Table) else pa.Table.from_batches([table])
        except CausewayError:
            raise
        except Exception as error:  # the library and its builders raise errors of many others
            why = f"{type(error).__name__}: {error}".replace("\n", " ")[:400]
            passing = isinstance(error, ConnectionError | TimeoutError)
            raise (StoreError if passing else DataRefused)(
                f"hf:{self.place}: split {self.split} cannot be read: {why}; check the name, reader.config and"
                " reader.split"
            ) from error

    def _opened(self) -> Any:
        import datasets

        # Progress bars of a library are no output of ours; and where torch is installed it would import it (10 s) to
        # make every stream one of torch's.
        datasets.disable_progress_bars()
        datasets.config.TORCH_AVAILABLE = False
        root, reader = Path(self.place), self.contract.reader
        builder = reader.get("builder")
        if (root / "dataset_info.json").is_file() or (root / "dataset_dict.json").is_file():
            saved = datasets.load_from_disk(str(root))
            if isinstance(saved, datasets.DatasetDict):
                if self.split not in saved:
                    raise DataRefused(f"{root}: has no split {self.split!r}; it has {', '.join(saved)}")
                saved = saved[self.split]
            return saved
        more = {"name": reader.get("config"), "revision": reader.get("revision")}
        given = {key: str(value) for key, value in more.items() if value is not None}
        if builder is not None:
            inside = str(root) if root.is_file() else None
            where = {"data_files": {self.split: inside}} if inside else {"data_dir": str(root)}
            return datasets.load_dataset(str(builder), split=self.split, streaming=True, **where, **given)
        return datasets.load_dataset(self.place, split=self.split, streaming=True, **given)
