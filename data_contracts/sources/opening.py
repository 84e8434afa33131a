"""The one place that opens the bytes of a file: as they lie, decompressed under a limit, or inside an archive."""

from __future__ import annotations

import hashlib
import io
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import IO, Any

import pyarrow as pa

from data_contracts.canonical import sha256
from data_contracts.errors import DataRefused
from data_contracts.sources.records import SourceFile

BLOCK_BYTES = 8 << 20
# Formats that are read whole (XML, HTML, one record a file) hold at most this much of one file in memory.
MOST_WHOLE_BYTES = 256 << 20
# A line or quoted field that does not end within this is no record.
MOST_RECORD_BYTES = 64 << 20
DEFAULT_LIMIT = 200.0
# Below this nothing is called a bomb: a small file of one repeated byte shrinks a thousandfold.
_ALWAYS_ALLOWED = 1 << 20
_DAMAGE = (OSError, EOFError, zlib.error, zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError)


@dataclass(frozen=True)
class ZipMember(SourceFile):
    """One file inside a zip archive: `name` is archive/member, `path` the archive, `size` the member's own."""

    member: str = ""
    packed: int = 0
    limit: float = DEFAULT_LIMIT

    @cached_property
    def sha(self) -> str:
        """The hex SHA-256 of the member's bytes, unpacked."""
        digest = hashlib.sha256()
        with opened(self, self.limit) as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()

    def read_bytes(self) -> bytes:
        """Return the unpacked bytes that `sha` names.

        Raises:
            DataRefused: as for any file; or the member is damaged, or unpacks to more than the limit.
        """
        with opened(self, self.limit) as stream:
            data = stream.read(MOST_WHOLE_BYTES + 1)
        if len(data) > MOST_WHOLE_BYTES:
            raise _too_large(self)
        if sha256(data) != self.sha:
            raise DataRefused(f"{self.path}/{self.member}: changed while it was read; ingest it again")
        return data

    def check_unchanged(self) -> None:
        """Hash the member again.

        Raises:
            DataRefused: the bytes are no longer those that `sha` names.
        """
        again = ZipMember(self.name, self.path, self.size, self.member, self.packed, self.limit)
        if again.sha != self.sha:
            raise DataRefused(f"{self.path}/{self.member}: changed while it was read; ingest it again")


def members(archive: SourceFile, limit: float) -> list[ZipMember]:
    """Return the files of a zip archive in its own order, without folders and hidden names.

    Raises:
        DataRefused: it is no zip archive, or is encrypted, or holds another archive.
    """
    found = []
    with refusing(archive), zipfile.ZipFile(archive.path) as opened:
        for info in opened.infolist():
            if info.is_dir() or any(part.startswith((".", "__MACOSX")) for part in info.filename.split("/")):
                continue
            name = f"{archive.name}/{info.filename}"
            if info.flag_bits & 0x1:
                raise DataRefused(f"{archive.path}: {info.filename} is encrypted; unpack it and name the files")
            if info.filename.lower().endswith(".zip"):
                raise DataRefused(f"{archive.path}: {info.filename} is an archive in an archive; unpack it first")
            found.append(ZipMember(name, archive.path, info.file_size, info.filename, info.compress_size, limit))
    return found


@contextmanager
def opened(file: SourceFile, limit: float) -> Iterator[IO[bytes]]:
    """Open a file's bytes, decompressed by its suffix (.gz, .zst); a zip member is unpacked.

    Raises:
        DataRefused: unreadable, damaged, or more than `limit` times larger than what is stored.
    """
    with ExitStack() as stack:
        with refusing(file):
            read, stored = _source(file, stack)
            codec = _codec(file.name)
            if codec is not None:
                if not stored:
                    raise DataRefused(f"{file.path}: {file.name} is empty, and no {codec} file is; restore it")
                inner = pa.PythonFile(io.BufferedReader(_Stream(read, file, None, limit)), mode="r")
                read = stack.enter_context(pa.CompressedInputStream(inner, codec)).read
        packed = codec is not None or isinstance(file, ZipMember)
        yield io.BufferedReader(_Stream(read, file, stored if packed else None, limit), 1 << 16)


def whole(file: SourceFile, limit: float) -> bytes:
    """Return all bytes of a file, decompressed, for formats that cannot be read in parts.

    Raises:
        DataRefused: as for `opened`; or it is larger than 256 MiB.
    """
    file.check_unchanged()
    with opened(file, limit) as stream:
        data = stream.read(MOST_WHOLE_BYTES + 1)
    if len(data) > MOST_WHOLE_BYTES:
        raise _too_large(file)
    file.check_unchanged()
    return data


def _too_large(file: SourceFile) -> DataRefused:
    return DataRefused(
        f"{file.name}: more than {MOST_WHOLE_BYTES >> 20} MiB in one file, and this format is read whole; split it"
    )


@contextmanager
def refusing(file: SourceFile) -> Iterator[None]:
    """Turn what the system, an archive or a decompressor says of damage into a refusal that names the file."""
    try:
        yield
    except _DAMAGE as error:
        why = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise DataRefused(f"{file.path}: {file.name} cannot be read: {why}; restore it") from error


def _source(file: SourceFile, stack: ExitStack) -> tuple[Callable[[int], bytes], int]:
    if isinstance(file, ZipMember):
        archive = stack.enter_context(zipfile.ZipFile(file.path))
        return stack.enter_context(archive.open(file.member)).read, file.packed
    return stack.enter_context(file.path.open("rb", buffering=0)).read, file.size


def _codec(name: str) -> str | None:
    lower = name.lower()
    return "gzip" if lower.endswith(".gz") else "zstd" if lower.endswith((".zst", ".zstd")) else None


class _Stream(io.RawIOBase):
    """A stream that refuses damage, and stops where it has given more than `limit` times the bytes that are stored."""

    def __init__(self, read: Callable[[int], bytes], file: SourceFile, stored: int | None, limit: float) -> None:
        self._take, self._file, self._limit, self._given = read, file, limit, 0
        self._most = None if stored is None else max(stored * limit, _ALWAYS_ALLOWED)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with refusing(self._file):
            data = self._take(len(buffer))
        self._given += len(data)
        if self._most is not None and self._given > self._most:
            raise DataRefused(
                f"{self._file.path}: {self._file.name} unpacks to more than {self._limit:g} times its size; "
                "if that is right, raise reader.expansionLimit"
            )
        buffer[: len(data)] = data
        return len(data)
