"""Arrow IPC files and streams (Feather 2 too) as a source. Source: Arrow columnar format, "IPC file format"."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from data_contracts.contract import Contract
from data_contracts.errors import DataRefused
from data_contracts.sources.drift import columns_in
from data_contracts.sources.files import FileLayout
from data_contracts.sources.records import SourceFile, SourcePartition, typed_batches

_MAGIC = b"ARROW1"


class ArrowFiles:
    """Files (default `**/*.arrow` and `**/*.feather`), file or stream; a column that a file lacks is null."""

    def __init__(self, contract: Contract, location: str) -> None:
        self.contract = contract
        self.layout = FileLayout.of(contract, location, "**/*.arrow", "**/*.feather")

    def partitions(self) -> list[SourcePartition]:
        """Return the partitions, sorted by value."""
        return self.layout.partitions()

    def read(self, partition: SourcePartition) -> Iterator[pa.RecordBatch]:
        """Yield one record per row.

        Raises:
            DataRefused: a file is damaged or no Arrow file: none of its rows can be told from another.
        """
        for file in partition.files:
            file.check_unchanged()
            number = 0
            constants = self.layout.columns(file.name, partition.value)
            for batch in _read(file):
                present = columns_in(self.contract, batch.schema.names, file.name)
                columns = {n: pa.repeat(pa.scalar(v, pa.string()), len(batch)) for n, v in constants.items()}
                columns |= {name: plain(batch.column(physical)) for name, physical in present.items()}
                numbers = pa.array(np.arange(number + 1, number + len(batch) + 1))
                number += len(batch)
                yield from typed_batches(self.contract, columns, file.name, numbers)
            file.check_unchanged()


def plain(array: pa.Array) -> pa.Array:
    """Return an array without its dictionary, run ends or extension type: values as they are meant."""
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    if pa.types.is_dictionary(array.type):
        return array.dictionary_decode()
    if pa.types.is_run_end_encoded(array.type):
        return pa.compute.run_end_decode(array)
    return array


def _read(file: SourceFile) -> Iterator[pa.RecordBatch]:
    try:
        with pa.memory_map(str(file.path)) as stored:
            head = stored.read(len(_MAGIC))
            stored.seek(0)
            if head == _MAGIC:
                with pa.ipc.open_file(stored) as opened:
                    for index in range(opened.num_record_batches):
                        yield _checked(opened.get_batch(index))
            else:
                with pa.ipc.open_stream(stored) as stream:
                    for batch in stream:
                        yield _checked(batch)
    except (pa.ArrowException, OSError, ValueError, EOFError) as error:
        raise DataRefused(f"{file.path}: cannot be read as Arrow: {error}; restore it") from error


def _checked(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return a batch whose buffers hold what they say, text as bytes: so one that is no UTF-8 costs its record only."""
    columns = [_bytes(column) for column in batch.columns]
    made = pa.RecordBatch.from_arrays(columns, names=batch.schema.names)
    made.validate(full=True)
    return made


def _bytes(array: pa.Array) -> pa.Array:
    if pa.types.is_string(array.type):
        return array.view(pa.binary())
    return array.view(pa.large_binary()) if pa.types.is_large_string(array.type) else array
