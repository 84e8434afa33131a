"""A folder of files as partitions: which files, which partition each is in, what its path says of its records."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_contracts.contract import Contract
from data_contracts.errors import ContractError, DataRefused
from data_contracts.sources.records import RawRecord, SourceFile, SourcePartition, batches


@dataclass(frozen=True)
class FileLayout:
    """The reader's `files` (a glob under the folder) and `partition`.

    `partition` is `{constant: name}`, or `{from: path, pattern: regex}`: the regex is searched in the path relative to
    the folder; its group `partition`, else its groups `year`, `month` and `day` as an ISO date, else its first group,
    is the value, and named groups give columns. Without it all files are one partition, 'all'.
    """

    contract: Contract
    root: Path
    glob: str
    pattern: re.Pattern[str] | None
    constant: str

    @classmethod
    def of(cls, contract: Contract, location: str, glob: str) -> FileLayout:
        """Read the layout from a contract's reader.

        Raises:
            ContractError: the pattern is no regular expression or has no group.
            DataRefused: nothing is at the location.
        """
        root = Path(location)
        if not root.exists():
            raise DataRefused(
                f"{location}: no such file or folder; give the place where the data of {contract.id} lies"
            )
        entry: Mapping[str, Any] = contract.reader.get("partition") or {}
        where = f"{contract.path}: reader.partition"
        pattern = None
        if entry.get("from", "path") != "none" and "pattern" in entry:
            try:
                pattern = re.compile(str(entry["pattern"]))
            except re.error as error:
                raise ContractError(f"{where}.pattern: {entry['pattern']!r}: {error}; mend the expression") from error
            if not pattern.groups:
                raise ContractError(f"{where}.pattern: {entry['pattern']!r} has no group; put the value in ( )")
        elif entry.get("from") == "path":
            raise ContractError(f"{where}: 'from: path' needs a pattern with one group")
        return cls(contract, root, str(contract.reader.get("files", glob)), pattern, str(entry.get("constant", "all")))

    def partitions(self) -> list[SourcePartition]:
        """Return the partitions, sorted by value; hidden files and links that lead out of the folder are left out.

        Raises:
            DataRefused: no file is found, or one is in no partition.
        """
        found: dict[str, list[SourceFile]] = {}
        for file in self._files():
            value = self.value(file.name)
            if value is None:
                raise DataRefused(
                    f"{file.path}: reader.partition.pattern does not match {file.name!r}; "
                    "narrow reader.files, or widen the pattern"
                )
            found.setdefault(value, []).append(file)
        if not found:
            raise DataRefused(f"{self.root}: no file matches {self.glob!r}; check the place, or reader.files")
        return [SourcePartition(value, tuple(files)) for value, files in sorted(found.items())]

    def value(self, name: str) -> str | None:
        """Return the partition of a relative path, None where the pattern does not match."""
        if self.pattern is None:
            return self.constant
        match = self.pattern.search(name)
        if match is None:
            return None
        named = match.groupdict()
        if {"year", "month", "day"} <= named.keys():
            return f"{named['year']}-{named['month']}-{named['day']}"
        return named["partition"] if "partition" in named else match.group(1)

    def columns(self, name: str, partition: str) -> dict[str, Any]:
        """Return what the path says of every record of a file: the named groups and the partition column."""
        match = self.pattern.search(name) if self.pattern else None
        named = match.groupdict() if match else {}
        return {**named, self.contract.partition_column: partition}

    def batches(self, records: Iterator[RawRecord]) -> Iterator[pa.RecordBatch]:
        """Type records into batches."""
        return batches(self.contract, records)

    def _files(self) -> Iterator[SourceFile]:
        if self.root.is_file():
            yield SourceFile(self.root.name, self.root, self.root.stat().st_size)
            return
        real = self.root.resolve()
        for path in sorted(self.root.glob(self.glob)):
            name = path.relative_to(self.root).as_posix()
            if any(part.startswith(".") for part in name.split("/")) or not path.is_file():
                continue
            if path.resolve().is_relative_to(real):
                yield SourceFile(name, path, path.stat().st_size)


def column_names(contract: Contract) -> dict[str, str]:
    """Return the physical name of each column: what it is called in the files."""
    return {prop.name: prop.physical_name for prop in contract.properties}


def columns_in(contract: Contract, header: Sequence[str]) -> dict[str, str]:
    """Return the physical name of each column that a file has: the contract's own, else the first of its aliases.

    The reader's `aliases` ({column: [name, ...]}) are what a column was called in other years: a data set may change
    its header without becoming another data set.
    """
    aliases: Mapping[str, Sequence[str]] = contract.reader.get("aliases") or {}
    found = {}
    for name, physical in column_names(contract).items():
        known = [n for n in (physical, *aliases.get(name, ())) if n in header]
        if known:
            found[name] = known[0]
    return found
