"""The installed packages of a Python environment as a source: their modules, descriptions or licence texts.

Reads the installed-distributions database (PyPA specification "Recording installed projects": `RECORD`, `METADATA`)
through importlib.metadata. Each module is in or out by a keyed hash of its path, so one share of the environment is
the same files on every machine.
"""

from __future__ import annotations

import csv
import email
import email.message
import hashlib
import importlib.metadata
import io
import json
import logging
import re
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath

import pyarrow as pa

from data_contracts import licences
from data_contracts.contract import Contract
from data_contracts.errors import ContractError, DataRefused
from data_contracts.sources.records import RawRecord, SourceFile, SourcePartition, batches

_LOG = logging.getLogger(__name__)
_LICENCE_FILE = re.compile(r"(licen[sc]e|copying|notice)", re.IGNORECASE)
_METADATA = re.compile(r"(?P<name>[^/]+?)(-(?P<version>[^/-]+))?\.(dist|egg)-info/(METADATA|PKG-INFO)")

# One module in sixteen keeps the three data sets of the demo environment under 30 MB; descriptions and licences are
# few enough to take whole.
_SHARES = {"source": 1 / 16, "docs": 1.0, "licences": 1.0}


@dataclass(frozen=True)
class _Installed:
    """One distribution: `metadata` is the name of its METADATA file, `files` are all names inside the environment."""

    name: str
    version: str
    metadata: str
    files: tuple[str, ...]


class PythonEnvironment:
    """One part ('source', 'docs' or 'licences') of the distributions in one site-packages folder.

    A partition is the first letter of the distribution's name. Its files are the selected ones and the METADATA of
    their distributions, because version and licence are read from there.
    """

    def __init__(self, contract: Contract, location: str) -> None:
        reader = contract.reader
        self.contract = contract
        self.part = str(reader.get("part", "source"))
        if self.part not in _SHARES:
            raise ContractError(f"{contract.path}: reader.part: {self.part!r}; it is one of {', '.join(_SHARES)}")
        self.share = float(reader.get("share", _SHARES[self.part]))
        self.seed = str(reader.get("seed", "")).encode()[:64]
        folder = location.removeprefix("env:") or sysconfig.get_paths()["purelib"]
        self.root = Path(folder)
        if not self.root.is_dir():
            raise DataRefused(f"{folder}: no such folder; give 'env:' and the path of a site-packages folder")

    def partitions(self) -> list[SourcePartition]:
        """Return the partitions that hold at least one selected file, sorted by value."""
        found: dict[str, dict[str, SourceFile]] = {}
        taken: set[str] = set()
        for dist in _listing(self.root, self.root.stat().st_mtime_ns):
            # Two leftovers of one project may both claim a file; the first by folder name has it.
            chosen = [name for name in self._chosen(dist) if name not in taken]
            taken.update(chosen)
            files = [file for name in chosen if (file := self._file(name))]
            if files:
                held = found.setdefault(_initial(dist.name), {})
                metadata = self._file(dist.metadata)
                held.update({file.name: file for file in (*files, *([metadata] if metadata else []))})
        return [
            SourcePartition(value, tuple(files[n] for n in sorted(files))) for value, files in sorted(found.items())
        ]

    def read(self, partition: SourcePartition) -> Iterator[pa.RecordBatch]:
        """Yield one record per selected file."""
        yield from batches(self.contract, self._records(partition))

    def _records(self, partition: SourcePartition) -> Iterator[RawRecord]:
        files = {file.name: file for file in partition.files}
        done: set[str] = set()
        for dist in _listing(self.root, self.root.stat().st_mtime_ns):
            if _initial(dist.name) != partition.value:
                continue
            chosen = [name for name in self._chosen(dist) if name in files and name not in done]
            if not chosen:
                continue
            done.update(chosen)
            facts = self._facts(dist, files.get(dist.metadata))
            for name in chosen:
                yield self._record(dist, facts, files[name], partition.value)
        missing = set(files) - done - {name for name in files if _METADATA.fullmatch(name)}
        if missing:
            raise DataRefused(f"{self.root / min(missing)}: no longer installed; list the partitions again")

    def _record(
        self, dist: _Installed, facts: email.message.Message | None, file: SourceFile, initial: str
    ) -> RawRecord:
        values: dict[str, str | None] = {
            "distribution": dist.name,
            "version": dist.version,
            "path": file.name,
            "licence": _licence(facts),
            "initial": initial,
        }
        data = file.read_bytes()
        if self.part == "docs":
            if facts is None:
                return RawRecord(file.name, 1, values, _not_utf8(data), data)
            values["content_type"] = _header(facts, "Description-Content-Type")
            values["content"] = _description(facts)
            return RawRecord(file.name, 1, values)
        try:
            values["content"] = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            return RawRecord(file.name, 1, values, _not_utf8(data), data)
        return RawRecord(file.name, 1, values)

    def _facts(self, dist: _Installed, metadata: SourceFile | None) -> email.message.Message | None:
        if metadata is None:
            return None
        try:
            return email.message_from_string(metadata.read_bytes().decode("utf-8"))
        except UnicodeDecodeError:
            return None

    def _chosen(self, dist: _Installed) -> list[str]:
        if self.part == "docs":
            names = [dist.metadata]
        elif self.part == "source":
            names = [name for name in dist.files if name.endswith(".py")]
        else:
            names = [name for name in dist.files if _is_licence(name)]
        return sorted(name for name in names if self._in_share(name))

    def _in_share(self, name: str) -> bool:
        digest = hashlib.blake2b(name.encode(), key=self.seed, digest_size=8).digest()
        return int.from_bytes(digest) < self.share * 2**64

    def _file(self, name: str) -> SourceFile | None:
        path = self.root / name
        try:
            # A link may lead out of the folder: what is read must lie in it.
            if not path.resolve().is_relative_to(self.root.resolve()) or not path.is_file():
                return None
            return SourceFile(name, path, path.stat().st_size)
        except OSError:
            return None


