"""Which records a curation keeps of a partition version: as a sum that tells sets apart, or as the ids themselves."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from data_contracts.catalog.tables import PartitionVersion, Tables
from training.shards.rows import read_log
from training.workspace import Workspace

# A record id is 32 hex digits.
_WORDS = 4
_ROWS = 1 << 14


@dataclass(frozen=True)
class Sum:
    """How many ids there are, and the sum of their keyed hashes modulo 2^64."""

    count: int
    total: int


class CuratedIds:
    """The record ids that each curation keeps of each partition version. Threads may share one.

    The key of the sums is drawn anew for each: nobody can make two sets of one sum who does not know it.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._key = [np.uint64(secrets.randbits(64) | 1) for _ in range(_WORDS + 2)]
        self._tables: dict[str, tuple[Tables, dict[str, PartitionVersion]]] = {}
        self._removed: dict[tuple[str, str], pa.Table] = {}
        self._sums: dict[tuple[str, str, str], dict[str, Sum]] = {}
        self._lock = threading.RLock()

    def sum_of(self, ids: pa.StringArray) -> Sum:
        """Return the sum of ids; how they are ordered makes no difference."""
        total = np.uint64(0)
        for start in range(0, len(ids), _ROWS):
            words = self._words(ids.slice(start, _ROWS))
            with np.errstate(over="ignore"):
                mixed = words @ np.array(self._key[:_WORDS], dtype=np.uint64)
                mixed ^= mixed >> np.uint64(32)
                mixed *= self._key[_WORDS]
                mixed ^= mixed >> np.uint64(29)
                mixed *= self._key[_WORDS + 1]
                mixed ^= mixed >> np.uint64(32)
                total += mixed.sum(dtype=np.uint64)
        return Sum(len(ids), int(total))

    def add(self, sums: Sequence[Sum | None]) -> Sum:
        """Return the sum of disjoint sets together."""
        known = [s for s in sums if s is not None]
        return Sum(sum(s.count for s in known), sum(s.total for s in known) % (1 << 64))

    def sums(self, dataset: str, ingest_id: str, curation_id: str) -> dict[str, Sum] | None:
        """Return the sum of the curated ids of each split of a partition version; None: there is no such version.

        Raises:
            CausewayError: the tables or the curation's log are missing or damaged.
        """
        with self._lock:
            key = (dataset, ingest_id, curation_id)
            if key not in self._sums:
                if self._version(dataset, ingest_id) is None:
                    return None
                found: dict[str, list[Sum]] = {}
                for split, ids in self._kept(dataset, ingest_id, curation_id):
                    found.setdefault(split, []).append(self.sum_of(ids))
                self._sums[key] = {split: self.add(parts) for split, parts in found.items()}
            return self._sums[key]

    def of(self, dataset: str, ingest_id: str, curation_id: str, split: str) -> pa.StringArray:
        """Return the curated ids of one split of a partition version, in no order.

        Raises:
            CausewayError: the tables or the curation's log are missing or damaged.
        """
        with self._lock:
            parts = [ids for found, ids in self._kept(dataset, ingest_id, curation_id) if found == split]
            return pa.concat_arrays([pa.array([], pa.string()), *parts])

    def _kept(self, dataset: str, ingest_id: str, curation_id: str) -> Iterator[tuple[str, pa.StringArray]]:
        version = self._version(dataset, ingest_id)
        if (dataset, curation_id) not in self._removed:
            log = read_log(self._open(dataset)[0], curation_id)
            self._removed[dataset, curation_id] = log.filter(pc.equal(log.column("action"), "remove"))
        log = self._removed[dataset, curation_id]
        removed = log.filter(pc.equal(log.column("ingest_id"), ingest_id)).column("record_id").combine_chunks()
        if version is None or not version.rows_accepted:
            return
        for batch in self._open(dataset)[0].scan_accepted(version, ["record_id", "split"]):
            ids = batch.column("record_id").cast(pa.string())
            splits = batch.column("split").cast(pa.string())
            if len(removed):
                there = pc.invert(pc.is_in(ids, removed))
                ids, splits = ids.filter(there), splits.filter(there)
            found = pc.unique(splits).to_pylist()
            for split in found:
                yield split, ids if len(found) == 1 else ids.filter(pc.equal(splits, split))

    def _version(self, dataset: str, ingest_id: str) -> PartitionVersion | None:
        return self._open(dataset)[1].get(ingest_id)

    def _open(self, dataset: str) -> tuple[Tables, dict[str, PartitionVersion]]:
        if dataset not in self._tables:
            tables = self._workspace.tables(self._workspace.contract(dataset))
            kept = {v.ingest_id: v for v in tables.versions() if v.verdict != "refused"}
            self._tables[dataset] = tables, kept
        return self._tables[dataset]

    def _words(self, ids: pa.StringArray) -> np.ndarray[tuple[int, int], np.dtype[np.uint64]]:
        """Return ids as uint64 [n, 4]: their own bytes where each has 32 of them, else those of a hash."""
        size, (_, offsets, data) = 8 * _WORDS, ids.buffers()
        ends = np.frombuffer(offsets, np.int32, len(ids) + 1, 4 * ids.offset)
        if len(ids) and ids.null_count == 0 and (np.diff(ends) == size).all():
            return np.frombuffer(data, np.dtype("<u8"), _WORDS * len(ids), int(ends[0])).reshape(-1, _WORDS)
        import hashlib

        hashed = b"".join(hashlib.sha256(str(one).encode()).digest() for one in ids.to_pylist())
        return np.frombuffer(hashed, np.dtype("<u8")).reshape(-1, _WORDS)
