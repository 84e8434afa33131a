"""A folder of files as partitions: which files, which partition each is in, what its path says of its records."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from data_contracts.contract import Contract
from data_contracts.errors import ContractError, DataRefused
from data_contracts.reader import LINE_ENDS
from data_contracts.sources.columns import typed_records
from data_contracts.sources.decoding import Encoding, encoding_of
from data_contracts.sources.drift import columns_in
from data_contracts.sources.opening import DEFAULT_LIMIT, members
from data_contracts.sources.records import RawRecord, SourceFile, SourcePartition
from data_contracts.sources.remote import RemoteFolder, is_remote

__all__ = ["FileLayout", "columns_in"]

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class FileLayout:
    """The reader's `files` (globs under the folder) and `partition`.

    `partition` is `{constant: name}`, or `{from: path, pattern: regex}`: the regex is searched in the path relative to
    the folder; its group `partition`, else its groups `year`, `month` and `day` as an ISO date, else its first group,
    is the value, and named groups give columns. Without it all files are one partition, 'all'. With `{from: column}`
    the files are one partition here, and `partitioned.ByColumn` divides it.

    Where `packed`, files may be compressed (.gz, .zst), and the members of zip archives are files of their own.
    """

    contract: Contract
    root: Path
    globs: tuple[str, ...]
    pattern: re.Pattern[str] | None
    constant: str
    packed: bool = False
    named: bool = False
    remote: RemoteFolder | None = None
    limit: float = DEFAULT_LIMIT
    notes: list[str] = field(default_factory=list, compare=False)

    @classmethod
    def of(cls, contract: Contract, location: str, *globs: str, packed: bool = False) -> FileLayout:
        """Read the layout from a contract's reader; `globs` are the format's own.

        Raises:
            ContractError: the pattern is no regular expression or has no group.
            DataRefused: nothing is at the location.
        """
        remote = RemoteFolder.open(location) if is_remote(location) else None
        root = Path(location)
        if remote is None and not root.exists():
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
        stated = contract.reader.get("files")
        if stated is None:
            chosen = [g + end for g in globs for end in (("", ".gz", ".zst") if packed else ("",))]
            chosen += ["**/*.zip"] if packed else []
        else:
            chosen = [stated] if isinstance(stated, str) else [str(glob) for glob in stated]
        return cls(
            contract,
            root,
            tuple(chosen),
            pattern,
            str(entry.get("constant", "all")),
            packed,
            stated is not None,
            remote,
            float(contract.reader.get("expansionLimit", DEFAULT_LIMIT)),
        )

    @property
    def by_column(self) -> bool:
        """Say whether a column of the files names the partition."""
        return (self.contract.reader.get("partition") or {}).get("from") == "column"

    @property
    def line_end(self) -> str:
        """What ends a line: auto, lf, crlf or cr."""
        return LINE_ENDS[str(self.contract.reader.get("lineEnd", "auto"))]

    def partitions(self) -> list[SourcePartition]:
        """Return the partitions, sorted by value; hidden files and links that lead out of the folder are left out.

        Raises:
            DataRefused: no file is found, or one is in no partition.
        """
        found: dict[str, list[SourceFile]] = {}
        for file in self.files():
            value = self.value(file.name)
            if value is None:
                raise DataRefused(
                    f"{file.name}: reader.partition.pattern does not match it; "
                    "narrow reader.files, or widen the pattern"
                )
            found.setdefault(value, []).append(file)
        if not found:
            place = self.remote.location if self.remote else self.root
            listed = ", ".join(map(repr, self.globs))
            raise DataRefused(f"{place}: no file matches {listed}; check the place, or reader.files")
        return [SourcePartition(value, tuple(files)) for value, files in sorted(found.items())]

    def value(self, name: str) -> str | None:
        """Return the partition of a relative path, None where the pattern does not match."""
        if self.pattern is None or self.by_column:
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
        return named if self.by_column else {**named, self.contract.partition_column: partition}

    def encoding(self, file: SourceFile) -> Encoding:
        """Return a file's encoding by its mark, `reader.encoding` (default utf-8) or what it is found to be; note it.

        Raises:
            DataRefused: the file cannot be read.
        """
        found = encoding_of(file, str(self.contract.reader.get("encoding", "utf-8")), self.limit)
        if found.known == "detected":
            note = f"{file.name}: its encoding is not stated and was taken to be {found.codec}"
            if note not in self.notes:
                self.notes.append(note)
                _LOG.warning(note)
        return found

    def batches(self, records: Iterable[RawRecord]) -> Iterator[pa.RecordBatch]:
        """Type records into batches."""
        return typed_records(self.contract, records)

    def files(self) -> Iterator[SourceFile]:
        """Yield the files, sorted by name; the members of an archive in its own order."""
        for file in self.remote.files(self._archives_too()) if self.remote else self._local():
            if self.packed and file.name.lower().endswith(".zip"):
                for member in members(file, self.limit):
                    if self._takes(file.name, member.name):
                        yield member
            else:
                yield file

    def all_files(self) -> Iterator[SourceFile]:
        """Yield every file that lies there, whatever `reader.files` says: what stands beside others may be any."""
        from dataclasses import replace

        yield from replace(self, globs=("**/*",), named=True).files()

    def _archives_too(self) -> tuple[str, ...]:
        # 'a.zip/*.csv' names members of an archive: the archive is what lies in the folder.
        globs = (glob.split(".zip/", 1)[0] + ".zip" if ".zip/" in glob else glob for glob in self.globs)
        return tuple(dict.fromkeys(globs))

    def _takes(self, archive: str, member: str) -> bool:
        if any(fits(glob, member) for glob in self.globs):
            return True
        # An archive that the contract names is taken whole; one that was only found gives what the format reads.
        return self.named and any(fits(glob, archive) for glob in self.globs if glob.lower().endswith(".zip"))

    def _local(self) -> Iterator[SourceFile]:
        if self.root.is_file():
            yield SourceFile(self.root.name, self.root, self.root.stat().st_size)
            return
        real = self.root.resolve()
        paths = {path for glob in self._archives_too() for path in self.root.glob(glob)}
        for path in sorted(paths):
            name = path.relative_to(self.root).as_posix()
            if any(part.startswith(".") for part in name.split("/")) or not path.is_file():
                continue
            if path.resolve().is_relative_to(real):
                yield SourceFile(name, path, path.stat().st_size)


def fits(glob: str, name: str) -> bool:
    """Say whether a relative path fits a glob: `*` and `?` stay within a folder, `**` is any number of folders."""
    expression = ""
    rest = glob
    while rest:
        if rest.startswith("**/"):
            expression, rest = expression + "(?:[^/]+/)*", rest[3:]
        elif rest.startswith("**"):
            expression, rest = expression + ".*", rest[2:]
        elif rest[0] == "[" and "]" in rest[2:]:
            end = rest.index("]", 2)
            inner = rest[1:end].replace("\\", "\\\\").replace("[", "\\[")
            expression += "[" + ("^" + inner[1:] if inner[0] == "!" else inner) + "]"
            rest = rest[end + 1 :]
        else:
            expression += {"*": "[^/]*", "?": "[^/]"}.get(rest[0], re.escape(rest[0]))
            rest = rest[1:]
    return re.fullmatch(expression, name, re.DOTALL) is not None