@lru_cache(maxsize=8)
def _listing(root: Path, _changed_ns: int) -> tuple[_Installed, ...]:
    found = []
    for dist in importlib.metadata.distributions(path=[str(root)]):
        try:
            installed = _installed(dist)
        except Exception as error:  # metadata is written by anybody: one bad package must not hide 168
            _LOG.warning("%s: a distribution without readable metadata is left out: %s", root, error)
            continue
        if installed is not None:
            found.append(installed)
    return tuple(sorted(found, key=lambda dist: dist.metadata))


def _installed(dist: importlib.metadata.Distribution) -> _Installed | None:
    # An editable project is somebody's work in progress, not an installed package.
    direct = dist.read_text("direct_url.json")
    if direct and json.loads(direct).get("dir_info", {}).get("editable"):
        return None
    names = [name for name in _names(dist) if _inside(name)]
    metadata = next((name for name in names if _METADATA.fullmatch(name)), None)
    match = _METADATA.fullmatch(metadata) if metadata else None
    if metadata is None or match is None:
        return None
    try:
        facts = dist.metadata
        name, version = _header(facts, "Name"), _header(facts, "Version")
    except (UnicodeDecodeError, TypeError):
        name = version = None
    return _Installed(name or match["name"], version or match["version"] or "unknown", metadata, tuple(names))


def _names(dist: importlib.metadata.Distribution) -> list[str]:
    # Distribution.files builds an object per name: 2 s for 165 distributions; their RECORD files as CSV take 0.1 s.
    record = dist.read_text("RECORD")
    if record:
        return [row[0] for row in csv.reader(io.StringIO(record)) if row and row[0]]
    return [str(name) for name in dist.files or []]


def _inside(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return bool(parts) and ".." not in parts and not name.startswith("/") and "\\" not in name and "\0" not in name


def _is_licence(name: str) -> bool:
    last = name.rsplit("/", 1)[-1]
    return bool(_LICENCE_FILE.match(last)) and not last.endswith((".py", ".pyc", ".pyi", ".so"))


def _initial(name: str) -> str:
    first = name[:1].casefold()[:1]
    return first if first.isalnum() else "_"


def _header(facts: email.message.Message | importlib.metadata.PackageMetadata, name: str) -> str | None:
    value = facts[name] if name in facts else None  # noqa: SIM401  PackageMetadata has no get
    text = str(value).strip() if value is not None else ""
    return text if text and text != "UNKNOWN" else None


def _licence(facts: email.message.Message | None) -> str | None:
    if facts is None:
        return None
    stated = [str(value) for value in facts.get_all("Classifier", [])]
    return licences.from_metadata(_header(facts, "License-Expression"), stated, _header(facts, "License"))


def _description(facts: email.message.Message) -> str | None:
    body = facts.get_payload()
    text = body if isinstance(body, str) and body.strip() else _header(facts, "Description")
    return text or None


def _not_utf8(data: bytes) -> str:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        return f"not UTF-8: byte {error.start} is 0x{data[error.start]:02x}"
    return "its METADATA cannot be read"
